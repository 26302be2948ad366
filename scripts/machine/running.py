"""A program that runs: how it is started, waited for and ended.

Every program is started here, as argv tuples, nothing through a shell string, and is logged,
quoted, at debug level (`--verbose` shows it), so arguments are never the place for a secret.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.errors import UnavailableError
from scripts.machine import search_path, signals
from scripts.naming import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

log = logging.getLogger("nddt")

PATIENCE_S = 600
"""How long a program may take that must not be left half done."""
END_S = 10
"""How long a program may take to end after what it was started for has."""
ELSEWHERE = Path("/")
"""Where programs run: many follow what lies in their directory, and ours is a project's."""
_KILLED_S = 5.0
"""How long one that was killed may take to be gone."""

Started = subprocess.Popen[bytes]
"""A program that may still run."""


@contextlib.contextmanager
def installed(*programs: str) -> Iterator[None]:
    """Say which of these programs is missing, and what to do about it."""
    try:
        yield
    except FileNotFoundError as error:
        name = error.filename
        if name not in programs:
            raise
        problem, next_step = f"{name} is not installed", f"run: {said('setup')}"
        if found := shutil.which(name, path=os.pathsep.join(search_path.passed_over)):
            problem = f"{found} is in a directory that a sandbox may change, so it is not run"
            next_step = f"install {name} elsewhere, or run: {said('setup')}"
        raise UnavailableError(problem, next_step) from error


class Running:
    """Have a program run in a block: if something ends that, it is ended, too, and waited for.

    There is no moment in which a signal leaves a program that nobody has; a generator would
    have one, between its `yield` and the block.

    Args:
        argv: The program and its arguments.
        cwd: Where it runs.
        shown: What `--verbose` shows in place of the arguments.
        end: Ends it.
        options: As `subprocess.Popen` takes them.

    Raises:
        UnavailableError: The program is not installed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path = ELSEWHERE,
        shown: Sequence[str] | None = None,
        end: Callable[[Started], object] | None = None,
        **options: Any,  # noqa: ANN401  (as Popen's)
    ) -> None:
        log.debug("+ %s", shlex.join(shown or argv))
        self._argv, self._cwd, self._options = argv, cwd, options
        self._end = end or kill
        self._started: Started | None = None

    def __enter__(self) -> Started:
        try:
            with installed(self._argv[0]), signals.held():
                self._started = subprocess.Popen(self._argv, cwd=self._cwd, **self._options)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self._started

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if self._started is not None:
            try:
                if kind:
                    self._end(self._started)
            finally:
                close_pipes(self._started)


def start_program(argv: Sequence[str], **options: Any) -> Started:  # noqa: ANN401  (as those of Running)
    """Start a program and go on.

    Raises:
        UnavailableError: The program is not installed.
    """
    return Running(argv, **options).__enter__()


def exit_code(returncode: int) -> int:
    """Translate Popen's negative signal numbers to a shell's 128 + n."""
    return 128 - returncode if returncode < 0 else returncode


def wait(started: Started, timeout_s: float | None = None) -> int | None:
    """Wait for a started program.

    Returns:
        Its exit code, 128 + n for signal n; None if it still runs after `timeout_s` seconds.
    """
    try:
        return exit_code(started.wait(timeout_s))
    except subprocess.TimeoutExpired:
        return None


def kill(started: Started) -> None:
    """Kill a program."""
    with contextlib.suppress(PermissionError):  # it is root's
        started.kill()
    wait(started, _KILLED_S)


def ask_to_end(started: Started) -> None:
    """Ask a program to end, and kill it if that takes too long."""
    started.terminate()
    if wait(started, END_S) is None:
        kill(started)


def end_all(started: Started) -> None:
    """Ask a program that was started with pipes to end, and all that it has started itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(started.pid, signal.SIGTERM)


def let_finish(started: Started) -> None:
    """Let a program that was started with pipes come to its end; what it prints is lost."""
    started.stdin = None  # else it would be closed once more
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.communicate(timeout=PATIENCE_S)


def finish(started: Started, within_s: float) -> None:
    """Wait for a program that has pipes, end it if that takes too long, and close them."""
    if wait(started, within_s) is None:
        kill(started)
    close_pipes(started)


def close_pipes(started: Started) -> None:
    """Close our ends of a program's pipes."""
    for pipe in (started.stdin, started.stdout, started.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()
