"""Which hosts a sandbox may reach by the proxy: names and ports, never addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULTS = Path(__file__).parent / "allowed_hosts.txt"
HTTP, HTTPS = 80, 443
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_RULE = re.compile(r"(?P<any>\*\.)?(?P<name>[^:*/@\s]+)(?::(?P<port>[0-9]{1,5}))?")


def name_of(host: str) -> str:
    """Return a host's name as it is compared: in small letters, without the root's dot.

    Raises:
        ValueError: It is no name but an address, in whatever way that is written, or nonsense.
    """
    name = host.lower().removesuffix(".")
    last = name.rpartition(".")[2]
    # What ends in a number is an address (the URL standard's "ends in a number" checker).
    if len(name) > 253 or not _NAME.fullmatch(name) or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
        raise ValueError("a name, not an address")
    return name


@dataclass(frozen=True)
class Rule:
    """Hosts that are allowed."""

    name: str
    any_below: bool = False
    """Whether it means all names below this one, and not the name itself."""
    port: int | None = None
    """The only port; None means those of HTTP and HTTPS."""

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{'*.' if self.any_below else ''}{self.name}{port}"

    def allows(self, name: str, port: int, *, is_tunnel: bool) -> bool:
        """Tell whether a host, by its `name_of`, may be reached.

        Args:
            name: A host.
            port: Where it is to be reached.
            is_tunnel: Whether the client wants the connection itself, as for HTTPS.
        """
        fits = name.endswith(f".{self.name}") if self.any_below else name == self.name
        return fits and port == (self.port or (HTTPS if is_tunnel else HTTP))


def rule(text: str) -> Rule:
    """Read what allows hosts: `example.org`, `*.example.org`, `example.org:8443`.

    Raises:
        ValueError: It is none of these; the text says what is allowed.
    """
    found = _RULE.fullmatch(text.strip())
    try:
        name, port = name_of(found["name"] if found else ""), found and found["port"]
    except ValueError:
        name, port = "", None
    if not found or not name or not 0 < int(port or HTTPS) < 65536:
        raise ValueError("names of hosts such as example.org, *.example.org or example.org:8443")
    return Rule(name, bool(found["any"]), int(port) if port else None)


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read a file with one rule a line and comments; none if there is no such file.

    Raises:
        ValueError: A line is no rule.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ()
    stripped = (line.partition("#")[0].strip() for line in lines)
    return tuple(rule(line) for line in stripped if line)


class Allowlist:
    """What is allowed: rules that stay, and those of a file that may change at any time.

    Args:
        rules: The former.
        file: The latter; it need not exist.
    """

    def __init__(self, rules: Iterable[Rule], file: Path) -> None:
        self._rules = tuple(rules)
        self._file = file

    def allows(self, name: str, port: int, *, is_tunnel: bool) -> bool:
        """Tell whether a host may be reached now; see `Rule.allows`."""
        try:
            more = read_rules(self._file)
        except (OSError, ValueError):  # somebody edits it: what it says is not known
            more = ()
        return any(one.allows(name, port, is_tunnel=is_tunnel) for one in (*self._rules, *more))
