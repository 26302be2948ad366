"""A session that outlives its connection: the client's side of `relay.py`.

The program runs on in the sandbox while the connection is gone. A new connection goes on with
its output, and with its stdin, at the very byte where the old one broke.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING

from scripts import inside, ports, process, relay, signals, ssh
from scripts.connections import FIRST_PATIENCE_S, PATIENCE_S, DeadLineError
from scripts.errors import PortTakenError, TimeLimitError, TransportLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.connections import Line
    from scripts.ssh import Forward

END_S = relay.ENDING_S + 2
"""How long we stay to see a program end that we have asked to."""
ACKNOWLEDGED = relay.WINDOW // 4
"""Bytes of output after which the sandbox hears that they have arrived."""


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

    Args:
        argv: The command of the session.
    """

    def __init__(self, argv: tuple[str, ...]) -> None:
        self._process = process.spawn((*FAREWELL, *argv), pipes=True, shown=argv)
        self._sending = threading.Lock()
        self._frames = relay.Frames()
        self._received: deque[tuple[int, bytes]] = deque()
        self._errors: deque[str] = deque(maxlen=50)
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    def _read_errors(self) -> None:
        with process.piped(self._process.stderr) as stderr:
            for line in stderr:
                self._errors.append(line.decode(errors="replace").rstrip())

    @property
    def errors(self) -> str:
        """The last lines that ssh has printed."""
        return "\n".join(filter(None, self._errors))

    def send(self, data: bytes, *, urgent: bool = False) -> None:
        """Send; that the other end is gone shows in what is received."""
        if not self._sending.acquire(timeout=END_S if urgent else -1):
            os.killpg(self._process.pid, signal.SIGTERM)  # it stands still
            self._sending.acquire()
        try:
            with contextlib.suppress(OSError):
                pipe = process.piped(self._process.stdin)
                pipe.write(data)
                pipe.flush()
        finally:
            self._sending.release()

    def received(self, deadline: float) -> Iterator[tuple[int, bytes]]:
        """Give what arrives until the other end is gone.

        Raises:
            TimeoutError: The deadline, a time of time.monotonic, is over.
        """
        stdout = process.piped(self._process.stdout).fileno()
        while True:
            while self._received:  # also what an interrupted call has left
                yield self._received.popleft()
            left_s = None if deadline == float("inf") else max(0, deadline - time.monotonic())
            if left_s == 0 or not select.select([stdout], [], [], left_s)[0]:
                raise TimeoutError
            data = os.read(stdout, relay.CHUNK)
            if not data:
                return
            self._received += self._frames.feed(data)

    def close(self) -> int | None:
        """Let go, and give the exit code of ssh; None if it had to be ended."""
        with contextlib.suppress(OSError):
            process.piped(self._process.stdin).close()
        code = process.wait(self._process, END_S)
        if code is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()
        self._reader.join(1)  # the pipe's command may keep it open
        process.piped(self._process.stdout).close()
        return code


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
        with self._changed:
            self._channel, self._said_end, self._sent = channel, False, count
        self.arrived(count)
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    def pause(self) -> None:
        """Send nothing more: the connection is gone."""
        with self._changed:
            self._channel = None

    def arrived(self, count: int) -> None:
        """Forget what the program has; `count` is in all."""
        with self._changed:
            del self._kept[: max(0, count - self._begin)]
            self._begin = max(self._begin, count)
            self._changed.notify_all()
            self._send()

    def _read(self) -> None:
        while not self._ended:
            try:
                data = os.read(self._source, relay.CHUNK)
            except OSError:  # it is closed
                data = b""
            with self._changed:
                self._kept += data
                self._ended = not data
                self._send()
                self._changed.wait_for(lambda: len(self._kept) < relay.STDIN_WINDOW)

    def _send(self) -> None:
        if self._channel is None:
            return
        while data := bytes(self._kept[self._sent - self._begin :][: relay.CHUNK]):
            self._channel.send(relay.frame(relay.STDIN, data))
            self._sent += len(data)
        if self._ended and not self._said_end:
            self._channel.send(relay.frame(relay.STDIN_END))
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

    def attend(self, line: Line, forwards: tuple[Forward, ...], timeout_s: int) -> int:
        """Run the program to its end, over as many connections as it takes.

        Args:
            line: The way there.
            forwards: Ports that it needs.
            timeout_s: Its time limit in seconds; 0 for none.

        Returns:
            Its exit code.

        Raises:
            TimeLimitError: It took too long; it has been ended.
            TransportLostError: It cannot be reached any more.
            PortTakenError: A port of this machine is somebody else's; nothing has been run.
        """
        deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
        try:
            self._follow(line, forwards, deadline)
            if not self._began:
                ssh.check_ports(line.errors, forwards)
            while self._code is None:
                patience_s = PATIENCE_S if self._began else FIRST_PATIENCE_S
                for _ in line.again(patience_s):
                    if self._follow(line, forwards, deadline):
                        break
                    try:
                        ssh.check_ports(line.errors, forwards)
                    except PortTakenError:
                        if not self._began:
                            raise
                        forwards = ports.given_up(forwards)
        except TimeoutError:
            raise TimeLimitError(
                f"the time limit of {timeout_s} s is over", "raise --timeout"
            ) from None
        finally:
            # A connection that outlives us would keep them.
            with line.connection.cancelling(forwards if line.is_kept else ()):
                pass
        return self._code

    def _follow(self, line: Line, forwards: tuple[Forward, ...], deadline: float) -> bool:
        """Attend to the program over one connection, and tell whether that has said hello."""
        greeted = False
        source = Path(relay.__file__).read_bytes()
        words = [word for forward in forwards for word in forward.arguments]
        words += ["-T", "nddt", inside.python("relay", len(source), self._name)]
        make = line.connection.session_argv if line.is_kept else line.connection.direct_argv
        channel = Channel(make(*words))
        try:
            opening = relay.OPENING.pack(*self._got, PATIENCE_S, self._began) + self._script
            channel.send(source + relay.frame(relay.OPEN, opening))
            for kind, payload in channel.received(deadline):
                greeted = greeted or kind == relay.HELLO
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

    def _take(self, channel: Channel, kind: int, payload: bytes) -> None:
        if kind == relay.HELLO:
            self._began = True
            self._stdin.resume(channel, *relay.COUNT.unpack(payload))
        elif kind in {relay.STDOUT, relay.STDERR}:
            _write(1 + kind - relay.STDOUT, payload)
            self._got[kind - relay.STDOUT] += len(payload)
            self._acknowledge(channel)
        elif kind == relay.TOOK:
            self._stdin.arrived(*relay.COUNT.unpack(payload))
        elif kind == relay.EXIT:
            (self._code,) = relay.CODE.unpack(payload)
            channel.send(relay.frame(relay.BYE))
        elif kind == relay.GONE:
            raise DeadLineError("the sandbox was restarted, and the run in it is lost")

    def _acknowledge(self, channel: Channel) -> None:
        if sum(self._got) - self._acknowledged > ACKNOWLEDGED:
            self._acknowledged = sum(self._got)
            channel.send(relay.frame(relay.GOT, relay.COUNTS.pack(*self._got)))

    def _end(self, channel: Channel) -> None:
        """Ask the program to end, and stay until it has, or has had the time to."""
        channel.send(relay.frame(relay.END), urgent=True)
        with contextlib.suppress(TimeoutError):
            for kind, payload in channel.received(time.monotonic() + END_S):
                if kind in {relay.STDOUT, relay.STDERR}:  # else the end of it would not come
                    self._got[kind - relay.STDOUT] += len(payload)
                    self._acknowledge(channel)
                if kind == relay.EXIT:
                    break
        channel.send(relay.frame(relay.BYE))


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
