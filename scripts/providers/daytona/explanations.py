"""What is wrong when Daytona refuses something, and what the user can do about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scripts.errors import (
    CannotCreateError,
    ConfigError,
    CredentialsError,
    NddtError,
    TryAgainError,
    UnavailableError,
)
from scripts.naming import said
from scripts.providers.daytona.refusal import OTHER_VERSION
from scripts.providers.daytona.settings import DaytonaSettings

if TYPE_CHECKING:
    from scripts.providers.daytona.refusal import Refusal
    from scripts.settings.fields import Settings

KEYS = "https://app.daytona.io/dashboard/keys"
SELF_HOSTED_SDK = "0.190.0"
"""The SDK that understands servers of the open-source release."""
_QUOTA = re.compile(
    r"limit exceeded|exceeds maximum|quota exceeded|No available runners", re.IGNORECASE
)


class NoRoomError(TryAgainError):
    """A quota of the organization is used up."""


def explain(error: Refusal, settings: Settings, scope: str) -> NddtError:
    """Say what is wrong and what to do about it."""
    if error.status is None:
        return _no_answer(error, settings)
    if error.status == 401:
        source = settings.sources["DAYTONA_API_KEY"]
        return CredentialsError(
            f"Daytona does not accept DAYTONA_API_KEY (from: {source})",
            f"see whether it has expired, or make a new one: {KEYS}",
        )
    if error.status == 403:
        return _forbidden(error, settings, scope)
    if error.status in {400, 402, 409, 422, 429}:
        return _refused(error)
    if error.status == 404 and "Cannot " in error.text:
        return ConfigError(
            f"{settings.of(DaytonaSettings).api_url} is not Daytona's API: {error.text}",
            "correct DAYTONA_API_URL; it ends in /api",
        )
    known = "try again; Daytona's status page tells whether it is known"
    return UnavailableError(
        f"Daytona could not {error.doing}: {error.status} {error.text}",
        known if error.status >= 500 else "see --verbose",
    )


def _no_answer(error: Refusal, settings: Settings) -> NddtError:
    url = settings.of(DaytonaSettings).api_url
    if error.kind == "late":
        return UnavailableError(
            f"Daytona did not answer in time when asked to {error.doing}", "try again"
        )
    if error.kind in {"network", "offline"}:
        return UnavailableError(
            f"Daytona cannot be reached at {url}: {_reason(error.text)}",
            "check the network, and DAYTONA_API_URL",
        )
    found = OTHER_VERSION.search(error.text)
    if found:
        return ConfigError(
            f"the server at {url} is of another version than the SDK {_sdk_version()}: it gives "
            f"no {found[2]} of a {found[1]}",
            f"for a self-hosted server run: {_python()} -m pip install daytona=={SELF_HOSTED_SDK}",
        )
    return UnavailableError(
        f"{url} answered what is not Daytona's API: {error.text[:120]}",
        "check DAYTONA_API_URL, then try again",
    )


def _reason(text: str) -> str:
    """Find the cause in urllib3's chain of exceptions."""
    found = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)|(Name or service not known)", text)
    if found:
        return found[1] or found[2]
    return "certificate not accepted" if "CERTIFICATE_VERIFY" in text else text[:100]


def _sdk_version() -> str:
    from importlib.metadata import version  # noqa: PLC0415

    return version("daytona")


def _python() -> str:
    import sys  # noqa: PLC0415

    return sys.executable


def _forbidden(error: Refusal, settings: Settings, scope: str) -> NddtError:
    if "suspended" in error.text:
        return UnavailableError(error.text, "see the billing page of Daytona's dashboard")
    if "Region" in error.text:
        return _region(error)
    source = settings.sources["DAYTONA_API_KEY"]
    lacks = f"lacks the permission {scope}" if scope else f"may not {error.doing}"
    return CredentialsError(
        f"DAYTONA_API_KEY (from: {source}) {lacks}: {error.text}",
        f"make a key that has it: {KEYS}",
    )


def _region(error: Refusal) -> ConfigError:
    return ConfigError(error.text, "set DAYTONA_REGION to one that your organization has")


def _refused(error: Refusal) -> NddtError:
    if error.status == 429:
        return TryAgainError(
            "Daytona gets too many requests of your organization", "try again in a minute"
        )
    if _QUOTA.search(error.text):
        return NoRoomError(
            f"Daytona has no room: {error.text}",
            f"remove what you do not need: {said('daytona.list')}, {said('daytona.cleanup')}",
        )
    if "region" in error.text.lower():
        return _region(error)
    if error.status == 409:
        return TryAgainError(f"Daytona could not {error.doing}: {error.text}", "try again")
    return CannotCreateError(f"Daytona could not {error.doing}: {error.text}", "see --verbose")
