"""How this machine reaches the servers for which it keeps keys: by TLS, and its own proxies."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from scripts import env_forward
from scripts.errors import ConfigError
from scripts.settings import host

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    import httpcore

    from scripts.settings.fields import Settings

CONNECT_S = 30
MOST_CONNECTIONS = 100


class NoWayError(ConfigError):
    """This machine reaches others in no way that we know."""


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
        NoWayError: It is by a proxy that does not speak HTTP.
    """
    proxies = env_forward.proxies(settings.process_environment)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        url = proxies.get(name, "")
        if "://" in url and not url.lower().startswith(("http://", "https://")):
            problem = f"{name} is {host.without_password(url)!r}, and a key goes by HTTP alone"
            raise NoWayError(problem, "name an HTTP proxy, or set NDDT_MODEL_ACCESS=env")
    return Outward(proxies=proxies, ca_certs=host.detect(settings).ca_certs)


class Pools:
    """Connections to others, directly and by this machine's proxies."""

    def __init__(self, way: Outward) -> None:
        self._way = way
        self._pools: dict[tuple[str, bool], httpcore.ConnectionPool] = {}
        self._lock = threading.Lock()

    def of(self, origin: str) -> httpcore.ConnectionPool:
        """Find the connections that lead to a server."""
        proxy, is_tls = which = self._proxy(origin), origin.startswith("https:")
        with self._lock:
            if which not in self._pools:
                self._pools[which] = self._made(proxy, is_tls=is_tls)
            return self._pools[which]

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()

    def _proxy(self, origin: str) -> str:
        if host.loopback_endpoint(origin):
            return ""
        parts = urlsplit(origin)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return env_forward.proxy_for(parts.scheme, parts.hostname or "", port, self._way.proxies)

    def _made(self, proxy: str, *, is_tls: bool) -> httpcore.ConnectionPool:
        import httpcore  # noqa: PLC0415

        many: dict[str, Any] = {"max_connections": MOST_CONNECTIONS, "keepalive_expiry": CONNECT_S}
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
