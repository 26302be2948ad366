"""Bad input: its exit code, one line with the next step, and nothing left behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import KEY, Caller, Done, Terminal

if TYPE_CHECKING:
    from tests.integration.contract import Outside

PROMPT = ("run", "--prompt", "x")


def refused(done: Done, code: int, *words: str) -> None:
    """Check that one line says what is wrong and what to do."""
    assert (code, b"") == (done.code, done.stdout), done.said
    (line,) = done.said.splitlines()
    assert line.startswith("nddt: ")
    assert " — " in line, line
    for word in words:
        assert word in line, line


@pytest.mark.same_everywhere
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((*PROMPT, "--provider", "nowhere"), 78, "docker"),
        (("run", "--prompt-file", "missing.md"), 64, "missing.md"),
        (("run", "--prompt-file", "."), 64, "--prompt-file"),
        ((*PROMPT, "--prompt-file", "-"), 64, "--prompt-file"),
        (("run",), 64, "--prompt"),
        (("run", "--prompt", ""), 64, "prompt"),
        ((*PROMPT, "--agent-args", "it's"), 64, "--agent-args"),
        ((*PROMPT, "--timeout", "soon"), 78, "NDDT_TIMEOUT"),
        ((*PROMPT, "--timeout", "-1"), 78, "NDDT_TIMEOUT"),
        ((*PROMPT, "--name", "no/slash"), 78, "NDDT_NAME"),
        (("attach",), 64, "terminal"),
        (("runn",), 64, "run"),
        (("Say", "hello"), 64, "'Say hello'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_command_that_makes_no_sense(
    nddt: Caller, words: tuple[str, ...], code: int, says: str
) -> None:
    """Options are checked before anything is made."""
    caller = nddt.having(ANTHROPIC_API_KEY=KEY)

    refused(caller(*words), code, says)


@pytest.mark.same_everywhere
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NDDT_CLAUDE_VERSION", "newest"),
        ("NDDT_CLAUDE_VERSION", "2.1;reboot"),
        ("NDDT_NODE_VERSION", "22 && reboot"),
        ("NDDT_PERSISTENT", "perhaps"),
        ("NDDT_WORKSPACE", "/etc"),
        ("NDDT_ENV_VARS", "GOOD,not good"),
        ("NDDT_CA_CERTS", "/nowhere.pem"),
        ("NDDT_ENV_FILE", "missing.env"),
        ("ANTHROPIC_BASE_URL", "nonsense"),
    ],
)
def test_a_setting_that_makes_no_sense(nddt: Caller, name: str, value: str) -> None:
    """78 and the variable's name."""
    caller = nddt.having(**{"ANTHROPIC_API_KEY": KEY, name: value})

    refused(caller(*PROMPT), 78, name)


@pytest.mark.same_everywhere
def test_a_bad_value_in_a_file_names_file_and_line(nddt: Caller) -> None:
    """As does a line that is no assignment."""
    file = nddt.directory / ".env"
    for text, line in (
        ("# one\n\nNDDT_PERSISTENT=perhaps\n", 3),
        ("FINE=1\nthis is 'no assignment\n", 2),
    ):
        file.write_text(text, encoding="utf-8")
        refused(nddt.having(ANTHROPIC_API_KEY=KEY)(*PROMPT), 78, str(file), f"line {line}")


@pytest.mark.same_everywhere
def test_a_misspelt_setting_is_reported_and_the_run_goes_on(nddt: Caller) -> None:
    """With the nearest right one."""
    caller = nddt.with_agent("echo ran").having(ANTHROPIC_API_KEY=KEY, NDDT_PERSISTANT="true")

    done = caller(*PROMPT)

    assert (done.code, done.stdout) == (0, b"ran\n")
    (line,) = done.said.splitlines()
    assert "NDDT_PERSISTANT" in line
    assert "NDDT_PERSISTENT?" in line


@pytest.mark.same_everywhere
def test_no_credential_names_the_three_ways_out(nddt: Caller) -> None:
    """77 before anything is made."""
    refused(nddt(*PROMPT), 77, "ANTHROPIC_API_KEY", "claude setup-token", "--demo")


def test_a_version_that_does_not_exist(nddt: Caller) -> None:
    """The build fails with the variable to look at."""
    caller = nddt.having(ANTHROPIC_API_KEY=KEY, NDDT_CLAUDE_VERSION="0.0.12345")

    done = caller(*PROMPT, within_s=300)

    assert (done.code, done.stdout) == (73, b""), done.said
    assert "NDDT_CLAUDE_VERSION" in done.said.splitlines()[-1]
    assert done.said.splitlines()[-1].startswith("nddt: ")


def test_a_provider_that_does_not_answer(nddt: Caller, outside: Outside) -> None:
    """69 and what to do, whatever is asked of it."""
    caller = nddt.having(ANTHROPIC_API_KEY=KEY, **outside.unreachable())

    for words in (
        PROMPT,
        (*PROMPT, "--persistent"),
        (caller.task("build-image"),),
        (caller.task("create-sandbox"),),
        ("list",),
        ("cleanup", "--yes"),
        ("shell", "--command", "true"),
    ):
        refused(caller(*words), 69)


PLACE_FOR_MOUNT = "/shown"


def test_more_directories(nddt: Caller, outside: Outside) -> None:
    """Docker shows them, read-only if wanted; Daytona cannot, and says so."""
    (nddt.directory / "more").mkdir()
    (nddt.directory / "more/x").write_text("x")
    (nddt.directory / "here").mkdir()
    here = nddt.to(nddt.directory / "here")
    shown = here.having(
        ANTHROPIC_API_KEY=KEY, NDDT_MOUNTS=f"{nddt.directory}/more:{PLACE_FOR_MOUNT}:ro"
    )
    missing = here.having(
        ANTHROPIC_API_KEY=KEY, NDDT_MOUNTS=f"{nddt.directory}/less:{PLACE_FOR_MOUNT}"
    )

    done = shown("shell", "--command", f"cat {PLACE_FOR_MOUNT}/x; touch {PLACE_FOR_MOUNT}/y")

    if nddt.provider == "daytona":
        refused(done, 78, "NDDT_MOUNTS", "Docker")
        return
    assert (done.code, done.stdout) == (1, b"x")
    assert b"Read-only" in done.stderr
    refused(missing(*PROMPT), 78, "NDDT_MOUNTS", "less")
    assert not outside.sandboxes()


def test_directories_for_one_command(nddt: Caller, outside: Outside) -> None:
    """The option may be given several times, and wins over the setting."""
    for name in ("one", "two", "three"):
        (nddt.directory / name).mkdir()
        (nddt.directory / name / "x").write_text(name)
    (nddt.directory / "here").mkdir()
    caller = nddt.to(nddt.directory / "here").having(
        ANTHROPIC_API_KEY=KEY, NDDT_MOUNTS=f"{nddt.directory}/three:/three"
    )
    words = ("--mount", "../one:/shown/1:ro", "--mount", f"../../{nddt.directory.name}/two:/2")
    look = "cat /shown/1/x /2/x; ls /three; echo new >/2/y; touch /shown/1/y"

    done = caller("shell", *words, "--command", look)

    if nddt.provider == "daytona":
        refused(done, 78, "NDDT_MOUNTS (option)", "nddt cp")
        refused(caller.having(NDDT_WORKSPACE="sync")(*PROMPT, *words), 78, "nddt cp")
        return
    assert (done.code, done.stdout) == (1, b"onetwo"), done.said
    assert (nddt.directory / "two/y").read_text() == "new\n"
    assert [path.name for path in (nddt.directory / "one").iterdir()] == ["x"]
    shown = caller(*PROMPT, *words, "--dry")
    assert f"{nddt.directory}/one at /shown/1, read only" in shown.stdout.decode()

    refused(caller(*PROMPT, "--mount", "../one:two"), 78, "HERE:/IN/SANDBOX")
    refused(caller(*PROMPT, "--mount", "../one:/tmp"), 78, "NDDT_MOUNTS (option)", "choose another")
    away = caller.having(DOCKER_HOST="tcp://engine.example:2375", NDDT_WORKSPACE="sync")
    refused(away(*PROMPT, *words), 78, "engine.example", "nddt cp")
    made = caller.with_agent("true")(caller.task("create-sandbox"), *words)
    assert made.code == 0, made.said
    (name,) = outside.sandboxes()
    inside = caller.having(NDDT_MOUNTS="")
    assert inside("shell", "--name", name, "--command", "cat /2/x").stdout == b"two"
    refused(inside("shell", "--name", name, *words, "--command", "true"), 64, "--mount")
    assert inside("cleanup", "--name", name, "--yes").code == 0


@ON_DOCKER
def test_a_directory_that_cannot_be_changed(nddt: Caller) -> None:
    """It is seen, and stays as it is."""
    (nddt.directory / "x").write_text("x")

    done = nddt.having(NDDT_WORKSPACE_READONLY="true")("shell", "--command", "cat x; touch y")

    assert (done.code, done.stdout) == (1, b"x")
    assert [one.name for one in nddt.directory.iterdir()] == ["x"]


@pytest.mark.same_everywhere
@pytest.mark.parametrize("place", ["root", "home", "above home", "a link to home"])
def test_a_workspace_that_nobody_means(nddt: Caller, place: str) -> None:
    """`/` and the home directory are not shown without consent, and nothing is made."""
    home = Path(nddt.environ["HOME"])
    link = nddt.directory / "link"
    link.symlink_to(home)
    directory = {
        "root": Path("/"),
        "home": home,
        "above home": home.parent,
        "a link to home": link,
    }[place]
    caller = nddt.to(directory).having(ANTHROPIC_API_KEY=KEY, NDDT_WORKSPACE="")

    for words in (PROMPT, (caller.task("create-sandbox"),), ("shell", "--command", "true")):
        refused(caller(*words), 64, "--yes", "NDDT_WORKSPACE=none")


@ON_DOCKER
@pytest.mark.parametrize("mode", [":ro", ""])
def test_a_mount_that_nobody_means(nddt: Caller, tmp_path: Path, mine_name: str, mode: str) -> None:
    """More directories need the same consent."""
    home = Path(nddt.environ["HOME"])
    (tmp_path / "link").symlink_to(home)
    # Where the directory was shown, too, none around it could be, to write.
    caller = nddt.having(ANTHROPIC_API_KEY=KEY, NDDT_WORKSPACE="none", NDDT_NAME=mine_name)

    for place in ("/", home, home.parent, tmp_path / "link"):
        said = refused_mount(caller, f"{place}:/shown{mode}")
        assert ("to write" in said) == (not mode)
    command = ("shell", "--command", "ls -d /shown")
    done = caller(*command, "--mount", f"{home}:/shown{mode}", "--yes")
    assert (done.code, done.lines) == (0, ["/shown"]), done.said


def refused_mount(caller: Caller, mount: str) -> str:
    """Check that nothing is shown without consent, by the option or the setting."""
    shell = ("shell", "--command", "true")
    for done in (
        caller(*PROMPT, "--mount", mount),
        caller.having(NDDT_MOUNTS=mount)(*shell),
        caller(caller.task("create-sandbox"), "--mount", mount),
    ):
        refused(done, 64, "Show all of", "show a directory in it", "--yes")
    return done.said


@ON_DOCKER
def test_the_home_directory_after_a_yes(nddt: Caller) -> None:
    """With consent it is shown."""
    home = nddt.directory / "home"
    home.mkdir()
    (home / "seen").touch()
    caller = nddt.to(home).having(HOME=str(home), ANTHROPIC_API_KEY=KEY, NDDT_COMMAND="ls")

    done = caller("shell", "--command", "ls", "--yes")

    assert (done.code, done.stdout, done.stderr) == (0, b"seen\n", b"")


@ON_DOCKER
def test_a_question_at_the_terminal(nddt: Caller) -> None:
    """A no ends it with 64, a yes goes on."""
    home = nddt.directory / "home"
    home.mkdir()
    caller = nddt.to(home).having(HOME=str(home), ANTHROPIC_API_KEY=KEY)

    for answer, code in (("n\n", 64), ("\n", 64), ("y\n", 4)):
        with Terminal(caller, "shell", "--command", "exit 4") as terminal:
            assert terminal.shows("[y/N]"), terminal.text
            terminal.type(answer)
            assert code == terminal.code(), terminal.text


@pytest.mark.same_everywhere
def test_a_directory_that_is_gone(nddt: Caller) -> None:
    """The current directory may have been removed by somebody."""
    gone = nddt.directory / "gone"
    gone.mkdir()
    launcher = ("sh", "-c", 'rmdir "$0" && exec "$@"', str(gone), *nddt.launcher)
    caller = Caller(provider=nddt.provider, launcher=launcher, directory=gone, environ=nddt.environ)

    done = caller("run", "--demo", "--prompt", "x")

    assert done.code == 78
    # The shells before it have their say, too.
    assert done.said.splitlines()[-1].startswith("nddt: the current directory no longer exists")


@pytest.mark.same_everywhere
def test_a_runtime_directory_of_somebody_elses(nddt: Caller) -> None:
    """What others could read or replace is not used."""
    shutil.rmtree(nddt.runtime, ignore_errors=True)
    nddt.runtime.mkdir()
    nddt.runtime.chmod(0o755)
    caller = nddt.having(ANTHROPIC_API_KEY=KEY)

    try:
        refused(caller(*PROMPT), 78, str(nddt.runtime))
    finally:
        nddt.runtime.rmdir()
