"""Where values of settings come from: the environment, and files, each with its lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scripts.configuration.withheld import is_withheld

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.settings import env_file


@dataclass(frozen=True)
class Layer:
    """One source of values: `lines` is empty for the environment."""

    title: str
    values: Mapping[str, str] = field(repr=False)
    lines: Mapping[str, int]
    project: env_file.EnvFile | None = None
    """A project's file to which the user has not agreed, as it is."""

    def source(self, name: str) -> str:
        """Say where a value comes from."""
        return f"{self.title}, line {self.lines[name]}" if name in self.lines else self.title

    def says(self, item: Mapping[str, Any]) -> bool:
        """Tell whether it says what a setting is."""
        value = self.values.get(item["variable"])
        return bool(value) or (value is not None and item["empty_is_none"])

    def may_set(self, name: str) -> bool:
        """Tell whether it has a say in a setting."""
        return name != "NDDT_ENV_FILE" or not self.lines  # a file cannot name another in its place

    @property
    def forwarded(self) -> Mapping[str, str]:
        """What a sandbox may get of it."""
        if not self.project:
            return self.values
        return {k: v for k, v in self.values.items() if not is_withheld(k)}


@dataclass(frozen=True)
class Value:
    """The value of a setting, and where it comes from."""

    value: Any = field(repr=False)
    source: str
    rank: str
    """`now` is an option or the environment, `file` a .env file, `unset` all else."""


Values = dict[str, Value]
"""By the names of variables."""
