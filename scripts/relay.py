"""Runs in the sandbox: keeps a session going while connections to it come and go.

The client (`durable.py`) sends this text through an SSH session and talks to it on the
session's stdin and stdout. The first such session leaves a *keeper* behind, which runs the
session's script and listens on a socket; each session is a *connector* that only joins its
stdin and stdout to that socket. What the program prints stays with the keeper until the client
has acknowledged it, and what the client sends is counted, so either side can go on after a
broken connection exactly where it stopped.

Each way carries frames: one byte for the kind, four for the length, then the payload.
Only Python's standard library is here, because the text must run in any sandbox.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

HEAD = struct.Struct(">BI")
COUNT = struct.Struct(">Q")
COUNTS = struct.Struct(">QQ")
OPENING = struct.Struct(">QQIB")
CODE = struct.Struct(">i")

# From the client. OPEN has what it has got of stdout and stderr, the seconds that a session
# waits for a lost client, whether the session must be there already, and the script.
OPEN, STDIN, STDIN_END, GOT, END, BYE, DIED = range(7)
# To the client. HELLO has how many bytes of stdin have arrived; GONE means that there is no
# such session any more.
HELLO, STDOUT, STDERR, TOOK, EXIT, GONE = range(16, 22)

CHUNK = 65536
WINDOW = 1 << 20
"""Bytes of output that may be on their way to a connected client."""
STORE = 64 << 20
"""Bytes of output that wait for a client that is away; then the program waits, too."""
STDIN_WINDOW = 1 << 20
"""Bytes of stdin that the client sends before it has heard of their arrival."""
LAST_WORDS_S = 0.5
"""How long the output is watched after the program's end, for processes that it left."""
LAST_WORDS = 1 << 20
"""Bytes that a pipe holds at most: what comes later is not the program's."""
ENDING_S = 2.0
"""How long a program has after SIGTERM."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Put a payload into a frame."""
    return HEAD.pack(kind, len(payload)) + payload


class Frames:
    """Takes the frames out of a stream of bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Give the frames that are complete with this data."""
        self._bytes += data
        found = []
        while len(self._bytes) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._bytes)
            end = HEAD.size + length
            if len(self._bytes) < end:
                break
            found.append((kind, bytes(self._bytes[HEAD.size : end])))
            del self._bytes[:end]
        return found


class Output:
    """What the program has printed on one stream, until the client has it."""

    def __init__(self, kind: int, pipe: int) -> None:
        self.kind = kind
        self.pipe = pipe
        self.ended = False
        self.last_words = LAST_WORDS
        self._kept = bytearray()
        self._begin = 0  # how many bytes the client is known to have
        self._sent = 0  # how many have been sent on the present connection, in all

    @property
    def held(self) -> int:
        """How many bytes are kept."""
        return len(self._kept)

    @property
    def is_sent(self) -> bool:
        """Whether all there is has been sent."""
        return self.ended and self._sent == self._begin + len(self._kept)

    def add(self, data: bytes) -> None:
        """Keep what the program has printed; nothing means that it prints no more."""
        self._kept += data
        self.ended = not data

    def got(self, count: int) -> None:
        """Forget what the client has; `count` is in all."""
        del self._kept[: max(0, count - self._begin)]
        self._begin = max(self._begin, count)

    def resume(self, count: int) -> None:
        """Go on behind what the client has."""
        self.got(count)
        self._sent = self._begin

    def next_frame(self) -> bytes:
        """Give what is to be sent next; empty if there is nothing."""
        start = self._sent - self._begin
        data = bytes(self._kept[start : start + CHUNK])
        self._sent += len(data)
        return frame(self.kind, data) if data else b""


class Client:
    """The connection that a client has at present."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)  # noqa: FBT003  (its only parameter)
        self.socket = connection
        self.frames = Frames()
        self.waiting = bytearray()
        self.opened = False
        self.told_exit = False

    def say(self, data: bytes) -> None:
        """Send as soon as possible."""
        self.waiting += data

    def flush(self) -> None:
        """Send what the socket takes."""
        with contextlib.suppress(BlockingIOError):
            del self.waiting[: self.socket.send(self.waiting)]


class Keeper:
    """Runs one script and serves one client at a time; a new one takes the place of the old."""

    def __init__(self, place: str, listener: socket.socket, umask: int) -> None:
        self._place = place
        self._listener = listener
        self._umask = umask
        self._selector = selectors.DefaultSelector()
        self._client: Client | None = None
        self._program: subprocess.Popen[bytes] | None = None
        self._outputs: list[Output] = []
        self._stdin = -1
        self._stdin_waiting = bytearray()
        self._stdin_arrived = 0
        self._stdin_ended = False
        self._code: int | None = None
        self._ended_at = 0.0
        self._patience_s = 60.0
        self._alone_since = time.monotonic()
        self._ending_since: float | None = None
        self._killed = False
        self._over = False

    def serve(self) -> None:
        """Serve until the client is done, or has stayed away for too long."""
        wake, self._wake = os.pipe()
        for one in (self._listener.fileno(), wake):
            self._selector.register(one, selectors.EVENT_READ)
        while not self._over:
            self._watch()
            for key, events in self._selector.select(0.2):
                if key.fd == self._listener.fileno():
                    self._accept()
                elif key.fd == wake:
                    os.read(wake, 1)
                elif self._client and key.fd == self._client.socket.fileno():
                    self._talk(events)
                elif key.fd == self._stdin:
                    self._feed()
                else:
                    self._read(key.fd)
            self._advance()
        self._drop_client()
        self._end_group()

    # -- what to wait for

    def _has_room(self, output: Output) -> bool:
        return output.held < (WINDOW if self._client and self._client.opened else STORE)

    def _watch(self) -> None:
        for one in self._outputs:
            self._want(one.pipe, selectors.EVENT_READ, not one.ended and self._has_room(one))
        self._want(self._stdin, selectors.EVENT_WRITE, bool(self._stdin_waiting))
        if self._client:
            events = selectors.EVENT_READ
            events |= selectors.EVENT_WRITE if self._client.waiting else 0
            self._want(self._client.socket.fileno(), events, wanted=True)

    def _want(self, descriptor: int, events: int, wanted: bool) -> None:  # noqa: FBT001
        if descriptor < 0:
            return
        known = self._selector.get_map().get(descriptor)
        if not wanted and known:
            self._selector.unregister(descriptor)
        elif wanted and not known:
            self._selector.register(descriptor, events)
        elif wanted and known and known.events != events:
            self._selector.modify(descriptor, events)

    # -- the client

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._drop_client()
        self._client = Client(connection)

    def _drop_client(self) -> None:
        if self._client:
            self._want(self._client.socket.fileno(), 0, wanted=False)
            self._client.socket.close()
            self._client = None
            self._alone_since = time.monotonic()

    def _talk(self, events: int) -> None:
        client = self._client
        if client is None:
            return
        if events & selectors.EVENT_WRITE:
            with contextlib.suppress(OSError):  # what has been received before still counts
                client.flush()
        try:
            data = client.socket.recv(CHUNK) if events & selectors.EVENT_READ else None
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data == b"":
            self._drop_client()
        for kind, payload in client.frames.feed(data or b""):
            self._take(client, kind, payload)

    def _take(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == OPEN:
            self._open(client, payload)
        elif kind == STDIN:
            self._stdin_arrived += len(payload)
            self._stdin_waiting += payload
            if self._stdin < 0:  # nobody reads it
                self._took(len(payload))
        elif kind == STDIN_END:
            self._stdin_ended = True
        elif kind == GOT:
            for output, count in zip(self._outputs, COUNTS.unpack(payload), strict=False):
                output.got(count)
        elif kind == END:
            self._ask_to_end()
        elif kind == DIED:
            self._drop_client()
            self._patience_s = 0
        elif kind == BYE:
            self._over = True

    def _open(self, client: Client, payload: bytes) -> None:
        *got, patience_s, _ = OPENING.unpack_from(payload)
        self._patience_s = patience_s
        if self._program is None:
            self._start(payload[OPENING.size :])
        for output, count in zip(self._outputs, got, strict=False):
            output.resume(count)
        client.opened = True
        client.say(frame(HELLO, COUNT.pack(self._stdin_arrived)))

    # -- the program

    def _start(self, script: bytes) -> None:
        path = os.path.abspath(f"{self._place}.sh")  # it knows its files by its own name
        with open(path, "wb") as file:
            file.write(script)
        self._program = subprocess.Popen(
            ("sh", path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=self._umask,
        )
        with open(f"{self._place}.pid", "w", encoding="ascii") as file:
            file.write(str(self._program.pid))
        pipes = (self._program.stdin, self._program.stdout, self._program.stderr)
        stdin, stdout, stderr = (pipe.fileno() for pipe in pipes if pipe)
        self._stdin = stdin
        self._outputs = [Output(STDOUT, stdout), Output(STDERR, stderr)]
        for one in (stdin, stdout, stderr):
            os.set_blocking(one, False)
        threading.Thread(target=self._wait, args=(self._program,), daemon=True).start()

    def _wait(self, program: subprocess.Popen[bytes]) -> None:
        code = program.wait()
        self._ended_at = time.monotonic()
        self._code = 128 - code if code < 0 else code
        os.write(self._wake, b"x")

    def _feed(self) -> None:
        try:
            taken = os.write(self._stdin, self._stdin_waiting[:CHUNK])
        except BlockingIOError:
            return
        except OSError:  # the program does not read any more
            self._close_stdin()
            taken = len(self._stdin_waiting)
        self._took(taken)

    def _took(self, size: int) -> None:
        del self._stdin_waiting[:size]
        if self._client:
            arrived = self._stdin_arrived - len(self._stdin_waiting)
            self._client.say(frame(TOOK, COUNT.pack(arrived)))

    def _close_stdin(self) -> None:
        if self._stdin >= 0 and self._program and self._program.stdin:
            self._want(self._stdin, 0, wanted=False)
            with contextlib.suppress(OSError):
                self._program.stdin.close()
            self._stdin = -1

    def _read(self, descriptor: int) -> None:
        for output in self._outputs:
            if output.pipe == descriptor:
                with contextlib.suppress(BlockingIOError):
                    self._add(output, os.read(descriptor, CHUNK))

    def _add(self, output: Output, data: bytes) -> None:
        output.add(data)
        if self._code is not None:
            output.last_words -= len(data)

    def _read_last_words(self) -> None:
        """Stop waiting for the output of processes that the program has left, once it is read."""
        for output in self._outputs:
            if not output.ended and self._has_room(output):
                try:
                    self._add(output, os.read(output.pipe, CHUNK))
                except BlockingIOError:
                    output.ended = True
                if output.last_words <= 0:
                    output.ended = True

    def _ask_to_end(self) -> None:
        if self._ending_since is None:
            self._ending_since = time.monotonic()
            self._end_program(signal.SIGTERM)

    def _end_program(self, signum: int) -> None:
        if self._program:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._program.pid, signum)

    def _end_group(self) -> None:
        """End what the program has left running."""
        self._end_program(signal.SIGTERM)
        deadline = time.monotonic() + ENDING_S
        while time.monotonic() < deadline:
            if self._is_group_gone():
                return
            time.sleep(0.05)
        self._end_program(signal.SIGKILL)

    def _is_group_gone(self) -> bool:
        if self._program:
            try:
                os.killpg(self._program.pid, 0)
            except OSError:
                return True
        return self._program is None

    # -- after each event

    def _advance(self) -> None:
        now = time.monotonic()
        if self._stdin_ended and not self._stdin_waiting:
            self._close_stdin()
        if self._ending_since is not None and now - self._ending_since > ENDING_S:
            self._end_program(signal.SIGKILL)
            self._killed = True
        if self._code is not None and now - self._ended_at > LAST_WORDS_S:
            self._read_last_words()
        client = self._client
        if client and client.opened:
            self._send(client)
        elif now - self._alone_since > self._patience_s:
            self._ask_to_end()
            self._over = self._code is not None or self._program is None
            self._over = self._over or now - (self._ending_since or now) > ENDING_S + 1

    def _send(self, client: Client) -> None:
        for output in self._outputs:
            while len(client.waiting) < 4 * CHUNK:
                data = output.next_frame()
                if not data:
                    break
                client.say(data)
        done = self._code is not None and all(output.is_sent for output in self._outputs)
        if self._ending_since is not None:  # whoever has asked for it may look at once
            done = done and (self._killed or self._is_group_gone())
        if done and not client.told_exit:
            client.told_exit = True
            client.say(frame(EXIT, CODE.pack(self._code or 0)))
        if client.waiting:
            with contextlib.suppress(OSError):  # the next read tells
                client.flush()


# -- a connection -----------------------------------------------------------------------------


def _read_exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            sys.exit(1)
        data += more
    return data


def _connect(path: str) -> socket.socket | None:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        return None
    return client


def _leave_keeper(place: str, umask: int) -> None:
    """Start a keeper that listens at once and outlives this process."""
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{place}.sock")
    listener.bind(f"{place}.sock")
    listener.listen(8)
    if os.fork():
        listener.close()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    try:
        Keeper(place, listener, umask).serve()
    finally:
        for ending in ("sock", "sh", "pid", "lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{place}.{ending}")
        remove = 'rm -rf -- "$0.d" "/tmp/nddt/${0#./}"-*'  # see inside.place
        subprocess.call(("sh", "-c", remove, place))
        os._exit(0)


def _join(client: socket.socket) -> None:
    """Copy both ways until one side ends."""
    threading.Thread(target=_copy_out, args=(client,), daemon=True).start()
    with contextlib.suppress(OSError):
        while True:
            data = os.read(0, CHUNK)
            if not data:
                break
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)  # the keeper answers by closing
    threading.Event().wait(ENDING_S + 2)


def _copy_out(client: socket.socket) -> None:
    listens = True
    while True:
        try:
            data = client.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            os._exit(0)
        try:
            view = memoryview(data) if listens else memoryview(b"")
            while view:
                view = view[os.write(1, view) :]
        except OSError:  # the client is gone; but what it has said last must arrive
            listens = False


def main(session: str) -> None:
    """Connect stdin and stdout to a session, which is started if it is new."""
    run = os.environ["NDDT_RUN"]
    umask = os.umask(0o077)
    os.chdir(run)  # the path of a socket must be short
    place = f"./{session}"
    head = _read_exactly(HEAD.size)
    opening = _read_exactly(HEAD.unpack(head)[1])
    client = _connect(f"{place}.sock")
    if client is None and OPENING.unpack_from(opening)[3]:
        os.write(1, frame(GONE))
        return
    if client is None:
        # A first connection may have broken with its relay on the way here, too.
        lock = os.open(f"{place}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = _connect(f"{place}.sock")
        if client is None:
            _leave_keeper(place, umask)
            client = _connect(f"{place}.sock")
        fcntl.flock(lock, fcntl.LOCK_UN)
    if client is None:
        sys.exit("the session could not be started")
    client.sendall(head + opening)
    _join(client)
