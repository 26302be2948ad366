"""What a repository's files say, read without git: where its parts are.

Somebody else may have written them: no link is followed, no pipe is waited for. The text of this
file is sent to a sandbox beside answering.py.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from scripts.machine.beneath import Beneath

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = 1 << 20
"""Bytes of a configuration or a list of excludes that is read, at most."""
POINTER = 4096
"""Bytes of a file `.git` or `commondir` that are read, at most."""
_READ_BY_GIT = {".git", ".gitattributes", ".gitignore", ".nddtignore"}
_READ_IN_REPOSITORIES = {"HEAD", "commondir", "config", "exclude", "index", "packed-refs"}


def read_plain_file(path: str, limit: int) -> bytes | None:
    """Read a file, following no link to it and waiting for nobody.

    Returns:
        None if there is none, or it is something else or larger than `limit` bytes.
    """
    directory, name = os.path.split(path)
    try:
        with Beneath(directory or ".") as place:
            return place.read(name, limit)
    except (OSError, ValueError):  # the latter is a NUL in the path
        return None


def line(path: str) -> str:
    """Read a file of one line; empty if it is none."""
    content = read_plain_file(path, POINTER) or b""
    text = os.fsdecode(content).rstrip("\r\n")
    return "" if "\0" in text or "\n" in text else text


def directory_of(top: str) -> str:
    """Tell where the git directory of a working tree is; empty if it has none."""
    place = os.path.join(top, ".git")
    if os.path.isdir(place):
        return place
    kind, is_pointer, target = line(place).partition(": ")
    return os.path.normpath(os.path.join(top, target)) if is_pointer and kind == "gitdir" else ""


def top_of(directory: str) -> str:
    """Tell which directory, this one or above, has a repository; empty if none has.

    One around it that is somebody else's is none, as for git (safe.directory in git-config(1)):
    in a place like /tmp anybody can make one.
    """
    start = here = os.path.abspath(directory)
    while not directory_of(here):
        above = os.path.dirname(here)
        if above == here:
            return ""
        here = above
    return here if here == start or _is_ours(here, start) else ""


def _is_ours(top: str, directory: str) -> bool:
    """Tell whether a repository's owner is the user, or whose directory it is that is in there."""
    owners = {os.geteuid(), os.stat(directory).st_uid}
    pointer = os.path.join(top, ".git")
    try:
        return {os.stat(one).st_uid for one in (pointer, directory_of(top))} <= owners
    except OSError:
        return False


def repository_of(directory: str) -> str:
    """Tell which git directory counts in a directory: its repository's, or itself if it is one."""
    if all(os.path.exists(os.path.join(directory, one)) for one in ("HEAD", "objects", "refs")):
        return directory
    top = top_of(directory)
    return directory_of(top) if top else ""


def common_of(git_directory: str) -> str:
    """Tell where a git directory's configuration is: its own place, or of a linked worktree."""
    common = line(os.path.join(git_directory, "commondir"))
    return os.path.normpath(os.path.join(git_directory, common)) if common else git_directory


def waited_for(tree: str) -> Iterator[str]:
    """Find what git would wait for in a working tree: pipes and the like that it opens."""
    for directory, _, names in os.walk(tree):
        opened = _READ_BY_GIT
        if ".git" in directory.split(os.sep):
            opened = _READ_IN_REPOSITORIES
        for name in (one for one in names if one in opened):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                if not stat.S_ISREG(os.stat(path).st_mode):
                    yield path


def why_endless(tree: str, limit_s: float) -> tuple[str, str]:
    """Say why git gives no answer about a working tree, and the next step."""
    for path in waited_for(tree) if tree != "/" else ():
        return f"git waits for ever at {path!r}, which is no file", "remove it"
    return (
        f"git has not answered in {limit_s:g} s about {tree!r}",
        "try again, or look at it with git",
    )
