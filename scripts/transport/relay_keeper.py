"""The keeper of a session, in the sandbox: it has the program, and what that prints.

The text of this file is sent to sandboxes beside `relay.py`, which says how it all fits together.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from scripts.transport.frames import (
    BYE,
    CHUNK,
    CODE,
    COUNT,
    COUNTS,
    DIED,
    END,
    ENDING_S,
    EXIT,
    GOT,
    HELLO,
    LAST_WORDS_S,
    OPEN,
    OPENING,
    STDERR,
    STDIN,
    STDIN_END,
    STDOUT,
    STORE,
    TOOK,
    WINDOW,
    Frames,
    Output,
    frame,
)

if TYPE_CHECKING:
    import socket


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
            self._patience_s = 0  # who asks for it does not come back
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
