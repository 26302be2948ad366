"""What says what of a directory is ignored, as a value that goes on to hold when that changes."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from scripts.machine import git, git_places, git_settings
from scripts.machine.beneath import Beneath
from scripts.workspace.copies import reconcile
from scripts.workspace.copies.ignored import ignored, standard_rules

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NAMES = {".gitignore", ".nddtignore"}


class Rules(NamedTuple):
    """What said what is ignored, at some time."""

    texts: dict[str, str]
    """Of each `.gitignore` and `.nddtignore`."""
    repositories: dict[str, tuple[str, tuple[str, ...]]]
    """Of the root, and of each directory with a repository: the user's and its own excludes, and
    what it tracks though it would be ignored."""

    def ignored(self, paths: Iterable[str], private: str) -> set[str]:
        """Tell which files they ignore.

        Args:
            paths: Of files.
            private: One that they ignore, too, unless it is tracked.

        Raises:
            DataError: git does not tell.
        """
        # A repository is ignored as a whole; git does not look at what is in its own.
        asked = {path: _repository_at(path) or path for path in paths}
        groups: defaultdict[str, set[str]] = defaultdict(set)
        for one in asked.values():
            if one != ".git":
                groups[self._top(one)].add(one)
        found: set[str] = set()
        for top, group in groups.items():
            found |= self._ignored_in(top, group, "" if top else private)
        return {path for path, one in asked.items() if reconcile.is_in(one, found)}

    def _ignored_in(self, top: str, paths: Iterable[str], private: str) -> set[str]:
        """Ask git about paths of one of the repositories."""
        prefix = f"{top}/" if top else ""
        exclude, tracked = self.repositories[top]
        names = {name for one in paths if (name := one.removeprefix(prefix)) != ".git"}
        texts = self._texts_in(top, ".gitignore")
        found = git.excluded(texts, os.fsencode(exclude), names)
        found = (found | ({private} & names)) - set(tracked)
        found |= git.excluded(self._texts_in(top, ".nddtignore"), b"", names)
        return {prefix + one for one in found}

    def _texts_in(self, top: str, name: str) -> dict[str, bytes]:
        """Collect the files of a name in one of the repositories, as if each were a .gitignore."""
        prefix = f"{top}/" if top else ""
        return {
            path.removeprefix(prefix).removesuffix(name) + ".gitignore": os.fsencode(text)
            for path, text in self.texts.items()
            if path.rpartition("/")[2] == name and self._top(path) == top
        }

    def _top(self, path: str) -> str:
        """Tell in which of the repositories a path is."""
        while path := _above(path):
            if path in self.repositories:
                return path
        return ""


def read_ignore_rules(root: Path, paths: Iterable[str], private: str) -> Rules:
    """Read the rules of a directory; a file that cannot be read, or has over 1 MiB, has none.

    Args:
        root: The directory.
        paths: All that may be in it, what is ignored among it.
        private: See `Rules.ignored`.
    """
    listed = set(paths)
    texts = {}
    with Beneath(root) as door:
        for path in listed:
            if _is_file_of_rules(path) and not _repository_at(path):
                with suppress(OSError):
                    texts[path] = os.fsdecode(door.read(path, git_places.TEXT))
    tops = {_above(place) for place in map(_repository_at, listed) if place}
    real = {"", *(top for top in tops if git_places.directory_of(str(root / top)))}
    return Rules(texts, {top: _repository(str(root / top), "" if top else private) for top in real})


def from_json(texts: dict[str, str], repositories: dict[str, Any]) -> Rules:
    """Read rules that were JSON."""
    return Rules(texts, {top: (text, tuple(names)) for top, (text, names) in repositories.items()})


def _is_file_of_rules(path: str) -> bool:
    return path.rpartition("/")[2] in _NAMES


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _repository_at(path: str) -> str:
    """Tell which `.git` a path is, or is in; empty for none."""
    before, is_in_one, _ = f"/{path}/".partition("/.git/")
    return f"{before}/.git"[1:] if is_in_one else ""


def _repository(top: str, private: str) -> tuple[str, tuple[str, ...]]:
    """Read the excludes that hold in a directory, and what it tracks in spite of the rules."""
    own = git_settings.excludes(top)
    with git.standing_in(git_places.directory_of(top)) as stand:
        words = ("-c", "-i", "-z", *standard_rules(stand, private))
        tracked = stand.listed(*words, tree=top, excludes=git_settings.excludes_file()) or b""
        exclude = (
            git_places.read_plain_file(stand.exclude, git_places.TEXT) if stand.exclude else b""
        )
    names = tuple(filter(None, os.fsdecode(tracked).split("\0")))
    return os.fsdecode(own + b"\n" + (exclude or b"")), names


def is_copied(directory: Path, settings_file: str, file: Path) -> bool:
    """Tell whether a copy of a directory has a file.

    Args:
        directory: Which.
        settings_file: The project's .env file, in it: it stays unless it is tracked.
        file: The file, anywhere.
    """
    if file == directory / settings_file or not file.is_relative_to(directory):
        return git.is_tracked(str(file))
    name = file.relative_to(directory)
    with git.standing_in() as nothing:
        found = ignored(str(directory), "", nothing, git_settings.excludes_file())
    return found.isdisjoint(map(str, (name, *name.parents)))
