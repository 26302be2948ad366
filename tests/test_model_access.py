"""Keys that stay here: what a plan has in their place, and where they may go."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest

from scripts import agents, host, model_access, naming, plan, state
from scripts.errors import ConfigError
from scripts.holdings import Gate
from scripts.provisions import File, Provision
from scripts.reverse_proxy import Asked, RefusedError
from scripts.ssh import SocketPort

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


def made(project: Project, /, more: Provision | None = None, **environ: str) -> plan.Plan:
    """Plan a run whose keys stay here."""
    project.environ.update(environ)
    loaded = project.load_for_provider()
    one = plan.make(
        loaded,
        agents.Request(prompt="x", headless=True),
        provider=project.provider,
        terminal=False,
        pid=os.getpid(),
    )
    one = one.bringing(more or Provision())
    return model_access.kept_here(loaded, one, is_conversation=False)


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
        found.shown
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
    content = f"use {KEY}\n".encode() + b"\xff"
    more = Provision(variables={"COPY": f"a {KEY} b"}, files={"f": File(content=content)})

    found = made(project, more, ANTHROPIC_API_KEY=KEY, ANTHROPIC_AUTH_TOKEN="a").brings

    placeholder = found.variables["ANTHROPIC_API_KEY"]
    assert found.variables["COPY"] == f"a {placeholder} b"
    assert found.files["f"].content == f"use {placeholder}\n".encode() + b"\xff"


def test_a_model_on_this_machine_is_reached_by_the_proxy_alone(project: Project) -> None:
    """With a key, or with what stands for none."""
    for key in ("", KEY):
        address = "http://127.0.0.1:4000"
        one = made(project, ANTHROPIC_BASE_URL=address, ANTHROPIC_API_KEY=key)
        assert [type(forward) for forward in one.brings.forwards] == [SocketPort]
        assert "reaches" not in dict(one.brings.shown)


def test_a_conversation_has_its_own_again(project: Project, runtime: Path) -> None:
    """The same port and placeholder, as long as it may go on."""
    known = {"XDG_RUNTIME_DIR": str(runtime), "NDDT_PERSISTENT": "1", "ANTHROPIC_API_KEY": KEY}
    project.environ.update(known)
    loaded = project.load_for_provider()
    plain = plan.make(
        loaded, agents.Request(), provider=project.provider, terminal=True, pid=os.getpid()
    )
    first, other = (model_access.kept_here(loaded, plain, is_conversation=True) for _ in range(2))
    assert first.brings.variables != other.brings.variables
    with first.brings.served():
        again = model_access.kept_here(loaded, plain, is_conversation=True)
        note = (
            state.sandbox_directory(
                project.environ, naming.key(loaded.provider, plain.sandbox.name)
            )
            / state.PLACEHOLDER
        )
        assert note.stat().st_mode & 0o777 == 0o600
    assert first.brings.variables == again.brings.variables
    assert first.brings.forwards == again.brings.forwards


def test_without_a_key_nothing_changes(project: Project) -> None:
    """A shell has no need of one."""
    loaded = project.load_for_provider()
    one = plan.make(
        loaded,
        agents.Request(),
        provider=project.provider,
        terminal=False,
        pid=1,
        command=("true",),
    )

    assert model_access.kept_here(loaded, one, is_conversation=False) is one


# -- what is refused ------------------------------------------------------------------------


def project_key(project: Project) -> None:
    """Have the key where the sandbox sees it."""
    project.write(f"ANTHROPIC_API_KEY={KEY}\n")


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

    before = dict(made(project).brings.shown)["model"]
    project.agree()

    assert before.startswith("https://api.anthropic.com, by this machine")
    assert dict(made(project).brings.shown)["model"].startswith("https://hostile.example, by")


def test_a_project_with_a_model_that_asks_for_no_key(project: Project) -> None:
    """May say where that is, once that is agreed to."""
    project.write("ANTHROPIC_BASE_URL=http://127.0.0.1:4000\n")
    project.agree()

    assert "http://127.0.0.1:4000, by this machine" in dict(made(project).brings.shown)["model"]


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

    assert "https://a.test, by this machine" in dict(found.shown)["model"]


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

    assert sent.url == f"https://a.test/anthropic{target}"
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
