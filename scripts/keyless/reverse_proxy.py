"""A reverse proxy for sandboxes: it adds what they may use but not have to their requests.

Each request is taken apart and put together anew (h11, httpcore), and goes where a decision sends
it, or nowhere. What was added is erased from all that comes back.
"""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts.keyless.eraser import Eraser
from scripts.keyless.outward import CONNECT_S, Pools
from scripts.machine import socket_server
from scripts.machine.http_server import Conversation, RefusedError, of_all_hops

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    import h11
    import httpcore

    from scripts.keyless.outward import Outward

log = logging.getLogger("nddt")

IMPORT_AFTER_S = 0.15
"""What is costly to import waits so long for the first request: it would delay the sandbox."""
IDLE_S = 300
"""How long a client may be silent."""
ANSWER_S = 900
"""How long an answer may make a pause; a long one without a stream is one pause."""
LEAST_FINAL_STATUS = 200
"""What is less is about the connection, or comes before the answer."""
_REPLACED = {b"transfer-encoding", b"accept-encoding", b"cookie"}
# With a part of an answer one could cut a secret in two, and nobody would see it.
_REPLACED |= {b"range", b"if-range"}
_MEANS_ANOTHER = re.compile(
    rb"forwarded|x-forwarded-.+|x-original-.+|x-rewrite-.+|x-(http-)?method(-override)?"
)
"""Headers that some servers take for another method, host or path than those decided about."""


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
        """Return all values of a header."""
        return tuple(value for key, value in self.headers if key == name)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """Where a request goes, and the headers that take the place of the client's own."""

    origin: str
    """Scheme, host, and port if it is not the scheme's own."""
    target: str
    """Path and query, which are sent as they are: nobody parses them once more."""
    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What else the answer must not have, beside what is known from the beginning."""


@contextlib.contextmanager
def serve_reverse_proxy(
    path: Path,
    decide: Callable[[Asked], Sent],
    secrets: Iterable[str],
    way: Outward,
    *,
    warm_up_tls: bool = False,
) -> Iterator[None]:
    """Be a reverse proxy at a socket until the block's end.

    Args:
        path: See `socket_server.serve_clients`.
        decide: Says where a request goes, or raises a RefusedError.
        secrets: What must not be in an answer.
        way: How this machine reaches others.
        warm_up_tls: Whether a request is to come at once that goes on by TLS, for which to prepare.
    """
    hidden = tuple(one.encode() for one in secrets)
    with contextlib.closing(Pools(way)) as pools:

        def begin() -> Callable[[socket.socket], None]:
            import h11  # noqa: F401, PLC0415
            import httpcore  # noqa: F401, PLC0415

            if warm_up_tls:
                with contextlib.suppress(OSError):  # the request will tell
                    _ = way.trusted
            return lambda client: _Client(client, decide, Eraser(hidden), pools).serve()

        with socket_server.serve_clients(
            path, begin, name="the reverse proxy", within_s=IMPORT_AFTER_S
        ):
            yield


class _Client:
    """One connection of a client's."""

    def __init__(
        self,
        client: socket.socket,
        decide: Callable[[Asked], Sent],
        eraser: Eraser,
        pools: Pools,
    ) -> None:
        self._talk = Conversation(client, head_s=IDLE_S, silent_s=IDLE_S)
        self._decide = decide
        self._eraser = eraser
        self._pools = pools

    def serve(self) -> None:
        """Answer its requests, one after the other."""
        try:
            while request := self._talk.request():
                self._answer(request)
                if not self._talk.next():
                    return
        except RefusedError as error:
            self._refuse(error)

    def _refuse(self, why: RefusedError) -> None:
        self._talk.refuse(why.status, self._eraser.whole(f"nddt: {why.text}\n".encode()))

    def _answer(self, request: h11.Request) -> None:
        asked = Asked(
            method=request.method.decode(),
            target=request.target.decode(),
            headers=tuple((n.decode(), v.decode("latin-1")) for n, v in request.headers),
        )
        try:
            if "#" in asked.target:
                raise RefusedError(400, "a fragment is no part of a request")  # noqa: TRY301
            sent = self._decide(asked)
            log.debug("the sandbox asks: %s %s", asked.method, asked.path)
            self._eraser.add(one.encode() for one in sent.secrets)
            self._pass_on(request, sent)
        except RefusedError as error:
            log.debug("refused: %s %s: %s", asked.method, asked.path, error)
            self._refuse(error)

    def _pass_on(self, request: h11.Request, sent: Sent) -> None:
        import httpcore  # noqa: PLC0415

        names = {name for name, _ in request.headers}
        has_body = not names.isdisjoint({b"content-length", b"transfer-encoding"})
        timeout = {"connect": CONNECT_S, "read": ANSWER_S, "write": IDLE_S, "pool": CONNECT_S}
        to = urlsplit(sent.origin)
        host = to.hostname or ""
        url = httpcore.URL(scheme=to.scheme, host=host, port=to.port, target=sent.target)
        try:
            pool = self._pools.of(sent.origin)
        except OSError as error:
            text = f"certificates of this machine cannot be used: {error}"
            raise RefusedError(502, text) from error
        try:
            with pool.stream(
                request.method,
                url,
                headers=_headers(request, sent),
                content=self._talk.body() if has_body else None,
                extensions={"timeout": timeout},
            ) as response:
                self._relay(response)
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.ProxyError,
            httpcore.TimeoutException,
        ) as error:
            text = f"{host} does not answer: {type(error).__name__}: {error}"
            raise RefusedError(502, text) from error

    def _relay(self, response: httpcore.Response) -> None:
        """Pass an answer on as it comes, without what must not be in it.

        Raises:
            RefusedError: Nobody can look at it.
        """
        if response.status < LEAST_FINAL_STATUS:
            raise RefusedError(502, "the answer is the beginning of another protocol")
        headers = [
            (name, self._eraser.whole(value))
            for name, value in of_all_hops(response.headers)
            if name != b"transfer-encoding" and not self._eraser.is_in(name)
        ]
        encodings = [value for name, value in headers if name == b"content-encoding"]
        if not {b"identity"}.issuperset(encodings):
            raise RefusedError(502, "the answer is encoded, so nobody can look at it")
        self._talk.answer(response.status, headers, self._erased(response))

    def _erased(self, response: httpcore.Response) -> Iterator[bytes]:
        for piece in response.iter_stream():
            yield self._eraser.feed(piece)
        yield self._eraser.end()


def _headers(request: h11.Request, sent: Sent) -> list[tuple[bytes, bytes]]:
    """Build the headers that go on; answers come as they are, so that secrets can be seen."""
    ours = {name.encode(): value.encode("latin-1") for name, value in sent.headers.items()}
    gone = {*_REPLACED, *ours}
    kept = [
        (name, value)
        for name, value in of_all_hops(request.headers)
        if name not in gone and not _MEANS_ANOTHER.fullmatch(name)
    ]
    return [*kept, *ours.items(), (b"accept-encoding", b"identity")]
