"""What a session uses without having it: keys that are kept here, and who may use them for what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scripts import naming
from scripts.contracts.provisions import Provision
from scripts.errors import CredentialsError
from scripts.keyless.eraser import SHORTEST_SECRET
from scripts.keyless.reverse_proxy import Asked, Sent
from scripts.machine.http_server import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from scripts.contracts.provisions import File
    from scripts.transport.forwards import Forward

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
        """Return what takes the place of a variable's value."""
        return f"nddt-{naming.digest((self.secret, variable), 40)}"

    def port(self, which: str) -> int:
        """Name the port of the sandbox that leads to a proxy; it is the same for one place."""
        number = int(naming.digest((str(self.directory),), 8), 16) % PORTS
        return FIRST_PORT + number * len(PROXIES) + PROXIES.index(which)


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A header whose secret changes meanwhile."""

    form: str
    """Its value, with `{}` for the secret."""
    read: Callable[[], str] = field(repr=False)

    def secret(self) -> str:
        """Read the secret that is good now.

        Raises:
            RefusedError: There is none.
        """
        try:
            return self.read()
        except CredentialsError as error:
            raise RefusedError(401, f"{error.message} — {error.next_step}") from error


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Decides about a session's requests."""

    route: Callable[[Asked], tuple[str, str] | None] = field(repr=False)
    """Origin and target that a request is for, as in `Sent`; None if it is not for the sandbox."""
    headers: Mapping[tuple[str, str], str | Fresh] = field(repr=False)
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
        way = self.route(asked)
        if way is None:
            raise RefusedError(403, f"{asked.method} {asked.path} is not for the sandbox")
        headers, secrets = {}, []
        for one in given:
            value = self.headers[one]
            if isinstance(value, Fresh):
                secrets.append(value.secret())
                value = value.form.format(secrets[-1])
            headers[one[0]] = value
        return Sent(origin=way[0], target=way[1], headers=headers, secrets=tuple(secrets))


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
    forwards: tuple[Forward, ...]
    """Lead the sandbox there."""
    fresh: frozenset[str] = frozenset()
    """Those of the variables whose values change meanwhile."""
    warm_up_tls: bool = False
    """Whether the program asks as soon as it starts, of a server that speaks TLS."""
    brings: Provision
    """What else comes along."""


@dataclass(frozen=True, kw_only=True)
class KeptKeys:
    """All keys of a session that stay here; none, unless something else is said."""

    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By the variables that they would be in."""
    placeholders: Mapping[str, str] = field(default_factory=dict)
    """What is in these variables in their places."""
    brings: Provision = field(default_factory=Provision)
    """What comes along so that these are good for something: variables, forwards, services."""

    @property
    def variables(self) -> Mapping[str, str]:
        """All variables that the session has on their account."""
        return {**self.brings.variables, **self.placeholders}

    def hidden(self, brings: Provision) -> Provision:
        """Return what comes along with placeholders wherever a key stands in it."""
        if not self.keys:
            return brings

        def text(value: str) -> str:
            for name, key in self.keys.items():
                if len(key) >= SHORTEST_SECRET:
                    value = value.replace(key, self.placeholders[name])
            return value

        def file(one: File) -> File:
            content = text(one.content.decode("utf-8", "surrogateescape"))
            return replace(one, content=content.encode("utf-8", "surrogateescape"))

        return replace(
            brings,
            variables={name: text(value) for name, value in brings.variables.items()},
            files={path: file(one) for path, one in brings.files.items()},
        )
