"""Signals that end us, at moments at which Python would lose them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import weakref
from typing import Any

import pytest

from scripts.errors import EndedBySignalError, TimeIsUpError, TimeLimitError
from scripts.machine import process, signals


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


def kill_ourselves(signum: signal.Signals) -> None:
    """Have a signal come now."""
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_signal_waits_for_the_end_of_what_it_would_break(depth: int) -> None:
    """Is handled then, once, and not in the middle."""
    steps = []

    def work() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(depth):
                stack.enter_context(signals.held())
            kill_ourselves(signal.SIGTERM)
            steps.append("done")
        steps.append("after")

    with signals.raised():
        with pytest.raises(EndedBySignalError):
            work()
        with signals.held():
            steps.append("again")

    assert steps == ["done", "again"]


def test_a_time_limit_waits_too() -> None:
    """An alarm is a signal as any other."""
    steps = []

    def work() -> None:
        with signals.held():
            kill_ourselves(signal.SIGALRM)
            steps.append("done")
        steps.append("after")

    with pytest.raises(TimeLimitError), signals.limited(60):
        work()

    assert steps == ["done"]


def test_a_thread_holds_nothing() -> None:
    """Only the main thread handles signals."""
    inside, over = threading.Event(), threading.Event()

    def hold() -> None:
        with signals.held():
            inside.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    try:
        with signals.raised(), pytest.raises(EndedBySignalError):
            kill_ourselves(signal.SIGTERM)
    finally:
        over.set()
        thread.join()


# -- time limits ----------------------------------------------------------------------------


def test_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends what is done; what is then done about that has a while of its own."""
    monkeypatch.setattr(signals, "GRACE_S", 0.3)
    ends = []

    def sleep() -> None:
        for _ in range(3):
            began = time.monotonic()
            try:
                time.sleep(30)
            except TimeIsUpError:
                ends.append(time.monotonic() - began)
        raise TimeIsUpError

    with pytest.raises(TimeLimitError, match="the time limit of 1 s is over"), signals.limited(1):
        sleep()

    assert 0.9 < ends[0] < 5
    assert max(ends[1:]) < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_time_limit_that_is_over_while_it_must_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is heard a little later, and a child does not ignore alarms."""
    monkeypatch.setattr(signals, "TICK_S", 0.1)
    codes = []

    def sleep() -> None:
        with signals.ignored():
            time.sleep(1.3)
            codes.append(process.capture(("sh", "-c", "kill -ALRM $$")).code)
        time.sleep(30)

    with pytest.raises(TimeLimitError), signals.limited(1):
        sleep()

    assert codes == [128 + signal.SIGALRM]


def test_a_time_limit_whose_clock_stands_still() -> None:
    """Goes on with what was left of it, and with none there is none."""
    with signals.limited(1):
        time.sleep(0.3)
        with signals.unlimited():
            time.sleep(1.2)
        left_s = signal.getitimer(signal.ITIMER_REAL)[0]
    with signals.limited(0), signals.unlimited():
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    assert 0 < left_s < 0.8
