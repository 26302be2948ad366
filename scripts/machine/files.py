"""The one door to files of nddt's own: private, whole or not at all, one writer at a time.

What is written is made beside its place under a name that nobody can have taken before, by a link
either, and then put there. For what others write to at the same time there is `beneath`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that are missing, for their owner alone.

    `mkdir(parents=True, mode=…)` leaves the mode of those above to the umask.

    Raises:
        OSError: That is not possible, or it is no directory.
    """
    try:
        directory.mkdir(mode=0o700)
    except FileNotFoundError:
        make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        if not directory.is_dir():
            raise


def write(
    path: Path, content: str | bytes, *, mode: int = 0o600, survives_a_crash: bool = False
) -> None:
    """Write a file in place of what is there, a link too, and private directories above it.

    Args:
        path: The file.
        content: All of it; text as UTF-8.
        mode: Its permissions, whatever the umask.
        survives_a_crash: True: it is on the disk when this returns, which takes some
            milliseconds. False: after a power cut the old one may be back, or an empty one.
    """
    with _beside(path) as partial:
        _fill(partial, content, mode, survives_a_crash=survives_a_crash)
        partial.replace(path)


def write_once(path: Path, content: str | bytes) -> None:
    """Write a file if there is none: of several who do so at a time, one wins."""
    with _beside(path) as partial:
        _fill(partial, content, 0o600, survives_a_crash=True)
        with suppress(FileExistsError):
            os.link(partial, path)


def link(path: Path, target: str) -> None:
    """Write a symbolic link in place of what is there."""
    with _beside(path) as partial:
        partial.symlink_to(target)
        partial.replace(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Choose a name in the same directory; what is left there in the end is removed."""
    make_private(path.parent)
    partial = path.with_name(f".nddt-{os.getpid()}-{os.urandom(6).hex()}")
    try:
        yield partial
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def _fill(partial: Path, content: str | bytes, mode: int, *, survives_a_crash: bool) -> None:
    descriptor = os.open(partial, _NEW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        os.fchmod(descriptor, mode)
        if survives_a_crash:
            file.flush()
            os.fsync(descriptor)


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Let one process at a time do something; the others wait.

    Args:
        directory: What is locked; made if missing, and removed if it is empty in the end.
    """
    while True:
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever had the lock may have removed the directory; then it locks nothing.
            if _is_still(directory, descriptor):
                try:
                    yield
                finally:
                    with suppress(OSError):  # it holds something, and stays
                        directory.rmdir()
                return
        finally:
            os.close(descriptor)


def _is_still(directory: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), directory.stat())
    except FileNotFoundError:
        return False
