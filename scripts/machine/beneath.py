"""Reading and writing below a directory to which others write at the same time.

A sandbox may exchange any part of a path for a link at any moment, and may have left anything
at its end. So a path is walked one directory at a time, by descriptors; no link is followed, no
special file is opened, no set-ID or sticky bit is set, and nothing recurses.

Only the root itself is named as usual. A path below it is relative, without `.`, `..` or empty
parts. What cannot be done raises OSError. The text of this file also runs in sandboxes, next to
`answering.py`: it needs nothing but the standard library.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from scripts.machine import descriptors
from scripts.machine.descriptors import DEPTH, MOST, Listing, TooLargeError, parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self


class Beneath:
    """A directory, by whose descriptor all below it is reached.

    Args:
        root: The directory, found as usual: links in this path are followed. Or its descriptor,
            which is closed in the end.
    """

    def __init__(self, root: str | os.PathLike[str] | int) -> None:
        self._top = root if isinstance(root, int) else os.open(root, descriptors.DIRECTORY)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._top)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def at(self, path: str, *, make: int | None = None) -> Beneath:
        """Open a directory below as a root of its own; `make` is the mode of missing ones."""
        return Beneath(self._directory(parts(path), make))

    def _directory(self, names: Sequence[str], make: int | None) -> int:
        here = os.dup(self._top)
        try:
            for name in names:
                deeper = descriptors.enter(here, name, make)
                os.close(here)
                here = deeper
        except BaseException:
            os.close(here)
            raise
        return here

    @contextmanager
    def parent(self, path: str, *, make: int | None = None) -> Iterator[tuple[int, str]]:
        """Open the directory that a path is in, for what takes a `dir_fd`.

        Args:
            path: Need not exist.
            make: See `at`.

        Returns:
            The directory's descriptor and the path's last part.
        """
        *names, last = parts(path)
        here = self._directory(names, make)
        try:
            yield here, last
        finally:
            os.close(here)

    # -- looking

    def status(self, path: str) -> os.stat_result | None:
        """Look at what is at a path; None for nothing. A link is looked at itself."""
        try:
            with self.parent(path) as (parent, name):
                return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                return None
            raise

    def target(self, path: str) -> str:
        """Read where a link leads."""
        with self.parent(path) as (parent, name):
            return os.readlink(name, dir_fd=parent)

    def names(self, path: str = "", *, most: int = MOST) -> list[str]:
        """List a directory.

        Args:
            path: The directory; empty for the root.
            most: So many names at most.

        Raises:
            TooLargeError: There are more.
        """
        descriptor = self._directory(parts(path) if path else (), None)
        try:
            return [one.name for one in descriptors.children(descriptor, path, most)]
        finally:
            os.close(descriptor)

    def walk(self, path: str = "", *, depth: int = DEPTH, most: int = MOST) -> Iterator[Listing]:
        """Walk through a tree, each directory before what is in it.

        Args:
            path: Where it begins.
            depth: What is deeper is given with a problem (ENAMETOOLONG), and not entered.
            most: Entries to be looked at.

        Raises:
            TooLargeError: There are more.
        """
        chain: list[int] = []  # the open directories above the one at hand
        waiting = [(0, path, "")]
        try:
            while waiting:
                level, where, name = waiting.pop()
                while len(chain) > level:
                    os.close(chain.pop())
                try:
                    chain.append(self._deeper(chain, where, name, depth))
                    children = descriptors.children(chain[-1], where, most)
                except TooLargeError:
                    raise
                except OSError as error:
                    yield Listing(where, -1, [], error)
                    continue
                most -= len(children)
                yield Listing(where, chain[-1], children, None)
                prefix = f"{where}/" if where else ""
                waiting += [
                    (level + 1, prefix + one.name, one.name)
                    for one in children
                    if one.is_dir(follow_symlinks=False)
                ]
        finally:
            for descriptor in chain:
                os.close(descriptor)

    def _deeper(self, chain: Sequence[int], where: str, name: str, depth: int) -> int:
        if not chain:
            return self._directory(parts(where) if where else (), None)
        if len(chain) > depth or len(os.fsencode(where)) > descriptors.LENGTH:
            raise OSError(errno.ENAMETOOLONG, f"it is more than {depth} directories deep", where)
        return os.open(name, descriptors.ENTER, dir_fd=chain[-1])

    # -- reading

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Open a regular file to read it.

        Raises:
            OSError: It is anything else.
        """
        with self.parent(path) as (parent, name):
            file = descriptors.regular(parent, name)
        with file:
            yield file

    def read(self, path: str, limit: int) -> bytes:
        """Read a regular file.

        Args:
            path: The file.
            limit: Bytes.

        Raises:
            TooLargeError: It has more.
        """
        with self.open(path) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise TooLargeError(path)
        return content

    def room(self) -> int:
        """Count the bytes that can still be written to the root's disk."""
        found = os.fstatvfs(self._top)
        return found.f_bavail * found.f_frsize

    # -- writing

    @contextmanager
    def create(
        self,
        path: str,
        *,
        mode: int = 0o600,
        make: int | None = None,
        modified_ns: int | None = None,
    ) -> Iterator[IO[bytes]]:
        """Write a file, which appears whole at the block's end, or not at all.

        Args:
            path: The file, or link, that is replaced.
            mode: Of which the permissions alone are taken.
            make: See `at`.
            modified_ns: When it was changed; None for now.
        """
        with self.parent(path, make=make) as (parent, name), descriptors.writable(parent):
            partial = f".nddt-{os.getpid()}-{secrets.token_hex(4)}"
            descriptor = os.open(partial, descriptors.CREATE, 0o600, dir_fd=parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    yield file
                    file.flush()
                    os.fchmod(descriptor, mode & descriptors.PERMISSIONS)
                    if modified_ns is not None:
                        os.utime(descriptor, ns=(modified_ns, modified_ns))
                os.rename(partial, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with suppress(OSError):
                    os.unlink(partial, dir_fd=parent)
                raise

    def write(self, path: str, content: bytes, *, mode: int = 0o600, make: int = 0o700) -> None:
        """Write a file whole, and the directories above it that are missing."""
        with self.create(path, mode=mode, make=make) as file:
            file.write(content)

    def move_in(
        self, source: Beneath, origin: str, path: str, *, mode: int, make: int | None = None
    ) -> None:
        """Move a regular file from another place to here, to another disk if need be.

        Args:
            source: Where nobody else writes.
            origin: The file there.
            path: The file here, which is replaced.
            mode: See `create`.
            make: See `at`.
        """
        with source.open(origin) as file:
            os.fchmod(file.fileno(), mode & descriptors.PERMISSIONS)
            try:
                with (
                    source.parent(origin) as (old, before),
                    self.parent(path, make=make) as (parent, name),
                    descriptors.writable(parent),
                ):
                    os.rename(before, name, src_dir_fd=old, dst_dir_fd=parent)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(file, path, mode, make)
                source.remove(origin)

    def copy_in(
        self,
        source: Beneath,
        origin: str,
        path: str,
        *,
        limit: int,
        mode: int = 0o600,
        make: int | None = None,
    ) -> None:
        """Copy a regular file from anywhere to here.

        Args:
            source: Where it is.
            origin: Its path there.
            path: The file here, which is replaced.
            limit: Bytes that it may have, holes included.
            mode: See `create`.
            make: See `at`.

        Raises:
            TooLargeError: It has more.
        """
        with source.open(origin) as file:
            self._copy(file, path, mode, make, limit)

    def _copy(
        self, file: IO[bytes], path: str, mode: int, make: int | None, limit: int | None = None
    ) -> None:
        modified_ns = os.fstat(file.fileno()).st_mtime_ns
        with self.create(path, mode=mode, make=make, modified_ns=modified_ns) as copy:
            descriptors.pour(descriptors.blocks(file), copy, limit)

    def mkdir(self, path: str, *, mode: int = 0o700, parents: bool = False) -> None:
        """Make a directory.

        Raises:
            FileExistsError: There is something.
        """
        with (
            self.parent(path, make=0o700 if parents else None) as (parent, name),
            descriptors.writable(parent),
        ):
            os.mkdir(name, mode & descriptors.PERMISSIONS, dir_fd=parent)

    def symlink(self, path: str, target: str, *, make: int | None = None) -> None:
        """Make a link at a path where there is nothing; where it leads is not looked at."""
        with self.parent(path, make=make) as (parent, name), descriptors.writable(parent):
            os.symlink(target, name, dir_fd=parent)

    def link(self, origin: str, path: str, *, make: int | None = None) -> None:
        """Make another name, where there is nothing, of what is at a path of here."""
        with (
            self.parent(origin) as (old, before),
            self.parent(path, make=make) as (parent, name),
            descriptors.writable(parent),
        ):
            os.link(before, name, src_dir_fd=old, dst_dir_fd=parent, follow_symlinks=False)

    def permit(self, path: str, mode: int) -> None:
        """Set the permissions of a regular file or a directory; an empty path is the root's."""
        if not path:
            os.fchmod(self._top, mode & descriptors.PERMISSIONS)
            return
        with self.parent(path) as (parent, name):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if stat.S_ISREG(found):
                with descriptors.regular(parent, name) as file:
                    os.fchmod(file.fileno(), mode & descriptors.PERMISSIONS)
                return
            descriptor = os.open(name, descriptors.ENTER, dir_fd=parent)
            try:
                os.fchmod(descriptor, mode & descriptors.PERMISSIONS)
            finally:
                os.close(descriptor)

    def remove(self, path: str) -> None:
        """Remove whatever is at a path, however deep; nothing is fine, too."""
        with suppress(FileNotFoundError), self.parent(path) as (parent, name):
            if descriptors.unlinked(parent, name):
                return
            descriptor = os.open(name, descriptors.ENTER, dir_fd=parent)
            try:
                descriptors.empty(descriptor, path)
            finally:
                os.close(descriptor)
            os.rmdir(name, dir_fd=parent)
