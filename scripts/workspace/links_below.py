"""Paths below a directory, with each link on the way followed, and never out of it.

A path is relative to the directory, and has no link in it; one that is called full is absolute,
and only text.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scripts.machine.descriptors import TooLargeError
from scripts.workspace import findings

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from scripts.machine.beneath import Beneath
    from scripts.workspace.findings import Findings

_ELSEWHERE = "\0"
"""In the place of a part of a path: what no file is called."""


class Directory:
    """A directory, and what paths mean below it.

    Args:
        top: The directory.
        root: Its path, which absolute ones in files may lead to.
        found: Takes the links on the way to a file.
        sought: Names for which it is looked in a crowd, too.
    """

    def __init__(
        self, top: Beneath, root: Path, found: Findings, sought: Collection[str] = ()
    ) -> None:
        self.found = found
        self.root = os.path.abspath(root).rstrip("/")  # noqa: PTH100  (it is only text)
        self.roots = {self.root, os.path.realpath(root).rstrip("/")}
        near = {os.path.dirname(self.root), os.path.expanduser("~")}  # noqa: PTH120, PTH111
        self._near = tuple(f"{one}/" for one in near if one.strip("/"))
        self._top = top
        self._sought = sought
        self._homes: dict[str, str] = {}
        self._entries_left = findings.ENTRIES
        self._steps_left = {"names": findings.STEPS, "links": findings.STEPS}

    # -- what is there

    def begin_kind(self) -> None:
        """Count files and entries from 0 again."""
        self.found.begin_kind()
        self._entries_left = findings.ENTRIES

    def children(self, inside: str, most: int = 0) -> dict[str, int]:
        """List a directory; tell of each entry whether it is a directory, a link, or else a file.

        Args:
            inside: The directory.
            most: So many entries at most; 0 for `CROWD`, and what is sought beyond that.
        """
        limit = min(most or findings.CROWD, self._entries_left)
        walk = self._top.walk(inside.rstrip("/"), most=max(limit, 0))
        try:
            children = {one.name: one for one in next(walk).children}
        except TooLargeError:
            return self._crowd(inside, limit) if most else self._sought_in(inside)
        except OSError:
            return {}
        self._entries_left -= len(children) + 1
        return {name: _kind_of(children[name]) for name in sorted(children)}

    def _crowd(self, inside: str, limit: int) -> dict[str, int]:
        self.found.note_more(f"{findings.MANY} entries", inside.rstrip("/") or ".")
        self._entries_left -= max(limit, 1)
        return {}

    def _sought_in(self, inside: str) -> dict[str, int]:
        """Look, in a crowd, for the names that are sought."""
        if self._entries_left <= findings.CROWD:
            self.found.note_more(f"{findings.ENTRIES} entries")
            return {}
        self.found.note_more(f"{findings.CROWD} entries", inside.rstrip("/") or ".")
        self._entries_left -= findings.CROWD
        kinds = {name: self.kind(f"{inside}{name}") for name in self._sought}
        return {name: kind for name, kind in sorted(kinds.items()) if kind}

    def mode(self, path: str | None) -> int:
        """Look up the mode of what is at a path; 0 for nothing."""
        with suppress(OSError):
            found = self._top.status(path) if path else None
            return found.st_mode if found else 0
        return 0

    def kind(self, path: str | None) -> int:
        """Look up what is at a path, as in a mode; 0 for nothing."""
        return stat.S_IFDIR if path == "" else stat.S_IFMT(self.mode(path))

    def read(self, path: str, most: int) -> bytes:
        """Read a file of so many bytes at most; nothing if that cannot be."""
        with suppress(OSError):
            return self._top.read(path, most)
        return b""

    def target(self, link: str) -> str:
        """Read where a link leads; nothing if that cannot be."""
        with suppress(OSError):
            return self._top.target(link)
        return ""

    # -- what a path means

    def full(self, path: str) -> str:
        """Write a path as a full one."""
        return f"{self.root}/{path}".rstrip("/")

    def below(self, full: str) -> str | None:
        """Tell which path below the directory is meant; None if it is elsewhere."""
        for name in (full, os.path.normpath(full)):
            for root in self.roots:
                if f"{name}/".startswith(f"{root}/"):
                    return name[len(root) + 1 :]
        return None

    def is_near(self, full: str) -> bool:
        """Tell whether something out of the directory may be looked up at a sandbox's word.

        Elsewhere, that may make this machine mount something.
        """
        return os.path.normpath(full).startswith(self._near)

    def real(
        self, path: str, inside: str = "", kind: Literal["names", "links"] = "names"
    ) -> tuple[str | None, list[str]]:
        """Follow links below the directory.

        Args:
            path: May have links, `.` and `..` in it, and need not exist.
            inside: What it is relative to, without any.
            kind: What its steps count for.

        Returns:
            The path without links, None if it leads elsewhere; and the links.
        """
        done = inside.split("/")[:-1]
        known, links, left = len(done) + 1, list[str](), findings.STEPS_OF_ONE
        waiting = path.split("/")[::-1]
        while waiting:
            part = waiting.pop()
            if part == ".." and done:
                done.pop()
            elif part == "..":
                waiting = self._again("..", waiting)
            elif part not in {"", "."}:
                done.append(part)
                cost = len(done) if links else max(len(done) - known, 0)
                left, self._steps_left[kind] = left - cost, self._steps_left[kind] - cost
                if cost and min(left, self._steps_left[kind]) < 0:
                    self.found.paths["…"] = "more names of directories than are looked at"
                    return None, links
                here = "/".join(done)
                if self.kind(here) == stat.S_IFLNK:
                    links.append(here)
                    done.pop()
                    target = self.target(here)
                    if target.startswith("/"):
                        done, waiting = [], self._again(target, waiting)
                    else:
                        waiting += target.split("/")[::-1]
            if len(links) > findings.LINKS or waiting[-1:] == [_ELSEWHERE]:
                return None, links
        return "/".join(done), links

    def _again(self, start: str, waiting: Sequence[str]) -> list[str]:
        """Begin once more at the top, on a way that has left it."""
        full = os.path.join(self.root, start, *waiting[::-1])  # noqa: PTH118
        below = self.below(os.path.normpath(full))
        return [_ELSEWHERE] if below is None else below.split("/")[::-1]

    def seek(self, full: str, *, is_ours: bool) -> tuple[str | None, list[str]]:
        """Tell which path below the directory is meant, and the links on the way."""
        if "\0" in full or len(full) > findings.PATH:
            return None, []
        below = self.below(full)
        if below is None and is_ours:
            below = self.below(os.path.realpath(full))
        return (None, []) if below is None else self.real(below)

    def followed(self, full: str, *, is_ours: bool) -> str | None:
        """Tell likewise, and add the links to what is found."""
        path, links = self.seek(full, is_ours=is_ours)
        for link in links:
            self.found.add(link)
        return path

    def expanded(self, name: str) -> str:
        """Write out what git writes out in the names of files (`pathname` in git-config(1))."""
        name = name.removeprefix(":(optional)")
        if name.startswith("%(prefix)/"):
            return f"{_prefix()}/{name[10:]}"
        user, slash, rest = name.partition("/")
        if not user.startswith("~"):
            return name
        if user not in self._homes and len(self._homes) < findings.HOMES:
            self._homes[user] = os.path.expanduser(user)  # noqa: PTH111  (it is only text)
        return self._homes.get(user, user) + slash + rest


def _kind_of(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFREG


@cache
def _prefix() -> str:
    """Tell where git is installed, which `%(prefix)` stands for."""
    return str(Path(os.path.realpath(shutil.which("git") or "/usr/bin/git")).parent.parent)
