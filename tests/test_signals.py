"""Signals that end us, at moments at which Python would lose them."""

from __future__ import annotations

import os
import signal
import time
import weakref
from typing import Any

import pytest

from scripts import signals
from scripts.errors import EndedBySignalError


class Thing:
    """What a weak reference can refer to."""


@pytest.mark.parametrize(
    ("signum", "error"),
    [
        (signal.SIGINT, KeyboardInterrupt),
        (signal.SIGTERM, EndedBySignalError),
        (signal.SIGHUP, EndedBySignalError),
    ],
)
@pytest.mark.parametrize("is_lost", [True, False])
def test_a_signal_ends_us(signum: signal.Signals, error: type, *, is_lost: bool) -> None:
    """Also one that comes while an import lets go of its lock."""
    names: dict[str, Any] = {"kill": lambda: os.kill(os.getpid(), signum)}
    code = "def cb(ref):\n    kill()\n    return None\n"
    where = "<frozen importlib._bootstrap>" if is_lost else "elsewhere"
    exec(compile(code, where, "exec"), names)  # noqa: S102  (a function with that file's name)
    before = signal.signal(signum, signal.SIG_DFL)
    began = time.monotonic()

    def import_something() -> None:
        if not is_lost:
            names["cb"](None)
        thing = Thing()
        reference = weakref.ref(thing, names["cb"])
        del thing
        time.sleep(5)
        del reference

    try:
        with pytest.raises(error), signals.raised():
            import_something()
    finally:
        signal.signal(signum, before)
    assert time.monotonic() - began < 2
