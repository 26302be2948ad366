"""The quick start leaves out what nobody needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def in_python(code: str) -> str:
    """Run code in a Python of its own, in which only the quick start came before."""
    before = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from scripts import quick_start\n"
        "try:\n    quick_start.main(['--version'])\nexcept SystemExit:\n    pass\n"
    )
    argv = (sys.executable, "-I", "-c", before + code, str(ROOT))
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_the_costly_modules_are_left_out() -> None:
    """If a newer invoke needs more of them, this test or the launcher's will say so."""
    modules = ("unittest.mock", "importlib.metadata", "asyncio", "email")

    said = in_python(f"print(*(name for name in {modules} if name in sys.modules))")

    assert said.splitlines()[1:] == [""]


def test_who_wants_the_real_modules_gets_them() -> None:
    """The stand-ins are gone when the tasks are loaded."""
    said = in_python(
        "import importlib.metadata, unittest.mock\n"
        "print(importlib.metadata.version('invoke'), unittest.mock.Mock().any())"
    )

    assert said.splitlines()[1].startswith("3.")
    assert "<Mock" in said


@pytest.mark.parametrize(("signum", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_while_a_class_is_made(signum: str, code: int) -> None:
    """Ends us as at any other moment, though Python may raise something else for it."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from scripts import quick_start
from scripts.machine import signals
class Slow:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.{signum})
def main(*_):
    with signals.raised():
        class Made:
            slow = Slow()
quick_start._main = main
quick_start.main([])
"""
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, check=False)

    assert done.returncode == code, done.stderr
