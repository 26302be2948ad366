"""The login of this machine: `claude` keeps it in a file, on macOS in the Keychain."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from scripts import process
from scripts.agents.claude import user_files
from scripts.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.settings import Settings

log = logging.getLogger("nddt")

VARIABLE = "CLAUDE_CODE_OAUTH_TOKEN"
SCOPE = "user:inference"
"""Without it a login only makes keys."""
SOON_S = 600


def _keychain(settings: Settings) -> dict[str, Any]:
    """Ask macOS: the name has a hash where the configuration is not in its usual place."""
    chosen = settings.process_environment.get("CLAUDE_CONFIG_DIR")
    suffix = f"-{hashlib.sha256(chosen.encode()).hexdigest()[:8]}" if chosen else ""
    words = ("security", "find-generic-password", "-s", f"Claude Code-credentials{suffix}", "-w")
    asked = process.capture(words, env=settings.process_environment, timeout_s=60)
    try:
        found = json.loads(asked.stdout)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def variables(settings: Settings) -> Mapping[str, str]:
    """Give the access token of the login, and never what renews it; nothing if there is none.

    Raises:
        CredentialsError: The login has expired.
    """
    found = user_files.read_object(user_files.directory(settings) / ".credentials.json")
    if not found and sys.platform == "darwin":
        found = _keychain(settings)
    login = found.get("claudeAiOauth")
    if not isinstance(login, dict) or not isinstance(login.get("accessToken"), str):
        return {}
    scopes = login.get("scopes")
    if not login["accessToken"] or (isinstance(scopes, list) and SCOPE not in scopes):
        return {}
    expires = login.get("expiresAt")
    if isinstance(expires, (int, float)) and not isinstance(expires, bool):
        left_s = expires / 1000 - time.time()
        if left_s <= 0:
            raise CredentialsError(
                "the login of this machine has expired",
                "run `claude` here once, which renews it, or use a token of `claude setup-token`",
            )
        if left_s < SOON_S:
            log.warning(
                "the login of this machine expires in %d minutes; `claude` renews it then",
                left_s // 60,
            )
    return {VARIABLE: login["accessToken"]}
