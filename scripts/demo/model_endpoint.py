"""An HTTP server on loopback that speaks the Messages API, for the demo and for tests."""

from __future__ import annotations

import select
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from scripts.demo.messages_api import Reply, Request, respond
from scripts.machine import foreign_json

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    _Connection = Any  # socketserver has room for datagrams in this type

MOST = 2 << 20
"""Bytes of a request."""
IMPORT_AFTER_S = 0.15
"""How long the first request is waited for, before what takes 35 ms to import."""
_BACKLOG = 128  # connections that may wait for `start`


class Endpoint:
    """An HTTP server on a free loopback port, for as long as its `with` block lasts.

    It has its address at once and takes connections, which wait for `start`.

    Args:
        reply: Decides what to answer.
        address: Where it listens; port 0 means a free one.

    Raises:
        OSError: The address is taken.
    """

    def __init__(self, reply: Reply, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._reply = reply
        self._listener = socket.create_server(address, backlog=_BACKLOG)
        self._address: tuple[str, int] = self._listener.getsockname()
        self._connections: set[_Connection] = set()
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def url(self) -> str:
        """The address, as ANTHROPIC_BASE_URL takes it."""
        return "http://{}:{}".format(*self._address)

    def start(self) -> None:
        """Answer from now on, if it does not yet, in threads that keep nobody from exiting."""
        if self._thread:
            return
        self._thread = threading.Thread(target=self._serve, name="nddt model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and drop the clients, also in the middle of an answer."""
        self._closing = True
        if self._thread:
            with suppress(OSError):  # it may have ended by itself
                socket.create_connection(self._address, timeout=1).close()  # wakes it
            self._thread.join()
        self._listener.close()
        for connection in tuple(self._connections):
            with suppress(OSError):  # the client may have gone
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        # What it imports would delay a sandbox that is about to start.
        select.select([self._listener], [], [], IMPORT_AFTER_S)
        server = _server(self._listener, self._reply, self._connections)
        while not self._closing:
            server.handle_request()


def _server(listener: socket.socket, reply: Reply, connections: set[_Connection]) -> HTTPServer:
    from http.server import ThreadingHTTPServer  # noqa: PLC0415  (costly)

    class Server(ThreadingHTTPServer):
        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            connection, peer = super().get_request()
            connections.add(connection)
            return connection, peer

        def close_request(self, request: _Connection) -> None:
            connections.discard(request)
            super().close_request(request)

        def handle_error(self, request: _Connection, client_address: tuple[str, int]) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a client may leave
                super().handle_error(request, client_address)

    server = Server(listener.getsockname(), _handler(reply), bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    return server


def _handler(reply: Reply) -> type[BaseHTTPRequestHandler]:  # long: a class, imported late
    from http.server import BaseHTTPRequestHandler  # noqa: PLC0415

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "nddt"
        sys_version = ""
        disable_nagle_algorithm = True  # else a body waits 40 ms for the head's acknowledgement

        def answer(self) -> None:
            response = respond(self.received(), reply)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            if isinstance(response.body, bytes):
                self.send_header("content-length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body)
                return
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in response.body:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def received(self) -> Request:
            parsed: object = None
            with suppress(ValueError):
                size = min(int(self.headers.get("content-length", 0)), MOST)
                parsed = foreign_json.parse(self.rfile.read(max(size, 0)), what="it", most=MOST)
            return Request(
                method=self.command,
                path=self.path.partition("?")[0],
                headers={name.lower(): value for name, value in self.headers.items()},
                body=parsed if isinstance(parsed, dict) else {},
            )

        def log_message(self, *_: object) -> None:
            pass

    return Handler
