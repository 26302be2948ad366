"""Who made a sandbox: told from all who have the same user, host name and process id."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.machine import makers
from scripts.machine.makers import Maker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Project

BOOT_ID = "/proc/sys/kernel/random/boot_id"
NOW = int(time.time())


@pytest.fixture
def here(project: Project) -> dict[str, str]:
    """Have an installation."""
    makers.keep(project.environ)
    return project.environ


@pytest.fixture
def other(project: Project, tmp_path: Path) -> dict[str, str]:
    """Have another one, on what calls itself the same machine."""
    environ = {**project.environ, "HOME": str(tmp_path / "other")}
    makers.keep(environ)
    return environ


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Have a process that waits."""
    with subprocess.Popen(("sleep", "60")) as one:
        yield one
        one.kill()


def ended(environ: dict[str, str], maker: Maker, pid: int, made_at: int = NOW) -> bool:
    """Ask whether it has."""
    return makers.has_ended(environ, maker, pid=pid, made_at=made_at)


def test_a_process_and_its_end(here: dict[str, str], child: subprocess.Popen[bytes]) -> None:
    """It is alive until it is not, also where nobody has asked for its code yet."""
    made = makers.of_process(here, child.pid)
    before = ended(here, made, child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    as_zombie = ended(here, made, child.pid)
    child.wait()

    assert (before, as_zombie, ended(here, made, child.pid)) == (False, True, True)


def test_a_process_id_that_is_used_again(
    here: dict[str, str], child: subprocess.Popen[bytes]
) -> None:
    """Is another process: it began at another time."""
    made = makers.of_process(here, os.getpid())

    assert ended(here, made, child.pid)
    assert not ended(here, made, os.getpid())


def test_another_installation(
    here: dict[str, str], other: dict[str, str], child: subprocess.Popen[bytes]
) -> None:
    """Of the same user, host and process id: nobody else knows what has become of it."""
    made = makers.of_process(other, child.pid)
    child.kill()
    child.wait()

    assert ended(other, made, child.pid)
    assert not ended(here, made, child.pid)
    assert not makers.is_ours(here, made)


@pytest.mark.parametrize("made", [Maker(), Maker(installation="0" * 16)])
def test_what_does_not_say_who_made_it(here: dict[str, str], made: Maker) -> None:
    """As those of an older nddt: it is nobody's orphan."""
    assert not ended(here, made, 2**22 + 1)


def test_without_an_id(project: Project) -> None:
    """Nothing is known to be ours, not even with what another without one has made."""
    environ = {**project.environ, "XDG_STATE_HOME": "/dev/null/nowhere"}
    makers.keep(environ)
    made = makers.of_process(environ, os.getpid())

    assert (made, made.labels) == (Maker(), {})
    assert not makers.is_ours(environ, made)
    assert not ended(environ, made, 2**22 + 1)


@pytest.mark.parametrize(("made_at", "is_gone"), [(0, True), (NOW, False)], ids=["before", "since"])
def test_another_boot(
    here: dict[str, str], monkeypatch: pytest.MonkeyPatch, made_at: int, *, is_gone: bool
) -> None:
    """Has ended with all its processes; unless it made this since: then it is a copy of us."""
    made = makers.of_process(here, os.getpid())
    real = makers._text
    monkeypatch.setattr(makers, "_text", lambda path: "x" if path == BOOT_ID else real(path))

    assert ended(here, made, os.getpid(), made_at) == is_gone


def test_another_world_of_processes(here: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that shares our state directory: our process ids mean nothing there."""
    made = makers.of_process(here, os.getpid())
    monkeypatch.setattr(os, "readlink", lambda _: "pid:[1]")

    assert not ended(here, made, 2**22 + 1)
    assert not makers.is_ours(here, made)


def test_labels_tell_nothing(here: dict[str, str]) -> None:
    """But to whoever has the same id."""
    made = makers.of_process(here, os.getpid())
    own = (Path(here["HOME"]) / ".local/state/nddt/installation").read_text().strip()

    assert makers.of_labels(made.labels) == made
    assert len(set(made.labels.values())) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in made.labels.values())
    private = (own, Path("/etc/machine-id"), Path(BOOT_ID))
    known = [one if isinstance(one, str) else one.exists() and one.read_text() for one in private]
    for one in filter(None, known):
        assert not any(value in str(one).replace("-", "") for value in made.labels.values())


def test_the_id_is_private_and_stays(here: dict[str, str]) -> None:
    """Of several who make it at once, one wins."""
    file = Path(here["HOME"]) / ".local/state/nddt/installation"
    first = file.read_text()
    makers.keep(here)

    assert file.read_text() == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["installation"]


def test_a_stopped_process_is_alive(here: dict[str, str], child: subprocess.Popen[bytes]) -> None:
    """It may go on."""
    made = makers.of_process(here, child.pid)
    child.send_signal(signal.SIGSTOP)

    assert not ended(here, made, child.pid)
