"""Where things are kept on this machine: private directories, locks, what is left over."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import naming
from scripts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


PLACEHOLDER = "placeholder"
"""File of a sandbox's directory: what its conversation has in place of keys."""


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Give the private directory for sockets, keys and locks, made if missing.

    It is `$XDG_RUNTIME_DIR/nddt`, else /tmp/nddt-UID: short, since the path of a socket has
    at most 104 bytes (sys/un.h of the BSDs and macOS; 108 on Linux).

    Raises:
        ConfigError: Somebody else has made it.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # In the configuration of ssh, % and $ and quotes have a meaning.
    usable = re.fullmatch(r"/[\w./-]{1,23}", runtime) and os.access(runtime, os.W_OK)
    path = Path(runtime, "nddt") if usable else Path(f"/tmp/nddt-{os.getuid()}")  # noqa: S108
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if found.st_uid != os.getuid() or not private:
        raise ConfigError(f"{path} is not a private directory of yours", "remove it")
    return path


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Give `$XDG_CACHE_HOME/nddt`, else ~/.cache/nddt; it need not exist."""
    home = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/"), ".cache")
    return Path(home, "nddt")


def state_directory(environ: Mapping[str, str]) -> Path:
    """Give `$XDG_STATE_HOME/nddt`, else ~/.local/state/nddt; it need not exist."""
    home = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/"), ".local", "state")
    return Path(home, "nddt")


def copy_directory(environ: Mapping[str, str], key: str) -> Path:
    """Give the directory with what is known of a sandbox's copy; it need not exist."""
    return state_directory(environ) / "sync" / key


def write(path: Path, text: str) -> None:
    """Write a file for its owner alone, the whole of it or nothing."""
    partial = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def tidy(environ: Mapping[str, str]) -> None:
    """Remove what killed processes have left behind."""
    for left in runtime_directory(environ).glob("r-*"):
        pid = left.name.split("-")[1]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def made_up_directory(environ: Mapping[str, str], name: str) -> Path:
    """Give a directory for this process alone, which need not exist, and is tidied up after it."""
    return runtime_directory(environ) / f"r-{os.getpid()}-{name}"


@contextmanager
def own_directory(environ: Mapping[str, str]) -> Iterator[Path]:
    """Make a directory for this process alone, and remove it in the end."""
    parent = runtime_directory(environ)
    path = Path(tempfile.mkdtemp(prefix=f"r-{os.getpid()}-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sandbox_directory(environ: Mapping[str, str], key: str) -> Path:
    """Give the directory of the connection to a persistent sandbox; it need not exist."""
    short = key if len(key) <= 48 else f"{key[:39]}-{naming.digest([key], 8)}"
    return runtime_directory(environ) / f"s-{short}"


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
