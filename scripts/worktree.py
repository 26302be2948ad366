"""Linked worktrees of git, whose repository is elsewhere on this machine.

The file `.git` of such a directory names its own part of the repository, which names the
directory back (gitrepository-layout(5)). A `.git` file may be somebody else's: only where both
agree is the repository shown to a sandbox.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scripts.settings import Mount

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("nddt")


def mounts(directory: Path, *, readonly: bool) -> tuple[Mount, ...]:
    """Give what a sandbox has to show beside a directory, so that git works in it.

    That is the repository, and the directory itself where the repository expects it: else git
    would take the worktree for one that has been removed, and forget it.
    """
    pointer = directory / ".git"
    if pointer.is_symlink() or not pointer.is_file():
        return ()
    repository = _repository(directory, pointer)
    if repository is None:
        log.warning(
            "the repository of %s is elsewhere and not shown, so git does not work in the sandbox",
            directory,
        )
        return ()
    return tuple(Mount(one, str(one), readonly=readonly) for one in (repository, directory))


def _repository(directory: Path, pointer: Path) -> Path | None:
    """Give the repository of a linked worktree; None if it does not know of it."""
    try:
        own = directory / _line(pointer).removeprefix("gitdir:").strip()
        common = (own / _line(own / "commondir")).resolve()
        is_ours = own.resolve().parent == common / "worktrees"
        knows_us = (own / _line(own / "gitdir")).resolve() == pointer.resolve()
        is_repository = all((common / name).exists() for name in ("HEAD", "objects", "refs"))
    except (OSError, ValueError):
        return None
    # With links in its paths, or relative ones, they would lead elsewhere in a sandbox.
    is_plain = own.resolve() == own and directory.resolve() == directory
    return common if is_ours and knows_us and is_repository and is_plain else None


def _line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline(4096).rstrip("\n")
