"""The copy of a directory in a sandbox, asked through a connection."""

from __future__ import annotations

import json
import os
import select
import shlex
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from scripts.errors import DataError, TransportLostError
from scripts.machine import pipes, process, running
from scripts.naming import said
from scripts.sandbox_places import WORKSPACE
from scripts.transport import inside
from scripts.workspace.copies import answering
from scripts.workspace.copies.answers import ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scripts.transport.line import Line


ANSWER_S = 600
"""How long an answer may take; a very large directory takes a minute."""
IDLE_S = 100
"""How long nothing may happen meanwhile."""


class Remote:
    """The copy in a sandbox: `answering.py` runs there for as long as its block lasts.

    What comes from there is bounded in time and size: each line, and by `Copies` their number.

    Args:
        line: The way there.
        environ: Of this process.
    """

    def __init__(self, line: Line, environ: Mapping[str, str]) -> None:
        self._line, self._environ = line, environ
        text = inside.bundle(answering, answering.SENT)
        command = inside.python("answering", len(text), WORKSPACE)
        argv = line.connection.session_argv("-T", "nddt", command)
        self._process = process.spawn(argv, pipes=True)
        self._in = pipes.piped(self._process.stdin).fileno()
        self._out = pipes.piped(self._process.stdout).fileno()
        os.set_blocking(self._in, False)  # it may not read what we write
        self._came = bytearray()
        self._deadline = time.monotonic() + ANSWER_S
        self.send(text)

    def ask(self, wish: Mapping[str, Any]) -> None:
        """Send a wish."""
        self.patient(ANSWER_S)
        self.send(json.dumps(wish, separators=(",", ":")).encode() + b"\n")

    def patient(self, seconds: float) -> None:
        """Say how long the answer may take as a whole."""
        self._deadline = time.monotonic() + seconds

    def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            TransportLostError: They are not taken.
        """
        left = memoryview(data)
        while left:
            self._wait(self._in, select.POLLOUT)
            try:
                left = left[os.write(self._in, left[:65536]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self._fail()

    def line(self, limit: int = ROW_BYTES) -> bytes:
        """Read a line, without its end.

        Raises:
            ValueError: It is too long.
            TransportLostError: The connection broke.
            DataError: The sandbox cannot do it.
        """
        looked = 0
        while (end := self._came.find(b"\n", looked)) < 0:
            looked = len(self._came)
            if looked > limit:
                raise ValueError("a line has no end")
            self._more()
        found = bytes(self._came[:end])
        del self._came[: end + 1]
        return found

    def read(self, size: int) -> bytes:
        """Read so many bytes; the errors are those of `line`."""
        while len(self._came) < size:
            self._more()
        found = bytes(self._came[:size])
        del self._came[:size]
        return found

    def _more(self) -> None:
        self._wait(self._out, select.POLLIN)
        data = os.read(self._out, 65536)
        if not data:
            self._fail()
        self._came += data

    def _wait(self, descriptor: int, event: int) -> None:
        left = min(IDLE_S, self._deadline - time.monotonic())
        poll = select.poll()
        poll.register(descriptor, event)
        if left <= 0 or not poll.poll(1000 * left):
            self._process.kill()
            raise TransportLostError("the copy in the sandbox does not answer in time")

    def _fail(self) -> NoReturn:
        if running.wait(self._process, 1) is None:
            self._process.kill()
            self._process.wait()
        errors = pipes.piped(self._process.stderr).fileno()
        os.set_blocking(errors, False)
        wrong = ""
        with suppress(BlockingIOError):  # others may have it, and say nothing
            wrong = os.read(errors, 65536).decode(errors="replace").strip()
        if "Traceback" in wrong:
            last = wrong.splitlines()[-1].removeprefix("scripts.errors.DataError: nddt: ")
            raise DataError(
                f"the copy in the sandbox cannot be read: {last}",
                f"look at it with: {said(f'shell --name {self._line.sandbox}')}",
            )
        raise TransportLostError("the connection to the sandbox broke", detail=wrong)

    def rsync(self, words: Sequence[str], *, source: str, target: str) -> tuple[str, ...]:
        """Build the command of rsync over the same connection.

        What the user has set for rsync by hand is none of it: neither variables nor aliases.
        """
        home = self._environ.get("HOME", "/")
        shell = shlex.join(("env", f"HOME={home}", *self._line.connection.session_argv()))
        paths = (f"nddt:{WORKSPACE}/{p[1:]}" if p.startswith(":") else p for p in (source, target))
        theirs = (f"-u{name}" for name in self._environ if name.startswith("RSYNC_"))
        return ("env", *theirs, "HOME=/nonexistent", *words, "-e", shell, *paths)

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        if running.wait(self._process, 5) is None:
            self._process.kill()
            self._process.wait()
