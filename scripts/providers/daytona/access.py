"""The way in: Daytona's SSH gateway, whose plain exec channel carries our own connection.

The gateway knows a sandbox by a token, which is the user's name there and must be in no
argument list. It forwards neither ports nor agents nor variables and gives no terminal to a
command; none of that matters to the OpenSSH connection inside.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scripts.errors import CannotCreateError, NddtError, TransportLostError, UnavailableError
from scripts.machine import files, foreign_json, state
from scripts.naming import said
from scripts.transport import ssh, wall

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scripts.contracts.sandbox import Link

VALID_MINUTES = 24 * 60
"""How long a token lets new connections in; the others go on."""
MARGIN_S = 60
"""A token that is valid for less than this is as good as expired."""
_HOST = re.compile(r"\w[\w.:-]*", re.ASCII)
_TOKEN = re.compile(r"\w[\w.~+/=-]*", re.ASCII)
"""What goes into a configuration of ssh, whoever has chosen it."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """What one sandbox's token opens."""

    host: str
    port: int
    token: str = field(repr=False)
    expires: float
    """Seconds since 1970."""

    @classmethod
    def read(cls, answer: Any) -> Access:  # noqa: ANN401  (the SDK's)
        """Read the answer to a request for access: host and port are in its ssh command.

        Raises:
            CannotCreateError: There is no such command in it.
        """
        words = shlex.split(answer.ssh_command or "")
        port = words[words.index("-p") + 1] if "-p" in words[:-1] else "22"
        user, at, host = next((w for w in words if "@" in w), "").rpartition("@")
        token = answer.token or user
        is_usable = _HOST.fullmatch(host) and _TOKEN.fullmatch(token)
        if not (at and port.isdecimal() and is_usable):
            raise CannotCreateError("Daytona's answer names no SSH gateway", "report it to Daytona")
        expires = answer.expires_at
        if expires.tzinfo is None:
            expires = expires.replace(tzinfo=UTC)
        return cls(
            host=host,
            port=int(port),
            token=token,
            expires=min(expires.timestamp(), time.time() + VALID_MINUTES * 60),
        )

    @classmethod
    def load(cls, directory: Path) -> Access | None:
        """Return what has been stored and is still valid."""
        try:
            found = cls(**foreign_json.read_json(directory / "access"))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.expires > datetime.now(UTC).timestamp() + MARGIN_S else None

    def store(self, directory: Path) -> None:
        """Keep it for the next connection, for our eyes only."""
        files.write(directory / "access", json.dumps(asdict(self)))

    def pipe(self, link: Link, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Build the command that reaches `sh` in the sandbox."""
        options = {
            "HostName": self.host,
            "Port": str(self.port),
            "User": self.token,
            "BatchMode": "yes",
            "PubkeyAuthentication": "no",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": f'"{str(known_hosts(environ)).replace("%", "%%")}"',
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "ControlPath": "none",
            "ConnectTimeout": "20",
            "ServerAliveInterval": "15",
            "LogLevel": "ERROR",
        }
        config = link.directory / "gateway"
        files.write(config, ssh.section("gateway", options))
        # Whose PATH looks the first shell up, nobody knows; what it names may be the sandbox's.
        command = shlex.join(("/bin/sh", "-c", wall.ENTER, "nddt-wall", "sh", *link.server))
        return ("ssh", "-F", str(config), "-T", "gateway", command)


def known_hosts(environ: Mapping[str, str]) -> Path:
    """Name the file with the gateways' keys, each pinned when it is first used."""
    path = state.state_directory(environ) / "known_hosts"
    with contextlib.suppress(OSError):  # then ssh warns
        files.make_private(path.parent)
    return path


def explain(errors: str) -> None:
    """Look at what ssh has printed.

    Raises:
        TransportLostError: Trying again is of no use.
        UnavailableError: The sandbox is to have no network, and has no wall any more.
    """
    problem: NddtError | None = None
    if "HOST IDENTIFICATION HAS CHANGED" in errors or "Host key verification failed" in errors:
        problem = TransportLostError(
            "the SSH gateway has another key than before: somebody may be listening",
            "if Daytona has changed it, remove ~/.local/state/nddt/known_hosts",
        )
    elif "sshd: not found" in errors or "sshd: No such file" in errors:
        problem = TransportLostError(
            "the sandbox has no OpenSSH server",
            "leave NDDT_DAYTONA_SNAPSHOT empty, or name a snapshot made from nddt's Dockerfile",
        )
    elif wall.BROKEN in errors:
        broken = next(one for one in errors.splitlines() if wall.BROKEN in one)
        reason = broken.partition(wall.BROKEN)[2].strip(": ") or "it does not say why"
        problem = UnavailableError(
            f"the sandbox cannot be kept from the network any more: {reason}",
            f"end what is in the way: {said('daytona.stop')}, then try again; "
            f"or remove it: {said('cleanup')}",
        )
    if problem:
        problem.is_final = True
        raise problem
