"""What is forwarded between this machine and a sandbox, each as the option of ssh(1)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from scripts.errors import PortTakenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

log = logging.getLogger("nddt")


class Forward(Protocol):
    """What one side listens on for the other one's programs."""

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""


@dataclass(frozen=True)
class SamePort:
    """A port of the sandbox's loopback that leads to the same one of this machine's."""

    host: str
    port: int

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return ("-R", f"{host}:{self.port}:{host}:{self.port}")


@dataclass(frozen=True)
class OpenPort:
    """A port of this machine's loopback that leads to one of the sandbox's."""

    outside: int
    inside: int

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""
        return ("-L", f"127.0.0.1:{self.outside}:localhost:{self.inside}")


@dataclass(frozen=True)
class SocketPort:
    """A port of the sandbox's loopback that leads to a UNIX socket of this machine's."""

    inside: int
    outside: str

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""
        outside = self.outside.replace(":", "\\:")
        return ("-R", f"127.0.0.1:{self.inside}:{outside}")


def open_ports(forwards: Iterable[Forward]) -> tuple[OpenPort, ...]:
    """Pick those that lead from a port of this machine into the sandbox."""
    return tuple(one for one in forwards if isinstance(one, OpenPort))


def without_open_ports(forwards: tuple[Forward, ...]) -> tuple[Forward, ...]:
    """Go on without the open ports: while the connection was broken somebody has taken one."""
    taken = ", ".join(str(one.outside) for one in open_ports(forwards))
    log.warning("ports of this machine are in use meanwhile, and lead no longer inside: %s", taken)
    return tuple(one for one in forwards if not isinstance(one, OpenPort))


def check_ports(errors: str, forwards: Sequence[Forward]) -> None:
    """Look at what ssh has printed, a connection of its own or a session of a master's.

    Raises:
        PortTakenError: It could not listen on a port of this machine, and has run nothing.
    """
    signs = ("cannot listen to port: ", "forwarding request failed: Port forwarding failed")
    if any(isinstance(one, OpenPort) for one in forwards) and any(one in errors for one in signs):
        raise PortTakenError("a port of this machine was taken meanwhile", "try again")


@dataclass(frozen=True)
class Socket:
    """A UNIX socket in the sandbox that leads to one of this machine's."""

    inside: str
    outside: str

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""
        inside, outside = (path.replace(":", "\\:") for path in (self.inside, self.outside))
        return ("-R", f"{inside}:{outside}")
