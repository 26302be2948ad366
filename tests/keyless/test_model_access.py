"""Keys that stay here: what a plan has in their place, and where they may go."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from scripts import agents, plan
from scripts.contracts.agent import Request
from scripts.errors import ConfigError
from scripts.keyless import model_access
from scripts.keyless.kept_keys import Gate
from scripts.keyless.reverse_proxy import Asked
from scripts.machine import state
from scripts.machine.http_server import RefusedError
from scripts.run import collecting
from scripts.run.work import Work
from scripts.settings import host
from scripts.transport.forwards import SamePort, SocketPort

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Project

KEY = "sk-ant-api03-0123456789"
MARK = "nddt-placeholder"


@pytest.fixture(autouse=True)
def of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Project) -> None:
    """Put nothing in place of this machine's authorities, and have a runtime directory."""
    monkeypatch.setattr(host, "SYSTEM_CA_DIRECTORY", tmp_path / "none")
    project.environ["NDDT_MODEL_ACCESS"] = "tunnel"


RUN = Request(prompt="x", headless=True)


def made(
    project: Project, request: Request = RUN, command: tuple[str, ...] = (), /, **environ: str
) -> plan.Plan:
    """Plan a session whose keys stay here, with what it brings along."""
    project.environ.update(environ)
    work = Work(provider=project.provider, settings=project.load_for_provider())
    one = plan.make(
        work.settings,
        request,
        provider=project.provider,
        terminal=False,
        pid=os.getpid(),
        command=command,
    )
    return collecting.collect(work, one)


def gate(url: str = "https://api.example") -> Gate:
    """Decide about an API key."""
    route = partial(model_access._route, url, agents.get("claude").API)
    return Gate(route=route, headers={("x-api-key", MARK): KEY})


def asked(method: str, target: str, *headers: tuple[str, str]) -> Asked:
    """Ask with these headers."""
    return Asked(method=method, target=target, headers=headers)


# -- the plan -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"]
)
def test_a_placeholder_takes_the_keys_place(project: Project, name: str) -> None:
    """In its variable, and the model is at a port of the sandbox."""
    project.environ[name] = KEY
    found = made(project).brings

    (forward,) = found.forwards
    assert isinstance(forward, SocketPort)
    assert found.variables["ANTHROPIC_BASE_URL"] == f"http://127.0.0.1:{forward.inside}"
    assert found.variables[name].startswith("nddt-")
    assert name in found.secret
    assert KEY not in "".join(found.variables.values())
    assert ("model", f"https://api.anthropic.com, by this machine, which keeps {name}") in (
        found.plan_lines
    )


def test_sessions_have_different_ones(project: Project) -> None:
    """And different sockets; a variable's is no other's."""
    one, other = (
        made(project, ANTHROPIC_API_KEY=KEY, ANTHROPIC_AUTH_TOKEN=f"{KEY}-2") for _ in range(2)
    )

    found = [one.brings.variables[name] for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")]
    found += [other.brings.variables["ANTHROPIC_API_KEY"]]
    assert len(set(found)) == 3
    assert one.brings.forwards != other.brings.forwards


def test_a_key_goes_nowhere_else_either(project: Project) -> None:
    """Other variables and files have the placeholder where it stood; short words stay."""
    notes = project.home / ".claude" / "CLAUDE.md"
    notes.parent.mkdir()
    notes.write_bytes(f"use {KEY}\n".encode() + b"\xff")
    (project.home / ".gitconfig").write_text(f"[user]\n\tname = {KEY}\n")
    project.environ.update(COPY=f"a {KEY} b", NDDT_ENV_VARS="COPY,ANTHROPIC_*")

    found = made(project, ANTHROPIC_API_KEY=KEY, ANTHROPIC_AUTH_TOKEN="a").brings

    placeholder = found.variables["ANTHROPIC_API_KEY"]
    assert found.variables["COPY"] == f"a {placeholder} b"
    brought = found.files[".claude/CLAUDE.md"].content
    assert brought == f"use {placeholder}\n".encode() + b"\xff"
    assert placeholder.encode() in found.files["session/gitconfig"].content
    assert not [path for path, file in found.files.items() if KEY.encode() in file.content]


def test_a_model_on_this_machine_is_reached_by_the_proxy_alone(project: Project) -> None:
    """With a key, or with what stands for none."""
    for key in ("", KEY):
        address = "http://127.0.0.1:4000"
        one = made(project, ANTHROPIC_BASE_URL=address, ANTHROPIC_API_KEY=key)
        assert [type(forward) for forward in one.brings.forwards] == [SocketPort]
        assert "reaches" not in dict(one.brings.plan_lines)


def test_a_conversation_has_its_own_again(project: Project, runtime: Path) -> None:
    """The same port and placeholder, as long as it may go on."""
    known = {"XDG_RUNTIME_DIR": str(runtime), "NDDT_PERSISTENT": "1", "ANTHROPIC_API_KEY": KEY}
    first, other = (made(project, Request(), **known) for _ in range(2))
    assert first.brings.variables != other.brings.variables
    with ExitStack() as stack:
        for kept in first.brings.kept:  # in another process
            stack.enter_context(pickle.loads(pickle.dumps(kept.make_service()))())  # noqa: S301
        again = made(project, Request())
        note = first.session.directory(project.environ) / state.PLACEHOLDER
        assert note.stat().st_mode & 0o777 == 0o600
    assert first.brings.variables == again.brings.variables
    assert [one.forwards for one in first.brings.kept] == [
        one.forwards for one in again.brings.kept
    ]
    assert (first.brings.forwards, first.brings.background_services) == ((), ())


def test_without_a_key_nothing_changes(project: Project) -> None:
    """A shell has no need of one."""
    tunnel = made(project, RUN, ("true",))
    plain = made(project, RUN, ("true",), NDDT_MODEL_ACCESS="env")

    assert tunnel.brings == plain.brings


def test_a_login_is_read_anew_for_each_request(project: Project) -> None:
    """It is renewed by whoever uses it here; one that has expired is told of."""
    file = project.home / ".claude" / ".credentials.json"
    file.parent.mkdir()

    def log_in(token: str, left_s: float) -> None:
        expires = (time.time() + left_s) * 1000
        file.write_text(json.dumps({"claudeAiOauth": {"accessToken": token, "expiresAt": expires}}))

    log_in("the-first-token", 3600)
    one = made(project)
    mine = f"Bearer {one.brings.variables['CLAUDE_CODE_OAUTH_TOKEN']}"
    decide: Gate = pickle.loads(pickle.dumps(one.brings.background_services[0])).args[1]  # noqa: S301
    ask = asked("POST", "/v1/messages", ("authorization", mine))
    log_in("the-second-token", 3600)

    sent = decide(ask)

    assert sent.headers == {"authorization": "Bearer the-second-token"}
    assert sent.secrets == ("the-second-token",)
    log_in("the-second-token", -1)
    with pytest.raises(RefusedError, match="the login of this machine has expired") as caught:
        decide(ask)
    assert caught.value.status == 401


def test_a_token_of_the_users_is_no_login(project: Project) -> None:
    """It stays as it is, whatever login there is."""
    one = made(project, CLAUDE_CODE_OAUTH_TOKEN="a-token-by-hand")
    mine = f"Bearer {one.brings.variables['CLAUDE_CODE_OAUTH_TOKEN']}"
    decide = one.brings.background_services[0].args[1]  # type: ignore[attr-defined]

    sent = decide(asked("POST", "/v1/messages", ("authorization", mine)))

    assert (sent.headers["authorization"], sent.secrets) == ("Bearer a-token-by-hand", ())


# -- what the default does --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"CLAUDE_CODE_USE_VERTEX": "1"}, "that CLAUDE_CODE_USE_VERTEX is about cannot stay here"),
        ({"NDDT_COMMAND": "mine"}, "the program of NDDT_COMMAND may know no other way"),
        ({"ANTHROPIC_API_KEY": "two words"}, "ANTHROPIC_API_KEY has characters that no key has"),
        ({"HTTPS_PROXY": "socks5://127.0.0.1:1"}, "HTTPS_PROXY is 'socks5://127.0.0.1:1'"),
    ],
)
def test_what_cannot_stay_here_enters(
    project: Project, caplog: pytest.LogCaptureFixture, environ: dict[str, str], said: str
) -> None:
    """Where that is only the default, with one line; GitHub's token stays where it can."""
    del project.environ["NDDT_MODEL_ACCESS"]

    one = made(project, **{"ANTHROPIC_API_KEY": KEY, "GH_TOKEN": "gho_0123456789ab", **environ})

    assert one.brings.variables["ANTHROPIC_API_KEY"] in {KEY, environ.get("ANTHROPIC_API_KEY")}
    stays = "HTTPS_PROXY" not in environ
    assert one.brings.variables["GH_TOKEN"].startswith("nddt-") == stays
    (record,) = caplog.records
    assert said in record.message
    assert "enter the sandbox: " in record.message


def test_the_default_asks_nothing_of_a_model_without_a_key(project: Project) -> None:
    """The direct way to one of this machine stays."""
    del project.environ["NDDT_MODEL_ACCESS"]

    one = made(project, ANTHROPIC_BASE_URL="http://127.0.0.1:4000")

    assert [type(forward) for forward in one.brings.forwards] == [SamePort]
    assert one.brings.background_services == ()


def test_the_agent_knows_whose_api_it_is(project: Project) -> None:
    """Its maker's own has what others may not have."""
    name = "_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL"

    assert made(project, ANTHROPIC_API_KEY=KEY).brings.variables[name] == "1"
    url = "https://api.anthropic.com.example"
    assert name not in made(project, ANTHROPIC_BASE_URL=url).brings.variables


# -- what is refused ------------------------------------------------------------------------


def project_key(project: Project) -> None:
    """Have the key where the sandbox sees it."""
    project.write(f"ANTHROPIC_API_KEY={KEY}\n")
    project.agree()


def key_in_git(project: Project) -> None:
    """Have it in a file that a copy of the directory has, too."""
    project_key(project)
    for words in (("init", "-q"), ("add", ".env")):
        subprocess.run(("git", "-C", str(project.directory), *words), check=True)
    project.environ["NDDT_WORKSPACE"] = "sync"


def this_machines_engine(project: Project) -> None:
    """Have no sandbox any more."""
    known = {"ANTHROPIC_API_KEY": KEY, "NDDT_DOCKER_FORWARD": "host"}
    project.environ.update(known)


def all_of_home(project: Project) -> None:
    """Have the home directory shown."""
    known = {"ANTHROPIC_API_KEY": KEY, "NDDT_MOUNTS": f"{project.home}:/h:ro"}
    project.environ.update(known)


def bedrock(project: Project) -> None:
    """Have another service."""
    project.environ["CLAUDE_CODE_USE_BEDROCK"] = "1"


def two_lines(project: Project) -> None:
    """Have a key that would be two headers."""
    project.environ["ANTHROPIC_API_KEY"] = "a\nb"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (project_key, "which the sandbox sees"),
        (key_in_git, "which the sandbox sees"),
        (this_machines_engine, "gets at every key"),
        (all_of_home, "the sandbox sees all of"),
        (bedrock, "CLAUDE_CODE_USE_BEDROCK"),
        (two_lines, "characters that no key has"),
    ],
)
def test_what_would_make_it_useless_is_refused(
    project: Project, prepare: Callable[[Project], None], message: str
) -> None:
    """With a next step, and without the key."""
    prepare(project)

    with pytest.raises(ConfigError, match=message) as caught:
        made(project)
    assert caught.value.next_step
    assert KEY not in str(caught.value)


def test_a_project_does_not_choose_who_gets_the_key(project: Project) -> None:
    """Unless that is agreed to."""
    project.environ["ANTHROPIC_API_KEY"] = KEY
    project.write("ANTHROPIC_BASE_URL=https://hostile.example\n")

    before = dict(made(project).brings.plan_lines)["model"]
    project.agree()

    assert before.startswith("https://api.anthropic.com, by this machine")
    assert dict(made(project).brings.plan_lines)["model"].startswith("https://hostile.example, by")


def test_a_project_with_a_model_that_asks_for_no_key(project: Project) -> None:
    """May say where that is, once that is agreed to."""
    project.write("ANTHROPIC_BASE_URL=http://127.0.0.1:4000\n")
    project.agree()

    assert (
        "http://127.0.0.1:4000, by this machine" in dict(made(project).brings.plan_lines)["model"]
    )


def test_a_copy_has_no_key(project: Project) -> None:
    """It is made without nddt's own settings."""
    project_key(project)
    project.environ["NDDT_WORKSPACE"] = "sync"
    subprocess.run(("git", "-C", str(project.directory), "init", "-q"), check=True)

    assert KEY not in str(made(project).brings.variables)


def test_a_project_with_a_key_of_its_own(project: Project) -> None:
    """May say where that goes, if that is agreed to and the sandbox does not see the file."""
    project.write(f"ANTHROPIC_API_KEY={KEY}\nANTHROPIC_BASE_URL=https://a.test\n")
    project.agree()

    found = made(project, NDDT_WORKSPACE="none").brings

    assert "https://a.test, by this machine" in dict(found.plan_lines)["model"]


def test_a_project_cannot_let_keys_in(project: Project) -> None:
    """Nor can it do so for a key by naming its variable."""
    project.write("NDDT_MODEL_ACCESS=env\n")

    assert project.load().model_access == "tunnel"


# -- the gate -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages?beta=true"),
        ("POST", "/v1/messages/count_tokens?beta=true"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/claude-opus-4-1@20250805"),
    ],
)
def test_the_model_is_asked_with_the_key(method: str, target: str) -> None:
    """At its address, with a path of its own in front."""
    sent = gate("https://a.test/anthropic")(asked(method, target, ("x-api-key", MARK)))

    assert (sent.origin, sent.target) == ("https://a.test", f"/anthropic{target}")
    assert sent.headers == {"x-api-key": KEY}
    assert KEY not in repr(sent)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/messages"),
        ("DELETE", "/v1/models/a"),
        ("POST", "/v1/messages/batches"),
        ("GET", "/v1/files"),
        ("GET", "/v1/organizations/me"),
        ("GET", "/v1/models/.."),
        ("GET", "/v1/models/a/../../files"),
        ("GET", "/v1/models/%2e%2e"),
        ("POST", "/v1/messages/"),
        ("POST", "//v1/messages"),
        ("POST", "http://other.test/v1/messages"),
        ("POST", "@other.test/v1/messages"),
        ("POST", "*"),
        ("CONNECT", "other.test:443"),
    ],
)
def test_all_else_is_not(method: str, target: str) -> None:
    """Whatever it looks like."""
    with pytest.raises(RefusedError) as caught:
        gate()(asked(method, target, ("x-api-key", MARK)))
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("x-api-key", ""),),
        (("x-api-key", KEY),),
        (("x-api-key", f"{MARK} "),),
        (("authorization", f"Bearer {MARK}"),),
        (("x-api-key", MARK), ("x-api-key", "other")),
        (("x-api-key", MARK), ("authorization", "Bearer other")),
    ],
)
def test_only_the_placeholder_is_good(headers: tuple[tuple[str, str], ...]) -> None:
    """In its own header, and with no other credential beside it."""
    with pytest.raises(RefusedError) as caught:
        gate()(asked("POST", "/v1/messages", *headers))
    assert caught.value.status == 401


# -- keys in files --------------------------------------------------------------------------


@pytest.mark.parametrize("workspace", ["mount", "sync"])
@pytest.mark.parametrize("name", [".env", ".envrc", ".mcp.json", ".claude/settings.local.json"])
def test_a_key_in_a_file_of_the_directory(project: Project, name: str, workspace: str) -> None:
    """Is named, whichever file it is that others read; a copy has it unless it is ignored."""
    file = project.directory / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"# {KEY}\n")
    subprocess.run(("git", "init", "-q"), cwd=project.directory, check=True)
    if name == ".env":  # a copy has it only if it is tracked
        subprocess.run(("git", "add", ".env"), cwd=project.directory, check=True)
    make = partial(made, project, NDDT_WORKSPACE=workspace, ANTHROPIC_API_KEY=KEY)

    with pytest.raises(ConfigError, match=f"stands in {file}, which the sandbox sees"):
        make()

    if name != ".env" and workspace == "sync":
        (project.directory / ".gitignore").write_text(f"{name.split('/', maxsplit=1)[0]}\n")
        make()


@pytest.mark.parametrize("kind", ["pipe", "huge", "another key"])
def test_a_file_of_the_directory_that_is_none_of_ours(project: Project, kind: str) -> None:
    """Is no reason to complain: others read it."""
    file = project.directory / ".envrc"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.write_text(KEY * 100_000 if kind == "huge" else KEY[:-1])

    made(project, NDDT_WORKSPACE="mount", ANTHROPIC_API_KEY=KEY)
