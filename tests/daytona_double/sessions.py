"""One SSH channel: a command, a shell without a terminal, or a terminal."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncssh

from tests.daytona_double import containers, engine
from tests.daytona_double.log import SshEvent
from tests.daytona_double.terminal import Terminal

if TYPE_CHECKING:
    from tests.daytona_double.gateway import Connection
    from tests.daytona_double.rows import Sandbox

_PIPE = asyncio.subprocess.PIPE
_CHUNK = 256 * 1024
# A shell that is asked over a network may read this first; see bash(1), "remote shell daemon".
_SHELL = '[ ! -r "$HOME/.bashrc" ] || . "$HOME/.bashrc"; exec /bin/sh -c "$1"'


class Session(asyncssh.SSHServerSession[bytes]):
    """A channel, and the process in the sandbox's container that it is joined to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: asyncssh.SSHServerChannel[bytes]
        self._command: str | None = None
        self._terminal: Terminal | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._early = bytearray()
        self._has_eof = False
        self._is_writable = asyncio.Event()
        self._is_writable.set()
        self._draining: asyncio.Task[None] | None = None

    # -- what the client asks for -----------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Keep the channel."""
        self._channel = chan

    def pty_requested(
        self,
        term_type: str | None,
        term_size: tuple[int, int, int, int],
        term_modes: object,
    ) -> bool:
        """Agree; there will be a terminal only if no command follows."""
        del term_modes
        self._terminal = Terminal(term_type or "xterm", term_size[0], term_size[1])
        return True

    def shell_requested(self) -> bool:
        """Agree to a shell."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Agree to a command; it gets no terminal."""
        self._command = command
        self._terminal = None
        return True

    def session_started(self) -> None:
        """Start the process."""
        self._connection.cloud.tasks.start(self._run())

    # -- client to sandbox ------------------------------------------------------------------------

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass bytes on, and read no more while the process does not take them."""
        del datatype
        self._connection.passed(len(data))
        if self._terminal:
            self._terminal.write(data)
        elif self._process is None:
            self._channel.pause_reading()
            self._early += data
        else:
            self._feed(self._process, data)

    def _feed(self, process: asyncio.subprocess.Process, data: bytes) -> None:
        assert process.stdin is not None
        if not process.stdin.is_closing():
            process.stdin.write(data)
        if self._draining is None or self._draining.done():
            self._channel.pause_reading()
            self._draining = self._connection.cloud.tasks.start(self._drain())

    async def _drain(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # A process that reads no more is no reason to stop: the rest goes nowhere.
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()
        self._channel.resume_reading()

    def eof_received(self) -> bool:
        """Pass on that nothing more comes; the other direction stays open."""
        self._has_eof = True
        if self._terminal:
            self._terminal.write(b"\x04")
        elif self._process and self._process.stdin:
            self._process.stdin.close()
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Pass a new size on."""
        del pixwidth, pixheight
        if self._terminal:
            self._terminal.resize(width, height)

    # -- sandbox to client ------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Take nothing more from the process for now."""
        self._is_writable.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the process's standard input; it runs on, and what it prints goes nowhere."""
        del exc
        self._is_writable.set()
        if self._terminal:
            self._connection.cloud.tasks.start(self._terminal.hang_up())
        elif self._process and self._process.stdin:
            self._process.stdin.close()

    async def _run(self) -> None:
        active = self._connection.cloud.tasks.start(self._connection.keep_active())
        try:
            code = await (self._run_terminal() if self._terminal else self._run_pipes())
        except OSError:
            code = 1
        finally:
            active.cancel()
        sandbox = self._connection.sandbox
        assert sandbox is not None
        if sandbox.state == "started":
            self._channel.exit(code)
        else:
            # The far end is gone: nobody is left who could tell the exit status.
            self._channel.close()

    def _note(self, kind: str) -> Sandbox:
        sandbox = self._connection.sandbox
        assert sandbox is not None
        event = SshEvent(kind=kind, sandbox=sandbox.name, detail=self._command or "")
        self._connection.cloud.log.note(event)
        return sandbox

    async def _run_terminal(self) -> int:
        assert self._terminal is not None
        await self._terminal.start(self._note("pty"))
        try:
            while chunk := await self._terminal.read():
                await self._send(chunk, None)
        finally:
            await self._terminal.end()
        return 0  # whatever the shell ended with

    async def _run_pipes(self) -> int:
        sandbox = self._note("shell" if self._command is None else "exec")
        shell = (
            ["/bin/sh"] if self._command is None else ["/bin/sh", "-c", _SHELL, "sh", self._command]
        )
        arguments = containers.exec_arguments(sandbox, *shell)
        process = await engine.start(*arguments, stdin=_PIPE, stdout=_PIPE, stderr=_PIPE)
        self._process = process
        assert process.stdin is not None
        self._feed(process, bytes(self._early))
        self._early.clear()
        if self._has_eof:
            process.stdin.close()
        try:
            await asyncio.gather(
                self._pump(process.stdout, None),
                self._pump(process.stderr, asyncssh.EXTENDED_DATA_STDERR),
            )
        except asyncio.CancelledError:
            process.kill()
            raise
        finally:
            await engine.end(process)
        return process.returncode or 0

    async def _pump(self, source: asyncio.StreamReader | None, datatype: int | None) -> None:
        assert source is not None
        while chunk := await source.read(_CHUNK):
            await self._send(chunk, datatype)

    async def _send(self, chunk: bytes, datatype: int | None) -> None:
        await self._is_writable.wait()
        self._connection.passed(len(chunk))
        # A client that has gone is no reason to stop: the process would block for ever.
        with contextlib.suppress(OSError):
            self._channel.write(chunk, datatype)
