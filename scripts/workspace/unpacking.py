"""What comes out of a sandbox as a stream of tar, put below a directory."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from scripts.machine import archive
from scripts.machine.descriptors import DEPTH, pour

if TYPE_CHECKING:
    import tarfile

    from scripts.machine.beneath import Beneath


MOST_CLOSED = 10_000
"""Directories among them in which their owner may not look."""


class Unpacking:
    """What comes out of a sandbox, put below a directory, to which that may write, too.

    Args:
        door: The directory.
        room: Bytes that may be written.
    """

    def __init__(self, door: Beneath, room: int) -> None:
        self._door, self.room = door, room
        self._mask = mask()
        self._closed: list[tuple[str, int]] = []
        self.special: list[str] = []
        """Names of what is neither file, directory nor link; of these lists the beginning."""
        self.large: list[str] = []
        self.refused: list[str] = []

    def take(self, member: tarfile.TarInfo, file: IO[bytes] | None) -> None:
        """Take the next one."""
        path = plain(member.name)
        mode = member.mode & 0o777 & ~self._mask
        try:
            if member.isdir():
                self._make_directories(path)
                self._permit(path, mode)
            elif file is not None and member.size > self.room:
                _note(self.large, path)
            elif path and (file is not None or member.issym() or member.islnk()):
                self._make_directories(path.rpartition("/")[0])
                self._make(path, member, file, mode)
            else:
                _note(self.special, path)
        except OSError:
            _note(self.refused, member.name)

    def _make(self, path: str, member: tarfile.TarInfo, file: IO[bytes] | None, mode: int) -> None:
        if file is not None:
            self.room -= member.size
            with self._door.create(path, mode=mode, modified_ns=modified_ns(member)) as new:
                pour(archive.content(member, file), new)
            return
        found = self._door.status(path)
        if found and stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(path)
        self._door.remove(path)
        if member.issym():
            self._door.symlink(path, member.linkname)
        else:
            self._door.link(plain(member.linkname), path)

    def _make_directories(self, path: str) -> None:
        """Make what is missing; a link that an earlier copy has left there makes room."""
        parts = path.split("/") if path else []
        if len(parts) > DEPTH:
            raise OSError(errno.ENAMETOOLONG, "it is too deep", path)
        found = self._door.status(path) if path else None
        if found and stat.S_ISDIR(found.st_mode):
            return
        for number in range(len(parts)):
            one = "/".join(parts[: number + 1])
            found = self._door.status(one)
            if found and stat.S_ISLNK(found.st_mode):
                self._door.remove(one)
            if found is None or stat.S_ISLNK(found.st_mode):
                self._door.mkdir(one, mode=0o777 & ~self._mask)

    def _permit(self, path: str, mode: int) -> None:
        if mode & 0o500 == 0o500:
            self._door.permit(path, mode)
        elif len(self._closed) < MOST_CLOSED:  # not before all that is in there has come
            self._closed.append((path, mode))

    def close(self) -> None:
        """Close directories that nobody may look into."""
        for path, mode in reversed(self._closed):
            with suppress(OSError):
                self._door.permit(path, mode)


def _note(names: list[str], name: str) -> None:
    if len(names) < 5:
        names.append(name[:500])


def plain(name: str) -> str:
    """Write a name of tar's as a path below a directory, if it is one."""
    return name.removeprefix("./").rstrip("/") if name != "." else ""


def mask() -> int:
    """Ask which permissions new files do not get."""
    asked = os.umask(0o077)
    os.umask(asked)
    return asked


def modified_ns(member: tarfile.TarInfo) -> int:
    """Read when a file was changed, as a time that a disk takes."""
    return min(max(int(member.mtime * 1e9), 0), 1 << 62)
