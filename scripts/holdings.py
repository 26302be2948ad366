"""What a session uses without having it: keys that are kept here, and who may use them for what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scripts import naming
from scripts.provisions import Provision
from scripts.reverse_proxy import Asked, RefusedError, Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CREDENTIALS = ("authorization", "x-api-key")
"""Headers that say who asks."""
FIRST_PORT, PORTS = 10_000, 5_000
PROXIES = ("model", "github")
"""Each has one of so many ports of the sandbox from there on, where programs seldom listen."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a session's proxies are at, and what its placeholders are made from."""

    directory: Path
    """Of the sockets on this machine."""
    name: str
    """What the session's things in the sandbox are called; see `inside.place`."""
    secret: str = field(repr=False)

    def placeholder(self, variable: str) -> str:
        """Give what takes the place of a variable's value."""
        return f"nddt-{naming.digest((self.secret, variable), 40)}"

    def port(self, which: str) -> int:
        """Give the port of the sandbox that leads to a proxy; it is the same for one place."""
        number = int(naming.digest((str(self.directory),), 8), 16) % PORTS
        return FIRST_PORT + number * len(PROXIES) + PROXIES.index(which)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Decides about a session's requests."""

    route: Callable[[Asked], str | None] = field(repr=False)
    """Gives the address that a request is for; None if it is not for the sandbox."""
    headers: Mapping[tuple[str, str], str] = field(repr=False)
    """Header with a placeholder → its value with the secret."""

    def __call__(self, asked: Asked, /) -> Sent:
        """Say where a request goes.

        Raises:
            RefusedError: It has another credential, or none, or goes nowhere.
        """
        names = dict.fromkeys((*CREDENTIALS, *(name for name, _ in self.headers)))
        given = [(name, value) for name in names for value in asked.values(name)]
        if not given or any(one not in self.headers for one in given):
            raise RefusedError(401, "this is no placeholder of this session")
        url = self.route(asked)
        if url is None:
            raise RefusedError(403, f"{asked.method} {asked.path} is not for the sandbox")
        return Sent(url=url, headers={one[0]: self.headers[one] for one in given})


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What is kept here, and how a session uses it."""

    keys: Mapping[str, str] = field(repr=False)
    """By the variables that they would be in."""
    secrets: tuple[str, ...] = field(repr=False)
    """What no answer may hold: the keys, in each form that they are sent in."""
    path: Path
    """Where the proxy is."""
    gate: Gate
    is_soon: bool = False
    """Whether the program asks as soon as it starts, of a server that speaks TLS."""
    brings: Provision
    """What else comes along."""
    replaces: Provision = field(default_factory=Provision)
    """What does not come along any more."""
