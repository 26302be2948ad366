"""Agents: one module each, and what all of them answer."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

    from scripts.provisions import Provision
    from scripts.settings import Settings

NAMES = ("claude",)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks an agent to do."""

    prompt: str | None = None
    """The prompt itself; None if it comes on stdin, or in the conversation."""
    headless: bool = False
    """Answer one prompt and end, instead of holding a conversation at a terminal."""
    model: str | None = None
    resume: str | None = None
    """Id of the conversation to go on with."""
    resume_last: bool = False
    skip_permissions: bool = False
    output_format: str | None = None
    arguments: tuple[str, ...] = ()
    """More of the agent's own arguments."""
    told: tuple[str, ...] = ()
    """Lines that it is told beside its prompt."""


class Agent(Protocol):
    """What an agent's module has."""

    NAME: str
    PACKAGE: str
    """Its npm package."""
    PROGRAM: str
    """Its command."""
    CREDENTIALS: tuple[str, ...]
    """Variables of which one must be there, unless the model is on this machine."""
    BASE_URL: str
    """Variable with the model's address."""
    KEYS: Mapping[str, str]
    """Those of them that are secrets and travel in a header: variable → the header with `{}`."""
    API_URL: str
    """The model's address where that variable is not set."""
    API: re.Pattern[str]
    """What of the model's API it needs to work: methods and paths, as `POST /v1/messages`."""
    CONFIGURATION: tuple[str, ...]
    """Variables that configure it and always reach it; `*` at the end for all such."""
    WAYS_IN: str
    """The next step for whoever has no credential."""
    CONVERSATIONS: str
    """Directory of the conversations in /workspace, relative to the home directory."""

    def asks_nothing(self, arguments: tuple[str, ...]) -> bool:
        """Tell whether its own arguments already ask for one answer instead of a talk."""

    def command(self, request: Request, program: tuple[str, ...]) -> tuple[str, ...]:
        """Give its command line, which begins with its program."""

    def variables(self, model_url: str | None) -> Mapping[str, str]:
        """Give the variables it needs in a sandbox.

        Args:
            model_url: The address of a model on this machine that needs no credential.
        """

    def configuration(
        self, settings: Settings, sandbox_home: str
    ) -> tuple[Provision, Mapping[str, str]]:
        """Bring along the user's configuration of it, as a copy that fits a sandbox.

        Args:
            settings: See there.
            sandbox_home: The home directory in the sandbox.

        Returns:
            What comes along, and by name the addresses in it that may be of this machine.
        """

    def login(self, settings: Settings) -> Mapping[str, str]:
        """Give the variables of a login of this machine; nothing if there is none.

        Raises:
            CredentialsError: It has expired.
        """

    def recalls(self, request: Request) -> str | None:
        """Tell which conversations it can come back to.

        Returns:
            `*` for all, `last` for the newest, the id of one, or None.
        """

    def before(self, request: Request) -> str:
        """Give shell text that answers its first-run questions."""

    def after(self, request: Request) -> str:
        """Give shell text that looks at what it did."""


def get(name: str) -> Agent:
    """Load an agent's module."""
    return cast("Agent", importlib.import_module(f"scripts.agents.{name}"))
