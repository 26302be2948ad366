"""What can be typed, and what a command line means; `typed.py` reads one as the other."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

NOTHING, ONE, MAYBE, MANY = "nothing", "one", "maybe", "many"
"""What follows an option: no value, one, one or none, one or more."""
RUN = "run"
_ELSEWHERE = {
    "commit": RUN,
    "connect": "attach",
    "delete": "cleanup",
    "doctor": "setup",
    "exec": "shell",
    "init": "setup",
    "install": "setup",
    "kill": "stop",
    "login": "setup",
    "logs": "attach",
    "ls": "list",
    "ps": "list",
    "remove": "cleanup",
    "resume": "attach",
    "rm": "cleanup",
    "sh": "shell",
    "status": "list",
    "update": "setup",
    "version": "--version",
}
"""Words of other programs → the task that does the like."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What an agent's command line has, as its module tells."""

    options: Mapping[str, str]
    same: Mapping[str, str]
    before_prompt: Collection[str]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What can be typed."""

    tasks: Mapping[str, Mapping[str, str]]
    """Task → its options → NOTHING or ONE."""
    places: Mapping[str, tuple[str, ...]]
    """Task → its arguments that need no option."""
    groups: Collection[str]
    agent: Callable[[], Words] = field(repr=False)
    """Looks up the agent's own options, which is rarely needed."""

    def nearest(self, word: str) -> str:
        """Name the task that a word may have meant; empty for none."""
        similar = difflib.get_close_matches(word, self.tasks, n=1, cutoff=0.7)
        return _ELSEWHERE.get(word) or (similar[0] if similar else "")


@dataclass(kw_only=True)
class Call:
    """One task that is to run."""

    task: str
    is_typed: bool = True
    """Whether its name was typed; a prompt or an option alone means `run`."""
    options: list[tuple[str, str | None]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    agent: list[str] = field(default_factory=list)
    """Options of the agent's own."""
    prompt: str | None = None
    """The prompt, if it stands alone, or is one word that is no part of its option's."""


@dataclass(kw_only=True)
class Typed:
    """A whole command line."""

    calls: list[Call] = field(default_factory=list)
    dry: bool = False
    shows: str = ""
    """help, list or version: to be shown instead."""
    about: str = ""
    """The task or group that this is about."""
