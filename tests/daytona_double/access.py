"""The tokens that open the SSH gateway."""

from __future__ import annotations

import secrets
import string
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token; it is the user name of a login."""

    sandbox_id: str
    expires_at: datetime
    created_at: datetime
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    text: str = field(
        default_factory=lambda: "".join(secrets.choice(_LETTERS) for _ in range(32)), repr=False
    )


class Tokens:
    """All tokens; a sandbox has at most one."""

    def __init__(self) -> None:
        self._rows: dict[str, Token] = {}

    def grant(self, sandbox_id: str, minutes: float) -> Token:
        """Make a token for some real minutes; it replaces the sandbox's older ones."""
        self.revoke(sandbox_id)
        now = datetime.now(UTC)
        token = Token(
            sandbox_id=sandbox_id, created_at=now, expires_at=now + timedelta(minutes=minutes)
        )
        self._rows[token.text] = token
        return token

    def revoke(self, sandbox_id: str, text: str | None = None) -> None:
        """Take away one token of a sandbox, or all."""
        self._rows = {
            key: token
            for key, token in self._rows.items()
            if token.sandbox_id != sandbox_id or text not in {None, key}
        }

    def sandbox_id(self, text: str) -> str | None:
        """Give the sandbox that a token opens now; None if it opens none."""
        token = self._rows.get(text)
        if token is None or token.expires_at <= datetime.now(UTC):
            return None
        return token.sandbox_id
