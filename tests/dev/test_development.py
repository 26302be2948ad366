"""Checks and tests that are run for those who work on nddt: how they are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.dev import development
from scripts.errors import EndedBySignalError, UnavailableError

ROOT = Path(__file__).parents[2]
SOON_S = 30
RUN = """
import os, sys
from scripts.dev import development
from scripts.errors import EndedBySignalError
try:
    development._python(*sys.argv[1:])
except KeyboardInterrupt:
    os._exit(130)
except EndedBySignalError as error:
    os._exit(error.exit_code)
"""
PROGRAMS = {
    "a-check": """
import os, pathlib, time
up = pathlib.Path(os.environ["UP"])
up.with_suffix(".new").write_text(str(os.getpid()))
up.with_suffix(".new").rename(up)
time.sleep(60)
""",
    "a-test": """
import os, pathlib, pytest, time
@pytest.fixture
def made():
    up = pathlib.Path(os.environ["UP"])
    up.with_suffix(".new").write_text(str(os.getpid()))
    up.with_suffix(".new").rename(up)
    yield
    time.sleep(0.5)
    (up.parent / "tidied").touch()
def test_slow(made):
    time.sleep(60)
""",
}


@pytest.mark.parametrize("has_uv", [False, True])
def test_tools_are_installed_by_nothing_of_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_uv: bool
) -> None:
    """No module, program or setting that lies in the directory where one types `nddt lint`."""
    here, programs, ran = tmp_path / "here", tmp_path / "programs", tmp_path / "ran"
    hostile = f"open({str(ran)!r}, 'a').write(__file__)\n"
    for name in ("pip/__init__.py", "pip/__main__.py", "sitecustomize.py", "json.py"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(hostile)
    for place, text in ((here / ".venv/bin", f"echo it >>{ran}"), (programs, 'pwd; echo "$@"')):
        place.mkdir(parents=True)
        (place / "uv").write_text(f"#!/bin/sh\n({text}) >&2\nexit 1\n")
        (place / "uv").chmod(0o755)
    (here / "pip.conf").write_text("[install]\ntarget = /none\n")
    path = [str(here / ".venv/bin"), *([str(programs)] if has_uv else []), "/usr/bin", "/bin"]
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", ":".join(path))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(development, "_TOOLS", ("no-such-tool",))
    monkeypatch.setattr(development, "ROOT", tmp_path / "root")
    (tmp_path / "root").mkdir()

    with pytest.raises(UnavailableError, match="could not be installed") as caught:
        development._install_tools()

    told = caught.value.detail
    expected = f"{tmp_path}/root\n--directory {tmp_path}/root pip" if has_uv else "requirements"
    assert expected in told
    assert not ran.exists(), ran.read_text()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("kind", PROGRAMS)
def test_what_ends_us_ends_them(tmp_path: Path, kind: str, signum: signal.Signals) -> None:
    """Before we are gone, and tests have removed what they made; Ctrl-C is for all."""
    program = tmp_path / "slow.py"
    program.write_text(PROGRAMS[kind])
    words = ("slow",) if kind == "a-check" else ("pytest", "-q", "-p", "no:cacheprovider", program)
    up = tmp_path / "up"
    environ = {**os.environ, "UP": str(up), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with subprocess.Popen(
        (sys.executable, "-c", RUN, *words),
        env=environ,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as started:
        try:
            deadline = time.monotonic() + SOON_S
            while not up.exists():
                assert time.monotonic() < deadline, "it has not come"
                time.sleep(0.02)
            child = int(up.read_text())
            if signum == signal.SIGINT:
                os.killpg(started.pid, signum)
            else:
                os.kill(started.pid, signum)
            code = started.wait(SOON_S)
            is_there = Path("/proc", str(child)).exists()
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGKILL)

    expected = 130 if signum == signal.SIGINT else EndedBySignalError(signum).exit_code
    assert (code, is_there) == (expected, False)
    assert (tmp_path / "tidied").exists() == (kind == "a-test")
