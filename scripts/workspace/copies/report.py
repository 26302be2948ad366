"""What an exchange has done, for whoever tells of it, and for the next one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scripts.workspace.copies.reconcile import Known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.workspace.copies.changing import Outcome
    from scripts.workspace.copies.reconcile import Base
    from scripts.workspace.copies.tree import Entry


@dataclass(kw_only=True)
class Report:
    """What has been done."""

    changed: list[str] = field(default_factory=list)
    """Paths that were brought or sent."""
    conflicts: list[str] = field(default_factory=list)
    """Paths that both have changed: as they are here they stay."""
    saved: str = ""
    """Directory with the sandbox's versions of those, relative to the directory."""
    commits: list[str] = field(default_factory=list)
    """References to the sandbox's commits, where both sides have some on a branch."""
    failed: dict[str, str] = field(default_factory=dict)
    """Paths that could not be changed, and why."""
    staying: list[str] = field(default_factory=list)
    """Files that were not sent since they were ignored before the rules changed."""
    is_strange: bool = False
    """The sandbox's copy is not what the last exchange left: an earlier one, or another."""
    lost: int = 0
    """Files that are gone in the sandbox, nearly all, and stay here."""

    @property
    def is_incomplete(self) -> bool:
        """Whether the two sides still differ in what one of them has changed."""
        return bool(self.conflicts or self.lost)


def take_note(
    report: Report,
    base: Base,
    outcomes: Mapping[str, Outcome],
    after: Mapping[str, tuple[Entry | None, Entry | None]],
    digests: Mapping[str, str],
) -> None:
    """Note what has been changed, and what is there now on this side and on the other."""
    for path, one in outcomes.items():
        if one.reason == "kept":
            continue
        if one.reason:
            report.failed[path] = one.reason
            continue
        report.changed.append(path)
        if after[path] == (None, None):
            base.pop(path, None)
        else:
            base[path] = Known(*after[path], digests.get(path, ""))
