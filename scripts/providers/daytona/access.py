"""The way in: Daytona's SSH gateway, whose plain exec channel carries our own connection.

The gateway knows a sandbox by a token, which is the user's name there and must be in no
argument list. It forwards neither ports nor agents nor variables and gives no terminal to a
command; none of that matters to the OpenSSH connection inside.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scripts import state
from scripts.errors import CannotCreateError, TransportLostError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scripts.providers import Link

VALID_MINUTES = 24 * 60
"""How long a token lets new connections in; the others go on."""
MARGIN_S = 60
"""A token that is valid for less than this is as good as expired."""


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
        if not at or not port.isdecimal():
            raise CannotCreateError("Daytona's answer names no SSH gateway", "report it to Daytona")
        expires = answer.expires_at
        if expires.tzinfo is None:
            expires = expires.replace(tzinfo=UTC)
        return cls(
            host=host,
            port=int(port),
            token=answer.token or user,
            expires=min(expires.timestamp(), time.time() + VALID_MINUTES * 60),
        )

    @classmethod
    def load(cls, directory: Path) -> Access | None:
        """Give what has been stored and is still valid."""
        try:
            found = cls(**json.loads((directory / "access").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.expires > datetime.now(UTC).timestamp() + MARGIN_S else None

    def store(self, directory: Path) -> None:
        """Keep it for the next connection, for our eyes only."""
        state.write(directory / "access", json.dumps(asdict(self)))

    def pipe(self, link: Link, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Give the command that reaches `sh` in the sandbox."""
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
        lines = "".join(f"  {name} {value}\n" for name, value in options.items())
        state.write(config, f"Host gateway\n{lines}")
        command = shlex.join(("sh", *link.server))
        return ("ssh", "-F", str(config), "-T", "gateway", command)


def known_hosts(environ: Mapping[str, str]) -> Path:
    """Give the file with the gateways' keys, each pinned when it is first used."""
    path = state.state_directory(environ) / "known_hosts"
    with contextlib.suppress(OSError):  # then ssh warns
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def explain(errors: str) -> None:
    """Look at what ssh has printed.

    Raises:
        TransportLostError: Trying again is of no use.
    """
    problem = None
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
    if problem:
        problem.is_final = True
        raise problem
