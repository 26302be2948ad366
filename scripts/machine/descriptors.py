"""Single steps of walking, reading and changing, by descriptors of directories.

`beneath` is made of them, and has the rules. The text of this file is sent to sandboxes, too.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from itertools import islice
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEPTH = 128
"""Directories below each other that are walked into; each takes a descriptor."""
LENGTH = 3000
"""Bytes of the path of a directory that is walked into: what is in there can still be named."""
MOST = 1_000_000
"""Entries of a tree that are looked at."""
BLOCK = 1 << 16
PERMISSIONS = 0o777
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
ENTER = DIRECTORY | os.O_NOFOLLOW
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ZEROS = bytes(BLOCK)


class TooLargeError(OSError):
    """There is more than one is willing to read."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EFBIG, "there is too much of it", path)


class Listing(NamedTuple):
    """A directory on a walk."""

    path: str
    """Relative to the root; empty for the root itself."""
    descriptor: int
    """Of the directory, open until the walk goes on; -1 if it could not be opened."""
    children: list[os.DirEntry[str]]
    """What is in there, each of which `stat(follow_symlinks=False)` looks at while the directory
    is open. The walk goes on into the directories that are left in this list."""
    problem: OSError | None
    """Why the directory could not be read."""


def parts(path: str) -> list[str]:
    """Split a path.

    Raises:
        OSError: It is absolute, or has a part that is empty, `.` or `..`, or a NUL.
    """
    found = path.split("/")
    if not {"", ".", ".."}.isdisjoint(found) or "\0" in path:
        raise OSError(errno.EINVAL, "it is no path below a directory", path.replace("\0", "?"))
    return found


def blocks(file: IO[bytes]) -> Iterator[bytes | int]:
    """Read a file: blocks of bytes, and of each hole how long it is.

    A block begins at a multiple of `BLOCK`.
    """
    descriptor, place = file.fileno(), 0
    while True:
        try:
            start = os.lseek(descriptor, place, os.SEEK_DATA)
            start = max(place, start - start % BLOCK)
        except OSError:  # there is no more, or nobody can tell
            size = os.fstat(descriptor).st_size
            start = size if size > place and _knows_holes(descriptor) else place
        if start > place:
            yield start - place
        block = os.pread(descriptor, BLOCK, start)
        if not block:
            return
        yield block
        place = start + len(block)


def _knows_holes(descriptor: int) -> bool:
    """Tell whether a failing search for data means that there is none."""
    try:
        os.lseek(descriptor, 0, os.SEEK_HOLE)
    except OSError:
        return False
    return True


def pour(found: Iterable[bytes | int], file: IO[bytes], limit: int | None = None) -> int:
    """Write what `blocks` reads to a new file, leaving holes for zeros.

    Args:
        found: Blocks.
        file: The new file.
        limit: Bytes that it may have.

    Returns:
        The file's size.

    Raises:
        TooLargeError: It would have more.
    """
    size = 0
    for one in found:
        length = one if isinstance(one, int) else len(one)
        size += length
        if limit is not None and size > limit:
            raise TooLargeError("")
        if isinstance(one, int) or _ZEROS.startswith(one):
            file.seek(length, os.SEEK_CUR)
        else:
            file.write(one)
    file.truncate(size)
    return size


@contextmanager
def writable(directory: int) -> Iterator[None]:
    """Let its owner write to an open directory for a moment."""
    mode = stat.S_IMODE(os.fstat(directory).st_mode)
    if mode & 0o300 == 0o300:
        yield
        return
    with suppress(PermissionError):
        os.fchmod(directory, mode | 0o300)
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.fchmod(directory, mode)


def enter(here: int, name: str, make: int | None) -> int:
    """Open a directory in another one, made with this mode if it is missing."""
    try:
        return os.open(name, ENTER, dir_fd=here)
    except FileNotFoundError:
        if make is None:
            raise
    with writable(here), suppress(FileExistsError):
        os.mkdir(name, make & PERMISSIONS, dir_fd=here)
    return os.open(name, ENTER, dir_fd=here)


def children(descriptor: int, path: str, most: int) -> list[os.DirEntry[str]]:
    """List what is in an open directory, at most so many."""
    with os.scandir(descriptor) as listing:
        found = list(islice(listing, most + 1))
    if len(found) > most:
        raise TooLargeError(path)
    return found


def regular(parent: int, name: str) -> IO[bytes]:
    """Open a regular file to read; anything else is an error."""
    # Before, since a device may act when it is opened; after, since it may be another one by then.
    _check_regular(os.stat(name, dir_fd=parent, follow_symlinks=False), name)
    file = os.fdopen(os.open(name, READ, dir_fd=parent), "rb")
    try:
        _check_regular(os.fstat(file.fileno()), name)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", name)


def unlinked(parent: int, name: str) -> bool:
    """Remove anything but a directory; say whether that was done."""
    try:
        os.unlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in {errno.EISDIR, errno.EPERM}:  # the latter where POSIX is followed
            raise
        return False
    return True


def empty(top: int, path: str) -> None:
    """Empty an open directory: what is deeper is moved up, so that nothing is ever deep."""
    for _ in range(MOST):
        names = os.listdir(top)
        if not names:
            return
        for name in names:
            if not unlinked(top, name):
                _flatten(top, name)
                os.rmdir(name, dir_fd=top)
    raise TooLargeError(path)


def _flatten(top: int, name: str) -> None:
    let_owner_do_all(top, name)
    directory = os.open(name, ENTER, dir_fd=top)
    try:
        for inner in os.listdir(directory):
            if not unlinked(directory, inner):
                let_owner_do_all(directory, inner)
                os.rename(inner, secrets.token_hex(8), src_dir_fd=directory, dst_dir_fd=top)
    finally:
        os.close(directory)


def let_owner_do_all(parent: int, name: str) -> None:
    """Let the owner do all with it, as far as that can be."""
    # Where that cannot be, it shows whether it was needed; of a link Python makes a ValueError.
    with suppress(OSError, NotImplementedError, ValueError):
        os.chmod(name, 0o700, dir_fd=parent, follow_symlinks=False)
