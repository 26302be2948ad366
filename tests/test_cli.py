"""Our side of invoke, run as the launcher and as `inv` run it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import scripts
from scripts.cli import NddtTask, remainder, task
from scripts.errors import NddtError

REPOSITORY = Path(__file__).resolve().parent.parent
# What ./nddt starts, see there; without an environment of its own.
LAUNCHER = (
    "import sys; sys.path.insert(0, sys.argv[1]); from scripts.cli import main; main(sys.argv[2:])"
)
TASKS = '''
import json, os, sys, time
from invoke.collection import Collection
from scripts.cli import remainder, task
from scripts.errors import ConfigError
from scripts.naming import said

@task(iterable=["mount"], plans=True)
def run(_c, prompt="", model="", mount=None, agent_args=""):
    """Run a prompt."""
    print(json.dumps([prompt, model, mount, [*agent_args.split(), *remainder(sys.argv)]]))

@task(aliases=["connect"])
def attach(_c):
    """Attach."""
    print("attached")

@task
def code(_c, number):
    """Return an exit code."""
    return int(number)

@task
def truth(_c):
    """Return True, which is no exit code."""
    return True

@task
def fail(_c):
    """Fail as expected."""
    raise ConfigError("NDDT_X is wrong", "set it", detail="line 1")

@task
def crash(_c):
    """Fail as not expected."""
    raise LookupError("a bug")

@task
def sleep(_c):
    """Sleep."""
    print("asleep", file=sys.stderr, flush=True)
    for _ in range(600):  # a signal that comes just before a sleep is heard after it
        time.sleep(0.1)

@task
def spam(_c):
    """Print a lot."""
    for number in range(100_000):
        print(number)

@task
def advice(_c):
    """Say what to type."""
    print(said("protected"))

@task
def pipe(_c):
    """Write to another pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    os.write(writer, b"x")

def cleanup_of(name):
    @task(name="cleanup")
    def cleanup(_c):
        """Clean up."""
        print(name)
    return cleanup

ns = Collection(run, attach, advice, code, truth, fail, crash, sleep, spam, pipe)
for name in ("docker", "daytona"):
    group = Collection(name)
    group.add_task(cleanup_of(name))
    ns.add_collection(group)
'''

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with tasks of our own."""
    root = tmp_path_factory.mktemp("repository")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "scripts", root / "scripts", ignore=ignore)
    (root / "tasks.py").write_text(TASKS)
    return root


def argv(root: Path, *words: str) -> list[str]:
    """Build the command line that the launcher ends with."""
    return [sys.executable, "-I", "-c", LAUNCHER, str(root), *words]


def nddt(root: Path, *words: str, cwd: Path = Path("/")) -> Done:
    """Run like ./nddt, from another directory."""
    return subprocess.run(
        argv(root, *words),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )


def inv(root: Path, *words: str, cwd: Path | None = None) -> Done:
    """Run like inv."""
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd or root,
    )


Program = Callable[..., Done]
both = pytest.mark.parametrize("program", [nddt, inv])


@both
@pytest.mark.parametrize("number", [1, 7, 130, 137, 255])
def test_exit_code_of_a_body_ends_the_chain(root: Path, program: Program, number: int) -> None:
    """Silently: whoever returned the code has said why."""
    done = program(root, "code", str(number), "attach")

    assert (done.returncode, done.stdout, done.stderr) == (number, "", "")


@both
def test_zero_none_and_true_go_on(root: Path, program: Program) -> None:
    """Only a number that is not zero ends the chain."""
    done = program(root, "code", "0", "truth", "attach")

    assert (done.returncode, done.stdout, done.stderr) == (0, "attached\n", "")


@both
def test_expected_failure_is_said_once_with_its_code(root: Path, program: Program) -> None:
    """And ends the chain."""
    done = program(root, "fail", "attach")

    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "line 1\nnddt: NDDT_X is wrong — set it\n"


@both
def test_unexpected_failure_keeps_its_traceback(root: Path, program: Program) -> None:
    """It is a bug."""
    done = program(root, "crash")

    assert done.returncode == 1
    assert done.stderr.endswith("LookupError: a bug\n")
    assert "Traceback" in done.stderr


@both
def test_tasks_of_one_factory_all_run(root: Path, program: Program) -> None:
    """Invoke by itself would leave out the second."""
    done = program(root, "docker.cleanup", "daytona.cleanup")

    assert done.stdout == "docker\ndaytona\n"


@both
def test_remainder_is_exact(root: Path, program: Program) -> None:
    """Borders, empty arguments, later dashes."""
    words = ["ls", "a b", "", "--", "-x", "it's"]

    done = program(root, "run", "--", *words)

    assert json.loads(done.stdout) == ["", "", [], words]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ()),
        (["nddt", "run"], ()),
        (["nddt", "run", "--"], ()),
        (["nddt", "--", "a b", "--", "c"], ("a b", "--", "c")),
    ],
)
def test_remainder_starts_after_the_first_dashes(
    given: list[str], expected: tuple[str, ...]
) -> None:
    """As invoke splits them."""
    assert remainder(given) == expected


def test_ctrl_c_is_quiet_and_130(root: Path) -> None:
    """Nothing on stderr if that is no terminal."""
    process = subprocess.Popen(argv(root, "sleep"), stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert process.stderr.readline() == "asleep\n"
    process.send_signal(signal.SIGINT)

    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 130


def test_ctrl_c_ends_the_line_of_a_terminal(root: Path) -> None:
    """Otherwise the shell's prompt stands beside the ^C."""
    ours, its = pty.openpty()
    process = subprocess.Popen(argv(root, "sleep"), stderr=its)
    os.close(its)
    assert os.read(ours, 100) == b"asleep\r\n"
    process.send_signal(signal.SIGINT)

    assert os.read(ours, 100) == b"\r\n"
    assert process.wait(timeout=60) == 130
    os.close(ours)


@pytest.mark.parametrize("words", [["spam"], ["attach"], ["--list"], ["--help"]])
def test_reader_that_goes_away_is_no_error(root: Path, words: list[str]) -> None:
    """As with `./nddt … | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        argv(root, *words), stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (141, b"")


def test_another_broken_pipe_is_a_bug(root: Path) -> None:
    """Only stdout's reader may go away."""
    done = nddt(root, "pipe")

    assert done.returncode == 1
    assert "BrokenPipeError" in done.stderr


def test_closed_stdout_is_no_error(root: Path) -> None:
    """A caller may start it without one."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *argv(root, "attach")],
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["Explain DI"], ["Explain DI", "", [], []]),
        (["Explain DI", "--model", "opus"], ["Explain DI", "opus", [], []]),
        (["--mount=a", "--mount", "b", "say it"], ["say it", "", ["a", "b"], []]),
        (["run", "--model", "opus", "say it"], ["say it", "opus", [], []]),
        (["-p", "hello"], ["hello", "", [], ["-p"]]),
        (["--dry", "it's a=b --x; $HOME", "--", "x y"], ["it's a=b --x; $HOME", "", [], ["x y"]]),
        (["run", "--prompt", "attach"], ["attach", "", [], []]),
        (["attach it"], ["attach it", "", [], []]),
        ([""], ["", "", [], []]),
    ],
)
def test_first_word_that_is_no_task_is_a_prompt(
    root: Path, words: list[str], expected: list[object]
) -> None:
    """What follows it belongs to `run`."""
    done = nddt(root, *words)

    assert done.stderr == ""
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("name", ["attach", "connect", "docker.cleanup"])
def test_names_of_tasks_stay_tasks(root: Path, name: str) -> None:
    """Aliases and tasks of groups, too."""
    assert nddt(root, name).stdout in {"attached\n", "docker\n"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["atach", "--x"],
            (
                "atach is no task; did you mean attach? — to send it as a prompt: "
                "nddt run --prompt atach; all tasks: nddt --list"
            ),
        ),
        (
            ["docker.cleenup"],
            (
                "docker.cleenup is no task; did you mean docker.cleanup? — to send it as a prompt: "
                "nddt run --prompt docker.cleenup; all tasks: nddt --list"
            ),
        ),
        (
            ["docker"],
            (
                "docker is a group of tasks: nddt --list docker — to send it as a prompt: "
                "nddt run --prompt docker"
            ),
        ),
        (
            ["fix", "it's", "--model", "opus"],
            (
                "fix is no task — to send it as a prompt: nddt run --prompt 'fix it'\"'\"'s opus'; "
                "all tasks: nddt --list"
            ),
        ),
    ],
)
def test_likely_mistake_is_no_prompt(root: Path, words: list[str], message: str) -> None:
    """It would cost an agent's run."""
    done = nddt(root, *words)

    assert (done.returncode, done.stdout, done.stderr) == (64, "", f"nddt: {message}\n")


@pytest.mark.parametrize(
    "words", [["cp", "--help"], ["network.deny", "-h"], ["network", "allow", "--help"]]
)
def test_help_for_a_task_with_arguments(words: list[str]) -> None:
    """Comes after its name, as for any other."""
    done = nddt(REPOSITORY, *words)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: nddt {'.'.join(words[:-1])} ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--bogus"], "no idea what '--bogus' is — see: nddt --help"),
        (
            ["run", "--bogus"],
            (
                "no idea what '--bogus' is — an option of the agent's own stands after --; see: "
                "nddt run --help"
            ),
        ),
        (
            ["list", "bogus"],
            (
                "bogus is no task — to send it as a prompt: nddt run --prompt 'list bogus'; all "
                "tasks: nddt --list"
            ),
        ),
        (["run", "--output-format"], "--output-format needs a value — see: nddt run --help"),
        (
            ["cp", "a"],
            "cp needs TARGET — see: nddt cp --help",
        ),
    ],
)
def test_what_invoke_does_not_understand(words: list[str], expected: str) -> None:
    """Is a mistake like any other: one line, what helps, and 64."""
    done = nddt(REPOSITORY, *words)

    assert (done.returncode, done.stderr) == (64, f"nddt: {expected}\n")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory with code for invoke, which says so if it is run."""
    for name in ("tasks.py", "invoke.py", "evil.py"):
        (tmp_path / name).write_text("open('ran', 'w')")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["--search-root=."],
        ["-r."],
        ["attach", "--search-root=."],
        ["--collection=evil"],
        ["-cevil", "attach"],
        ["--config=invoke.py", "attach"],
        ["-finvoke.py"],
        ["-Rf", "invoke.py"],
        ["--no-dedupe"],
        ["--pty"],
        ["-T", "3"],
        ["-e"],
        ["--hide=out"],
        ["--list-depth=x"],
        ["--list-format=json"],
    ],
)
def test_no_word_chooses_the_code(root: Path, hostile: Path, words: list[str]) -> None:
    """It may be somebody else's text, meant as a prompt."""
    done = nddt(root, *words, cwd=hostile)

    assert done.returncode == 64
    assert done.stderr.startswith("nddt: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (hostile / "ran").exists()


def test_completion_runs_nothing_of_the_directory(root: Path, hostile: Path) -> None:
    """Nor does it offer what chooses code."""
    done = nddt(root, "--complete", "--", "nddt --search-root=. -", cwd=hostile)

    assert "--list" in done.stdout.split()
    assert "--search-root" not in done.stdout
    assert not (hostile / "ran").exists()


def test_what_inv_is_advised(root: Path, tmp_path: Path) -> None:
    """Elsewhere than here it would run what is in the directory."""
    elsewhere = inv(root, "--search-root", str(root), "advice", cwd=tmp_path)

    assert inv(root, "advice").stdout == "inv protected\n"
    assert elsewhere.stdout == f"{root}/nddt protected\n"


def test_version_is_that_of_the_project(root: Path) -> None:
    """One number in both places."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

    assert project["version"] == scripts.__version__
    assert nddt(root, "--version").stdout == f"nddt {scripts.__version__}\n"


@pytest.mark.parametrize("words", [["--help"], []])
def test_help_names_the_program(root: Path, words: list[str]) -> None:
    """Not invoke, whose own options mean nothing here."""
    shown = nddt(root, *words).stdout

    assert shown.startswith('Usage: nddt "PROMPT" ')
    assert "--core-opts" not in shown


def test_list_shows_tasks_and_keeps_their_bytecode(root: Path) -> None:
    """Unlike invoke, which compiles them at each call."""
    shutil.rmtree(root / "__pycache__", ignore_errors=True)

    assert "  attach (connect)   Attach.\n" in nddt(root, "--list").stdout
    assert list((root / "__pycache__").glob("tasks.*.pyc"))


def test_completion_knows_the_tasks(root: Path) -> None:
    """As the shell asks for it."""
    assert "attach" in nddt(root, "--complete", "--", "nddt ").stdout.split()


def test_nothing_costly_is_imported(root: Path) -> None:
    """Each command pays for what is imported here, each TAB as well."""
    code = "import sys, scripts.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )

    assert not {"docker", "daytona", "dotenv", "sh", "requests"} & set(done.stdout.split())


def test_tasks_are_equal_only_to_themselves() -> None:
    """And of our class, bare or with options, without short flags."""

    def body(_c: Context) -> None:
        """Do nothing."""

    bare, called = task(body), task(name="body")(body)

    assert isinstance(bare, NddtTask)
    assert isinstance(called, NddtTask)
    assert bare == bare  # noqa: PLR0124
    assert bare != called
    assert len({bare, called}) == 2
    assert not bare.auto_shortflags


def test_failure_reaches_a_caller_in_python() -> None:
    """As the Exit that invoke understands."""

    @task
    def body(_c: Context) -> None:
        """Fail."""
        raise NddtError("x")

    with pytest.raises(Exit) as caught:
        body(Context())

    assert caught.value.code == 1
    assert isinstance(caught.value.__cause__, NddtError)
