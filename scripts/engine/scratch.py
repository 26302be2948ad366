"""A directory to build a system in as root, of which nothing stays, whatever ends us."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import signals, state
from scripts.engine import privilege

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger("nddt")

# Not /tmp, which is often mounted nodev, or in memory; debootstrap makes devices.
PARENT = Path("/var/tmp")  # noqa: S108  (mkdtemp makes a private directory in it)
PREFIX = f"nddt-base-{os.getuid()}-"


@contextmanager
def private_directory(environ: Mapping[str, str]) -> Iterator[Path]:
    """Make a directory for this process alone, and remove it with all that root puts there.

    What a killed process has left goes, too.
    """
    for left in PARENT.glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).split("-")[0]
        # Root's, if it is from a debootstrap that went on without us.
        ours = _owner(left) in {0, os.getuid()}
        if ours and pid.isdigit() and not state.is_alive(int(pid)):
            _remove(left, environ)
    with signals.raised():
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=PARENT))
        try:
            yield path
        finally:
            _remove(path, environ)


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # another process was faster
        return None


def _remove(path: Path, environ: Mapping[str, str]) -> None:
    """Remove a tree of root's, with what debootstrap has mounted there.

    It may take a moment until the kernel has let go of what a killed process used.
    """
    for _attempt in range(10):
        table = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        mounted = [one for one in (line.split()[1] for line in table) if one.startswith(f"{path}/")]
        if mounted:
            privilege.capture(("umount", *reversed(mounted)), environ)
        words = ("rm", "--recursive", "--force", "--one-file-system", str(path))
        done = privilege.capture(words, environ)
        if done.ok:
            return
        time.sleep(0.5)
    log.warning("%s could not be removed: %s", path, done.last_line)
