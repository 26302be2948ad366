"""What those who work on nddt itself run: checks and tests."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

from scripts import commands, console, engine, process
from scripts.commands import Common
from scripts.errors import UnavailableError

log = logging.getLogger("nddt")

ROOT = Path(__file__).parent.parent
NEEDED_BY_TESTS = ("debootstrap", "git", "gpg", "jq", "rsync", "tmux")
_TOOLS = ("ruff", "mypy", "pytest", "pytest_timeout", "xdist", "hypothesis", "asyncssh", "aiohttp")
# Each process takes tests that follow each other, for they share what is costly to make.
_AT_ONCE = ("--numprocesses=auto", "--dist=worksteal")


def _install_tools() -> None:
    """Install the development requirements, unless all of them are there."""
    if all(importlib.util.find_spec(name) for name in _TOOLS):
        return
    log.info("installing the development tools")
    wanted = ("--require-hashes", "--requirement", str(ROOT / "requirements-dev.lock"))
    # What uv has made has no pip.
    uv = process.find("uv")
    installer = (uv, "pip") if uv else (sys.executable, "-m", "pip", "--disable-pip-version-check")
    python = ("--python", sys.executable) if uv else ()
    done = process.capture((*installer, "install", *python, *wanted))
    if not done.ok:
        raise UnavailableError(
            "the development tools could not be installed",
            "check the network, then try again",
            detail=done.stderr,
        )


def _python(*words: str) -> int:
    """Run a Python module in the repository, with our terminal."""
    code = process.wait(process.spawn((sys.executable, "-m", *words), cwd=ROOT))
    return 1 if code is None else code


def bench(*, runs: str, as_json: bool, yes: bool) -> None:
    """Measure, with the tools that this needs; see `measurements.bench`."""
    _install_tools()
    from scripts import measurements  # noqa: PLC0415

    measurements.bench(runs=runs, as_json=as_json, yes=yes)


def daytona_double(*, latency: str, minute: str) -> int:
    """Run a double of Daytona's platform until Ctrl-C.

    Args:
        latency: Milliseconds before each answer.
        minute: Seconds that a minute of the platform's lasts.
    """
    _install_tools()
    return _python("tests.daytona_double", "--latency", latency, "--minute", minute)


def lint() -> int:
    """Check style, types, import rules and the tasks; give the first failing exit code."""
    console.set_up_logging(verbose=True)
    _install_tools()
    return (
        _python("ruff", "check", ".")
        or _python("ruff", "format", "--check", ".")
        or _python("mypy")
        or _python("pytest", "-q", "tests/test_tasks.py")
    )


def test(*, only: str | None, yes: bool) -> int:
    """Run the checks and all tests; what the tests need is installed after consent.

    Args:
        only: pytest's -k expression; then the checks are left out.
        yes: The consent.
    """
    _install_tools()
    common = Common(provider="docker", yes=yes)
    environ = common.work().settings.process_environment
    engine.ensure_installed(NEEDED_BY_TESTS, yes=yes, environ=environ)
    commands.build_image(common)
    if only:
        return _python("pytest", "-k", only)
    return lint() or _python("pytest", *_AT_ONCE)
