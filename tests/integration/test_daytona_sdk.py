"""Which parts of the SDK are used, and of which version: a server's of the open-source release."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.daytona_double import DaytonaDouble
from tests.integration.contract import REPOSITORY, Caller, Cloud, caller_of, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LOCK = REPOSITORY / "tests" / "locks" / "daytona-0.190.lock"
START = "import sys; sys.path.insert(0, sys.argv[1]); from scripts.quick_start import main; "
START += "main(sys.argv[2:])"

WATCHED = """
import atexit, json, os, sys
from pathlib import Path
atexit.register(lambda: Path(os.environ["SEEN"]).write_text(json.dumps(list(sys.modules))))
"""
LEFT_OUT = {"daytona", "daytona_sdk", "aiohttp", "httpx", "obstore", "opentelemetry", "socketio"}
"""The SDK, and what it alone would bring."""


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


@pytest.mark.exhaustive
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


def test_the_rest_of_the_sdk_is_left_out(
    cloud: Cloud, on_own_machine: tuple[str, ...], tmp_path: Path
) -> None:
    """What a command needs of it is the generated client; a build's log is read without it, too."""
    seen = tmp_path / "seen"
    words = (sys.executable, "-I", "-c", WATCHED + START, str(REPOSITORY))
    known = {"SEEN": str(seen), "NDDT_PERSISTENT": "false"}
    agent = cloud.agent("echo well").having(**known)
    caller = replace(agent, launcher=(*on_own_machine, *words))

    def imported(*task: str) -> set[str]:
        seen.unlink(missing_ok=True)
        done = caller(*task, within_s=200)
        assert done.code == 0, (task, done.said)
        return {name.partition(".")[0] for name in json.loads(seen.read_text(encoding="utf-8"))}

    for task in (
        ("daytona.build-image",),
        ("run", "--prompt", "x"),
        ("daytona.create-sandbox",),
        ("list",),
        ("stop",),
        ("daytona.start",),
        ("stop",),
        ("daytona.archive",),
        ("cleanup", "--all", "--yes"),
    ):
        found = imported(*task)
        assert "daytona_api_client" in found, task
        assert not found & LEFT_OUT, task
