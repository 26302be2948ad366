"""What git acts on in repositories, wherever they and what belongs to them are.

The repositories themselves say which files these are: by their configurations, read on copies,
and by their directories for worktrees, submodules and a rebase that has stopped.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.machine import git_places
from scripts.workspace import findings
from scripts.workspace.git_configurations import Configurations, Seen
from scripts.workspace.listed_files import Pattern

if TYPE_CHECKING:
    from collections.abc import Container

    from scripts.workspace.links_below import Directory
    from scripts.workspace.listed_files import ListedFiles

_FILES = (
    *("config.worktree", "commondir", "gitdir", "info/attributes"),
    *("rebase-merge/git-rebase-todo", "rebase-merge/strategy*", "rebase-apply/apply-opt"),
    *("sequencer/todo", "sequencer/opts"),
)
"""Of a git directory, or that of a worktree: what git runs, and where it looks for that."""
SHARED = ("refs", "commondir")
"""Beside HEAD, git wants one of these (is_git_directory in its setup.c): refs and objects are
there, or where `commondir` leads, and objects may be where $GIT_OBJECT_DIRECTORY says."""
_NOT_OF_SUBMODULES = {"objects", "refs", "logs", "info", "hooks", "lfs"}


def is_git_directory(names: Container[str]) -> bool:
    """Tell whether a directory with these names in it is one of git's."""
    return "HEAD" in names and any(one in names for one in SHARED)


class Repositories:
    """What git acts on below a directory."""

    def __init__(self, directory: Directory, listed: ListedFiles) -> None:
        self._directory = directory
        self._found = directory.found
        self._listed = listed
        self.configurations = Configurations(directory, listed)
        self._taken: set[tuple[str, str]] = set()
        self._left = findings.REPOSITORIES
        self._members: deque[str] = deque()

    def take_around(self) -> None:
        """Take what repositories act on here that are around the directory."""
        for here in (Path(one or "/") for one in sorted(self._directory.roots)):
            for above in map(str, here.parents):
                if place := git_places.directory_of(above):
                    self.take(place, above, is_ours=True)
                names = {one for one in ("HEAD", *SHARED) if os.path.lexists(f"{above}/{one}")}
                if is_git_directory(names):
                    self.take(above, above, is_ours=True)
        # A pointer at its top is what nddt has gone by already.
        place = git_places.directory_of(self._directory.root)
        if place and self._directory.below(place) is None:
            self.take(place, self._directory.root, is_ours=True)

    def take_pointer(self, inside: str) -> None:
        """Take a working tree's `.git`, and where it leads."""
        tree = self._directory.full(inside)
        path, links = self._directory.real(".git", inside, "links")
        for link in links:
            self._found.add(link)
        if path is None or self._directory.kind(path) == stat.S_IFDIR:
            place = self._directory.full(path or "")
            if path is None and links:
                above = os.path.dirname(self._directory.full(links[-1]))  # noqa: PTH120
                place = os.path.join(above, self._directory.target(links[-1]))  # noqa: PTH118
            self.take(place, tree)
            return
        self._found.add(path)
        target = self._line(path).removeprefix("gitdir:").strip()
        if target:
            self.take(os.path.join(tree, target), tree)  # noqa: PTH118

    def take(self, place: str, tree: str, *, is_ours: bool = False) -> None:
        """Take what git acts on in a git directory.

        Args:
            place: Full path of the git directory.
            tree: And of its working tree.
            is_ours: Whether it is known not to be a sandbox's.
        """
        place, tree = os.path.normpath(place), os.path.normpath(tree)
        if "\0" in place or (place, tree) in self._taken:
            return
        if self._left <= 0:
            self._found.note_more(f"{findings.REPOSITORIES} repositories")
            return
        self._left -= 1
        self._taken.add((place, tree))
        known = self.configurations
        where, said = known.content(f"{place}/commondir", is_ours=is_ours)
        is_ours = is_ours or (where is None and self._directory.is_near(place))
        common = os.path.normpath(os.path.join(place, os.fsdecode(said).rstrip("\r\n")))  # noqa: PTH118
        for one in dict.fromkeys((place, common)):
            self._take_files(one, is_ours=is_ours)
        files = (f"{common}/config", f"{place}/config.worktree")
        tree = known.working_tree(files, place, is_ours=is_ours) or tree
        seen = Seen((tree, place), is_ours=is_ours)
        for file in files:
            known.take(file, seen)
        for value in known.hooks_of_all:
            known.take_hooks(value, seen._replace(is_ours=True))

    def _take_files(self, place: str, *, is_ours: bool) -> None:
        """Take the files of a git directory, and remember to look for others that belong to it."""
        if (place, "") in self._taken:
            return
        self._taken.add((place, ""))
        path = self._directory.followed(place, is_ours=is_ours)
        if path is None:
            if is_ours:
                self.configurations.take_linked(f"{place}/hooks")
            return
        inside = f"{path}/" if path else ""
        self._listed.take_hooks(inside, "hooks")
        for pattern in _FILES:
            self._listed.take(inside, Pattern(tuple(pattern.split("/"))))
        self._members.append(inside)

    def take_members(self) -> None:
        """Take the worktrees and submodules of all git directories that were taken."""
        self._left = findings.REPOSITORIES
        while self._members and self._left > 0:
            inside = self._members.popleft()
            self._take_worktrees(f"{inside}worktrees/")
            self._take_submodules(f"{inside}modules/")
        if self._members:
            self._found.note_more(f"{findings.REPOSITORIES} repositories")

    def _take_worktrees(self, inside: str) -> None:
        for name, kind in self._directory.children(inside).items():
            if kind == stat.S_IFDIR:
                here = self._directory.full(f"{inside}{name}")
                pointer = self._line(f"{inside}{name}/gitdir")
                self.take(here, os.path.join(here, pointer).removesuffix("/.git"))  # noqa: PTH118

    def _take_submodules(self, inside: str) -> None:
        """Take submodules, whose names may have slashes in them, and theirs."""
        waiting = deque([inside])
        for _ in range(findings.REPOSITORIES):
            if not waiting:
                break
            here = waiting.popleft()
            children = self._directory.children(here)
            if not children.keys().isdisjoint({"HEAD", "config", "hooks"}):
                self.take(self._directory.full(here), self._directory.root)
            entered = (one for one, kind in children.items() if kind == stat.S_IFDIR)
            waiting += [f"{here}{one}/" for one in entered if one not in _NOT_OF_SUBMODULES]
        if waiting:
            what = f"{findings.REPOSITORIES} directories"
            self._found.note_more(what, inside.rstrip("/"))

    def _line(self, path: str) -> str:
        return os.fsdecode(self._directory.read(path, git_places.TEXT)).strip()
