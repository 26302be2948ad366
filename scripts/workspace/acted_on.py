"""Which files below a directory programs of this machine act on, without their being started.

A list names those of all tools but git (`listed_files.py`); of git, the repositories themselves
say which they are (`git_repositories.py`, `git_configurations.py`).
"""

from __future__ import annotations

import re
import stat
from collections import deque
from functools import cache
from typing import TYPE_CHECKING

from scripts import naming
from scripts.errors import DataError, UnavailableError
from scripts.machine import git_places, git_settings
from scripts.workspace import findings, git_configurations, git_repositories, named_scripts
from scripts.workspace.findings import Findings
from scripts.workspace.git_configurations import Seen
from scripts.workspace.git_repositories import Repositories
from scripts.workspace.links_below import Directory
from scripts.workspace.listed_files import ListedFiles, Pattern, plain_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scripts.machine.beneath import Beneath

_NEVER_ENTERED = {".git", "node_modules"}
_PROGRAM = (naming.PROGRAM, "tasks.py", "scripts/**", "requirements*.lock")
_STORE = re.compile(r".*objects/[0-9a-f]{2}/", re.DOTALL)
"""Directories of git's objects, which are many."""


def find_acted_on(
    top: Beneath, root: Path, own: Sequence[git_settings.Setting] = ()
) -> dict[str, str]:
    """Find such files below a directory, and the links on the way to one.

    A link is followed one step after the other below the directory, and never out of it.

    Args:
        top: The directory.
        root: Its path, which absolute ones in configurations may lead to.
        own: The user's settings of git.

    Returns:
        Paths, and why there is more at one than is looked at; empty for those that are files.
    """
    sought = {*plain_names(), ".git", "HEAD", *git_repositories.SHARED}
    directory = Directory(top, root, Findings(), sought)
    search = _Search(directory)
    search.take_own(own)
    search.take_program()
    search.repositories.take_around()
    search.walk()
    search.repositories.take_members()
    directory.begin_kind()
    search.listed.take_turns()
    directory.found.begin_kind()
    for path, base in search.listed.naming_scripts:
        named_scripts.take(directory, directory.read(path, git_places.TEXT), base)
    return directory.found.paths


class _Search:
    """A look at a directory."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.listed = ListedFiles(directory)
        self.repositories = Repositories(directory, self.listed)
        self._near: deque[str] = deque([""])
        self._late: deque[str] = deque()
        self._hidden: deque[str] = deque()

    def take_own(self, own: Sequence[git_settings.Setting]) -> None:
        """Take what of the user's settings of git is kept here, and what they run of here."""
        for file in dict.fromkeys(one.file for one in own if one.file):
            if path := self._directory.followed(file, is_ours=True):
                self._directory.found.add(path)
        for one in own:
            if git_configurations.leads_on(one.name):
                self.repositories.configurations.take_setting(
                    one.file, one.name, one.value or "", Seen(is_ours=True)
                )

    def take_program(self) -> None:
        """Take what nddt itself is made of, and made from, if it is here."""
        here = self._directory.followed(str(naming.ROOT), is_ours=True)
        for one in _PROGRAM if here is not None else ():
            self.listed.take(f"{here}/" if here else "", Pattern(tuple(one.split("/"))))

    def walk(self) -> None:
        """Look at the directories, one after the other, the nearest first."""
        for _ in range(findings.DIRECTORIES):
            if queue := self._near or self._late:
                self._look_at(queue.popleft(), self._near, self._late)
        for _ in range(findings.HIDDEN):
            if self._hidden:
                self._look_at(self._hidden.popleft(), self._hidden, self._hidden)
        self._directory.found.begin_kind()

    def _look_at(self, inside: str, near: deque[str], late: deque[str]) -> None:
        """Look at a directory, and queue those in it."""
        children = self._directory.children(inside)
        full = self._directory.full(inside)
        if git_repositories.is_git_directory(children):
            self.repositories.take(full, full)
        if ".git" in children:
            self.repositories.take_pointer(inside)
        self.listed.take_named(inside, children.keys())
        for name, kind in children.items():
            if kind == stat.S_IFDIR and name not in _NEVER_ENTERED:
                deeper = f"{inside}{name}/"
                side = late if _STORE.fullmatch(deeper) else near
                (self._hidden if name[0] == "." else side).append(deeper)


def own_settings(environ: Mapping[str, str]) -> tuple[git_settings.Setting, ...]:
    """Read the user's settings of git, once; nothing if git cannot."""
    return _own_settings(tuple(sorted(environ.items())))


@cache
def _own_settings(environ: tuple[tuple[str, str], ...]) -> tuple[git_settings.Setting, ...]:
    try:
        return git_settings.own_settings(dict(environ))
    except (DataError, UnavailableError):
        return ()
