"""What this machine knows about its network, and the sandbox must know too.

Extra certificate authorities, proxies, and mirrors of apt, npm and pip, each read from
where the tool itself is configured.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts import env_forward
from scripts.errors import ConfigError
from scripts.machine import certificates

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

SYSTEM_CA_DIRECTORY = Path("/usr/local/share/ca-certificates")
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian keeps all authorities in one file, in the sandbox as well."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The part of this machine's network configuration that goes into sandboxes."""

    ca_certs: str
    """PEM text of the extra authorities; empty if there are none."""
    proxies: Mapping[str, str] = field(repr=False)
    apt_mirror: str
    npm_registry: str
    pip_index_url: str

    def build_args(self) -> dict[str, str]:
        """Build what the Dockerfile needs, but for the proxies, which stay out of the image."""
        import base64  # noqa: PLC0415

        return {
            "CA_CERTS": base64.b64encode(self.ca_certs.encode()).decode(),
            "APT_MIRROR": self.apt_mirror,
            "NPM_REGISTRY": self.npm_registry,
            "PIP_INDEX_URL": self.pip_index_url,
        }

    def session_variables(self) -> dict[str, str]:
        """Return what a program inside needs."""
        names = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        bundle = dict.fromkeys(names, CA_BUNDLE) if self.ca_certs else {}
        if not self.proxies:
            return bundle
        # The sandbox's loopback leads to a model on this machine, which no proxy reaches.
        none = ",".join(filter(None, (self.proxies.get("NO_PROXY"), "localhost,127.0.0.1,::1")))
        return {**bundle, **self.proxies, "NO_PROXY": none, "no_proxy": none}


def without_password(url: str) -> str:
    """Hide what stands before the @ of a URL."""
    return re.sub(r"//[^/@]*@", "//***@", url)


def loopback_endpoint(url: str, variable: str = "the address") -> tuple[str, int] | None:
    """Tell host and port of a URL that means this machine itself; None for any other.

    Args:
        url: With a scheme.
        variable: Where it comes from, for the error.

    Raises:
        ConfigError: It is no URL with a host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host:
        problem = f"{variable} is {without_password(url)!r}, which is not a URL"
        raise ConfigError(problem, "write it as http://host:port")
    import ipaddress  # noqa: PLC0415  (few runs have an address to look at)

    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return (host, port or (443 if parts.scheme == "https" else 80)) if local else None


def _without_credentials(url: str, where: str) -> str:
    """Drop a mirror whose URL holds a password: an image's history would show it."""
    try:
        has_password = "@" in urlsplit(url).netloc
    except ValueError:
        log.warning("the mirror in %s is not a URL and is not used in the image", where)
        return ""
    if has_password:
        log.warning("the mirror in %s holds a password and is not used in the image", where)
        return ""
    return url


def _npm_registry(environment: Mapping[str, str], home: Path) -> str:
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if environment.get(name):
            return environment[name]
    return _first_match(r"^registry\s*=\s*(\S+)", (home / ".npmrc", Path("/etc/npmrc")))


def _pip_index_url(environment: Mapping[str, str], home: Path) -> str:
    if environment.get("PIP_INDEX_URL"):
        return environment["PIP_INDEX_URL"]
    files = (home / ".config/pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf"))
    return _first_match(r"^index-url\s*[=:]\s*(\S+)", files)


def _apt_mirror() -> str:
    etc = Path("/etc/apt")
    files = (etc / "sources.list", *sorted(etc.glob("sources.list.d/*")))
    return _first_match(r"^[^#\n]*?(https?://\S*/debian)/?(?:\s|$)", files)


def _first_match(pattern: str, files: Iterable[Path]) -> str:
    for path in files:
        try:
            found = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
        except (OSError, UnicodeDecodeError):
            continue
        if found:
            return found[1]
    return ""


def detect(settings: Settings) -> Host:
    """Read this machine's network configuration.

    Raises:
        ConfigError: NDDT_CA_CERTS names something else than certificates.
    """
    environment = settings.process_environment
    home = Path(environment.get("HOME", "/"))
    return Host(
        ca_certs=certificates.read_certificates(
            Path(settings.ca_certs or SYSTEM_CA_DIRECTORY), home, is_chosen=bool(settings.ca_certs)
        ),
        proxies=env_forward.proxies(environment),
        apt_mirror=_without_credentials(_apt_mirror(), "/etc/apt"),
        npm_registry=_without_credentials(_npm_registry(environment, home), "npm's configuration"),
        pip_index_url=_without_credentials(
            _pip_index_url(environment, home), "pip's configuration"
        ),
    )
