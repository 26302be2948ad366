"""What the signals that ask a program to end do to us, for a while."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scripts.errors import EndedBySignalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

AGAIN_S = 0.01
"""After how long a signal comes again that came at a bad moment."""
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
    with _handling(signal.SIG_IGN, ENDING):
        yield


@contextmanager
def raised() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise EndedBySignalError, as Ctrl-C raises its own, if they end us."""
    usual = {signal.SIG_DFL, signal.default_int_handler}
    with _handling(_end, [one for one in ENDING if signal.getsignal(one) in usual]):
        yield


def _end(signum: int, frame: FrameType | None) -> None:
    if _loses_exceptions(frame):
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
