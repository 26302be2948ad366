"""A reverse proxy for sandboxes: it adds what they may use but not have to their requests.

It listens on a socket of this machine, to which ssh leads. Each request is taken apart and put
together anew (h11, httpcore), and goes where a decision sends it, or nowhere. What was added is
erased from all that comes back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from scripts import env_forward, host, state
from scripts.errors import ConfigError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    import h11
    import httpcore

    from scripts.settings import Settings

log = logging.getLogger("nddt")

IMPORT_AFTER_S = 0.15
"""What is costly to import waits so long for the first request: it would delay the sandbox."""
MOST_CLIENTS = 100
"""How many connections are served at a time; the others wait."""
IDLE_S = 300
"""How long a client may be silent."""
CONNECT_S = 30
ANSWER_S = 900
"""How long an answer may make a pause; a long one without a stream is one pause."""
MOST_DRAINED = 1 << 20
"""Bytes of a refused request that are read, so that the connection can go on."""
PIECE = 1 << 16
SHORTEST_SECRET = 12
"""Characters of a key; a shorter one may be a word such as `none`, which answers may hold."""
_OF_THE_CONNECTION = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
    *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
}
_REPLACED = {*_OF_THE_CONNECTION, b"host", b"accept-encoding", b"cookie", b"expect"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The head of a request from a sandbox."""

    method: str
    target: str
    """Path and query."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """Names are in lower case."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def values(self, name: str) -> tuple[str, ...]:
        """Give all values of a header."""
        return tuple(value for key, value in self.headers if key == name)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """Where a request goes, and the headers that take the place of the client's own."""

    url: str
    headers: Mapping[str, str] = field(repr=False)


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


@dataclass(frozen=True, kw_only=True)
class Outward:
    """How this machine reaches others."""

    proxies: Mapping[str, str] = field(repr=False)
    ca_certs: str = field(repr=False)
    """PEM text of authorities beside the system's own."""

    @cached_property
    def trusted(self) -> ssl.SSLContext:
        """Whom it believes; making it takes a tenth of a second and more."""
        import ssl  # noqa: PLC0415

        context = ssl.create_default_context()
        if not context.cert_store_stats()["x509_ca"]:  # as with python.org's Python on macOS
            import certifi  # noqa: PLC0415

            context.load_verify_locations(certifi.where())
        if self.ca_certs:
            context.load_verify_locations(cadata=self.ca_certs)
        return context


def outward(settings: Settings) -> Outward:
    """Tell how this machine reaches others.

    Raises:
        ConfigError: It is by a proxy that does not speak HTTP.
    """
    proxies = env_forward.proxies(settings.process_environment)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        url = proxies.get(name, "")
        if "://" in url and not url.lower().startswith(("http://", "https://")):
            problem = f"{name} is {host.without_password(url)!r}, and a key goes by HTTP alone"
            raise ConfigError(problem, "name an HTTP proxy, or set NDDT_MODEL_ACCESS=env")
    return Outward(proxies=proxies, ca_certs=host.detect(settings).ca_certs)


class Eraser:
    """Makes secrets in a stream illegible, with no more delay than one that has begun needs.

    What is written over them is as long as they are, so that lengths stay true.

    Args:
        secrets: What is erased; short ones may be words, and stay.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        wanted = {one for one in secrets if len(one) >= SHORTEST_SECRET}
        self._secrets = sorted(wanted, key=len, reverse=True)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Give what can be given of the stream so far."""
        data = self.whole(self._held + data)
        begun = max((_overlap(data, one) for one in self._secrets), default=0)
        self._held = data[len(data) - begun :]
        return data[: len(data) - begun]

    def end(self) -> bytes:
        """Give the rest."""
        held, self._held = self._held, b""
        return held

    def whole(self, data: bytes) -> bytes:
        """Erase secrets in something that is no stream."""
        for one in self._secrets:
            data = data.replace(one, b"*" * len(one))
        return data


def _overlap(data: bytes, secret: bytes) -> int:
    """Tell how many bytes at the data's end may be the secret's beginning."""
    longest = min(len(secret) - 1, len(data))
    return next((n for n in range(longest, 0, -1) if data.endswith(secret[:n])), 0)


# -- listening ------------------------------------------------------------------------------


@contextlib.contextmanager
def served(
    path: Path,
    decide: Callable[[Asked], Sent],
    secrets: Iterable[str],
    way: Outward,
    *,
    is_soon: bool = False,
) -> Iterator[None]:
    """Be a reverse proxy at a socket until the block's end.

    Args:
        path: Where; its directory is a private one, made if missing. Several processes may be
            at one path: it leads to the last, and then to one that is still there.
        decide: Says where a request goes, or raises a RefusedError.
        secrets: What must not be in an answer.
        way: See there.
        is_soon: Whether a request is to come at once that goes on by TLS, for which to prepare.
    """
    proxy = _Proxy(decide, tuple(one.encode() for one in secrets), way, is_soon=is_soon)
    with _listening(path) as listener:
        threading.Thread(target=proxy.accept, args=(listener,), daemon=True, name="proxy").start()
        try:
            yield
        finally:
            proxy.close()


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    own = path.with_name(f"{path.name}-{os.getpid()}")
    own.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own))
        listener.listen(MOST_CLIENTS)
        _lead(path, own)
        try:
            yield listener
        finally:
            own.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # all is gone, or another one is there
                _hand_over(path, own)
                path.parent.rmdir()
            with contextlib.suppress(OSError):  # macOS has no such thing for a listening socket
                listener.shutdown(socket.SHUT_RDWR)


def _lead(path: Path, own: Path) -> None:
    link = own.with_name(f"{own.name}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(own.name)
    link.replace(path)


def _hand_over(path: Path, own: Path) -> None:
    if path.readlink().name != own.name:
        return
    for other in path.parent.glob(f"{path.name}-*"):
        pid = other.name.rpartition("-")[2]
        if pid.isdecimal() and state.is_alive(int(pid)):
            _lead(path, other)
            return
    path.unlink()


class _Proxy:
    def __init__(
        self,
        decide: Callable[[Asked], Sent],
        secrets: tuple[bytes, ...],
        way: Outward,
        *,
        is_soon: bool,
    ) -> None:
        self._decide = decide
        self._way = way
        self._is_soon = is_soon
        self._secrets = secrets
        self._pools = _Pools(way)
        self._room = threading.BoundedSemaphore(MOST_CLIENTS)
        self._clients: set[socket.socket] = set()
        self._closed = False

    def accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has been closed
            select.select([listener], [], [], IMPORT_AFTER_S)
            import h11  # noqa: F401, PLC0415
            import httpcore  # noqa: F401, PLC0415

            if self._is_soon:
                _ = self._way.trusted
            while True:
                self._room.acquire()
                client, _ = listener.accept()
                self._clients.add(client)
                if self._closed:
                    self.close()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Drop the clients, also in the middle of an answer."""
        self._closed = True
        for client in tuple(self._clients):
            with contextlib.suppress(OSError):  # it may have gone
                client.shutdown(socket.SHUT_RDWR)
        self._pools.close()

    def _serve(self, client: socket.socket) -> None:
        import h11  # noqa: PLC0415

        try:
            with client, contextlib.suppress(OSError):  # it is gone
                client.settimeout(IDLE_S)
                exchange = _Exchange(client, Eraser(self._secrets))
                try:
                    while self._answer(exchange):
                        pass
                except h11.RemoteProtocolError as error:
                    exchange.refuse(RefusedError(error.error_status_hint, "this is not HTTP"))
                except h11.LocalProtocolError as error:  # the answer breaks off
                    log.debug("an answer was not passed on to its end: %s", error)
        finally:
            self._clients.discard(client)
            self._room.release()

    def _answer(self, exchange: _Exchange) -> bool:
        """Answer one request, and tell whether there may be another one."""
        request = exchange.request()
        if request is None:
            return False
        asked = Asked(
            method=request.method.decode(),
            target=request.target.decode(),
            headers=tuple((n.decode(), v.decode("latin-1")) for n, v in request.headers),
        )
        try:
            sent = self._decide(asked)
        except RefusedError as error:
            log.debug("refused: %s %s: %s", asked.method, asked.path, error)
            exchange.refuse(error)
        else:
            log.debug("the sandbox asks: %s %s", asked.method, asked.path)
            self._pass_on(exchange, request, sent)
        return exchange.next()

    def _pass_on(self, exchange: _Exchange, request: h11.Request, sent: Sent) -> None:
        import httpcore  # noqa: PLC0415

        names = {name for name, _ in request.headers}
        has_body = not names.isdisjoint({b"content-length", b"transfer-encoding"})
        timeout = {"connect": CONNECT_S, "read": ANSWER_S, "write": IDLE_S, "pool": CONNECT_S}
        try:
            with self._pools.of(sent.url).stream(
                request.method,
                sent.url,
                headers=_headers(request, sent),
                content=exchange.body() if has_body else None,
                extensions={"timeout": timeout},
            ) as response:
                exchange.relay(response)
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.ProxyError,
            httpcore.TimeoutException,
        ) as error:
            where = urlsplit(sent.url).hostname
            text = f"{where} does not answer: {type(error).__name__}: {error}"
            exchange.refuse(RefusedError(502, text))


def _headers(request: h11.Request, sent: Sent) -> list[tuple[bytes, bytes]]:
    """Give the headers that go on; answers come as they are, so that secrets can be seen."""
    ours = {name.encode(): value.encode("latin-1") for name, value in sent.headers.items()}
    listed = b",".join(value for name, value in request.headers if name == b"connection")
    gone = {*_REPLACED, *ours, *(word.strip().lower() for word in listed.split(b","))}
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        gone.add(b"content-length")  # which counts for nothing then (RFC 9112, 6.3)
    kept = [(name, value) for name, value in request.headers if name not in gone]
    return [*kept, *ours.items(), (b"accept-encoding", b"identity")]


class _Exchange:
    """A client's side: HTTP as h11 reads and writes it."""

    def __init__(self, client: socket.socket, eraser: Eraser) -> None:
        import h11  # noqa: PLC0415

        self._h11 = h11
        self._client = client
        self._eraser = eraser
        self._connection = h11.Connection(h11.SERVER)
        self._wants_body = True

    def request(self) -> h11.Request | None:
        """Wait for the next request; None if there is none."""
        event = self._event()
        if not isinstance(event, self._h11.Request):
            return None
        self._wants_body = event.method != b"HEAD"
        return event

    def body(self) -> Iterator[bytes]:
        """Give the request's body as it comes."""
        while isinstance(event := self._event(), self._h11.Data):
            yield bytes(event.data)

    def next(self) -> bool:
        """Be ready for the next request, if the connection can have one."""
        room = MOST_DRAINED
        while self._connection.their_state is self._h11.SEND_BODY and room >= 0:
            event = self._event()
            room -= len(event.data) if isinstance(event, self._h11.Data) else 0
        done = self._h11.DONE
        if (self._connection.our_state, self._connection.their_state) != (done, done):
            return False
        self._connection.start_next_cycle()
        return True

    def refuse(self, why: RefusedError) -> None:
        """Answer a request that goes nowhere, if there is no answer yet."""
        if self._connection.our_state not in {self._h11.IDLE, self._h11.SEND_RESPONSE}:
            return
        text = self._eraser.whole(f"nddt: {why.text}\n".encode())
        headers = [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(len(text))),
        ]
        self._send(self._h11.Response(status_code=why.status, headers=headers))
        if self._wants_body:
            self._send(self._h11.Data(data=text))
        self._send(self._h11.EndOfMessage())

    def relay(self, response: httpcore.Response) -> None:
        """Pass an answer on as it comes, without what must not be in it."""
        headers = [
            (name, self._eraser.whole(value))
            for name, value in response.headers
            if name.lower() not in _OF_THE_CONNECTION
        ]
        encodings = [value for name, value in headers if name.lower() == b"content-encoding"]
        if not {b"identity"}.issuperset(encodings):
            self.refuse(RefusedError(502, "the answer is encoded, so nobody can look at it"))
            return
        self._send(self._h11.Response(status_code=response.status, headers=headers))
        for piece in response.iter_stream():
            self._send(self._h11.Data(data=self._eraser.feed(piece)))
        self._send(self._h11.Data(data=self._eraser.end()))
        self._send(self._h11.EndOfMessage())

    def _event(self) -> Any:  # noqa: ANN401  (h11 has a class for each)
        while (event := self._connection.next_event()) is self._h11.NEED_DATA:
            if self._connection.they_are_waiting_for_100_continue:
                self._send(self._h11.InformationalResponse(status_code=100, headers=[]))
            self._connection.receive_data(self._client.recv(PIECE))
        return event

    def _send(self, event: Any) -> None:  # noqa: ANN401
        data = self._connection.send(event)
        if data:
            self._client.sendall(data)


# -- the way out ----------------------------------------------------------------------------


def _is_exempt(name: str, no_proxy: str) -> bool:
    """Tell whether NO_PROXY names a host, or a domain that it is in."""
    words = (word.strip().lower().partition(":")[0].lstrip("*.") for word in no_proxy.split(","))
    return no_proxy.strip() == "*" or any(w and f".{name}".endswith(f".{w}") for w in words)


class _Pools:
    """Connections to others, directly and by this machine's proxies."""

    def __init__(self, way: Outward) -> None:
        self._way = way
        self._pools: dict[tuple[str, bool], httpcore.ConnectionPool] = {}
        self._lock = threading.Lock()

    def of(self, url: str) -> httpcore.ConnectionPool:
        """Give the connections that lead to an address."""
        proxy, is_tls = which = self._proxy(url), url.startswith("https:")
        with self._lock:
            if which not in self._pools:
                self._pools[which] = self._made(proxy, is_tls=is_tls)
            return self._pools[which]

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()

    def _proxy(self, url: str) -> str:
        parts = urlsplit(url)
        proxies = self._way.proxies
        found = proxies.get(f"{parts.scheme.upper()}_PROXY") or proxies.get("ALL_PROXY", "")
        if not found or host.loopback_endpoint(url):
            return ""
        if _is_exempt(parts.hostname or "", proxies.get("NO_PROXY", "")):
            return ""
        return found if "://" in found else f"http://{found}"

    def _made(self, proxy: str, *, is_tls: bool) -> httpcore.ConnectionPool:
        import httpcore  # noqa: PLC0415

        many: dict[str, Any] = {"max_connections": MOST_CLIENTS, "keepalive_expiry": CONNECT_S}
        if is_tls:
            many["ssl_context"] = self._way.trusted
        if proxy.startswith("https:"):
            many["proxy_ssl_context"] = self._way.trusted
        if not proxy:
            return httpcore.ConnectionPool(**many)
        parts = urlsplit(proxy)
        auth = None
        if parts.username:
            auth = (unquote(parts.username), unquote(parts.password or ""))
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return httpcore.HTTPProxy(plain, proxy_auth=auth, **many)
