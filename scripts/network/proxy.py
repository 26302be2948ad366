"""A forward proxy that lets clients reach what is allowed, by a gate that notes each decision.

TLS goes through as it is; of plain HTTP each request is looked at, whatever came before it on its
connection.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import h11

from scripts.machine import threads
from scripts.machine.http_server import (
    HEAD_BYTES,
    PIECE,
    Conversation,
    RefusedError,
    of_all_hops,
)
from scripts.network.gate import SILENT_S, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.network.gate import Gate, Target

HEAD_S = 60
"""How long a client may take for the head of a request, and a connection may be unused."""
UNUSED_S = 3600
"""How long nothing may come through a tunnel from one of its sides."""


def serve(client: socket.socket, gate: Gate) -> None:
    """Answer a client's requests, one after the other.

    Raises:
        OSError: It is gone.
    """
    _Client(client, gate).serve()


class _Client:
    """One connection of a client's."""

    def __init__(self, peer: socket.socket, gate: Gate) -> None:
        self._peer = peer
        self._gate = gate
        self._talk = Conversation(peer, head_s=HEAD_S, silent_s=SILENT_S)

    def serve(self) -> None:
        """Answer its requests until it wants no more, or is refused one."""
        try:
            while (request := self._talk.request()) and not self._answer(request):
                if not self._talk.next():
                    return
        except RefusedError as error:
            self._talk.refuse(error.status, f"nddt: {error.text}\n".encode(), closes=True)

    def _answer(self, request: h11.Request) -> bool:
        """Answer one request, and tell whether it was for a tunnel, after which there is none."""
        target = self._target(request)
        if target.is_tunnel:
            self._tunnel(target)
        else:
            self._pass_on(request, target)
        return target.is_tunnel

    def _target(self, request: h11.Request) -> Target:
        try:
            return target_of(request.method.decode("ascii"), request.target.decode("latin-1"))
        except RefusedError as error:
            shown, _, reason = error.text.rpartition(": ")
            self._gate.decisions.note("blocked", shown, reason)
            raise

    def _tunnel(self, target: Target) -> None:
        peer, _ = self._gate.open(target)
        with peer:
            peer.sendall(self._talk.become_tunnel())
            for one in (self._peer, peer):
                one.settimeout(UNUSED_S)
            back = threads.start_thread(_copy, peer, self._peer, name="a tunnel")
            _copy(self._peer, peer)
            back.join()

    def _pass_on(self, request: h11.Request, target: Target) -> None:
        peer, upstream = self._gate.open(target)
        with peer:
            to = target.path if upstream is None else f"http://{target.authority}{target.path}"
            headers = [(b"Host", target.authority.encode()), *of_all_hops(request.headers)]
            headers += upstream.headers() if upstream else []
            headers.append((b"Connection", b"close"))
            origin = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
            head = h11.Request(method=request.method, target=to, headers=headers)
            with _its_faults(target):
                peer.sendall(origin.send(head) or b"")
                for piece in self._talk.body():
                    peer.sendall(origin.send(h11.Data(data=piece)) or b"")
                peer.sendall(origin.send(h11.EndOfMessage()) or b"")
                self._pass_back(peer, origin)

    def _pass_back(self, peer: socket.socket, origin: h11.Connection) -> None:
        while True:
            event = origin.next_event()
            if event is h11.NEED_DATA:
                origin.receive_data(peer.recv(PIECE))
            elif isinstance(event, h11.Response):
                headers = of_all_hops(event.headers)
                status, reason = event.status_code, event.reason
                self._talk.send(h11.Response(status_code=status, headers=headers, reason=reason))
            elif isinstance(event, h11.Data):
                self._talk.send(event)
            elif isinstance(event, h11.EndOfMessage):
                self._talk.send(h11.EndOfMessage(headers=event.headers))
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionError("it has hung up")


@contextlib.contextmanager
def _its_faults(target: Target) -> Iterator[None]:
    """Tell the client what is wrong with the server that it wants.

    Raises:
        RefusedError: That.
    """
    try:
        yield
    except OSError as error:
        raise RefusedError(502, f"{target.name} does not answer: {error}") from error
    except h11.RemoteProtocolError as error:
        raise RefusedError(502, f"{target.name} says nonsense: {error}") from error


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until its end; if either side breaks, both are done."""
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    try:
        while size := source.recv_into(buffer):
            sink.sendall(view[:size])
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
