"""Changes to a tree, each one whole or not at all.

This file is sent to a sandbox beside `answering.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from scripts.machine.beneath import Beneath
from scripts.machine.descriptors import writable
from scripts.workspace.copies.tree import Entry, is_inside, look_below

if TYPE_CHECKING:
    from collections.abc import Iterable


_IN_THE_WAY = {errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}


class Operation(NamedTuple):
    """A change to a path, which is made only if there is what one expects."""

    path: str
    entry: Entry | None
    """What is to be there; None for nothing. A file's content comes from the stage."""
    expected: Entry | None


class Outcome(NamedTuple):
    """What came of an operation."""

    entry: Entry | None
    """What is there now."""
    reason: str
    """Why it was not done: empty if it was, `kept` if there was something else."""


def apply(root: str, stage: str, operations: Iterable[Operation]) -> dict[str, Outcome]:
    """Make changes, each one whole or not at all, in an order in which they can be made.

    No link is followed on the way to a path, wherever it has come from.

    Args:
        root: Of the tree.
        stage: The directory with the files, to which nobody else writes; there need not be one
            for changes without any.
        operations: The changes.
    """
    todo = list(operations)
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(Beneath(root))
        source = None
        if any(one.entry and one.entry.kind == "f" for one in todo):
            source = stack.enter_context(Beneath(stage))
        return _applied(_Sides(root, door, source), todo)


class _Sides(NamedTuple):
    """Where changes are made, and where files come from."""

    root: str
    door: Beneath
    stage: Beneath | None


def _applied(sides: _Sides, todo: list[Operation]) -> dict[str, Outcome]:
    removing = [one for one in todo if one.entry is None or _changes_kind(one)]
    outcomes = {}
    for one in sorted(removing, key=lambda one: one.path, reverse=True):
        outcomes[one.path] = _tried(sides, one._replace(entry=None))
    making = [one for one in todo if one.entry and _is_done(outcomes.get(one.path))]
    late = []
    for one in sorted(making, key=lambda one: one.path):
        expected = None if one.path in outcomes else one.expected
        outcomes[one.path] = _tried(sides, one._replace(expected=expected))
        if one.entry and one.entry.kind == "d" and not outcomes[one.path].reason:
            late.append((one.path, one.entry))
    # Only now, since a directory may be one that nobody may write to.
    for path, entry in reversed(late):
        with contextlib.suppress(OSError):
            sides.door.permit(path, entry.mode)
            outcomes[path] = Outcome(entry, "")
    return outcomes


def _changes_kind(one: Operation) -> bool:
    return bool(one.entry and one.expected and one.entry.kind != one.expected.kind)


def _is_done(outcome: Outcome | None) -> bool:
    return outcome is None or not outcome.reason


def _tried(sides: _Sides, one: Operation) -> Outcome:  # noqa: PLR0911  (a line for each outcome)
    if not is_inside(one.path):
        raise ValueError(one.path)
    try:
        now = look_below(sides.door, sides.root, one.path)
        if now != one.expected and not _is_directory_twice(now, one.entry):
            if one.entry is None and now is None:
                return Outcome(None, "")
            return Outcome(now, "kept")
        _change(sides, one, now)
    except FileNotFoundError:
        if one.entry is None:
            return Outcome(None, "")
        return Outcome(None, "it did not arrive")
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            return Outcome(look_below(sides.door, sides.root, one.path), "kept")
        return Outcome(one.expected, error.strerror or str(error))
    return Outcome(look_below(sides.door, sides.root, one.path), "")


def _is_directory_twice(now: Entry | None, wanted: Entry | None) -> bool:
    return bool(now and wanted and now.kind == wanted.kind == "d")


def _change(sides: _Sides, one: Operation, now: Entry | None) -> None:
    entry, door = one.entry, sides.door
    if entry and entry.kind == "f":
        if sides.stage is None or sides.stage.status(one.path) is None:
            raise FileNotFoundError(one.path)
        door.move_in(sides.stage, one.path, one.path, mode=entry.mode, make=0o755)
        return
    with (
        door.parent(one.path, make=None if entry is None else 0o755) as (parent, name),
        writable(parent),
    ):
        if now and now.kind == "d" and entry is None:
            os.rmdir(name, dir_fd=parent)
        elif now and now.kind != "d":
            os.unlink(name, dir_fd=parent)
        if entry and entry.kind == "l":
            os.symlink(entry.stamp, name, dir_fd=parent)
        elif entry and now is None:
            os.mkdir(name, 0o700, dir_fd=parent)
