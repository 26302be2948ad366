"""A server of the open-source release: told from others, and served by the SDK of its version."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.daytona_double import DaytonaDouble
from tests.integration.contract import REPOSITORY, Caller, caller_of, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LOCK = REPOSITORY / "tests" / "locks" / "daytona-0.190.lock"
START = "import sys; sys.path.insert(0, sys.argv[1]); from scripts.quick_start import main; "
START += "main(sys.argv[2:])"


@pytest.fixture(scope="module")
def old_python() -> Path:
    """The Python of an environment with SDK 0.190.0, kept beside .venv until its lock changes."""
    place = REPOSITORY / ".venv-daytona-0.190"
    stamp, wanted = place / "lock", LOCK.read_bytes()
    python = place / "bin" / "python"
    if not stamp.exists() or stamp.read_bytes() != wanted:
        subprocess.run((sys.executable, "-m", "venv", "--clear", place), check=True)
        words = ("install", "--quiet", "--require-hashes", "--requirement", LOCK)
        subprocess.run((python, "-m", "pip", *words), check=True, capture_output=True)
        stamp.write_bytes(wanted)
    return python


@pytest.fixture(scope="module")
def double() -> Iterator[DaytonaDouble]:
    """A server of that release."""
    with DaytonaDouble(minute_s=1.0, version="0.190") as one:
        yield one


@pytest.fixture
def caller(
    double: DaytonaDouble,
    on_own_machine: tuple[str, ...],
    environ: Mapping[str, str],
    workspace: Path,
) -> Caller:
    """Somebody with an account there, and with the locked SDK."""
    launcher = (*on_own_machine, str(REPOSITORY / "nddt"))
    return caller_of(double, launcher, environ, workspace)


def test_the_old_sdk_does_everything(
    caller: Caller, double: DaytonaDouble, old_python: Path, on_own_machine: tuple[str, ...]
) -> None:
    """Build, run, keep, list, stop, start, archive and remove."""
    words = (str(old_python), "-I", "-c", START, str(REPOSITORY))
    old = replace(caller, launcher=(*on_own_machine, *words))

    done = old("run", "--demo", "--prompt", "Say hello", within_s=500)
    assert done.code == 0, done.said
    assert "“Say hello”" in done.stdout.decode()
    assert eventually(lambda: not double.sandboxes())
    for task in ("create-sandbox", "stop", "start", "archive"):
        done = old(f"daytona.{task}")
        assert (done.code, done.lines) == (0, ["nddt-workspace"]), (task, done.said)
    found = old("daytona.shell", "--name", "nddt-workspace", "--command", "echo well")
    assert (found.code, found.stdout) == (0, b"well\n"), found.said
    assert any("nddt-workspace" in line for line in old("daytona.list").lines)
    done = old("daytona.cleanup", "--all", "--images", "--yes")
    assert (done.code, done.lines[0]) == (0, "nddt-workspace"), done.said
    assert eventually(lambda: not double.sandboxes())


def test_a_version_mismatch_names_the_sdk(caller: Caller, double: DaytonaDouble) -> None:
    """78, and the command that installs the right one; nothing is left."""
    caller("daytona.build-image")  # snapshots work with any SDK
    done = caller("run", "--demo", "--prompt", "Say hello", within_s=120)

    assert (done.code, done.stdout) == (78, b""), done.said
    assert "daytona==0.190.0" in done.said.splitlines()[-1]
    for name in double.sandboxes():
        assert name in done.said
        double.remove_behind_back(name)
