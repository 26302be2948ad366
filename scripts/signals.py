"""What the signals that ask a program to end do to us, for a while."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scripts.errors import EndedBySignalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    ours = [one for one in ENDING if signal.getsignal(one) is signal.SIG_DFL]
    with _handling(_end, ours):
        yield


def _end(signum: int, _frame: object) -> None:
    raise EndedBySignalError(signum)
