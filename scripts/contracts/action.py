"""A task that one provider alone has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scripts.contracts.sandbox import Sandbox
    from scripts.settings.fields import Settings

SANDBOX = "sandbox"
"""An action is about the directory's sandbox, in whatever state, or the one of `--name`."""
RUNNING = "running"
"""The same, and it must run."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a task beside those that many have."""

    help: str
    default: str | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """What an action is asked."""

    settings: Settings
    options: Mapping[str, str | None]
    """What was typed for the action's own options, or their defaults."""
    sandbox: Sandbox | None = None
    """The one that it is about, if it is about one."""
    yes: bool = False
    """Questions are agreed to beforehand."""


def _nothing_wrong(_options: Mapping[str, str | None]) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Action:
    """The task."""

    name: str
    """The word that is typed, with a dash between words."""
    text: str
    """Its explanation, a sentence."""
    act: Callable[[Call], str]
    """Does it, and says what is printed."""
    about: str = ""
    """SANDBOX, RUNNING, or empty: no sandbox."""
    ends: bool = False
    """The sandbox does not run afterwards: what is kept here of the way to it goes first."""
    asks: bool = False
    """It may ask a question, which `--yes` answers."""
    options: Mapping[str, Option] = field(default_factory=dict)
    check: Callable[[Mapping[str, str | None]], None] = _nothing_wrong
    """Looks at the options first; raises UsageError."""
