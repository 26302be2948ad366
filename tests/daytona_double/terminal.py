"""A terminal in a sandbox: an interactive shell that a client's window belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
import tty
from typing import TYPE_CHECKING

from tests.daytona_double import containers, engine

if TYPE_CHECKING:
    from tests.daytona_double.rows import Sandbox

# It says its process id first, so that a hang-up can find it.
_SHELL = (
    'echo "$$"; for s in zsh bash "${SHELL:-sh}"; do command -v "$s" >/dev/null && exec "$s" -i; '
    "done; exec sh -i"
)


class Terminal:
    """One terminal: a pair of pseudo-terminal ends here, and the shell behind it."""

    def __init__(self, kind: str, width: int, height: int) -> None:
        self._kind = kind
        self._size = (height, width)
        self._outer: int | None = None
        self._container: str | None = None
        self._shell_id = ""
        self._typed_early = bytearray()
        self._process: asyncio.subprocess.Process | None = None
        self._reader = asyncio.StreamReader()
        self._transport: asyncio.ReadTransport | None = None

    async def start(self, sandbox: Sandbox) -> None:
        """Start the shell in a sandbox."""
        self._container = sandbox.container
        self._outer, inner = pty.openpty()
        tty.setraw(inner)
        self.resize(self._size[1], self._size[0])
        options = ("--tty", "--env", f"TERM={self._kind}")
        self._process = await engine.start(
            *containers.exec_arguments(sandbox, "/bin/sh", "-c", _SHELL, options=options),
            stdin=inner,
            stdout=inner,
            stderr=inner,
        )
        os.close(inner)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reader),
            os.fdopen(os.dup(self._outer), "rb", buffering=0),
        )
        with contextlib.suppress(OSError):
            self._shell_id = (await self._reader.readline()).decode().strip()
        self.write(b"")

    async def read(self) -> bytes:
        """Give what the shell printed; empty at its end."""
        try:
            return await self._reader.read(65536)
        except OSError:
            return b""  # how a pseudo-terminal says that its other end is closed

    def write(self, data: bytes) -> None:
        """Type; the shell says its id before anything that is typed shows."""
        self._typed_early += data
        if self._outer is not None and self._shell_id:
            with contextlib.suppress(OSError):
                os.write(self._outer, self._typed_early)
            self._typed_early.clear()

    def resize(self, width: int, height: int) -> None:
        """Change the size, in columns and rows."""
        self._size = (height, width)
        if self._outer is not None:
            fcntl.ioctl(self._outer, termios.TIOCSWINSZ, struct.pack("HHHH", *self._size, 0, 0))
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGWINCH)

    async def hang_up(self) -> None:
        """Tell the shell that its terminal is gone."""
        if self._process and self._process.returncode is None and self._container:
            kill = f"kill -HUP {self._shell_id}"
            with contextlib.suppress(engine.EngineError):
                await engine.run("exec", "--user", "0", self._container, "/bin/sh", "-c", kill)

    async def end(self) -> None:
        """Let go of everything once the shell has ended."""
        if self._transport:
            self._transport.close()
        if self._outer is not None:
            os.close(self._outer)
            self._outer = None
        if self._process:
            if self._process.returncode is None:
                self._process.terminate()
            await engine.end(self._process)
