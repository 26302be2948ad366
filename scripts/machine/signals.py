"""What the signals that ask a program to end do to us, for a while."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scripts.errors import EndedBySignalError, TimeIsUpError, TimeLimitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

AGAIN_S = 0.01
"""After how long a signal comes again that came at a bad moment."""
GRACE_S = 30
"""How long what was done may take to be brought back after a time limit."""
TICK_S = 1
"""After how long an alarm comes again that nobody heard."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _handling(handler: Any, signals: Iterable[signal.Signals]) -> Iterator[None]:  # noqa: ANN401
    """Have another handler; Python lets only the main thread have one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, handler) for one in signals}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore them: what is being tidied up must not be left half done."""
    # A child inherits what is ignored, and not what is handled.
    with _handling(signal.SIG_IGN, ENDING), _handling(_hear_nothing, [signal.SIGALRM]):
        yield


def _hear_nothing(signum: int, frame: FrameType | None) -> None:
    """Let an alarm pass; it comes again."""


class _Hold:
    """How deep we are in what no signal may break, and which one came meanwhile."""

    depth = 0
    missed = 0


@contextmanager
def held() -> Iterator[None]:
    """Let a signal wait until the end of what would be broken in the middle, for a moment.

    Python handles one between any two steps, so also after a lock has been taken and before
    anybody is to let go of it. Nothing that waits for others belongs here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Hold.depth += 1
    try:
        yield
    finally:
        _Hold.depth -= 1
        if _Hold.missed and not _Hold.depth:
            missed, _Hold.missed = _Hold.missed, 0
            signal.raise_signal(missed)


@contextmanager
def limited(limit_s: int) -> Iterator[None]:
    """Let a block take so long: at the end of that TimeIsUpError ends what it does.

    What it does about that, such as bringing work back, has `GRACE_S` each.

    Args:
        limit_s: Seconds; 0 for no limit.

    Raises:
        TimeLimitError: It was over.
    """
    if not limit_s or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handling(_end_in_time, [signal.SIGALRM]):
        signal.setitimer(signal.ITIMER_REAL, limit_s, TICK_S)
        try:
            yield
        except TimeIsUpError:
            raise TimeLimitError(
                f"the time limit of {limit_s} s is over", "raise --timeout"
            ) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def unlimited() -> Iterator[None]:
    """Stop the clock of a time limit."""
    left_s, again_s = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left_s, again_s)


def _end_in_time(signum: int, frame: FrameType | None) -> None:
    if _Hold.depth:
        _Hold.missed = signum
    elif not _loses_exceptions(frame):
        signal.setitimer(signal.ITIMER_REAL, GRACE_S, TICK_S)
        raise TimeIsUpError


@contextmanager
def raised() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise EndedBySignalError, as Ctrl-C raises its own, if they end us."""
    usual = {signal.SIG_DFL, signal.default_int_handler}
    with _handling(_end, [one for one in ENDING if signal.getsignal(one) in usual]):
        yield


def _end(signum: int, frame: FrameType | None) -> None:
    if _Hold.depth:
        _Hold.missed = signum
    elif _loses_exceptions(frame):
        threading.Timer(AGAIN_S, os.kill, (os.getpid(), signum)).start()
    elif signum == signal.SIGINT:
        raise KeyboardInterrupt
    else:
        raise EndedBySignalError(signum)


def _loses_exceptions(frame: FrameType | None) -> bool:
    """Tell whether this is the callback of a weak reference that each import has.

    Python only prints what is raised there; and it is where a signal that comes while a module
    is read often is handled.
    """
    while frame is not None:
        code = frame.f_code
        if (code.co_filename, code.co_name) == ("<frozen importlib._bootstrap>", "cb"):
            return True
        frame = frame.f_back
    return False
