"""The server's side of HTTP, as h11 reads and writes it: one connection of a client's.

What a client sends is bounded, in bytes and in time, and what it cannot ask for gets an answer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

    import h11

    Headers = list[tuple[bytes, bytes]]

HEAD_BYTES = 64 * 1024
MOST_DRAINED = 1 << 20
"""Bytes of a refused request that are read, so that the connection can go on."""
PIECE = 64 * 1024
"""Bytes that are read at a time."""
_OF_ONE_HOP = frozenset(
    b"connection host proxy-connection proxy-authorization proxy-authenticate "
    b"keep-alive te trailer upgrade expect".split()
)


class RefusedError(Exception):
    """A request that goes nowhere.

    Args:
        status: Of the answer.
        text: Tells the client why.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def of_all_hops(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Drop the headers that are about one connection only, in small letters the others."""
    pairs = [(name.lower(), value) for name, value in headers]
    named = b",".join(value for name, value in pairs if name == b"connection").lower()
    dropped = set(_OF_ONE_HOP) | {one.strip() for one in named.split(b",")}
    # How long it is, h11 has read; whoever calls that a matter of one hop means to confuse.
    dropped -= {b"transfer-encoding", b"content-length"}
    if any(name == b"transfer-encoding" for name, _ in pairs):
        dropped.add(b"content-length")  # which counts for nothing then (RFC 9112, 6.3)
    return [(name, value) for name, value in pairs if name not in dropped]


class Conversation:
    """One connection, with its requests one after the other.

    Args:
        client: Who asks.
        head_s: Seconds that the head of a request may take, and a connection be unused.
        silent_s: How long the client may say and take nothing in between.
    """

    def __init__(self, client: socket.socket, *, head_s: float, silent_s: float) -> None:
        import h11  # noqa: PLC0415  (a sandbox starts meanwhile)

        self._h11 = h11
        self._client = client
        self._head_s, self._silent_s = head_s, silent_s
        self._speaker = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._wants_body = True

    def request(self) -> h11.Request | None:
        """Wait for the next request; None if there is none.

        Raises:
            RefusedError: It is not HTTP.
            OSError: It does not come.
        """
        self._wants_body = True  # what is no request gets an answer that has one
        event = self.event(time.monotonic() + self._head_s)
        if not isinstance(event, self._h11.Request):
            return None
        self._wants_body = event.method != b"HEAD"
        return event

    def body(self) -> Iterator[bytes]:
        """Read the request's body as it comes.

        Raises:
            RefusedError: It is not HTTP.
            ConnectionError: It breaks off.
        """
        while isinstance(event := self.event(), self._h11.Data):
            yield bytes(event.data)
        if not isinstance(event, self._h11.EndOfMessage):
            raise ConnectionError("the client is gone")

    def event(self, latest: float = float("inf")) -> Any:  # noqa: ANN401  (h11 has a class for each)
        """Read what comes next, until a time of time.monotonic."""
        try:
            while (event := self._speaker.next_event()) is self._h11.NEED_DATA:
                if self._speaker.they_are_waiting_for_100_continue:
                    self.send(self._h11.InformationalResponse(status_code=100, headers=[]))
                left_s = min(self._silent_s, latest - time.monotonic())
                if left_s <= 0:
                    raise TimeoutError
                self._client.settimeout(left_s)
                self._speaker.receive_data(self._client.recv(PIECE))
        except self._h11.RemoteProtocolError as error:
            raise RefusedError(error.error_status_hint or 400, "this is not HTTP") from error
        return event

    def send(self, event: h11.Event) -> None:
        """Send a part of the answer.

        Raises:
            ConnectionError: It is none that may come now.
        """
        try:
            data = self._speaker.send(event)
        except self._h11.LocalProtocolError as error:
            raise ConnectionError(f"the answer breaks off: {error}") from error
        if data:
            self._client.settimeout(self._silent_s)
            self._client.sendall(data)

    def answer(self, status: int, headers: Headers, body: Iterable[bytes]) -> None:
        """Send an answer."""
        self.send(self._h11.Response(status_code=status, headers=headers))
        for piece in body:
            self.send(self._h11.Data(data=piece))
        self.send(self._h11.EndOfMessage())

    def refuse(self, status: int, text: bytes, *, closes: bool = False) -> None:
        """Answer a request that goes nowhere, if there is no answer yet.

        Args:
            status: Of the answer.
            text: Its body.
            closes: It is the last one on this connection.
        """
        if self._speaker.our_state not in {self._h11.IDLE, self._h11.SEND_RESPONSE}:
            return
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            *([(b"connection", b"close")] if closes else []),
        ]
        self.answer(status, headers, [text] if self._wants_body else [])

    def next(self) -> bool:
        """Be ready for the next request, if the connection can have one."""
        room = MOST_DRAINED
        while self._speaker.their_state is self._h11.SEND_BODY and room >= 0:
            event = self.event()
            room -= len(event.data) if isinstance(event, self._h11.Data) else 0
        if {self._speaker.our_state, self._speaker.their_state} != {self._h11.DONE}:
            return False
        self._speaker.start_next_cycle()
        return True

    def become_tunnel(self) -> bytes:
        """Say that all goes through from now on, and return what has come already."""
        self.send(self._h11.Response(status_code=200, headers=[], reason=b"Connection established"))
        early, _ = self._speaker.trailing_data
        return early
