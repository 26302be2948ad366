"""A forward proxy that lets clients reach what is allowed, and notes each decision.

A client names a host; only what is allowed by its name and port is looked up, and only a public
address that this gave is connected to. TLS goes through as it is; of plain HTTP each request is
looked at, whatever came before it on its connection. The parsing is h11's.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote, urlsplit

import h11

from scripts import addresses, allowlist

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scripts.allowlist import Allowlist
    from scripts.decisions import Decisions

HEAD_BYTES = 64 * 1024
HEAD_S = 60
"""How long a client may take for the head of a request, and a connection may be unused."""
SILENT_S = 600
"""How long either side of a plain request may say nothing."""
UNUSED_S = 3600
"""How long nothing may come through a tunnel from one of its sides."""
CONNECT_S = 15
CLIENTS = 256
"""How many clients are served at a time; more are sent away."""
CHUNK = 256 * 1024
PIECE = 64 * 1024
"""Bytes that are read at a time: into a buffer that stays, and into new ones, which cost more."""
_AUTHORITY = re.compile(r"([^\s:/@\[\]]+):([0-9]{1,5})")
_ADDRESSED = re.compile(r"(?:.*@)?(?:\[.*|[0-9.]+|0x[0-9a-f.x]+)(?::[0-9]*)?", re.IGNORECASE)
_URL = re.compile(r"http://([^\s:/@\[\]?#]+)(?::([0-9]{1,5}))?([/?][^\s#]*)?", re.IGNORECASE)
_OF_ONE_HOP = frozenset(
    b"connection host proxy-connection proxy-authorization proxy-authenticate "
    b"keep-alive te trailer upgrade expect".split()
)

Headers = list[tuple[bytes, bytes]]


class Refusal(Exception):  # noqa: N818  (it is an answer)
    """An answer of our own to a request."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a request is to go."""

    name: str
    port: int
    is_tunnel: bool
    path: str = ""

    @property
    def authority(self) -> str:
        """The name with the port, unless that is the usual one."""
        return self.name if self.port == allowlist.HTTP else f"{self.name}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The proxy by which this machine itself reaches others."""

    host: str
    port: int
    is_tls: bool
    authorization: str = field(default="", repr=False)

    @classmethod
    def read(cls, url: str) -> Upstream | None:
        """Read what HTTPS_PROXY and the like say; None if that is no HTTP proxy."""
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            return None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            return None
        who = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        given = parts.username is not None
        return cls(
            host=parts.hostname,
            port=port or (443 if parts.scheme == "https" else 80),
            is_tls=parts.scheme == "https",
            authorization="Basic " + base64.b64encode(who.encode()).decode() if given else "",
        )

    def headers(self) -> Headers:
        """Give what it wants to know from us."""
        words = self.authorization.encode()
        return [(b"Proxy-Authorization", words)] if words else []

    def connect(self) -> socket.socket:
        """Connect to it; it is where this machine's configuration says, wherever that is."""
        peer = socket.create_connection((self.host, self.port), CONNECT_S)
        if not self.is_tls:
            return peer
        import ssl  # noqa: PLC0415  (few proxies want it)

        return ssl.create_default_context().wrap_socket(peer, server_hostname=self.host)

    def tunnel(self, target: Target) -> socket.socket:
        """Have it connect to a target.

        Raises:
            OSError: It does not.
        """
        peer = self.connect()
        to = f"{target.name}:{target.port}"
        try:
            speaker = h11.Connection(h11.CLIENT)
            headers = [(b"Host", to.encode()), *self.headers()]
            peer.sendall(speaker.send(h11.Request(method="CONNECT", target=to, headers=headers)))
            while (event := speaker.next_event()) is h11.NEED_DATA:
                # A byte at a time: what follows is not for us.
                speaker.receive_data(peer.recv(1))
        except h11.RemoteProtocolError as error:
            peer.close()
            raise ConnectionRefusedError("this machine's proxy says nonsense") from error
        except BaseException:
            peer.close()
            raise
        if isinstance(event, h11.Response) and event.status_code // 100 == 2:
            return peer
        peer.close()
        said = getattr(event, "status_code", "nothing")
        raise ConnectionRefusedError(f"this machine's proxy says {said}")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Decides about targets, and leads to those that are let through."""

    allowed: Allowlist
    decisions: Decisions
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    """This machine's: HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
    look_up: Callable[[str, int], Iterable[str]] = addresses.look_up
    is_public: Callable[[str], bool] = addresses.is_public

    def check(self, target: Target) -> None:
        """Look whether a target is allowed by its name.

        Raises:
            Refusal: It is not.
        """
        if not self.allowed.allows(target.name, target.port, is_tunnel=target.is_tunnel):
            usual = allowlist.HTTPS if target.is_tunnel else allowlist.HTTP
            wanted = target.name if target.port == usual else f"{target.name}:{target.port}"
            told = f"{wanted} is not allowed — inv network.allow {wanted}"
            self._refuse(target, "not allowed", Refusal(403, told))

    def _refuse(self, target: Target, reason: str, refusal: Refusal) -> NoReturn:
        self.decisions.note("blocked", f"{target.name}:{target.port}", reason)
        raise refusal

    def open(self, target: Target) -> tuple[socket.socket, Upstream | None]:
        """Connect to an allowed target, directly or by this machine's proxy.

        Raises:
            Refusal: It has no public address, or does not answer.
        """
        self.check(target)
        upstream = self._upstream(target)
        found = self._look_up(target, by_proxy=upstream is not None)
        try:
            if upstream is None:
                peer = _connect(found, target.port)
            else:
                peer = upstream.tunnel(target) if target.is_tunnel else upstream.connect()
        except OSError as error:
            self.decisions.note("failed", f"{target.name}:{target.port}", str(error))
            raise Refusal(502, f"{target.name} cannot be reached: {error}") from error
        self.decisions.note("allowed", f"{target.name}:{target.port}", "")
        peer.settimeout(SILENT_S)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer, upstream

    def _look_up(self, target: Target, *, by_proxy: bool) -> tuple[str, ...]:
        """Give the public addresses of a target: nothing else is ever connected to.

        A proxy of this machine's may know names that we do not; what we know counts all the same.
        """
        try:
            found = tuple(self.look_up(target.name, target.port))
        except OSError as error:
            if by_proxy:
                return ()
            self.decisions.note("failed", f"{target.name}:{target.port}", "no such name")
            raise Refusal(502, f"{target.name} is not known: {error}") from error
        public = tuple(one for one in found if self.is_public(one))
        if not public or (by_proxy and public != found):
            reason = f"not public: {', '.join(one for one in found if one not in public)}"
            told = f"{target.name} is not on the internet ({reason})"
            self._refuse(target, reason, Refusal(403, told))
        return public

    def _upstream(self, target: Target) -> Upstream | None:
        without = self.proxies.get("NO_PROXY", "").lower().replace(",", " ").split()
        names = (target.name, f"{target.name}:{target.port}")
        if any(
            one == "*" or f".{name}".endswith(f".{one.removeprefix('*').lstrip('.')}")
            for one in without
            for name in names
        ):
            return None
        names = ("HTTPS_PROXY" if target.is_tunnel else "HTTP_PROXY", "ALL_PROXY")
        url = next((self.proxies[name] for name in names if name in self.proxies), "")
        return Upstream.read(url)


def _connect(found: Iterable[str], port: int) -> socket.socket:
    """Connect to the first of these addresses that answers."""
    failed: OSError = OSError("no address")
    for one in found:
        try:
            return socket.create_connection((one, port), CONNECT_S)
        except OSError as error:
            failed = error
    raise failed


# -- requests -------------------------------------------------------------------------------


def target_of(method: str, text: str) -> Target:
    """Read where a request is to go, from its first line alone.

    Raises:
        Refusal: That is no host, or not what a proxy is asked for.
    """
    is_tunnel = method == "CONNECT"
    found = (_AUTHORITY if is_tunnel else _URL).fullmatch(text)
    # What it says is shown to whoever reads the log.
    shown = text.encode("ascii", "backslashreplace").decode()[:100]
    authority = text if is_tunnel else text.partition("://")[2].partition("/")[0]
    if not found and _ADDRESSED.fullmatch(authority):
        raise Refusal(403, f"{shown}: an address, not a name")
    if not found:
        raise Refusal(400, f"{shown}: not what a proxy is asked for")
    try:
        name, port = allowlist.name_of(found[1]), int(found[2] or allowlist.HTTP)
    except ValueError as error:
        raise Refusal(403, f"{shown}: {error}") from error
    if not 0 < port < 65536:
        raise Refusal(400, f"{shown}: no such port")
    path = "" if is_tunnel else "/" + (found[3] or "").removeprefix("/")
    return Target(name=name, port=port, is_tunnel=is_tunnel, path=path)


def _of_all_hops(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Drop the headers that are about one connection only."""
    pairs = [(name.lower(), value) for name, value in headers]
    named = b",".join(value for name, value in pairs if name == b"connection").lower()
    dropped = set(_OF_ONE_HOP) | {one.strip() for one in named.split(b",")}
    # How long it is, h11 has read; whoever calls that a matter of one hop means to confuse.
    dropped -= {b"transfer-encoding", b"content-length"}
    if any(name == b"transfer-encoding" for name, _ in pairs):
        dropped.add(b"content-length")
    return [(name, value) for name, value in pairs if name not in dropped]


class _Client:
    """One connection of a client's."""

    def __init__(self, peer: socket.socket, gate: Gate) -> None:
        self._peer = peer
        self._gate = gate
        self._speaker = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

    def serve(self) -> None:
        """Answer its requests, one after the other."""
        while True:
            try:
                request = self._request()
                if request is None:
                    return
                target = self._target(request)
                if target.is_tunnel:
                    self._tunnel(target)
                    return
                self._pass_on(request, target)
            except h11.RemoteProtocolError as error:
                self._answer(Refusal(error.error_status_hint or 400, str(error)))
                return
            except Refusal as refusal:
                self._answer(refusal)
                return
            if {self._speaker.our_state, self._speaker.their_state} != {h11.DONE}:
                return
            self._speaker.start_next_cycle()

    def _target(self, request: h11.Request) -> Target:
        try:
            return target_of(request.method.decode("ascii"), request.target.decode("latin-1"))
        except Refusal as refusal:
            shown, _, reason = refusal.text.rpartition(": ")
            self._gate.decisions.note("blocked", shown, reason)
            raise

    def _event(self, latest: float = float("inf")) -> object:
        while (event := self._speaker.next_event()) is h11.NEED_DATA:
            left_s = min(SILENT_S, latest - time.monotonic())
            if left_s <= 0:
                raise TimeoutError
            self._peer.settimeout(left_s)
            self._speaker.receive_data(self._peer.recv(PIECE))
        return event

    def _request(self) -> h11.Request | None:
        event = self._event(time.monotonic() + HEAD_S)
        return event if isinstance(event, h11.Request) else None

    def _send(self, event: h11.Event) -> None:
        self._peer.settimeout(SILENT_S)
        self._peer.sendall(self._speaker.send(event) or b"")

    def _answer(self, refusal: Refusal) -> None:
        """Give our own answer, if none has begun; the connection ends with it."""
        if self._speaker.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        body = f"nddt: {refusal.text}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]
        headers.append(("Content-Length", str(len(body))))
        self._send(h11.Response(status_code=refusal.status, headers=headers, reason=b"nddt"))
        self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())

    def _tunnel(self, target: Target) -> None:
        peer, _ = self._gate.open(target)
        with peer:
            self._send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
            early, _ = self._speaker.trailing_data
            peer.sendall(early)
            for one in (self._peer, peer):
                one.settimeout(UNUSED_S)
            back = threading.Thread(target=_copy, args=(peer, self._peer), daemon=True)
            back.start()
            _copy(self._peer, peer)
            back.join()

    def _pass_on(self, request: h11.Request, target: Target) -> None:
        peer, upstream = self._gate.open(target)
        with peer:
            to = target.path if upstream is None else f"http://{target.authority}{target.path}"
            headers = [(b"Host", target.authority.encode()), *_of_all_hops(request.headers)]
            headers += upstream.headers() if upstream else []
            headers.append((b"Connection", b"close"))
            origin = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
            head = h11.Request(method=request.method, target=to, headers=headers)
            peer.sendall(origin.send(head) or b"")
            try:
                self._send_body(peer, origin)
                self._give_answer(peer, origin)
            except OSError as error:
                raise Refusal(502, f"{target.name} does not answer: {error}") from error
            except h11.RemoteProtocolError as error:
                if origin.their_state is not h11.ERROR:
                    raise
                raise Refusal(502, f"{target.name} says nonsense: {error}") from error

    def _send_body(self, peer: socket.socket, origin: h11.Connection) -> None:
        if self._speaker.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))
        while True:
            event = self._event()
            if isinstance(event, h11.EndOfMessage):
                peer.sendall(origin.send(h11.EndOfMessage(headers=event.headers)) or b"")
                return
            if not isinstance(event, h11.Data):
                raise ConnectionError("the client is gone")
            peer.sendall(origin.send(event) or b"")

    def _give_answer(self, peer: socket.socket, origin: h11.Connection) -> None:
        while True:
            event = origin.next_event()
            if event is h11.NEED_DATA:
                origin.receive_data(peer.recv(PIECE))
            elif isinstance(event, h11.Response):
                headers = _of_all_hops(event.headers)
                status, reason = event.status_code, event.reason
                self._send(h11.Response(status_code=status, headers=headers, reason=reason))
            elif isinstance(event, h11.Data):
                self._send(event)
            elif isinstance(event, h11.EndOfMessage):
                self._send(h11.EndOfMessage(headers=event.headers))
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionError("it has hung up")


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until its end; if either side breaks, both are done."""
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    try:
        while size := source.recv_into(buffer):
            sink.sendall(view[:size])
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


# -- clients --------------------------------------------------------------------------------


def accept(listener: socket.socket, gate: Gate) -> None:
    """Serve whoever connects, until the listener is shut down; then everybody is let go."""
    free = threading.BoundedSemaphore(CLIENTS)
    peers: set[socket.socket] = set()

    def serve(peer: socket.socket) -> None:
        try:
            with peer, contextlib.suppress(OSError, h11.LocalProtocolError):
                _Client(peer, gate).serve()
        finally:
            peers.discard(peer)
            free.release()

    try:
        with contextlib.suppress(OSError):  # it has been shut down
            while True:
                peer, _ = listener.accept()
                if not free.acquire(blocking=False):
                    peer.close()
                    continue
                peers.add(peer)
                threading.Thread(target=serve, args=(peer,), daemon=True, name="proxy").start()
    finally:
        for one in tuple(peers):
            with contextlib.suppress(OSError):  # it is gone
                one.shutdown(socket.SHUT_RDWR)
