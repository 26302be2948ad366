"""A directory tree, as it is.

A path is relative to the root, without `.` and `..`; bytes in it that are no UTF-8 are kept
(surrogateescape).

This file is sent to a sandbox beside `answering.py`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from scripts.machine import git, git_settings
from scripts.machine.beneath import Beneath
from scripts.machine.descriptors import blocks
from scripts.workspace.copies.ignored import ignored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.machine.descriptors import Listing


OURS = ".nddt"
"""Directory in the root for what is on its way, and for conflicts; it is not looked at."""
YOUNG_NS = 20_000_000
"""What has changed more recently than this may change again within one tick of the clock."""
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class Entry(NamedTuple):
    """What is at a path: as long as it is equal, nothing there has changed."""

    kind: str
    """`f` for a file, `d` for a directory, `l` for a symbolic link, `?` for a directory that
    cannot be looked into, or is too deep for that."""
    mode: int
    stamp: str
    """Of a file size, times and inode; of a link its target; of git's index what is in it."""


def is_file(entry: Entry | None) -> bool:
    """Tell whether there is a file, or a link."""
    return entry is not None and entry.kind in {"f", "l"}


def is_index(entry: Entry) -> bool:
    """Tell whether it is git's index, of whose size nothing is known."""
    return entry.stamp.startswith("index ")


def size(entry: Entry | None) -> int:
    """Look up a file's size in bytes; that of git's index does not matter."""
    word = entry.stamp.partition(" ")[0] if entry and entry.kind == "f" else ""
    return int(word) if word.isdecimal() else 0


def is_inside(path: str) -> bool:
    """Tell whether a path is one of the tree's, and not one of ours."""
    parts = path.split("/")
    is_path = {"", ".", ".."}.isdisjoint(parts) and "\0" not in path
    return is_path and parts[0].lower() != OURS  # some file systems do not tell letters' case


def entries(root: str, private: str = "", skipped: set[str] | None = None) -> dict[str, Entry]:
    """Look at all of a tree, but for what is ignored there (see `ignored`).

    Args:
        root: Of the tree.
        private: A path that is ignored, too, unless git tracks it.
        skipped: To it what is ignored is added.

    Raises:
        OSError: The root cannot be read, or there is too much in it.
    """
    found: dict[str, Entry] = {}
    young: list[str] = []
    began = time.time_ns()
    excludes = git_settings.excludes_file()
    skipped = set() if skipped is None else skipped
    with git.standing_in() as nothing, Beneath(root) as door:
        for listing in door.walk():
            directory = listing.path
            if listing.problem:
                _note_closed(found, directory, listing.problem)
                continue
            names = {one.name for one in listing.children}
            in_git = "/.git/" in f"/{directory}/"
            if not in_git and (not directory or ".git" in names):
                skipped |= ignored(root, directory, nothing, excludes, "" if directory else private)
            _leave_out(listing, skipped, in_git=in_git)
            index = os.path.join(root, directory, "index") if in_git and "HEAD" in names else ""
            for path, entry, changed_ns in _children(listing, index):
                found[path] = entry
                if entry.kind != "d" and changed_ns > began - YOUNG_NS:
                    young.append(path)
        if young:
            time.sleep(YOUNG_NS / 1e9)
            found.update({path: now for path in young if (now := look_below(door, root, path))})
    return found


def _leave_out(listing: Listing, skipped: set[str], *, in_git: bool) -> None:
    """Look no further into what is ignored, what is ours, and locks of git's."""
    prefix = f"{listing.path}/" if listing.path else ""
    listing.children[:] = [
        one
        for one in listing.children
        if (path := prefix + one.name) not in skipped
        and path != OURS
        and not (in_git and one.name.endswith(".lock"))
    ]


def _children(listing: Listing, index: str) -> Iterator[tuple[str, Entry, int]]:
    """Look at what is in a directory: paths, what is there, and when that has changed."""
    prefix = f"{listing.path}/" if listing.path else ""
    for one in listing.children:
        try:
            status = one.stat(follow_symlinks=False)
            its_index = index if one.name == "index" else ""
            entry = _entry(listing.descriptor, one.name, status, its_index)
        except FileNotFoundError:  # somebody works in there
            continue
        if entry is not None:
            yield prefix + one.name, entry, max(status.st_ctime_ns, status.st_mtime_ns)


def _note_closed(found: dict[str, Entry], directory: str, problem: OSError) -> None:
    if problem.errno in GONE:  # or replaced by something else, at which the next one looks
        found.pop(directory, None)
    else:
        found[directory] = Entry("?", 0, "")


def look(root: str, path: str) -> Entry | None:
    """Look at one path; None for nothing."""
    with Beneath(root) as door:
        return look_below(door, root, path)


def look_below(door: Beneath, root: str, path: str) -> Entry | None:
    """Look at one path, below a root that is open."""
    try:
        with door.parent(path) as (parent, name):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            index = os.path.join(root, path) if _is_index_of_git(door, path) else ""
            return _entry(parent, name, status, index)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def _is_index_of_git(door: Beneath, path: str) -> bool:
    directory, _, name = path.rpartition("/")
    is_in_git = name == "index" and "/.git/" in f"/{path}"
    return is_in_git and door.status(f"{directory}/HEAD") is not None


def _entry(parent: int, name: str, status: os.stat_result, index: str) -> Entry | None:
    """Tell what is at a name in an open directory.

    Args:
        parent: The directory.
        name: In it.
        status: What has been found there.
        index: The whole path of git's index; empty for anything else.
    """
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if stat.S_ISDIR(status.st_mode):
        return Entry("d", mode, "")
    if stat.S_ISLNK(status.st_mode):
        return Entry("l", 0, os.readlink(name, dir_fd=parent))
    if not stat.S_ISREG(status.st_mode):
        return None
    if index:
        # Looking at the state of a repository is enough to have git write its index anew.
        with git.standing_in(os.path.dirname(index)) as stand:
            listed = stand.listed("-s", "-v", "-z") if stand.has_index else None
        if listed is not None:
            return Entry("f", mode, f"index {hashlib.sha256(listed).hexdigest()}")
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return Entry("f", mode, f"{status.st_size} {times} {status.st_ino}")


def digest(root: str, path: str) -> str:
    """Hash a file's content, wherever it has holes; empty if it cannot be read."""
    hashed = hashlib.blake2b(digest_size=20)
    place = 0
    try:
        with Beneath(root) as door, door.open(path) as file:
            for one in blocks(file):
                if isinstance(one, int):
                    place += one
                    continue
                place += len(one)
                if one.count(0) != len(one):
                    hashed.update(struct.pack(">Q", place))
                    hashed.update(one)
    except OSError:
        return ""
    hashed.update(struct.pack(">Q", place))
    return hashed.hexdigest()


def checksum(found: dict[str, Entry]) -> str:
    """Hash entries, to tell whether they are those of before."""
    text = json.dumps(sorted(found.items()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
