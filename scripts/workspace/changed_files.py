"""What files that programs act on are like, and which of them have changed.

A link is followed below a directory alone, and to look: where one leads is the sandbox's choice.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from scripts import plain_text
from scripts.machine import git_settings
from scripts.machine.beneath import Beneath
from scripts.machine.descriptors import TooLargeError
from scripts.workspace import acted_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


LIMIT = 1 << 20
"""Bytes of a file that are remembered; a larger one is told of, and cannot be restored."""
REMEMBERED = 4 << 20
"""Bytes of all files that are remembered, the nearest first."""
READ = 64 << 20
"""Bytes that are read; what is beyond has changed if its size, times or inode have."""
# What `git branch`, `git push -u` and `git remote add` write; nothing of it runs anything.
_QUIET = re.compile(r"branch\..*\.(remote|merge|rebase|description|vscode-merge-base)", re.DOTALL)
_QUIET_IF_NEW = re.compile(r"remote\..*\.(url|fetch)", re.DOTALL)


class Found(NamedTuple):
    """What is at a path."""

    kind: str
    """`f` for a file, `l` for a link, `?` for anything else, `!` for more than is looked at."""
    mode: int
    digest: str
    content: str | None
    """Of a file its bytes, each as a character; of a link its target; None if it is too large."""


class Change(NamedTuple):
    """A path whose content differs; None means that there is nothing."""

    root: str
    path: str
    before: Found | None
    after: Found | None

    @property
    def verb(self) -> str:
        """Say what has been done to it."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    def __str__(self) -> str:
        return f"{plain_text.one_line(self.path)} ({self.verb})"


Look = dict[tuple[str, str], Found]
"""Root and path in it → what is there; an empty path marks a root that is gone."""


def look(places: Iterable[Path], own: Sequence[git_settings.Setting] = ()) -> Look:
    """Look at all such files in these directories.

    Args:
        places: The directories.
        own: The user's settings of git.
    """
    found: Look = {}
    room = [REMEMBERED, READ]
    for place in places:
        with suppress(OSError), Beneath(place) as top:
            for path, excess in acted_on.find_acted_on(top, place, own).items():
                one = Found("!", 0, excess, None) if excess else look_at(top, path, room)
                if one is not None:
                    found[str(place), path] = one
    return found


def look_at(top: Beneath, path: str, room: list[int] | None = None) -> Found | None:
    """Look at one file.

    Args:
        top: A directory.
        path: In it.
        room: Bytes that may still be remembered, and read.
    """
    with suppress(OSError):
        status = top.status(path)
        if status and stat.S_ISLNK(status.st_mode):
            target = os.fsencode(top.target(path))
            return Found("l", 0, _digest(target), target.decode("latin-1"))
        if status and stat.S_ISREG(status.st_mode):
            return _file(top, path, status, room or [REMEMBERED, READ])
        if status and not stat.S_ISDIR(status.st_mode):
            return Found("?", 0, "", None)
    return None


def _file(top: Beneath, path: str, status: os.stat_result, room: list[int]) -> Found:
    mode = stat.S_IMODE(status.st_mode)
    stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    if room[1] < status.st_size:
        return Found("f", mode, stamp, None)
    try:
        data = top.read(path, LIMIT)
    except TooLargeError:
        return Found("f", mode, stamp, None)
    room[:] = [one - len(data) for one in room]
    return Found("f", mode, _digest(data), data.decode("latin-1") if room[0] >= 0 else None)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def changes(before: Look, after: Look) -> tuple[Change, ...]:
    """Compare two looks, but for what git itself writes to its configuration every day."""
    found = (
        Change(*key, before.get(key), after.get(key))
        for key in sorted({*before, *after})
        if key[1] and not is_same(before.get(key), after.get(key))
    )
    return tuple(one for one in found if not _is_daily(one))


def _is_daily(change: Change) -> bool:
    """Tell whether only branches and new remotes are another in a git configuration."""
    old, new = change.before, change.after
    if os.path.basename(change.path) != "config" or not (old and new) or old.kind != new.kind:  # noqa: PTH119
        return False
    if old.mode != new.mode or old.content is None or new.content is None:
        return False
    had, has = _configured(old.content), _configured(new.content)
    if had is None or has is None:
        return False
    known = {name for name, _ in had}
    both = set(had) & set(has)
    if [one for one in had if one in both] != [one for one in has if one in both]:
        return False  # of several, the last one counts
    return all(
        "::" not in value
        and (_QUIET.fullmatch(name) or (_QUIET_IF_NEW.fullmatch(name) and name not in known))
        for name, value in set(had) ^ set(has)
    )


def _configured(content: str) -> list[tuple[str, str]] | None:
    """Read the names and values of a git configuration; None if git cannot read it."""
    pairs = git_settings.parse(content.encode("latin-1"))
    return None if pairs is None else [(name, value or "") for name, value in pairs]


def is_same(one: Found | None, other: Found | None) -> bool:
    """Tell whether two are equal, whether or not both are remembered."""
    return (one and one._replace(content=None)) == (other and other._replace(content=None))
