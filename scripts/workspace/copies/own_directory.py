"""The directory that is ours in a tree: for what is on its way, and for what is kept apart.

This file is sent to a sandbox beside `answering.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from scripts.machine.beneath import Beneath
from scripts.workspace.copies.tree import OURS

INCOMING = f"{OURS}/incoming-"
"""What the path of a stage begins with: a directory for the files of one exchange."""


def make_ours(root: str) -> None:
    """Make the directory that is ours, which git is to ignore.

    Raises:
        OSError: That cannot be, or there is something else, such as a link to elsewhere.
    """
    os.makedirs(root, exist_ok=True)
    with Beneath(root) as door:
        with contextlib.suppress(FileExistsError):
            door.mkdir(OURS)
            door.write(f"{OURS}/.gitignore", b"*\n", mode=0o644)
        found = door.status(OURS)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is no directory", os.path.join(root, OURS))


def prepare(root: str, stage: str) -> None:
    """Make a stage, which nobody else has: what a killed exchange began may still go on."""
    make_ours(root)
    with Beneath(root) as door:
        door.mkdir(stage)


def stages(root: str) -> list[str]:
    """List the stages that are there."""
    try:
        with Beneath(root) as door:
            names = door.names(OURS)
    except FileNotFoundError:
        return []
    return [one for name in names if (one := f"{OURS}/{name}").startswith(INCOMING)]


def discard(root: str, *unused: str) -> None:
    """Remove stages, and the directory for them if nothing else is in there."""
    with contextlib.suppress(OSError), Beneath(root) as door:
        for one in unused:
            door.remove(one)
        if door.names(OURS) in ([], [".gitignore"]):
            door.remove(OURS)
