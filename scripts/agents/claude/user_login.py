"""The login of this machine: `claude` keeps it in a file, on macOS in the Keychain."""

from __future__ import annotations

import hashlib
import logging
import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.agents.claude import user_files
from scripts.errors import CredentialsError
from scripts.machine import foreign_json, process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

VARIABLE = "CLAUDE_CODE_OAUTH_TOKEN"
SCOPE = "user:inference"
"""Without it a login only makes keys."""
SOON_S = 600


@dataclass(frozen=True, kw_only=True)
class Login:
    """Where this machine's login is; called, it reads the token that is good now.

    `claude` renews it here every few hours.
    """

    file: Path
    service: str
    """Its name in macOS's Keychain."""

    def read(self) -> tuple[str, float]:
        """Read the access token, and how many seconds it is good for; empty if there is none."""
        found = user_files.read_object(self.file)
        if not found and sys.platform == "darwin":
            found = _keychain(self.service)
        login = found.get("claudeAiOauth")
        if not isinstance(login, dict) or not isinstance(login.get("accessToken"), str):
            return "", 0
        scopes = login.get("scopes")
        if isinstance(scopes, list) and SCOPE not in scopes:
            return "", 0
        expires = login.get("expiresAt")
        if isinstance(expires, (int, float)) and not isinstance(expires, bool):
            return login["accessToken"], expires / 1000 - time.time()
        return login["accessToken"], math.inf

    def __call__(self) -> str:
        """Read the access token.

        Raises:
            CredentialsError: The login has expired, or is gone.
        """
        token, left_s = self.read()
        if not token or left_s <= 0:
            raise CredentialsError(
                "the login of this machine has expired",
                "run `claude` in your home directory once, which renews it, or use a token of "
                "`claude setup-token`",
            )
        return token


def of(settings: Settings) -> Login:
    """Tell where the login is; the Keychain's name has a hash for an unusual configuration."""
    chosen = settings.process_environment.get("CLAUDE_CONFIG_DIR")
    suffix = f"-{hashlib.sha256(chosen.encode()).hexdigest()[:8]}" if chosen else ""
    return Login(
        file=user_files.directory(settings) / user_files.LOGIN,
        service=f"Claude Code-credentials{suffix}",
    )


def _keychain(service: str) -> dict[str, Any]:
    """Ask macOS."""
    words = ("security", "find-generic-password", "-s", service, "-w")
    asked = process.capture(words, timeout_s=60)
    try:
        found = foreign_json.parse(asked.stdout, what="the keychain's answer")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def variables(settings: Settings) -> Mapping[str, str]:
    """Read the access token of the login, and never what renews it; nothing if there is none.

    Raises:
        CredentialsError: The login has expired.
    """
    login = of(settings)
    token, left_s = login.read()
    if not token:
        return {}
    login()
    if left_s < SOON_S:
        log.warning(
            "the login of this machine expires in %d minutes; `claude` renews it then",
            left_s // 60,
        )
    return {VARIABLE: token}
