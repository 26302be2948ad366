"""What stays on this machine though the rules by which it did have changed.

`.gitignore`, `.nddtignore`, a repository's excludes and git's index decide what is sent to the
copy in a sandbox, and come back from it: it could choose what it gets. So what of a directory was
ignored at an exchange stays from then on, whatever the rules and whichever sandbox; and rules of
before a sandbox's change go on to hold for what is new here, until the user says otherwise.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from scripts import naming
from scripts.errors import DataError
from scripts.machine import files, foreign_json
from scripts.workspace.copies import ignore_rules, reconcile, tree
from scripts.workspace.copies.tree import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from scripts.workspace.copies.changing import Outcome
    from scripts.workspace.copies.ignore_rules import Rules

REMEMBERED = 1 << 28
"""Bytes of what is noted of a directory, at most."""


class _Notes(NamedTuple):
    """What is remembered of a directory."""

    paths: set[str]
    """Files and directories that were ignored."""
    eras: list[Rules]
    """Rules that held before a sandbox changed them."""
    left: str
    """Hash of the rules as a sandbox has left them, which are none of the user's."""
    brought: dict[str, Entry]
    """What would stay, but came from a sandbox, and has not been changed since."""
    has_held: bool
    """Whether something stayed at the last exchange that is not ignored."""


_NOTHING = _Notes(set(), [], "", {}, has_held=False)


class Staying:
    """What stays of one directory.

    Args:
        root: The directory.
        place: Directory for notes about it, which no sandbox sees.
        private: A path that stays unless git tracks it.
    """

    def __init__(self, root: Path, place: Path, private: str = "") -> None:
        self._root, self._place, self._private = root, place, private
        self._file = place / "notes.json"

    def held(self, here: Mapping[str, Entry], ignored: set[str]) -> set[str]:
        """Remember what is ignored now, and tell what stays though it is not.

        Args:
            here: What is there.
            ignored: Files and directories that are ignored, and remembered while they are there.

        Returns:
            Paths of `here`.

        Raises:
            DataError: The notes are damaged, or git does not tell.
        """
        with self._changing() as notes:
            there = {one for one in notes.paths - ignored if os.path.lexists(self._root / one)}
            brought = {path: one for path, one in notes.brought.items() if here.get(path) == one}
            now = notes._replace(paths=ignored | there, brought=brought)
            held = self._held(now, here)
            self._write(notes, now._replace(has_held=bool(held)))
        return held

    def _held(self, notes: _Notes, here: Mapping[str, Entry]) -> set[str]:
        found = {path for path in here if reconcile.is_in(path, notes.paths)}
        left = {path for path in here if path not in found and here[path].kind != "d"}
        for rules in notes.eras:
            found |= rules.ignored(left, self._private)
            left -= found
        return found - {path for path in found if notes.brought.get(path) == here[path]}

    def bring(
        self,
        paths: Collection[str],
        around: Collection[str],
        change: Callable[[], dict[str, Outcome]],
    ) -> dict[str, Outcome]:
        """Have something changed as a sandbox wants it, and rules of before go on to hold.

        Args:
            paths: What is to be changed.
            around: What was there before, what was ignored among it.
            change: Does it.
        """
        places = {*around, *paths}
        with self._changing() as notes:  # nobody else's changes come in between
            rules, during = self._rules(places), notes
            if rules not in notes.eras and _digest(rules) != notes.left:
                during = notes._replace(eras=[*notes.eras, rules])
                self._write(notes, during)  # already now, as the change may break off
            outcomes = change()
            after = self._rules(places)
            now = notes if after == rules else during._replace(left=_digest(after))
            done = {path: one.entry for path, one in outcomes.items() if not one.reason}
            made = {path: entry for path, entry in done.items() if entry}
            theirs = {path: made[path] for path in self._held(now, made)}
            self._write(during, now._replace(brought={**now.brought, **theirs}))
        return outcomes

    def let_go(self, is_agreed: Callable[[list[str]], bool]) -> None:
        """Have the rules count as they are now, if the user agrees to the files that go then.

        Raises:
            OSError: The directory cannot be read.
            DataError: See `held`.
        """
        seen = self._read()
        if not seen.has_held:
            return
        ignored: set[str] = set()
        here = tree.entries(str(self._root), self._private, ignored)
        held = sorted(path for path in self._held(seen, here) if here[path].kind != "d")
        if not (held and is_agreed(held)):
            return
        with self._changing() as notes:  # what has come meanwhile was not asked about
            eras = [one for one in notes.eras if one not in seen.eras]
            paths = notes.paths - seen.paths | ignored
            left = notes.left if eras else ""
            self._write(notes, notes._replace(paths=paths, eras=eras, left=left, has_held=False))

    def _rules(self, paths: Collection[str]) -> Rules:
        return ignore_rules.read_ignore_rules(self._root, paths, self._private)

    # -- the notes

    @contextmanager
    def _changing(self) -> Iterator[_Notes]:
        """Have the notes for one process at a time."""
        files.make_private(self._place.parent)
        with files.lock(self._place):
            yield self._read()

    def _read(self) -> _Notes:
        try:
            paths, eras, left, brought, has_held = foreign_json.read_json(
                self._file, most=REMEMBERED
            )
            return _Notes(
                set(paths),
                [ignore_rules.from_json(*one) for one in eras],
                left,
                {path: Entry(*one) for path, one in brought.items()},
                has_held=has_held,
            )
        except FileNotFoundError:
            return _NOTHING
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{self._file} is damaged", "remove it") from error

    def _write(self, before: _Notes, now: _Notes) -> None:
        if now != before:
            files.write(self._file, json.dumps((sorted(now.paths), *now[1:])))


def _digest(rules: Rules) -> str:
    return naming.digest([json.dumps(rules, sort_keys=True)], 32)
