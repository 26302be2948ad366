"""The one door to logs that several processes write: whole lines, and old files that go."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from scripts.machine import files
from scripts.machine.beneath import Beneath
from scripts.machine.bind_sources import way_through

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def append(
    path: Path, line: bytes, *, most: int, kept: int, changeable: Sequence[Path] = ()
) -> None:
    """Write a line at once, so that those of several processes do not mix, nor get lost.

    Args:
        path: The log; its directory is made if missing.
        line: With its end.
        most: Bytes after which a new file is begun.
        kept: How many full files are kept beside it, as NAME.1 and so on.
        changeable: Directories that a sandbox can change: no link is followed in one.

    Raises:
        OSError: It cannot be written.
    """
    through = way_through(path, changeable)
    links = os.O_NOFOLLOW if through else 0

    def at_once(name: str, flags: int) -> int:  # a pipe would wait for its reader
        return os.open(name, flags | links | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=parent)

    with _parent(path, through) as parent, open(path.name, "ab", 0, opener=at_once) as file:
        if file.write(line) != len(line):
            raise OSError(0, "the disk is full")
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_size > most:
            _rotate(path.name, file.fileno(), parent, kept)


@contextmanager
def _parent(path: Path, through: Path | None) -> Iterator[int]:
    """Open the directory of the log; where a sandbox can change it, through no link."""
    if through is not None:
        below = os.path.relpath(path, through)
        with Beneath(through) as door, door.parent(below, make=0o700) as (parent, _):
            yield parent
        return
    files.make_private(path.parent)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield parent
    finally:
        os.close(parent)


def _rotate(name: str, descriptor: int, parent: int, kept: int) -> None:
    """Put a full file aside, unless another process does; what is being written goes along."""
    rename = partial(os.replace, src_dir_fd=parent, dst_dir_fd=parent)
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=parent)):
            for number in range(kept - 1, 0, -1):
                with suppress(FileNotFoundError):
                    rename(f"{name}.{number}", f"{name}.{number + 1}")
            rename(name, f"{name}.1")
