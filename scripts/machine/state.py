"""Where things are kept on this machine: private directories, locks, what is left over."""

from __future__ import annotations

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


GRANTS = "grants"
"""File of a sandbox's directory: what it was made with."""
ID = "id"
"""File of a connection's directory: the provider's id of the sandbox that it leads to."""
PLACEHOLDER = "placeholder"
"""File of a sandbox's directory: what its conversation has in place of keys."""


def runtime_path(environ: Mapping[str, str]) -> Path:
    """Tell where the private directory for sockets, keys and locks is; it need not exist.

    It is `$XDG_RUNTIME_DIR/nddt`, else /tmp/nddt-UID: short, since the path of a socket has
    at most 104 bytes (sys/un.h of the BSDs and macOS; 108 on Linux).
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # In the configuration of ssh, % and $ and quotes have a meaning.
    usable = re.fullmatch(r"/[\w./-]{1,23}", runtime) and _is_safe(runtime)
    return Path(runtime, "nddt") if usable else Path(f"/tmp/nddt-{os.getuid()}")  # noqa: S108


def _is_safe(directory: str) -> bool:
    """Whether we can write to a directory, and nobody else but root can exchange what is in it."""
    try:
        found = os.stat(directory)  # noqa: PTH116  (each command pays for it)
    except OSError:
        return False
    others = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    return os.access(directory, os.W_OK) and found.st_uid in {0, os.getuid()} and not others


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Make the private directory for sockets, keys and locks, if it is missing, and tell its path.

    Raises:
        ConfigError: Somebody else has made it.
    """
    path = runtime_path(environ)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if found.st_uid != os.getuid() or not private:
        raise ConfigError(
            f"{path} is not a private directory of yours",
            "remove it, or set XDG_RUNTIME_DIR to a short path of a directory of yours",
        )
    return path


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Name `$XDG_CACHE_HOME/nddt`, else ~/.cache/nddt; it need not exist."""
    home = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/"), ".cache")
    return Path(home, "nddt")


def state_directory(environ: Mapping[str, str]) -> Path:
    """Name `$XDG_STATE_HOME/nddt`, else ~/.local/state/nddt; it need not exist."""
    home = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/"), ".local", "state")
    return Path(home, "nddt")


def copy_directory(environ: Mapping[str, str], key: str) -> Path:
    """Name the directory with what is known of a sandbox's copy; it need not exist."""
    return state_directory(environ) / "sync" / key


def staying_directory(environ: Mapping[str, str], directory: Path) -> Path:
    """Tell where what stays of a directory is noted (`staying.py`); it need not exist."""
    return state_directory(environ) / "staying" / naming.digest([os.path.realpath(directory)], 32)


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


def per_process_path(environ: Mapping[str, str], name: str) -> Path:
    """Name a directory of this process alone, which need not exist, and is tidied up after it."""
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
    """Name the directory of the connection to a persistent sandbox; it need not exist."""
    short = key if len(key) <= 48 else f"{key[:39]}-{naming.digest([key], 8)}"
    return runtime_directory(environ) / f"s-{short}"
