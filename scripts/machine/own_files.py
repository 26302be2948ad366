"""Files of the user's own that come along into a sandbox: nothing else of this machine does.

A configuration directory is the user's alone, but a link in it may lead to where a sandbox works,
as those who keep dotfiles have it. Such a link is followed, and none behind it: else whoever works
there could have any file of this machine brought along, by a link of its own.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.machine.beneath import Beneath
from scripts.machine.descriptors import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEPTH = 32
"""Directories below each other that are walked into."""


class OwnFiles:
    """A configuration directory; what cannot be read, or is not to be, raises OSError.

    Args:
        top: The directory. If a link leads to it, no link in it is followed.
        home: The user's.
        never: Files that are not read, by whatever name.
    """

    def __init__(self, top: Path, home: Path, never: Iterable[Path] = ()) -> None:
        real = Path(os.path.realpath(home))
        # What leads to the home directory is the system's.
        self._homes = {str(home): str(real)}
        named = self._from_real_home(os.path.normpath(top))
        self._start = real if named.is_relative_to(real) else Path(os.path.realpath(top.parent))
        self._top = named.relative_to(real).parts if self._start == real else (named.name,)
        self._never = {found for one in never if (found := _inode(one))}

    def _from_real_home(self, path: str) -> Path:
        for home, real in self._homes.items():
            if path == home or path.startswith(f"{home}/"):
                return Path(real + path.removeprefix(home))
        return Path(path)

    def is_linked(self, name: str) -> bool:
        """Tell whether a path below the top is come by through a link of the user's."""
        return self._follow(name)[1]

    def _way(self, name: str) -> str:
        """Find where a path below the top is, from `/` on: no link is to be on this way."""
        return self._follow(name)[0]

    def _follow(self, name: str) -> tuple[str, bool]:
        here, is_first = self._start, True
        for part in (*self._top, *name.split("/")):
            path = here / part
            if is_first and path.is_symlink():
                is_first = False
                target = os.path.join(here, os.readlink(path))  # noqa: PTH115,PTH118
                path = self._from_real_home(os.path.normpath(target))
            here = path
        if here.parts[1:2] and here.parts[1] in {"proc", "sys", "dev"}:
            raise OSError(errno.EACCES, "it is no file of the user's", name)
        return str(here).lstrip("/"), not is_first

    def read(self, name: str, limit: int) -> tuple[bytes, int]:
        """Read a regular file.

        Args:
            name: Its path below the top.
            limit: Bytes; a larger one is a `TooLargeError`.

        Returns:
            Its content, and its mode.
        """
        with Beneath("/") as root, root.open(self._way(name)) as file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) in self._never:
                raise OSError(errno.EACCES, "it is never brought along", name)
            content = file.read(limit + 1)
        if len(content) > limit:
            raise TooLargeError(name)
        return content, found.st_mode

    def names(self, directory: str, passed_over: Iterable[str] = ()) -> Iterator[str]:
        """Walk through a directory below the top, and name all in it that is none."""
        waiting = [directory]
        with Beneath("/") as root:
            while waiting:
                where = waiting.pop()
                try:
                    children = sorted(set(root.names(self._way(where))) - set(passed_over))
                except OSError:
                    if where != directory:
                        yield where  # a file, or what says why it cannot be read
                    continue
                if where.count("/") < DEPTH:
                    waiting += [f"{where}/{one}" for one in reversed(children)]


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
