"""What goes through the pipes of a program that runs: bounded, in bytes and in time."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING

from scripts.machine.running import exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scripts.machine.running import Started

ERRORS = 1 << 18
"""Bytes of stderr that are kept: the last ones, where the reason stands."""
LINE = 1 << 16
"""Bytes after which a line counts as ended."""
_CHUNK = 1 << 16
_QUIET_S = 0.2
"""How long a pipe is silent that has nothing more of an ended program."""
_LAST_WORDS_S = 5.0
_LAST_WORDS = 1 << 20
"""Bytes that a pipe holds at most: what comes later is not the program's."""


class KilledError(Exception):
    """A program had to be killed; `code` is what its result says."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def piped(stream: IO[bytes] | None) -> IO[bytes]:
    """Return a stream of a program that was started with pipes."""
    if stream is None:
        raise ValueError("started without pipes")
    return stream


def attend(
    started: Started,
    given: bytes,
    takers: Mapping[IO[bytes] | None, Callable[[bytes], object]],
    timeout_s: float | None = None,
) -> int:
    """Feed and read a program until it has ended, whatever else holds its pipes then.

    Args:
        started: The program.
        given: What it reads.
        takers: What is called with the pieces of each of its outputs.
        timeout_s: How long it may take.

    Returns:
        Its exit code, 128 + n for signal n.

    Raises:
        KilledError: It took too long, or a taker had enough.
    """
    deadline = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    try:
        with selectors.DefaultSelector() as selector:
            for pipe, taker in takers.items():
                selector.register(piped(pipe), selectors.EVENT_READ, taker)
            if started.stdin:
                os.set_blocking(started.stdin.fileno(), False)
                selector.register(started.stdin, selectors.EVENT_WRITE)
            _exchange(started, selector, memoryview(given), deadline)
        left_s = None if timeout_s is None else max(0, deadline - time.monotonic())
        return exit_code(started.wait(left_s))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise KilledError(124, f"no answer in {timeout_s} s") from None


def _exchange(
    started: Started,
    selector: selectors.BaseSelector,
    given: memoryview,
    deadline: float,
) -> None:
    ended_at, last_words = float("inf"), 0
    while selector.get_map():
        now = time.monotonic()
        if now >= deadline:
            raise TimeoutError
        events = selector.select(min(_QUIET_S, deadline - now))
        if ended_at == float("inf") and started.poll() is not None:
            ended_at = now
        elif now > ended_at and (
            not events or last_words > _LAST_WORDS or now - ended_at > _LAST_WORDS_S
        ):
            return  # what still holds its pipes is not the program
        for key, _ in events:
            if key.events & selectors.EVENT_WRITE:
                given = _fed(key.fd, given)
                done = not given
            else:
                block = os.read(key.fd, _CHUNK)
                last_words += len(block) if now > ended_at else 0
                done = not block
                if block:
                    key.data(block)
            if done:
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]


def _fed(pipe: int, given: memoryview) -> memoryview:
    """Write what a pipe takes; what is left is empty, too, if nobody reads any more."""
    try:
        return given[os.write(pipe, given[:_CHUNK]) :]
    except BlockingIOError:
        return given
    except BrokenPipeError:
        return given[:0]


class Tail:
    """The last bytes of a stream."""

    def __init__(self, most: int = ERRORS) -> None:
        self._most = most
        self._kept = bytearray()

    def add(self, block: bytes) -> None:
        """Take more."""
        self._kept += block
        if len(self._kept) > 2 * self._most:
            del self._kept[: -self._most]

    @property
    def text(self) -> str:
        """What there is of it."""
        return self._kept[-self._most :].decode(errors="replace")


class LineByLine:
    """Hands over each line of a stream, without its line end; a long one comes in pieces."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = bytearray()

    def add(self, block: bytes) -> None:
        """Take more."""
        self._rest += block
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._rest) > LINE:
            self.end()

    def end(self) -> None:
        """Hand over what is left."""
        if self._rest:
            self._say(self._rest)
        self._rest = bytearray()

    def _say(self, line: bytearray) -> None:
        self._on_line(line.decode(errors="replace").rstrip("\r\n"))


class Lines:
    """The lines that a program prints, one after the other, when they are asked for.

    Args:
        pipe: Its stdout, which nobody else reads.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._read = bytearray()

    def next(self, most: int, timeout_s: float | None) -> bytes:
        """Wait for a line.

        Args:
            most: Bytes that it may have.
            timeout_s: How long it may take; None for ever.

        Returns:
            The line with its end; without that if there is no more of it, it takes too long,
            or it is too long.
        """
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        searched = 0
        while (end := self._read.find(b"\n", searched) + 1) == 0:
            searched = len(self._read)
            left_s = None if deadline is None else max(0, deadline - time.monotonic())
            if searched > most or not select.select([self._pipe], [], [], left_s)[0]:
                return bytes(self._read[:most])
            block = os.read(self._pipe.fileno(), _CHUNK)
            if not block:
                return bytes(self._read[:most])
            self._read += block
        line = bytes(self._read[:end])
        if end > most:
            return line[:most].rstrip(b"\n")
        del self._read[:end]
        return line


class Overheard:
    """The last that a program in the background prints on stderr.

    Nobody else reads that pipe, and a full one would stop the program.

    Args:
        started: The program, which has pipes.
    """

    def __init__(self, started: Started) -> None:
        self._pipe = piped(started.stderr)
        self._tail = Tail()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # somebody has closed it
            while block := os.read(self._pipe.fileno(), _CHUNK):
                self._tail.add(block)

    @property
    def text(self) -> str:
        """What there is of it."""
        return self._tail.text.strip()

    def wait_for_end(self, within_s: float) -> bool:
        """Wait for its end, when nothing holds the pipe any more; False if it has not come."""
        self._reader.join(within_s)
        return not self._reader.is_alive()


def write_stdin(pipe: IO[bytes], data: bytes, silent_s: float | None) -> None:
    """Write to a program's stdin.

    Args:
        pipe: The stdin.
        data: What it is to read.
        silent_s: How long it may read nothing; None for ever.

    Raises:
        TimeoutError: It has read nothing for so long.
        BrokenPipeError: It does not read any more.
    """
    left, descriptor = memoryview(data), pipe.fileno()
    os.set_blocking(descriptor, False)
    try:
        while left:
            if not select.select([], [descriptor], [], silent_s)[1]:
                raise TimeoutError
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(descriptor, left[:_CHUNK]) :]
    finally:
        os.set_blocking(descriptor, True)


def takes_more(*descriptors: int) -> bool:
    """Tell whether whoever reads these has read what was written, or reads no more."""
    poll = select.poll()
    for one in descriptors:
        poll.register(one, select.POLLOUT)
    return len(poll.poll(0)) == len(descriptors)
