"""A session that outlives its connection: the client's side of `relay.py`.

The program runs on in the sandbox while the connection is gone. A new connection goes on with
its output, and with its stdin, at the very byte where the old one broke.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import IO, TYPE_CHECKING

from scripts.errors import DataError, PortTakenError, TransportLostError
from scripts.machine import signals
from scripts.transport import frames, inside, relay, ssh
from scripts.transport.channel import END_S, Channel, understood, write_all
from scripts.transport.forwards import Forward, check_ports, without_open_ports
from scripts.transport.line import FIRST_PATIENCE_S, PATIENCE_S, DeadLineError

if TYPE_CHECKING:
    from scripts.transport.forwards import Forward
    from scripts.transport.line import Line

ACKNOWLEDGED = frames.WINDOW // 4
"""Bytes of output after which the sandbox hears that they have arrived."""


class Stdin:
    """What the program is to read: taken from a file of ours, kept until it has arrived.

    Args:
        source: The file; None for our own stdin.
    """

    def __init__(self, source: IO[bytes] | None) -> None:
        self._source = source.fileno() if source else 0
        self._kept = bytearray()
        self._begin = 0  # how many bytes the program is known to have
        self._sent = 0
        self._ended = False
        self._said_end = False
        self._channel: Channel | None = None
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None

    def resume(self, channel: Channel, count: int) -> None:
        """Send on a new channel what has not arrived yet, and from now on what comes."""
        self._check(count)
        with signals.held(), self._changed:
            self._channel, self._said_end, self._sent = channel, False, count
        self.arrived(count)
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    def pause(self) -> None:
        """Send nothing more: the connection is gone."""
        with signals.held(), self._changed:
            self._channel = None

    def _check(self, count: int) -> None:
        if not self._begin <= count <= self._begin + len(self._kept):
            raise ValueError(count)

    def arrived(self, count: int) -> None:
        """Forget what the program has; `count` is in all.

        Raises:
            ValueError: So much was never sent, or it had more before.
        """
        self._check(count)
        with signals.held(), self._changed:
            del self._kept[: max(0, count - self._begin)]
            self._begin = max(self._begin, count)
            self._changed.notify_all()
            self._send()

    def _read(self) -> None:
        while not self._ended:
            try:
                data = os.read(self._source, frames.CHUNK)
            except OSError:  # it is closed
                data = b""
            with self._changed:
                self._kept += data
                self._ended = not data
                self._send()
                self._changed.wait_for(lambda: len(self._kept) < frames.STDIN_WINDOW)

    def _send(self) -> None:
        if self._channel is None:
            return
        while data := bytes(self._kept[self._sent - self._begin :][: frames.CHUNK]):
            self._channel.send(frames.frame(frames.STDIN, data))
            self._sent += len(data)
        if self._ended and not self._said_end:
            self._channel.send(frames.frame(frames.STDIN_END))
            self._said_end = True


class Session:
    """One program in the sandbox.

    Args:
        name: The session's id.
        script: See `inside.script`.
        stdin: What the program reads; None for our own stdin.
    """

    def __init__(self, name: str, script: str, stdin: IO[bytes] | None) -> None:
        self._name = name
        self._script = script.encode("utf-8", "surrogateescape")
        self._stdin = Stdin(stdin)
        self._got = [0, 0]
        self._acknowledged = 0
        self._began = False
        self._code: int | None = None

    def attend(self, line: Line, forwards: tuple[Forward, ...]) -> int:
        """Run the program to its end, over as many connections as it takes.

        Args:
            line: The way there.
            forwards: Ports that it needs.

        Returns:
            Its exit code.

        Raises:
            TransportLostError: It cannot be reached any more.
            PortTakenError: A port of this machine is somebody else's; nothing has been run.
            DataError: It is no relay of ours that answers.
        """
        try:
            self._follow(line, forwards)
            if not self._began:
                check_ports(line.errors, forwards)
            while self._code is None:
                patience_s = PATIENCE_S if self._began else FIRST_PATIENCE_S
                for _ in line.again(patience_s):
                    if self._follow(line, forwards):
                        break
                    try:
                        check_ports(line.errors, forwards)
                    except PortTakenError:
                        if not self._began:
                            raise
                        forwards = without_open_ports(forwards)
        finally:
            # A connection that outlives us would keep them.
            with line.connection.cancelling(forwards if line.is_kept else ()):
                pass
        return self._code

    def _follow(self, line: Line, forwards: tuple[Forward, ...]) -> bool:
        """Attend to the program over one connection, and tell whether that has said hello."""
        source = inside.bundle(relay, relay.SENT, packed=False)
        words = [word for forward in forwards for word in forward.arguments]
        words += ["-T", "nddt", inside.python("relay", len(source), self._name)]
        make = line.connection.session_argv if line.is_kept else line.connection.direct_argv
        channel = Channel(make(*words))
        try:
            opening = frames.OPENING.pack(*self._got, PATIENCE_S, self._began) + self._script
            channel.send(source + frames.frame(frames.OPEN, opening))
            greeted = self._await_greeting(channel)
            for kind, payload in channel.received(float("inf")) if greeted else ():
                self._take(channel, kind, payload)
                if self._code is not None:
                    break
        except BaseException:
            with signals.ignored():
                self._end(channel)
            raise
        finally:
            self._stdin.pause()
            with signals.ignored():
                code = channel.close()
        line.errors = channel.errors
        if not self._began and code not in {255, None}:
            raise TransportLostError("the session could not be started", detail=line.errors)
        return greeted

    def _await_greeting(self, channel: Channel) -> bool:
        """Wait for the first word of the other end, and tell whether it came."""
        with contextlib.suppress(TimeoutError):
            for kind, payload in channel.received(time.monotonic() + ssh.CONNECT_S):
                self._take(channel, kind, payload)
                if kind == frames.HELLO:
                    return True
        return False

    def _take(self, channel: Channel, kind: int, payload: bytes) -> None:
        with understood():
            self._understand(channel, kind, payload)

    def _understand(self, channel: Channel, kind: int, payload: bytes) -> None:
        if kind == frames.HELLO:
            self._began = True
            self._stdin.resume(channel, *frames.COUNT.unpack(payload))
        elif kind in {frames.STDOUT, frames.STDERR}:
            write_all(1 + kind - frames.STDOUT, payload)
            self._got[kind - frames.STDOUT] += len(payload)
            self._acknowledge(channel)
        elif kind == frames.TOOK:
            self._stdin.arrived(*frames.COUNT.unpack(payload))
        elif kind == frames.EXIT:
            (code,) = frames.CODE.unpack(payload)
            if not 0 <= code <= 255:
                raise ValueError(code)
            self._code = code
            channel.send(frames.frame(frames.BYE), urgent=True)
        elif kind == frames.GONE:
            raise DeadLineError("the sandbox was restarted, and the run in it is lost")
        else:
            raise ValueError(kind)

    def _acknowledge(self, channel: Channel) -> None:
        if sum(self._got) - self._acknowledged > ACKNOWLEDGED:
            self._acknowledged = sum(self._got)
            channel.send(frames.frame(frames.GOT, frames.COUNTS.pack(*self._got)))

    def _end(self, channel: Channel) -> None:
        """Ask the program to end, and stay until it has, or has had the time to."""
        wish = frames.frame(frames.END)
        channel.send(wish, urgent=True)
        with contextlib.suppress(TimeoutError, DataError):
            for kind, payload in channel.received(time.monotonic() + END_S):
                if kind in {frames.STDOUT, frames.STDERR}:  # else the end of it would not come
                    self._got[kind - frames.STDOUT] += len(payload)
                    self._acknowledge(channel)
                if kind == frames.EXIT:
                    break
        channel.end_unless_sent(wish)
        channel.send(frames.frame(frames.BYE), urgent=True)
