"""The plan of a session: what is shown, forwarded and run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from scripts import naming, plan
from scripts.contracts.agent import Request
from scripts.errors import ConfigError, CredentialsError
from scripts.machine.bind_sources import is_around
from scripts.run import collecting
from scripts.run.work import Work
from scripts.settings import host
from scripts.transport.forwards import Forward, SamePort

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

USER = (1000, 1000)
DEMO = "http://127.0.0.1:40000"
HEADLESS = Request(prompt="Say hello", headless=True)


@pytest.fixture(autouse=True)
def system_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put nothing in place of this machine's authorities."""
    monkeypatch.setattr(host, "SYSTEM_CA_DIRECTORY", tmp_path / "none")


def make(
    project: Project,
    request: Request = HEADLESS,
    *,
    demo_url: str | None = None,
    command: tuple[str, ...] = (),
    **environ: str,
) -> plan.Plan:
    """Plan a session with these variables, and collect what it brings; its keys enter."""
    project.environ.update(environ, NDDT_MODEL_ACCESS="env")
    work = Work(provider=project.provider, settings=project.load_for_provider())
    made = plan.make(
        work.settings,
        request,
        provider=project.provider,
        terminal=not request.headless,
        pid=4711,
        command=command,
    )
    return collecting.collect(work, made, demo_url=demo_url)


# -- the sandbox ----------------------------------------------------------------------------


def test_ephemeral_sandbox(project: Project) -> None:
    """Is named by time and process, and shows the directory."""
    made = make(project, ANTHROPIC_API_KEY="key").sandbox

    assert made.name.startswith("nddt-20")
    assert made.name.endswith("-4711")
    assert (made.persistent, made.workspace, made.user) == (False, project.directory, "nddt")
    assert made.labels["nddt"] == "ephemeral"
    assert made.labels["nddt.workspace"] == str(project.directory)
    assert made.labels["nddt.owner"] == project.load().owner


def test_persistent_sandbox(project: Project) -> None:
    """Is named by its directory."""
    made = make(project, ANTHROPIC_API_KEY="key", NDDT_PERSISTENT="true").sandbox

    assert made.name == naming.persistent_name(project.directory)
    assert (made.persistent, made.labels["nddt"]) == (True, "persistent")


def test_persistent_sandbox_without_a_directory(project: Project) -> None:
    """Is one for all directories."""
    made = make(
        project, ANTHROPIC_API_KEY="key", NDDT_PERSISTENT="1", NDDT_WORKSPACE="none"
    ).sandbox

    assert (made.name, made.workspace) == ("nddt-workspace", None)
    assert made.labels["nddt.workspace"] == ""


@pytest.mark.parametrize("persistent", ["true", "false"])
def test_chosen_name(project: Project, persistent: str) -> None:
    """Wins in both modes."""
    made = make(project, ANTHROPIC_API_KEY="key", NDDT_PERSISTENT=persistent, NDDT_NAME="mine")

    assert made.sandbox.name == "mine"


def test_root_stays_root(project: Project) -> None:
    """Its files belong to it outside, too."""
    made = plan.specification(project.load_for_provider(), (0, 0), persistent=False, pid=1)

    assert made.user == "root"


def test_fingerprint_follows_image_directory_and_user(project: Project) -> None:
    """Another one of these is another sandbox."""
    settings = project.load_for_provider()
    one = plan.specification(settings, USER, persistent=True, pid=1)
    again = plan.specification(settings, USER, persistent=True, pid=2)
    root = plan.specification(settings, (0, 0), persistent=True, pid=1)
    project.environ["NDDT_WORKSPACE"] = "none"
    none = plan.specification(project.load_for_provider(), USER, persistent=True, pid=1)

    assert one.fingerprint("a") == again.fingerprint("a")
    assert len({one.fingerprint("a"), one.fingerprint("b")}) == 2
    assert len({some.fingerprint("a") for some in (one, root, none)}) == 3


def test_fingerprint_follows_docker(project: Project) -> None:
    """A sandbox without Docker does not become one that has it."""
    found = []
    for value in ("", "isolated", "host"):
        project.environ["NDDT_DOCKER_FORWARD"] = value
        made = plan.specification(project.load_for_provider(), USER, persistent=True, pid=1)
        found.append(made.fingerprint("a"))

    assert len(set(found)) == 3


@pytest.mark.parametrize("variable", ["NDDT_CPUS", "NDDT_MEMORY"])
def test_fingerprint_follows_size(project: Project, variable: str) -> None:
    """Another one is another sandbox; one that a provider chooses is the same one always."""
    found = []
    for value in ("", "0", "1", "2"):
        project.environ[variable] = value
        made = plan.specification(project.load_for_provider(), USER, persistent=True, pid=1)
        found.append(made.fingerprint("a"))

    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_sizes_are_not_mixed_up(project: Project) -> None:
    """So many CPUs are not so much memory."""
    project.environ.update({"NDDT_CPUS": "2", "NDDT_MEMORY": "12"})
    one = plan.specification(project.load_for_provider(), USER, persistent=True, pid=1)
    project.environ.update({"NDDT_CPUS": "12", "NDDT_MEMORY": "2"})
    other = plan.specification(project.load_for_provider(), USER, persistent=True, pid=1)

    assert (one.cpus, one.memory_gib, other.cpus, other.memory_gib) == (2, 12, 12, 2)
    assert one.fingerprint("a") != other.fingerprint("a")


def test_image_is_the_providers(project: Project) -> None:
    """Named for each version of the agent, and shown for the one that was asked for."""
    made = make(project, ANTHROPIC_API_KEY="key", NDDT_CLAUDE_VERSION="2.1.330")

    assert made.image("1.0.0") == f"memory:{made.recipe.tag('1.0.0')}"
    assert made.image("") == f"memory:{made.recipe.tag('')}"
    assert f"image        memory:{made.recipe.tag('2.1.330')}" in made.describe()


# -- credentials ----------------------------------------------------------------------------


def test_no_credential(project: Project) -> None:
    """Is refused with the three ways out."""
    with pytest.raises(CredentialsError) as caught:
        make(project)

    assert caught.value.exit_code == 77
    for way in (".env", "claude setup-token", "--demo"):
        assert way in caught.value.next_step


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"]
)
def test_credential_of_any_kind(project: Project, name: str) -> None:
    """Is enough, from a .env file that is agreed to, too."""
    project.write(f"{name}=secret\n")
    project.agree()

    made = make(project)

    assert made.brings.variables[name] == "secret"
    assert name in made.brings.secret


@pytest.mark.parametrize("name", ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"])
def test_credential_of_another_service(project: Project, name: str) -> None:
    """Is that service's own matter."""
    project.environ[name] = "1"

    assert make(project).brings.variables[name] == "1"


def test_credential_that_is_not_forwarded(project: Project) -> None:
    """Is none."""
    with pytest.raises(CredentialsError):
        make(project, ANTHROPIC_API_KEY="key", NDDT_ENV_VARS="GH_TOKEN")


def test_command_needs_no_credential(project: Project) -> None:
    """A shell asks no model."""
    made = make(project, command=("bash",), GH_TOKEN="token", ANTHROPIC_MODEL="opus")

    assert (made.argv, made.before, made.after) == (("bash",), ":", ":")
    assert not made.is_agent
    variables = dict(made.brings.variables)
    variables.pop("TZ", None)  # where this machine says which one it has
    assert variables == {"GH_TOKEN": "token", "ANTHROPIC_MODEL": "opus", "LANG": "C.UTF-8"}


# -- the model ------------------------------------------------------------------------------


def test_model_elsewhere(project: Project) -> None:
    """Gets the key, and no port is forwarded."""
    made = make(project, ANTHROPIC_API_KEY="key", ANTHROPIC_BASE_URL="https://gateway.example")

    assert made.brings.forwards == ()
    assert made.brings.variables["ANTHROPIC_BASE_URL"] == "https://gateway.example"
    assert made.brings.variables["ANTHROPIC_API_KEY"] == "key"
    assert "ANTHROPIC_AUTH_TOKEN" not in made.brings.variables


@pytest.mark.parametrize(
    ("url", "forward"),
    [
        ("http://127.0.0.1:11434", SamePort("127.0.0.1", 11434)),
        ("http://localhost:4000/v1", SamePort("localhost", 4000)),
        ("http://[::1]:8080", SamePort("::1", 8080)),
    ],
)
def test_model_on_this_machine(project: Project, url: str, forward: Forward) -> None:
    """Needs no credential, and is reached under the same address."""
    made = make(project, ANTHROPIC_BASE_URL=url)

    assert made.brings.forwards == (forward,)
    assert made.brings.variables["ANTHROPIC_BASE_URL"] == url
    assert made.brings.variables["ANTHROPIC_AUTH_TOKEN"] == "none"


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_model_on_this_machine_with_a_key(project: Project, name: str) -> None:
    """Gets that one, and nothing in its place."""
    project.environ[name] = "key"
    made = make(project, ANTHROPIC_BASE_URL="http://127.0.0.1:4000")
    keys = {k: v for k, v in made.brings.variables.items() if k.endswith(("_KEY", "_TOKEN"))}

    assert keys == {name: "key"}
    assert made.brings.forwards == (SamePort("127.0.0.1", 4000),)


def test_demo_forwards_no_key(project: Project) -> None:
    """It shows the way that one would take."""
    project.write("ANTHROPIC_API_KEY=real\nGH_TOKEN=real\nANTHROPIC_MODEL=real\n")

    made = make(project, demo_url=DEMO, ANTHROPIC_AUTH_TOKEN="real")

    assert "real" not in made.brings.variables.values()
    assert made.brings.variables["ANTHROPIC_BASE_URL"] == DEMO
    assert made.brings.variables["ANTHROPIC_AUTH_TOKEN"] == "none"
    assert made.brings.forwards == (SamePort("127.0.0.1", 40000),)


@pytest.mark.parametrize("url", ["localhost:11434", "nonsense", "http://a:b"])
def test_address_of_the_model_that_is_none(project: Project, url: str) -> None:
    """Is an error that names the variable."""
    with pytest.raises(ConfigError, match="ANTHROPIC_BASE_URL") as caught:
        make(project, ANTHROPIC_BASE_URL=url)

    assert caught.value.exit_code == 78


# -- proxies and variables ------------------------------------------------------------------


def test_proxy_on_this_machine(project: Project) -> None:
    """Is reached under the same address; one port, however many variables name it."""
    made = make(
        project,
        ANTHROPIC_API_KEY="key",
        http_proxy="http://127.0.0.1:3128",
        HTTPS_PROXY="http://user:secret@127.0.0.1:3128",
        ALL_PROXY="localhost:1080",
        NO_PROXY="localhost,127.0.0.1",
    )

    assert set(made.brings.forwards) == {SamePort("127.0.0.1", 3128), SamePort("localhost", 1080)}
    assert len(made.brings.forwards) == 2
    assert made.brings.variables["http_proxy"] == made.brings.variables["HTTP_PROXY"]
    assert "secret" not in made.describe()


def test_proxy_elsewhere(project: Project) -> None:
    """Is reached by the sandbox itself."""
    made = make(project, ANTHROPIC_API_KEY="key", HTTPS_PROXY="http://proxy.example:3128")

    assert made.brings.forwards == ()
    assert made.brings.variables["https_proxy"] == "http://proxy.example:3128"


def test_proxy_that_is_none(project: Project) -> None:
    """Is an error that names the variable."""
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        make(project, ANTHROPIC_API_KEY="key", HTTPS_PROXY="http://proxy:port")


def test_variables_are_exact(project: Project) -> None:
    """Nothing else of the environment gets in."""
    made = make(
        project,
        ANTHROPIC_API_KEY="key",
        ANTHROPIC_MODEL="opus",
        AWS_SECRET="not asked for",
        TZ="Europe/Berlin",
        TERM="xterm",
        LD_PRELOAD="/x.so",
    )

    assert made.brings.variables == {
        "ANTHROPIC_API_KEY": "key",
        "ANTHROPIC_MODEL": "opus",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",
        "LANG": "C.UTF-8",
        "TZ": "Europe/Berlin",
    }
    assert made.brings.secret == {"ANTHROPIC_API_KEY"}


# -- what is shown --------------------------------------------------------------------------


def test_describe(project: Project) -> None:
    """Says all of it; secrets are masked."""
    project.write("GH_TOKEN=hidden-1\nDATABASE=hidden-2\n")
    made = make(
        project,
        ANTHROPIC_API_KEY="hidden-3",
        NDDT_ENV_VARS="ANTHROPIC_API_KEY,GH_TOKEN,DATA*",
        NDDT_NAME="mine",
        NDDT_TIMEOUT="60",
        HTTP_PROXY="http://user:hidden-4@127.0.0.1:3128",
    )

    said = dict(line.split(None, 1) for line in made.describe().splitlines())

    assert "hidden" not in made.describe()
    assert "hidden" not in repr(made)
    assert said["sandbox"] == "mine (ephemeral)"
    assert said["workspace"] == f"{project.directory} at /workspace, read and write"
    assert said["reaches"] == "127.0.0.1:3128 of this machine"
    assert said["command"] == "claude --print -- 'Say hello'"
    assert "variable     DATABASE=***" in made.describe()
    assert "variable     IS_SANDBOX=1" in made.describe()
    assert "time limit   60 s" in made.describe()


def test_describe_hides_a_password_in_the_models_address(project: Project) -> None:
    """A gateway may ask for one."""
    made = make(
        project, ANTHROPIC_API_KEY="key", ANTHROPIC_BASE_URL="https://user:hidden@gateway.example"
    )

    assert "hidden" not in made.describe()


def test_describe_without_limits(project: Project) -> None:
    """Says that, too."""
    made = make(
        project,
        Request(),
        ANTHROPIC_API_KEY="key",
        NDDT_WORKSPACE="none",
        NDDT_PERSISTENT="1",
    )

    assert "sandbox      nddt-workspace (persistent)" in made.describe()
    assert "workspace    none" in made.describe()
    assert "time limit   none" in made.describe()
    assert "terminal     yes" in made.describe()


def test_other_program(project: Project) -> None:
    """Runs in the agent's place, with the agent's arguments."""
    made = make(project, ANTHROPIC_API_KEY="key", NDDT_COMMAND="/workspace/agent")

    assert made.argv == ("/workspace/agent", "--print", "--", "Say hello")
    assert made.is_agent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("npx agent", ("npx", "agent")),
        ("  a   b ", ("a", "b")),
        ("'/a b/agent' --name 'it is' \"it's\"", ("/a b/agent", "--name", "it is", "it's")),
        ("a 'b c' ''", ("a", "b c", "")),
        (r"a\ b c", ("a b", "c")),
        ("a $HOME `id` $(id) *; b & c | d > e # f", None),
    ],
)
def test_other_program_with_arguments(
    project: Project, text: str, words: tuple[str, ...] | None
) -> None:
    """Is split as a shell splits it, and nothing in it has a further meaning."""
    made = make(project, ANTHROPIC_API_KEY="key", NDDT_COMMAND=text)

    assert made.argv == (*(words or text.split()), "--print", "--", "Say hello")


# -- directories ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/", True),
        ("home", True),
        ("home/me", True),
        ("link", True),
        ("home/me/project", False),
        ("home/other", False),
        ("tmp", False),
    ],
)
def test_sensitive_directories(tmp_path: Path, directory: str, expected: bool) -> None:  # noqa: FBT001
    """The home directory and all above it hold it, also through a link."""
    (tmp_path / "home" / "me" / "project").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "home" / "me")

    assert is_around(tmp_path / directory, tmp_path / "home" / "me") is expected


def test_a_repository_that_is_not_shown(project: Project) -> None:
    """Is told of."""
    (project.directory / ".git").write_text("gitdir: /nowhere", encoding="utf-8")

    text = make(project, ANTHROPIC_API_KEY="key").describe()

    assert f"git          the repository of {project.directory} is elsewhere" in text


def test_a_plan_has_no_side_effects(project: Project) -> None:
    """It may be shown and thrown away."""
    before = dict(os.environ)
    make(project, ANTHROPIC_API_KEY="key")

    assert list(project.directory.iterdir()) == []
    assert list(project.home.iterdir()) == []
    assert dict(os.environ) == before


def test_nothing_in_it_steers_a_terminal(project: Project) -> None:
    """A variable of a project's counts without consent, and is shown harmless."""
    project.write('ANTHROPIC_MODEL="\x1b]0;title\x07x\\nsandbox  another"\n')

    shown = make(project, ANTHROPIC_API_KEY="k").describe()

    assert "\033" not in shown
    assert "\007" not in shown
    assert "sandbox  another" not in [line.strip() for line in shown.splitlines()]
