"""Which variables reach the agent; pure functions."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TERMINAL = ("COLORTERM", "NO_COLOR", "FORCE_COLOR", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TZ")
"""What a program asks to know the user's terminal and clock; TERM goes with the terminal."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
"""Names that programs read in upper or in lower case."""

_EXPORTABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a shell takes as a name; the environment may hold others."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a name is one of these, or fits one with a `*`."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def select(patterns: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Pick the variables that match a name or a `PREFIX*`, without the empty ones."""
    wanted = tuple(patterns)
    return {
        name: value
        for name, value in environment.items()
        if value and _EXPORTABLE.fullmatch(name) and matches(name, wanted)
    }


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Pick the proxy settings, each in upper and in lower case."""
    found: dict[str, str] = {}
    for name in PROXIES:
        value = environment.get(name) or environment.get(name.lower())
        if value:
            found |= {name: value, name.lower(): value}
    return found


def proxy_for(scheme: str, host: str, port: int, found: Mapping[str, str]) -> str:
    """Choose the proxy that leads to a server; empty if none does.

    NO_PROXY has names, each of which means the names below it, too, and its port alone if it has
    one; `*` means all.

    Args:
        scheme: `http`, or `https` for all that goes through a tunnel.
        host: Its name.
        port: Its port.
        found: See `proxies`.
    """
    words = found.get("NO_PROXY", "").lower().replace(",", " ").split()
    names = (host.lower(), f"{host.lower()}:{port}")
    without = [one.removeprefix("*").lstrip(".") for one in words]
    if "*" in words or any(
        f".{name}".endswith(f".{one}") for one in without if one for name in names
    ):
        return ""
    url = found.get(f"{scheme.upper()}_PROXY") or found.get("ALL_PROXY", "")
    return url if not url or "://" in url else f"http://{url}"
