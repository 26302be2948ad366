"""What has to be done so that two trees agree again; pure functions.

Both sides are compared with what they were when they last agreed. A change on one side goes
to the other. Where both have changed, the version here stays, and that from there is kept
beside it: nothing is ever lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from scripts.workspace.copies.changing import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from scripts.workspace.copies.tree import Entry


class Known(NamedTuple):
    """A path when both sides last agreed on it."""

    here: Entry | None
    there: Entry | None
    digest: str
    """Of a file's content; empty if that is not known."""


Base = dict[str, Known]
"""What was known of all paths when the two sides last agreed."""

MANY = 10
"""Files: who deletes fewer, and not all, is not asked."""
NEVER = Known(None, None, "")


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Both sides as they are now."""

    base: Base
    here: Mapping[str, Entry]
    there: Mapping[str, Entry]
    digests_here: Mapping[str, str] = field(default_factory=dict)
    digests_there: Mapping[str, str] = field(default_factory=dict)

    def paths(self) -> Iterator[str]:
        """List all paths on which one can decide; not those below what cannot be read."""
        closed = {p for side in (self.here, self.there) for p, e in side.items() if e.kind == "?"}
        for path in sorted({*self.base, *self.here, *self.there}):
            if not (closed and is_in(path, closed)):
                yield path

    def doubtful(self) -> tuple[str, ...]:
        """List the files that both sides seem to have changed: their content decides."""
        return tuple(
            path
            for path in self.paths()
            if self._differs(path, "here") and self._differs(path, "there")
            if all(one and one.kind == "f" for one in (self.here.get(path), self.there.get(path)))
        )

    def _differs(self, path: str, side: str) -> bool:
        now = (self.here if side == "here" else self.there).get(path)
        return bool(now != getattr(self.base.get(path, NEVER), side))

    def changed_here(self, path: str) -> bool:
        """Tell whether this side has changed a path."""
        known = self.base.get(path, NEVER)
        same = _is_same(known.here, self.here.get(path), known.digest, self.digests_here.get(path))
        return self._differs(path, "here") and not same

    def changed_there(self, path: str) -> bool:
        """Tell whether the other side has changed a path."""
        known = self.base.get(path, NEVER)
        now, digest = self.there.get(path), self.digests_there.get(path)
        return self._differs(path, "there") and not _is_same(known.there, now, known.digest, digest)

    def agree(self, path: str) -> bool:
        """Tell whether both sides have the same at a path."""
        here, there = self.here.get(path), self.there.get(path)
        if here is None or there is None or here.kind != there.kind:
            return here is there
        if here.kind == "d":
            return True
        if here.stamp == there.stamp and (here.kind == "l" or here.stamp.startswith("index ")):
            return True
        digest = self.digests_here.get(path)
        return bool(digest) and digest == self.digests_there.get(path)


def _is_same(before: Entry | None, now: Entry | None, known: str, digest: str | None) -> bool:
    """Tell whether a file was only touched."""
    if before is None or now is None or (before.kind, before.mode) != (now.kind, now.mode):
        return False
    return bool(digest) and digest == known


def is_in(path: str, directories: set[str]) -> bool:
    """Tell whether a path is one of these, or below one."""
    while path and path not in directories:
        path = path.rpartition("/")[0]
    return bool(path)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What has to be done in one direction."""

    operations: tuple[Operation, ...]
    """Changes to the side that receives."""
    conflicts: tuple[str, ...]
    """What both sides have changed, each in its own way."""
    agreed: tuple[str, ...]
    """What both sides have changed in the same way."""

    def where(self, is_wanted: Callable[[str], bool]) -> Decision:
        """Keep the changes to some paths alone."""
        return replace(
            self,
            operations=tuple(one for one in self.operations if is_wanted(one.path)),
            conflicts=tuple(one for one in self.conflicts if is_wanted(one)),
        )

    def without_deletions(self) -> Decision:
        """Keep the changes that leave something."""
        return replace(self, operations=tuple(one for one in self.operations if one.entry))


def _decided(trees: Trees) -> tuple[list[str], list[str], list[str], list[str]]:
    only_here: list[str] = []
    only_there: list[str] = []
    conflicts: list[str] = []
    agreed: list[str] = []
    for path in trees.paths():
        here, there = trees.changed_here(path), trees.changed_there(path)
        if here and there and trees.agree(path):
            agreed.append(path)
        elif here and there and _has_content(trees, path):
            conflicts.append(path)
        elif here:
            only_here.append(path)
        elif there:
            only_there.append(path)
        elif trees.here.get(path) != trees.base.get(path, NEVER).here or (
            trees.there.get(path) != trees.base.get(path, NEVER).there
        ):
            agreed.append(path)  # touched, and nothing else
    return only_here, only_there, conflicts, agreed


def _has_content(trees: Trees, path: str) -> bool:
    found = (trees.here.get(path), trees.there.get(path))
    return any(one is not None and one.kind != "d" for one in found)


def to_bring(trees: Trees) -> Decision:
    """Decide what comes from there."""
    _, changed, conflicts, agreed = _decided(trees)
    return Decision(
        operations=tuple(_operations(changed, trees.there, trees.here)),
        conflicts=tuple(conflicts),
        agreed=tuple(agreed),
    )


def lost(trees: Trees, decision: Decision) -> int:
    """Count the files that would be deleted, if that is most of what there was.

    A root that was emptied looks like that, and a disk that comes back without its content; what
    was moved elsewhere in the tree does not.
    """
    was = sum(1 for one in trees.base.values() if one.there and one.there.kind != "d")
    left = sum(1 for one in trees.there.values() if one.kind != "d")
    gone = [one for one in decision.operations if not one.entry and one.expected]
    count = sum(1 for one in gone if one.expected and one.expected.kind != "d")
    return count if count and left * 2 < was and (not left or count >= MANY) else 0


def to_send(trees: Trees) -> Decision:
    """Decide what goes there; where both have changed, the version here replaces the other."""
    changed, _, conflicts, agreed = _decided(trees)
    return Decision(
        operations=tuple(_operations((*changed, *conflicts), trees.here, trees.there)),
        conflicts=tuple(conflicts),
        agreed=tuple(agreed),
    )


def _operations(
    paths: Iterable[str], source: Mapping[str, Entry], target: Mapping[str, Entry]
) -> Iterator[Operation]:
    for path in paths:
        yield Operation(path, source.get(path), target.get(path))
