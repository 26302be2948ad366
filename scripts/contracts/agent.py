"""What an agent is asked, and what all of them answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from _typeshed import DataclassInstance

    from scripts.contracts.provisions import Provision
    from scripts.demo.messages_api import Reply
    from scripts.settings.fields import Settings


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
    permissions: str = "ask"
    """What it may do without asking: `ask` as it is by itself, `edit` files and run commands in the
    sandbox, `all`."""
    conversation: str = ""
    """An id for its conversation, if it begins one."""
    output_format: str | None = None
    arguments: tuple[str, ...] = ()
    """More of the agent's own arguments."""
    system_prompt_lines: tuple[str, ...] = ()
    """Lines that it is told beside its prompt."""


class Agent(Protocol):
    """What an agent's module has."""

    NAME: str
    TITLE: str
    """Its name in texts for people."""
    PACKAGE: str
    """Its npm package, whose version the setting NDDT_<NAME>_VERSION says; empty if the tools of
    the image are all that it needs."""
    PROGRAM: str
    """Its command."""
    OPTIONS: Mapping[str, str]
    """Its options that `run` takes as they are → what follows each: see `typed`."""
    SAME: Mapping[str, str]
    """Its options that `run` has by another name → that name."""
    BEFORE_PROMPT: tuple[str, ...]
    """Those after which even one word is a prompt."""
    CREDENTIALS: tuple[str, ...]
    """Variables of which one must be there, unless the model is on this machine; empty if it asks
    no model."""
    BASE_URL: str
    """Variable with the model's address; empty if it asks no model."""
    KEYS: Mapping[str, str]
    """Those of them that are secrets and travel in a header: variable → the header with `{}`."""
    API_URL: str
    """The model's address where that variable is not set."""
    API: re.Pattern[str]
    """What of the model's API it needs to work: methods and paths, as `POST /v1/messages`."""
    HOSTS: tuple[str, ...]
    """What NDDT_NETWORK=allowlist allows it beside what it allows all: rules of `allowlist`."""
    CONFIGURATION: tuple[str, ...]
    """Variables that configure it and always reach it; `*` at the end for all such."""
    STEERING: tuple[str, ...]
    """Patterns of all that says whose key it uses, where it sends what, or what it runs: with
    BASE_URL, CREDENTIALS, KEYS and CONFIGURATION what a project's .env sets only with consent."""
    HARMLESS: tuple[str, ...]
    """Patterns of those among them that any project may set."""
    SETTINGS: type[DataclassInstance] | None
    """Its own settings: a frozen dataclass of `declaring.variable`s; None if it has none."""
    WAYS_IN: str
    """The next step for whoever has no credential."""
    CONVERSATIONS: str
    """Directory of the conversations in /workspace, relative to the home directory."""

    def asks_nothing(self, arguments: tuple[str, ...]) -> bool:
        """Tell whether its own arguments already ask for one answer instead of a talk."""

    def command(self, request: Request, program: tuple[str, ...]) -> tuple[str, ...]:
        """Build its command line, which begins with its program."""

    def variables(self, model_url: str | None, *, stands_for: str = "") -> Mapping[str, str]:
        """Build the variables it needs in a sandbox.

        Args:
            model_url: The address of a model on this machine that needs no credential.
            stands_for: Where that address leads, if it is a proxy of ours.
        """

    def version(self, settings: Settings) -> str:
        """Tell which version of its package is wanted: a number, or `latest` and the like."""

    def configuration(
        self, settings: Settings, sandbox_home: str
    ) -> tuple[Provision, Mapping[str, str]]:
        """Bring along the user's configuration of it, as a copy that fits a sandbox.

        Args:
            settings: All of them.
            sandbox_home: The home directory in the sandbox.

        Returns:
            What comes along, and by name the addresses in it that may be of this machine.
        """

    def login(self, settings: Settings) -> Mapping[str, str]:
        """Read the variables of a login of this machine; nothing if there is none.

        Raises:
            CredentialsError: It has expired.
        """

    def login_files(self, settings: Settings) -> tuple[Path, ...]:
        """Tell which files of this machine hold what renews a login; they need not exist."""

    def renewed(self, settings: Settings, variable: str, value: str) -> Callable[[], str] | None:
        """Return what reads a login's token anew, if a variable's value is such a token.

        Returns:
            Something that pickle takes, and that raises CredentialsError.
        """

    def demo(self) -> Reply | None:
        """Choose what answers for --demo in the model's place; None if it asks no model."""

    def recalls(self, request: Request) -> str | None:
        """Tell which conversations it can come back to.

        Returns:
            `*` for all, `last` for the newest, the id of one, or None.
        """

    def before(self, request: Request) -> str:
        """Build shell text that answers its first-run questions.

        Raises:
            UsageError: The request has what it has no use for.
        """

    def after(self, request: Request) -> str:
        """Build shell text that looks at what it did."""
