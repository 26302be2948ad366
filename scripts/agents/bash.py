"""bash: the prompt is a script, which runs in the directory. It asks no model and needs no key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scripts.contracts.provisions import Provision
from scripts.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from scripts.contracts.agent import Request
    from scripts.demo.messages_api import Reply
    from scripts.settings.fields import Settings

NAME = "bash"
TITLE = "bash"
PACKAGE = ""
PROGRAM = "bash"
OPTIONS: Mapping[str, str] = {}
SAME: Mapping[str, str] = {}
BEFORE_PROMPT: tuple[str, ...] = ()
CREDENTIALS: tuple[str, ...] = ()
BASE_URL = ""
KEYS: Mapping[str, str] = {}
API_URL = ""
API = re.compile(r"(?!)")
HOSTS: tuple[str, ...] = ()
CONFIGURATION: tuple[str, ...] = ()
STEERING: tuple[str, ...] = ()
HARMLESS: tuple[str, ...] = ()
SETTINGS = None
WAYS_IN = ""
CONVERSATIONS = ".local/state/bash"


def asks_nothing(arguments: tuple[str, ...]) -> bool:
    """Tell whether a script is among the arguments."""
    return "-c" in arguments


def command(request: Request, program: tuple[str, ...]) -> tuple[str, ...]:
    """Build the command line; a script on stdin is read as it comes."""
    if request.prompt is not None:
        return (*program, "-c", request.prompt, NAME, *request.arguments)
    if request.headless and not asks_nothing(request.arguments):
        return (*program, "-s", "--", *request.arguments)
    return (*program, *request.arguments)


def variables(model_url: str | None, *, stands_for: str = "") -> Mapping[str, str]:  # noqa: ARG001
    """Need none."""
    return {}


def version(settings: Settings) -> str:  # noqa: ARG001  (the protocol's)
    """Name the one that the image has."""
    return "debian"


def configuration(
    settings: Settings,  # noqa: ARG001  (the protocol's)
    sandbox_home: str,  # noqa: ARG001
) -> tuple[Provision, Mapping[str, str]]:
    """Bring nothing: what stands in the user's own files is for this machine."""
    return Provision(), {}


def login(settings: Settings) -> Mapping[str, str]:  # noqa: ARG001  (the protocol's)
    """Have none."""
    return {}


def login_files(settings: Settings) -> tuple[Path, ...]:  # noqa: ARG001  (the protocol's)
    """Have none."""
    return ()


def renewed(settings: Settings, variable: str, value: str) -> Callable[[], str] | None:  # noqa: ARG001
    """Renew none."""
    return None


def demo() -> Reply | None:
    """Have none: there is no model that something could stand in for."""
    return None


def recalls(request: Request) -> str | None:  # noqa: ARG001  (the protocol's)
    """Remember nothing."""
    return None


def before(request: Request) -> str:
    """Prepare nothing.

    Raises:
        UsageError: The request has what a script has no use for.
    """
    for name, is_given in (
        ("--model", request.model),
        ("--resume", request.resume),
        ("--continue", request.resume_last),
        ("--output-format", request.output_format),
    ):
        if is_given:
            raise UsageError(f"{name} means nothing to bash", "leave it out, or NDDT_AGENT")
    return ":"


def after(request: Request) -> str:  # noqa: ARG001  (the protocol's)
    """Look at nothing: its exit code says it."""
    return ":"
