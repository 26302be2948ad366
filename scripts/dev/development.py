"""What those who work on nddt itself run: checks and tests."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.commands import sandboxes
from scripts.commands.common import Common
from scripts.configuration import reading
from scripts.dev import settings_page
from scripts.dev.rooms import House
from scripts.errors import UnavailableError, UsageError
from scripts.machine import console, engine, process, running, search_path, signals
from scripts.naming import said

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("nddt")

ROOT = Path(__file__).parents[2]
NEEDED_BY_TESTS = ("gpg", "git", "jq", "mmdebstrap", "rsync", "tmux")
TIDY_S = 60
"""How long tests that are ended may take to remove what they have made."""
_TOOLS = ("ruff", "mypy", "pytest", "pytest_timeout", "xdist", "hypothesis", "asyncssh", "aiohttp")
# They wait more than they compute. Each process takes tests that follow each other, for they
# share what is costly to make.
_AT_ONCE = (f"--numprocesses={2 * (os.cpu_count() or 1)}", "--dist=worksteal")


def _install_tools() -> None:
    """Install the development requirements, unless all of them are there."""
    if all(importlib.util.find_spec(name) for name in _TOOLS):
        return
    reading.environ_here()
    log.info("installing the development tools")
    wanted = ("--require-hashes", "--requirement", str(ROOT / "requirements-dev.lock"))
    # What uv has made has no pip.
    uv = search_path.find_program("uv")
    # In our directory, not the caller's, whose modules and settings would count.
    pip = (sys.executable, "-I", "-m", "pip", "--disable-pip-version-check")
    installer = (uv, "--directory", str(ROOT), "pip") if uv else pip
    python = ("--python", sys.executable) if uv else ()
    words = (*installer, "install", *python, *wanted)
    done = process.capture(words, timeout_s=None, cwd=ROOT)  # as long as the network takes
    if not done.ok:
        raise UnavailableError(
            "the development tools could not be installed",
            "check the network, then try again",
            detail=done.stderr,
        )


def _python(*words: str, env: Mapping[str, str] | None = None) -> int:
    """Run a Python module in the repository, with our terminal; what ends us ends it, too."""
    with signals.raised():
        started = process.spawn((sys.executable, "-m", *words), cwd=ROOT, env=env)
        try:
            return running.exit_code(started.wait())
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):  # that one the terminal gives to both
                # pytest tidies up after this one alone; others are slow to hear it.
                started.send_signal(signal.SIGINT if words[0] == "pytest" else signal.SIGTERM)
            with signals.ignored():
                running.finish(started, TIDY_S)
            raise


def bench(*, runs: str, as_json: bool, yes: bool) -> None:
    """Measure, with the tools that this needs; see `measurements.bench`."""
    _install_tools()
    from scripts.dev import measurements  # noqa: PLC0415

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
        or _rooms_in_order()
        or _documents_are_true()
        or _python("pytest", "-q", "tests/test_tasks.py", "tests/test_documents.py")
    )


def write_documents() -> None:
    """Write what documents have from the code."""
    settings_page.write(ROOT)


def _documents_are_true() -> int:
    """Look whether documents have what the code would write."""
    if settings_page.is_true(ROOT):
        return 0
    log.error("%s is not as the code has it — %s", settings_page.PAGE, said("lint --docs"))
    return 1


def _rooms_in_order() -> int:
    """Look at who imports whom, and at how long modules and functions are."""
    house = House(ROOT)
    faults = [*house.faults(), *house.too_long()]
    for one in faults:
        log.error("%s", one)
    return 1 if faults else 0


def show_rooms() -> None:
    """Print what is in each room and what it imports, the floors, and the longest modules."""
    here = House(ROOT)
    lengths = sorted(here.lengths().items(), key=lambda one: -one[1])
    longest = ", ".join(f"{name} {size}" for name, size in lengths[:5])
    print(console.table(here.table()))  # noqa: T201  (what was asked for)
    print(f"{max(here.floors().values()) + 1} floors; longest: {longest}")  # noqa: T201


def hostile(*, seed: str, minutes: str, yes: bool) -> int:
    """Work with a directory that hostile sandboxes change; nothing outside may be touched.

    Args:
        seed: A number: what they do follows from it.
        minutes: How long, for each provider.
        yes: Consent to install what is needed.

    Raises:
        UsageError: One of them is no number.
    """
    if not (seed.isdecimal() and re.fullmatch(r"\d+(\.\d+)?", minutes)):
        raise UsageError("seed and minutes are numbers", "for example: --seed 12 --minutes 0.5")
    _install_tools()
    common = Common(provider="docker", yes=yes)
    environ = common.work().settings.process_environment
    engine.ensure_installed(NEEDED_BY_TESTS, yes=yes, environ=environ)
    limit = f"--timeout={60 * float(minutes) + 600}"
    return _python(
        *("pytest", "-q", "-s", limit, "tests/integration/test_hostile_tree.py"),
        env={**environ, "HOSTILE_SEED": seed, "HOSTILE_MINUTES": minutes},
    )


def journeys(*, yes: bool) -> int:
    """Draw in CONTRIBUTING how a run goes through the rooms, from what one was seen to do.

    Args:
        yes: Consent to install what is needed.
    """
    _install_tools()
    environ = Common(provider="docker", yes=yes).work().settings.process_environment
    engine.ensure_installed(NEEDED_BY_TESTS, yes=yes, environ=environ)
    words = ("pytest", "-q", "tests/integration/test_journeys.py")
    return _python(*words, env={**environ, "JOURNEYS": "write"})


def test(*, only: str | None, yes: bool, exhaustive: bool) -> int:
    """Run the checks and the tests; what the tests need is installed after consent.

    Args:
        only: pytest's -k expression; then the checks are left out.
        yes: The consent.
        exhaustive: Also tests that are one more example of a promise.
    """
    _install_tools()
    common = Common(provider="docker", yes=yes)
    environ = common.work().settings.process_environment
    engine.ensure_installed(NEEDED_BY_TESTS, yes=yes, environ=environ)
    sandboxes.build_image(common)
    which = () if exhaustive else ("-m", "not exhaustive")
    # Else each process that is started would compile the tests, and what they try, anew.
    env = {name: value for name, value in environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if only:
        return _python("pytest", *which, "-k", only, env=env)
    return lint() or _python("pytest", *which, *_AT_ONCE, env=env)
