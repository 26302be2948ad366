"""The sandbox's versions of what both sides have changed: files beside the tree, and commits."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from scripts.machine.beneath import Beneath
from scripts.workspace.copies import own_directory, tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from scripts.workspace.copies.tree import Entry

CONFLICTS = f"{tree.OURS}/conflicts"
_BRANCHES = ".git/refs/heads/"
_COMMIT = re.compile(rb"[0-9a-f]{40}([0-9a-f]{24})?\n?")


def keep(
    here: Path, stage: Beneath, there: Mapping[str, Entry], paths: Sequence[str]
) -> tuple[str, list[str]]:
    """Keep the sandbox's versions apart.

    Args:
        here: The directory.
        stage: Where the files are.
        there: What the sandbox's copy has.
        paths: What is to be kept.

    Returns:
        The directory with them, relative to `here`, and references to commits of branches.
    """
    if not paths:
        return "", []
    own_directory.make_ours(str(here))
    name = time.strftime("%Y%m%d-%H%M%S")
    with Beneath(here) as door:
        for attempt in range(1000):
            apart = f"{CONFLICTS}/{name}-{attempt}" if attempt else f"{CONFLICTS}/{name}"
            with suppress(FileExistsError):
                door.mkdir(apart, parents=True)
                break
        with door.at(apart) as target:
            for path in paths:
                place(stage, path, target, there[path])
            commits = [path for path in paths if path.startswith(_BRANCHES)]
            return apart, [*_referred(door, target, commits, apart.rpartition("/")[2])]


def _referred(door: Beneath, kept: Beneath, paths: Sequence[str], name: str) -> Iterator[str]:
    """Name commits of the sandbox's here, without which git's clean-up deletes them."""
    for path in paths:
        with suppress(OSError):
            if _COMMIT.fullmatch(commit := kept.read(path, 128)):
                reference = f"refs/nddt/{name}/{path.removeprefix(_BRANCHES)}"
                door.write(f".git/{reference}", commit, mode=0o644, make=0o755)
                yield reference


def place(stage: Beneath, path: str, target: Beneath, entry: Entry) -> None:
    """Put a file from the stage, or a link, into a directory apart."""
    if entry.kind == "l":
        target.remove(path)
        target.symlink(path, entry.stamp, make=0o700)
    else:
        target.move_in(stage, path, path, mode=entry.mode | 0o600, make=0o700)
