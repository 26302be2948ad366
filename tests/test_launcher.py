"""The launcher, really run: copies of the repository, real environments, real signals."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = ("sh", "cmp", "cp", "mkdir", "mv", "readlink", "rm", "rmdir", "sleep", "tail", "touch")
TASKS = '''
import json, os, sys
import invoke, scripts
from scripts.cli import remainder, task

@task
def where(_c):
    """Print where this runs, what it imported and which files it inherited."""
    inherited = []
    for number in range(3, 20):
        try:
            os.fstat(number)
            inherited.append(number)
        except OSError:
            pass
    print(json.dumps({
        "inherited": inherited,
        "cwd": os.getcwd(),
        "invoke": invoke.__file__,
        "scripts": scripts.__file__,
        "path": os.environ["PATH"],
        "rest": remainder(sys.argv),
    }))
'''

Env = dict[str, str]
Done = subprocess.CompletedProcess[str]


def make_tools(directory: Path, python: str | None) -> Path:
    """Make a PATH of the few programs that the launcher may need, without uv."""
    directory.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (directory / tool).symlink_to(found)
    if python:
        (directory / "python3").symlink_to(python)
    return directory


def base_python() -> str:
    """Find the Python that this one's environment was made with."""
    return str(Path(sys.executable).resolve())


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Env:
    """An environment with a cache of its own: nothing is written to the user's home."""
    base = tmp_path_factory.mktemp("launcher")
    tools = make_tools(base / "tools", base_python())
    cache = {"PIP_CACHE_DIR": str(base / "pip"), "UV_CACHE_DIR": str(base / "uv")}
    return {**os.environ, **cache, "PATH": str(tools)}


@pytest.fixture(scope="module")
def offline(env: Env) -> Env:
    """An environment in which any installation fails at once."""
    return {**env, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}


NEEDED = ("invoke", "python-dotenv")
"""What one task takes of the requirements; all of them take ten times as long to install."""


def needed_requirements() -> str:
    """Cut down the requirements to those."""
    entries = re.split(
        r"^(?=[a-z])", (REPOSITORY / "requirements.lock").read_text(), flags=re.MULTILINE
    )
    return "".join(one for one in entries if one.split("==")[0] in NEEDED)


def copy_repository(to: Path) -> Path:
    """Copy what a first use needs, with one task that tells about itself."""
    to.mkdir(parents=True)
    shutil.copy2(REPOSITORY / "nddt", to)
    (to / "requirements.lock").write_text(needed_requirements())
    shutil.copy2(REPOSITORY / "pyproject.toml", to)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "scripts", to / "scripts", ignore=ignore)
    (to / "tasks.py").write_text(TASKS)
    return to


def run(*argv: str | Path, env: Env, cwd: Path | None = None) -> Done:
    """Run a program to its end."""
    return subprocess.run(
        argv, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


def start(root: Path, env: Env) -> subprocess.Popen[str]:
    """Start a use in the background, as a group that a terminal could signal."""
    return subprocess.Popen(
        [root / "nddt", "where"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def said(done: Done) -> dict[str, Any]:
    """Read the answer of the one task."""
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is true, at most a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def clone(made: Path, to: Path) -> Path:
    """Copy a repository with its environment, which then counts as made at its new place."""
    shutil.copytree(made, to, symlinks=True)
    lock, stamp = to / "requirements.lock", to / ".venv/nddt-ready"
    stamp.write_text(f"{to}\n")
    os.utime(stamp, ns=(lock.stat().st_atime_ns, lock.stat().st_mtime_ns))
    return to


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, env: Env) -> tuple[Path, Done]:
    """A repository after its first use, and what that use said."""
    root = copy_repository(tmp_path_factory.mktemp("the base") / "the repository")
    return root, run(root / "nddt", "where", env=env, cwd=root)


@pytest.fixture(scope="module")
def made(first: tuple[Path, Done]) -> Path:
    """A repository that is ready."""
    return first[0]


def test_first_use_installs_and_runs_the_task(first: tuple[Path, Done]) -> None:
    """It says so in two lines of stderr, compiles, and its task does not hold the lock."""
    root, done = first

    assert Path(said(done)["invoke"]).is_relative_to(root / ".venv")
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["installing", "ready"]
    assert list((root / "__pycache__").glob("tasks.*.pyc"))
    assert list((root / "scripts/cli/__pycache__").glob("*.pyc"))
    assert list(root.glob(".venv/lib/*/site-packages/invoke/__pycache__/*.pyc"))
    assert said(done)["inherited"] == []


@pytest.mark.exhaustive
def test_first_use_with_all_requirements(tmp_path: Path, env: Env) -> None:
    """They fit together, and each is what the lock says."""
    root = copy_repository(tmp_path / "repository")
    shutil.copy2(REPOSITORY / "requirements.lock", root)

    done = run(root / "nddt", "where", env=env)

    assert said(done)
    assert run(root / ".venv/bin/python", "-m", "pip", "check", env=env).returncode == 0


@pytest.mark.parametrize("relative", [False, True])
def test_later_use_is_silent_and_needs_no_program(
    made: Path, tmp_path: Path, env: Env, *, relative: bool
) -> None:
    """Nothing is looked up on PATH, and the caller's directory stays."""
    here = tmp_path / "a caller's directory"
    here.mkdir()
    program = os.path.relpath(made / "nddt", here) if relative else made / "nddt"

    done = run(program, "where", "--", "a b", "", env={**env, "PATH": "/none"}, cwd=here)

    assert done.stderr == ""
    assert said(done)["cwd"] == str(here)
    assert said(done)["rest"] == ["a b", ""]


def test_symlinks_on_path_lead_to_the_repository(made: Path, tmp_path: Path, env: Env) -> None:
    """A relative link to an absolute one, found on PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "nddt-link").symlink_to(made / "nddt")
    (tmp_path / "bin/nddt").symlink_to("../nddt-link")
    path = f"{tmp_path / 'bin'}:{env['PATH']}"

    done = run("sh", "-c", "nddt where", env={**env, "PATH": path}, cwd=tmp_path)

    assert said(done)["cwd"] == str(tmp_path)
    assert done.stderr == ""


def test_repository_behind_a_symlinked_directory(made: Path, tmp_path: Path, env: Env) -> None:
    """Another way to the same directory is not another place."""
    (tmp_path / "link").symlink_to(made)

    done = run(tmp_path / "link/nddt", "where", env=env)

    assert said(done)["scripts"] == str(made / "scripts/__init__.py")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("nddt", "nddt"),
        ("other", "other"),
        ("./link", "./link"),
        ("'{made}/nddt'", "{quoted}"),
        ("'{here}/it'\"'\"'s a link'", "'{here}/it'\"'\"'s a link'"),
    ],
)
def test_messages_name_what_was_typed(
    made: Path, tmp_path: Path, env: Env, typed: str, said: str
) -> None:
    """A link on PATH, another one, a path: what they say can be typed as it stands."""
    (tmp_path / "bin").mkdir()
    for link in ("bin/nddt", "bin/other", "link", "it's a link"):
        (tmp_path / link).symlink_to(made / "nddt")
    environ = {**env, "PATH": f"{tmp_path / 'bin'}:{env['PATH']}"}

    line = typed.format(made=made, here=tmp_path)
    done = run("sh", "-c", f"{line} --bogus", env=environ, cwd=tmp_path)

    told = said.format(quoted=shlex.quote(f"{made}/nddt"), here=tmp_path)
    assert done.stderr == f"nddt: no idea what '--bogus' is — see: {told} --help\n"


def test_callers_modules_are_never_imported(made: Path, tmp_path: Path, env: Env) -> None:
    """Not from the current directory, and not from PYTHONPATH."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/__init__", "scripts/cli", "invoke", "tasks", "json", "venv"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hostile')")
    hostile = {**env, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py")}

    done = run(made / "nddt", "where", env=hostile, cwd=tmp_path)

    assert said(done)["scripts"] == str(made / "scripts/__init__.py")


def hostile_programs(place: Path, ran: Path) -> None:
    """Put programs into a directory that tell if they are run."""
    place.mkdir(parents=True, exist_ok=True)
    for tool in (*TOOLS, "python3", "uv", "docker", "ssh"):
        (place / tool).write_text(f'#!/bin/sh\necho {tool} >>"{ran}"\nexit 1\n')
        (place / tool).chmod(0o755)


@pytest.mark.parametrize(
    "path", [":{}", "{}:", ".:{}", "bin:{}", "./bin::{}", "../w/bin:{}", "*:{}"]
)
def test_no_program_of_the_directory_is_run(
    made: Path, env: Env, tmp_path: Path, path: str
) -> None:
    """Whatever is relative in PATH: neither by the launcher nor, of its PATH, by what it starts."""
    here = tmp_path / "w"
    for place in (here, here / "bin"):
        hostile_programs(place, tmp_path / "ran")
    (tmp_path / "link").symlink_to(made / "nddt")

    done = run(tmp_path / "link", "where", env={**env, "PATH": path.format(env["PATH"])}, cwd=here)

    assert said(done)["path"] == env["PATH"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize(
    "place", ["w/.venv/bin", "w/deep/node_modules/.bin", "link-to-w/.venv/bin", "link-to-bin"]
)
def test_no_program_of_an_activated_environment_is_run(
    made: Path, offline: Env, tmp_path: Path, place: str, *, is_first: bool
) -> None:
    """One in the caller's directory or the repository around it, by whatever path."""
    here = tmp_path / "w/deep"
    (tmp_path / "w/.git").mkdir(parents=True)
    hostile_programs(tmp_path / "w/.venv/bin", tmp_path / "ran")
    hostile_programs(here / "node_modules/.bin", tmp_path / "ran")
    (tmp_path / "link-to-w").symlink_to("w")
    (tmp_path / "link-to-bin").symlink_to("w/.venv/bin")
    root = made
    if is_first:
        root = clone(made, tmp_path / "clone")
        change_requirements(root)
    (tmp_path / "link").symlink_to(root / "nddt")
    hostile = {**offline, "PATH": f"{tmp_path / place}:{offline['PATH']}"}

    done = run(tmp_path / "link", "where", env=hostile, cwd=here)

    assert done.returncode == (69 if is_first else 0), done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_first_use_in_the_home_directory(made: Path, offline: Env, tmp_path: Path) -> None:
    """Programs of the user's own count there."""
    root = clone(made, tmp_path / "clone")
    change_requirements(root)
    hostile_programs(tmp_path / "home/bin", tmp_path / "ran")
    home = str(tmp_path / "home")
    own = {**offline, "HOME": home, "PATH": f"{home}/bin:{offline['PATH']}"}

    run(root / "nddt", "where", env=own, cwd=tmp_path / "home")

    assert "uv" in (tmp_path / "ran").read_text().split()


def test_same_requirements_with_a_new_time_install_nothing(
    made: Path, tmp_path: Path, offline: Env
) -> None:
    """As after a change of branches and back."""
    root = clone(made, tmp_path / "clone")
    (root / "requirements.lock").touch()

    done = run(root / "nddt", "where", env=offline)

    assert said(done)
    assert done.stderr == ""


def change_requirements(root: Path) -> None:
    """Change the text of the requirements; the time goes back, as it may in an archive."""
    lock = root / "requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    os.utime(lock, (1, 1))


def lose_python(root: Path) -> None:
    """Remove the Python that the environment was made with."""
    (root / ".venv/bin/python").unlink()
    (root / ".venv/bin/python").symlink_to("/none/python3")


def move(root: Path) -> None:
    """Let the stamp tell of another place."""
    (root / ".venv/nddt-ready").write_text("/elsewhere\n")


def lose_stamp(root: Path) -> None:
    """Leave it as an interrupted first use does."""
    (root / ".venv/nddt-ready").unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        change_requirements,
        move,
        pytest.param(lose_python, marks=pytest.mark.exhaustive),
        pytest.param(lose_stamp, marks=pytest.mark.exhaustive),
    ],
)
def test_stale_environment_is_not_used(
    made: Path, tmp_path: Path, offline: Env, spoil: Callable[[Path], None]
) -> None:
    """Offline, so that it shows: the new installation fails, in one clear line."""
    root = clone(made, tmp_path / "clone")
    spoil(root)

    done = run(root / "nddt", "where", env=offline)

    assert done.returncode == 69
    assert done.stdout == ""
    assert "nddt: the packages could not be installed — check" in done.stderr.splitlines()[-1]
    assert "No matching distribution" in done.stderr
    assert not (root / ".venv/nddt-ready").exists()


@pytest.mark.exhaustive
def test_moved_repository_makes_itself_a_new_environment(
    made: Path, tmp_path: Path, env: Env
) -> None:
    """Its programs then name the new place."""
    root = tmp_path / "moved"
    shutil.copytree(made, root, symlinks=True)

    done = run(root / "nddt", "where", env=env)

    assert Path(said(done)["invoke"]).is_relative_to(root)
    assert str(root) in (root / ".venv/bin/inv").read_text()


def test_uv_is_used_if_there(tmp_path: Path, env: Env) -> None:
    """And does not follow the settings of the caller's directory."""
    uv = shutil.which("uv")
    if not uv:
        pytest.skip("uv is not installed")
    root = copy_repository(tmp_path / "repository")
    here = tmp_path / "caller"
    here.mkdir()
    (here / "uv.toml").write_text('index-url = "file:///none"\n')
    (root.parent / "tools").mkdir()
    (root.parent / "tools/uv").symlink_to(uv)
    path = f"{root.parent / 'tools'}:{env['PATH']}"

    done = run(root / "nddt", "where", env={**env, "PATH": path}, cwd=here)

    assert said(done)["cwd"] == str(here)
    assert "uv = " in (root / ".venv/pyvenv.cfg").read_text()
    assert list(root.glob(".venv/lib/*/site-packages/invoke/__pycache__/*.pyc"))


def test_several_first_uses_at_once_install_once(tmp_path: Path, env: Env) -> None:
    """The others wait and use the result."""
    root = copy_repository(tmp_path / "repository")

    uses = [start(root, env) for _ in range(6)]
    results = [(use, *use.communicate(timeout=300)) for use in uses]

    assert [use.returncode for use, _, _ in results] == [0] * 6
    assert all(json.loads(out) for _, out, _ in results)
    assert sum("nddt: installing" in err for _, _, err in results) == 1
    assert sum("nddt: waiting for another first use" in err for _, _, err in results) == 5


def test_killed_first_uses_are_repaired_by_the_next(tmp_path: Path, env: Env) -> None:
    """SIGKILL to the launcher alone, at many moments; its pip may then still be at work."""
    root = copy_repository(tmp_path / "repository")
    for moment_s in (0.0, 0.01, 0.05, 0.3, 0.8):
        use = start(root, env)
        time.sleep(moment_s)
        use.kill()
        use.communicate()
        assert not (root / ".venv/nddt-ready").exists()
    use = start(root, env)
    wait_for(lambda: list(root.glob(".venv/lib/*/site-packages/pip")))
    os.killpg(use.pid, signal.SIGKILL)
    use.communicate()

    uses = [start(root, env) for _ in range(4)]
    results = [(use, *use.communicate(timeout=300)) for use in uses]

    assert [use.returncode for use, _, _ in results] == [0] * 4
    assert sum("installing" in err for _, _, err in results) == 1
    assert run(root / ".venv/bin/python", "-m", "pip", "check", env=env).returncode == 0
    assert not (root / ".venv.old").exists()


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_stopped_first_use_leaves_nothing_running(
    tmp_path: Path, env: Env, signum: signal.Signals, code: int
) -> None:
    """Ctrl-C ends pip, too, and gives the lock back."""
    root = copy_repository(tmp_path / "repository")
    use = start(root, env)
    wait_for(lambda: list(root.glob(".venv/lib/*/site-packages")))
    os.killpg(use.pid, signum)
    out, err = use.communicate(timeout=60)

    assert use.returncode == code
    assert out == ""
    assert err.splitlines()[-1].startswith("nddt: stopped before .venv was ready — ")
    assert not (root / ".venv/nddt-ready").exists()
    with (root / ".venv.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if any of them still lives


def test_without_python_says_what_to_install(tmp_path: Path, env: Env) -> None:
    """One line and nothing made."""
    root = copy_repository(tmp_path / "repository")
    tools = make_tools(tmp_path / "tools", None)

    done = run(root / "nddt", "where", env={**env, "PATH": str(tools)})

    assert done.returncode == 69
    assert "nddt: no Python 3.11 or newer on PATH — install one, or uv" in done.stderr


def test_without_python_and_with_uv_says_what_to_install(tmp_path: Path, env: Env) -> None:
    """If uv may not get one either."""
    uv = shutil.which("uv")
    if not uv:
        pytest.skip("uv is not installed")
    root = copy_repository(tmp_path / "repository")
    tools = make_tools(tmp_path / "tools", None)
    (tools / "uv").symlink_to(uv)
    nowhere = {"UV_OFFLINE": "1", "UV_PYTHON_INSTALL_DIR": str(tmp_path / "pythons")}

    done = run(root / "nddt", "where", env={**env, **nowhere, "PATH": str(tools)})

    assert done.returncode == 69
    assert "nddt: uv could not get a Python — install Python 3.11 or newer" in done.stderr


def test_python_without_ensurepip_says_what_to_install(tmp_path: Path, env: Env) -> None:
    """Debian's Python without python3-venv."""
    root = copy_repository(tmp_path / "repository")
    tools = make_tools(tmp_path / "tools", None)
    python = tools / "python3"
    python.write_text(
        f'#!/bin/sh\ncase $* in *ensurepip*) exit 1 ;; esac\nexec {base_python()} "$@"\n'
    )
    python.chmod(0o755)

    done = run(root / "nddt", "where", env={**env, "PATH": str(tools)})

    assert done.returncode == 69
    assert "nddt: Python lacks venv or ensurepip — apt-get install python3-venv" in done.stderr


def test_somebody_elses_environment_is_left_alone(tmp_path: Path, env: Env) -> None:
    """A .venv that the launcher did not make is not removed."""
    root = copy_repository(tmp_path / "repository")
    (root / ".venv").mkdir()
    (root / ".venv/precious").touch()

    done = run(root / "nddt", "where", env=env)

    assert done.returncode == 73
    assert f"nddt: {root}/.venv was not made by nddt — move or remove it" in done.stderr
    assert (root / ".venv/precious").exists()


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that every user can look into, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix="nddt-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_repository_of_somebody_else_names_the_next_step(public_directory: Path) -> None:
    """It cannot be written to, so its owner has to use it first."""
    root = copy_repository(public_directory / "repository")
    root.chmod(0o555)
    user = 65534 if os.geteuid() == 0 else None

    done = subprocess.run(
        [root / "nddt"], user=user, capture_output=True, text=True, check=False, timeout=60, cwd="/"
    )
    root.chmod(0o755)

    assert done.returncode == 73
    assert done.stderr == f"nddt: cannot write to {root} — let its owner run {root}/nddt once\n"
