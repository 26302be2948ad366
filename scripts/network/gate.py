"""Which hosts a sandbox reaches, and the way there, directly or by this machine's own proxy.

A client names a host; only what is allowed by its name and port is looked up, and only a public
address that this gave is connected to. Each decision is noted.
"""

from __future__ import annotations

import base64
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote, urlsplit

import h11

from scripts import env_forward
from scripts.machine.http_server import RefusedError
from scripts.network import addresses
from scripts.settings import allowlist

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scripts.machine.http_server import Headers
    from scripts.network.decisions import Decisions
    from scripts.settings.allowlist import Allowlist

CONNECT_S = 15
SILENT_S = 600
"""How long either side of a plain request may say nothing."""
_AUTHORITY = re.compile(r"([^\s:/@\[\]]+):([0-9]{1,5})")
_ADDRESSED = re.compile(r"(?:.*@)?(?:\[.*|[0-9.]+|0x[0-9a-f.x]+)(?::[0-9]*)?", re.IGNORECASE)
_URL = re.compile(r"http://([^\s:/@\[\]?#]+)(?::([0-9]{1,5}))?([/?][^\s#]*)?", re.IGNORECASE)


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


def target_of(method: str, text: str) -> Target:
    """Read where a request is to go, from its first line alone.

    Raises:
        RefusedError: That is no host, or not what a proxy is asked for.
    """
    is_tunnel = method == "CONNECT"
    found = (_AUTHORITY if is_tunnel else _URL).fullmatch(text)
    # What it says is shown to whoever reads the log.
    shown = text.encode("ascii", "backslashreplace").decode()[:100]
    authority = text if is_tunnel else text.partition("://")[2].partition("/")[0]
    if not found and _ADDRESSED.fullmatch(authority):
        raise RefusedError(403, f"{shown}: an address, not a name")
    if not found:
        raise RefusedError(400, f"{shown}: not what a proxy is asked for")
    try:
        name, port = allowlist.name_of(found[1]), int(found[2] or allowlist.HTTP)
    except ValueError as error:
        raise RefusedError(403, f"{shown}: {error}") from error
    if not 0 < port < 65536:
        raise RefusedError(400, f"{shown}: no such port")
    path = "" if is_tunnel else "/" + (found[3] or "").removeprefix("/")
    return Target(name=name, port=port, is_tunnel=is_tunnel, path=path)


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
            parts = urlsplit(url)
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
        """Return what it wants to know from us."""
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
    look_up: Callable[[str, int], Iterable[str]] = addresses.look_up_addresses
    is_public: Callable[[str], bool] = addresses.is_public

    def check(self, target: Target) -> None:
        """Look whether a target is allowed by its name.

        Raises:
            RefusedError: It is not.
        """
        if not self.allowed.allows(target.name, target.port, is_tunnel=target.is_tunnel):
            usual = allowlist.HTTPS if target.is_tunnel else allowlist.HTTP
            wanted = target.name if target.port == usual else f"{target.name}:{target.port}"
            told = f"{wanted} is not allowed — nddt network.allow {wanted}"
            self._refuse(target, "not allowed", RefusedError(403, told))

    def _refuse(self, target: Target, reason: str, refused: RefusedError) -> NoReturn:
        self.decisions.note("blocked", f"{target.name}:{target.port}", reason)
        raise refused

    def open(self, target: Target) -> tuple[socket.socket, Upstream | None]:
        """Connect to an allowed target, directly or by this machine's proxy.

        Raises:
            RefusedError: It has no public address, or does not answer.
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
            raise RefusedError(502, f"{target.name} cannot be reached: {error}") from error
        self.decisions.note("allowed", f"{target.name}:{target.port}", "")
        peer.settimeout(SILENT_S)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer, upstream

    def _look_up(self, target: Target, *, by_proxy: bool) -> tuple[str, ...]:
        """Look up the public addresses of a target: nothing else is ever connected to.

        A proxy of this machine's may know names that we do not; what we know counts all the same.
        """
        try:
            found = tuple(self.look_up(target.name, target.port))
        except OSError as error:
            if by_proxy:
                return ()
            self.decisions.note("failed", f"{target.name}:{target.port}", "no such name")
            raise RefusedError(502, f"{target.name} is not known: {error}") from error
        public = tuple(one for one in found if self.is_public(one))
        if not public or (by_proxy and public != found):
            reason = f"not public: {', '.join(one for one in found if one not in public)}"
            told = f"{target.name} is not on the internet ({reason})"
            self._refuse(target, reason, RefusedError(403, told))
        return public

    def _upstream(self, target: Target) -> Upstream | None:
        scheme = "https" if target.is_tunnel else "http"
        url = env_forward.proxy_for(scheme, target.name, target.port, self.proxies)
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
