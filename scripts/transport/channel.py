"""One SSH session with a relay at its other end: frames each way, none of which waits for us."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from scripts.errors import DataError
from scripts.machine import pipes, process, running, signals
from scripts.naming import said
from scripts.transport import frames

if TYPE_CHECKING:
    from collections.abc import Iterator


END_S = frames.ENDING_S + 2
"""How long we stay to see a program end that we have asked to."""
_FAREWELL = (
    "exec 3<&0 4>&1 </dev/null >/dev/null; "
    r"(exec <&3 3<&- 4>&-; cat; printf '\006\000\000\000\000') | "
    '"$@" >&4 3<&- 4>&- & exec 3<&- 4>&-; wait $!'
)
FAREWELL = ("sh", "-c", _FAREWELL, "nddt-farewell")
"""Runs a command, and says DIED to it when we are gone, whatever has ended us.

Only so can the sandbox tell a client that has been killed from a connection that has broken.
"""


class Channel:
    """One SSH session with a relay at its other end: frames each way.

    A thread sends. Whoever reads must never wait for that: what has no ear for us any more may
    have words left, and ends only when they have been read.

    Args:
        argv: The command of the session.
    """

    def __init__(self, argv: tuple[str, ...]) -> None:
        self._process = process.spawn((*FAREWELL, *argv), pipes=True, shown=argv)
        self._waiting: deque[bytes] = deque()
        self._is_closing = False
        self._changed = threading.Condition()
        self._frames = frames.Frames(most=frames.CHUNK)
        self._received: deque[tuple[int, bytes]] = deque()
        self._errors = pipes.Overheard(self._process)
        self._sender = threading.Thread(target=self._send_on, daemon=True)
        self._sender.start()

    @property
    def errors(self) -> str:
        """The last lines that ssh has printed."""
        return self._errors.text

    def send(self, frame: bytes, *, urgent: bool = False) -> None:
        """Send, without waiting; that the other end is gone shows in what is received.

        Args:
            frame: What to send.
            urgent: In place of all that has not been sent yet, which nobody needs any more.
        """
        with signals.held(), self._changed:
            if urgent:
                self._waiting.clear()
            self._waiting.append(frame)
            self._changed.notify_all()

    def _send_on(self) -> None:
        pipe = pipes.piped(self._process.stdin)
        with contextlib.suppress(OSError):  # nobody reads it any more
            while frame := self._next():
                write_all(pipe.fileno(), frame)
        with contextlib.suppress(OSError):
            pipe.close()

    def _next(self) -> bytes:
        """Wait for something to send; nothing means that there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            return self._waiting.popleft() if self._waiting else b""

    def end_unless_sent(self, frame: bytes) -> None:
        """End the session if it stands still: this has not been sent."""
        with self._changed:
            if frame in self._waiting:
                running.end_all(self._process)

    def received(self, deadline: float) -> Iterator[tuple[int, bytes]]:
        """Return what arrives until the other end is gone.

        Raises:
            TimeoutError: The deadline, a time of time.monotonic, is over.
            DataError: It is not what a relay sends.
        """
        stdout = pipes.piped(self._process.stdout).fileno()
        while True:
            while self._received:  # also what an interrupted call has left
                yield self._received.popleft()
            left_s = None if deadline == float("inf") else max(0, deadline - time.monotonic())
            if left_s == 0 or not select.select([stdout], [], [], left_s)[0]:
                raise TimeoutError
            with signals.held(), understood():  # a part of a frame would be lost
                data = os.read(stdout, frames.CHUNK)
                self._received += self._frames.feed(data)
            if not data:
                return

    def close(self) -> int | None:
        """Let go, and give the exit code of ssh; None if it had to be ended."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        code = running.wait(self._process, END_S)
        if code is None:
            running.end_all(self._process)
        self._sender.join(END_S)
        self._errors.wait_for_end(1)  # the pipe's command may keep it open
        running.finish(self._process, END_S)
        return code


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Take what makes no sense for what it is: something else than our relay speaks.

    Raises:
        DataError: It does not.
    """
    try:
        yield
    except (ValueError, struct.error):
        raise DataError(
            "the sandbox sends what no session of ours does",
            f"end what runs in it, or make it anew: {said('cleanup')}",
        ) from None


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
