"""The SSH gateway: a token is the user name, and everything is decided after the login."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncssh

from tests.daytona_double import engine
from tests.daytona_double.log import SshEvent
from tests.daytona_double.sessions import Session

if TYPE_CHECKING:
    from tests.daytona_double.cloud import Cloud
    from tests.daytona_double.rows import Sandbox

Reader = asyncssh.SSHReader[bytes]
Writer = asyncssh.SSHWriter[bytes]
Forward = Callable[[Reader, Writer], Awaitable[None]]

# The platform counts an open channel as activity at once and every 45 s.
_ACTIVITY_MINUTES = 0.75
# The fastest that both asyncssh and OpenSSH have; the traffic never leaves this machine.
_FAST = {
    "kex_algs": ["curve25519-sha256"],
    "encryption_algs": ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"],
    "compression_algs": ["none"],
}


class Gateway:
    """The listener, its host key and its open connections."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self.connections: set[Connection] = set()

    async def open(self, port: int) -> int:
        """Listen on a port of loopback, 0 for any; gives the port."""
        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            port,
            server_factory=lambda: Connection(self._cloud, self),
            server_host_keys=[self._key],
            encoding=None,
            line_editor=False,
            login_timeout=30,
            reuse_address=True,
            **_FAST,
        )
        return int(self._acceptor.get_port())

    async def pause(self) -> None:
        """Listen no more; open connections stay."""
        if self._acceptor:
            self._acceptor.close()
            await self._acceptor.wait_closed()
            self._acceptor = None

    def change_key(self) -> None:
        """Have another host key for connections to come."""
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        if self._acceptor:
            self._acceptor.update(server_host_keys=[self._key])

    def cut(self) -> None:
        """Break every open connection, as a restart of the gateway does."""
        for connection in list(self.connections):
            connection.cut()

    async def close(self) -> None:
        """Listen no more, and break every connection."""
        self.cut()
        await self.pause()


class Connection(asyncssh.SSHServer):
    """One client's connection; global requests are refused, as asyncssh does by itself.

    Attributes:
        cloud: What the gateway serves.
        sandbox: The sandbox that the token opens; None until it is known.
    """

    def __init__(self, cloud: Cloud, gateway: Gateway) -> None:
        self.cloud = cloud
        self._gateway = gateway
        self.sandbox: Sandbox | None = None
        self._token = ""
        self._ssh: asyncssh.SSHServerConnection | None = None
        self._bytes_left: int | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep the connection, and send small packets at once."""
        self._ssh = conn
        sock: socket.socket | None = conn.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._gateway.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        del exc
        self._gateway.connections.discard(self)

    def begin_auth(self, username: str) -> bool:
        """Let everyone in: the token is looked up later."""
        self._token = username
        return False

    def auth_completed(self) -> None:
        """Look up the token, and close the connection if it opens nothing."""
        row_id = self.cloud.tokens.sandbox_id(self._token)
        row = self.cloud.sandboxes.rows.get(row_id) if row_id else None
        name = row.name if row else ""
        number = self.cloud.log.note(SshEvent(kind="connect", sandbox=name))
        fault = self.cloud.faults.take(number, "SSH connect", is_ssh=True)
        if fault and fault.kind == "host_key":
            # The client has seen the old key already: this connection is lost with it.
            self._gateway.change_key()
        if row is None or row.state != "started" or (fault and fault.kind != "ssh_drop"):
            self.cloud.log.note(SshEvent(kind="refused", sandbox=name))
            # A plain close: the client says "Connection closed" and ends with 255.
            asyncio.get_running_loop().call_soon(self._close)
            return
        self.sandbox = row
        if fault:
            self._bytes_left = fault.after_bytes

    def _close(self) -> None:
        if self._ssh and (transport := self._ssh.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                transport.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break the connection without a word."""
        self._close()

    def passed(self, size: int) -> None:
        """Count bytes of a channel, and break the connection where a fault says so."""
        if self._bytes_left is not None:
            self._bytes_left -= size
            if self._bytes_left <= 0:
                self.cut()

    async def keep_active(self) -> None:
        """Count as activity, for ever: what an open channel does."""
        assert self.sandbox is not None
        while True:
            self.cloud.sandboxes.touch(self.sandbox)
            await asyncio.sleep(_ACTIVITY_MINUTES * self.cloud.options.minute_s)

    def session_requested(self) -> Session | bool:
        """Open a channel for a command or a shell."""
        return Session(self) if self.sandbox else False

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Forward | bool:
        """Open a channel to a port in the sandbox."""
        del orig_host, orig_port
        if self.sandbox is None:
            return False
        name = self.sandbox.name
        target = f"{dest_host}:{dest_port}"
        self.cloud.log.note(SshEvent(kind="forward", sandbox=name, detail=target))

        async def forward(reader: Reader, writer: Writer) -> None:
            active = self.cloud.tasks.start(self.keep_active())
            try:
                await self._forward(dest_host, dest_port, reader, writer)
            finally:
                active.cancel()
                writer.close()

        return forward

    async def _forward(self, host: str, port: int, reader: Reader, writer: Writer) -> None:
        # An address that cannot be reached looks like one that closes at once.
        assert self.sandbox is not None
        assert self.sandbox.container is not None
        if host not in {"localhost", "127.0.0.1", "::1", "0.0.0.0"}:  # noqa: S104  # not bound
            return
        with contextlib.suppress(OSError, asyncssh.Error, engine.EngineError):
            address = await engine.container_address(self.sandbox.container)
            inside, outside = await asyncio.open_connection(address, port)
            await asyncio.gather(self._copy(reader, outside), self._copy(inside, writer))
            outside.close()

    async def _copy(
        self, source: Reader | asyncio.StreamReader, sink: Writer | asyncio.StreamWriter
    ) -> None:
        while chunk := await source.read(65536):
            self.passed(len(chunk))
            sink.write(chunk)
            await sink.drain()
        sink.write_eof()
