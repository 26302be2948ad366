"""Private directories and locks, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.errors import ConfigError
from scripts.machine import state

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environ(runtime: Path) -> dict[str, str]:
    """Give an environment with a runtime directory that has nothing of ours yet."""
    return {"XDG_RUNTIME_DIR": str(runtime)}


def start(code: str, *words: str) -> subprocess.Popen[str]:
    """Start another process of ours."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


# -- the private directory ------------------------------------------------------------------


def test_runtime_directory(environ: dict[str, str], runtime: Path) -> None:
    """Is made for its user alone, whatever the umask."""
    before = os.umask(0)
    try:
        found = [state.runtime_directory(environ) for _ in range(2)]
    finally:
        os.umask(before)

    assert found == [runtime / "nddt"] * 2
    assert found[0].stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("value", ["", "run", "/nonexistent"])
def test_runtime_directory_that_cannot_be_used(value: str) -> None:
    """There is another one."""
    found = state.runtime_directory({"XDG_RUNTIME_DIR": value})

    assert found == state.runtime_directory({}) == Path(f"/tmp/nddt-{os.getuid()}")


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_runtime_directory_that_others_write_to(runtime: Path, mode: int) -> None:
    """Is not used: they could exchange ours; with a sticky bit they could not."""
    runtime.chmod(mode)
    found = state.runtime_directory({"XDG_RUNTIME_DIR": str(runtime)})
    assert found == Path(f"/tmp/nddt-{os.getuid()}")

    runtime.chmod(mode | 0o1000)
    assert state.runtime_directory({"XDG_RUNTIME_DIR": str(runtime)}) == runtime / "nddt"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is somebody else's")
def test_runtime_directory_of_somebody_else(runtime: Path) -> None:
    """Is not used, as by `sudo -E`: its owner could exchange ours."""
    os.chown(runtime, 65534, 65534)

    found = state.runtime_directory({"XDG_RUNTIME_DIR": str(runtime)})

    assert found == Path(f"/tmp/nddt-{os.getuid()}")


def test_runtime_directory_that_is_too_long(runtime: Path) -> None:
    """Is not used: the path of a socket would not fit."""
    (runtime / ("x" * 40)).mkdir()
    found = state.runtime_directory({"XDG_RUNTIME_DIR": str(runtime / ("x" * 40))})

    assert found == Path(f"/tmp/nddt-{os.getuid()}")


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777, 0o1777])
def test_directory_open_to_others(environ: dict[str, str], runtime: Path, mode: int) -> None:
    """Is refused: keys would lie in it."""
    (runtime / "nddt").mkdir()
    (runtime / "nddt").chmod(mode)

    with pytest.raises(ConfigError, match="is not a private directory of yours") as caught:
        state.runtime_directory(environ)

    assert caught.value.exit_code == 78


@pytest.mark.parametrize("kind", ["directory", "missing"])
def test_symbolic_link(environ: dict[str, str], runtime: Path, kind: str) -> None:
    """Is refused, also if it leads to a directory of ours."""
    if kind == "directory":
        (runtime / "mine").mkdir(mode=0o700)
    (runtime / "nddt").symlink_to(runtime / "mine")

    with pytest.raises(ConfigError, match="is not a private directory of yours"):
        state.runtime_directory(environ)


def test_file(environ: dict[str, str], runtime: Path) -> None:
    """Is refused."""
    (runtime / "nddt").write_text("")

    with pytest.raises(ConfigError, match="is not a private directory of yours"):
        state.runtime_directory(environ)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is somebody else's")
def test_directory_of_somebody_else(environ: dict[str, str], runtime: Path) -> None:
    """Is refused, whatever its mode."""
    (runtime / "nddt").mkdir(mode=0o700)
    os.chown(runtime / "nddt", 65534, 65534)

    with pytest.raises(ConfigError, match="is not a private directory of yours"):
        state.runtime_directory(environ)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_runtime_directory_that_is_not_writable(environ: dict[str, str], runtime: Path) -> None:
    """Is not used."""
    runtime.chmod(0o555)

    assert state.runtime_directory(environ) == Path(f"/tmp/nddt-{os.getuid()}")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/nddt"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/nddt"),
        ({}, "/.cache/nddt"),
    ],
)
def test_cache_directory(environ: dict[str, str], expected: str) -> None:
    """Follows the environment; it is not made."""
    assert state.cache_directory(environ) == Path(expected)


def test_sandbox_directory(environ: dict[str, str], runtime: Path) -> None:
    """Is one for each sandbox, and need not exist."""
    found = [state.sandbox_directory(environ, "docker-nddt-a-1") for _ in range(2)]

    assert found == [runtime / "nddt" / "s-docker-nddt-a-1"] * 2
    assert not found[0].exists()


# -- directories of processes ---------------------------------------------------------------


def test_own_directory_is_removed(environ: dict[str, str], runtime: Path) -> None:
    """With all that is in it."""
    with state.own_directory(environ) as path:
        (path / "key").write_text("secret")
        mode = path.stat().st_mode

    assert mode & 0o777 == 0o700
    assert list((runtime / "nddt").iterdir()) == []


def test_own_directory_is_removed_after_a_failure(environ: dict[str, str], runtime: Path) -> None:
    """Too."""
    with pytest.raises(ZeroDivisionError), state.own_directory(environ):
        raise ZeroDivisionError

    assert list((runtime / "nddt").iterdir()) == []


def test_two_own_directories(environ: dict[str, str]) -> None:
    """Of one process differ."""
    with state.own_directory(environ) as one, state.own_directory(environ) as other:
        assert one != other
        assert one.exists()


def test_directory_of_a_killed_process_goes(environ: dict[str, str], runtime: Path) -> None:
    """With the next command; that of a living one stays."""
    code = (
        "import sys; from scripts.machine import state\n"
        "with state.own_directory({'XDG_RUNTIME_DIR': sys.argv[1]}) as path:\n"
        "    (path / 'key').write_text('secret'); print(path, flush=True); sys.stdin.read()"
    )
    dead, living = start(code, str(runtime)), start(code, str(runtime))
    with dead, living:
        assert dead.stdout
        assert living.stdout
        left, kept = (Path(one.stdout.readline().strip()) for one in (dead, living) if one.stdout)
        dead.send_signal(signal.SIGKILL)
        dead.wait(30)
        assert left.exists()

        state.tidy(environ)

        assert not left.exists()
        assert kept.exists()
        living.communicate(timeout=30)

    assert list((runtime / "nddt").iterdir()) == []


def test_foreign_names_stay(environ: dict[str, str]) -> None:
    """Only what is named after a process goes."""
    parent = state.runtime_directory(environ)
    (parent / "r-").mkdir()
    (parent / "r-x-1").mkdir()

    with state.own_directory(environ):
        pass

    assert sorted(path.name for path in parent.iterdir()) == ["r-", "r-x-1"]


def test_is_alive() -> None:
    """This one is, process 1 of somebody else is, and one that has ended is not."""
    ended = start("")
    with ended:
        ended.communicate(timeout=30)

    assert state.is_alive(os.getpid())
    assert state.is_alive(1)
    assert not state.is_alive(ended.pid)


def test_state_directory() -> None:
    """Is where the desktop's rules say."""
    assert state.state_directory({"HOME": "/home/u"}) == Path("/home/u/.local/state/nddt")
    assert state.state_directory({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/nddt")
