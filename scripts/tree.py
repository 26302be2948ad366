"""A directory tree, looked at and changed: on this machine, and the same in a sandbox.

This file's text is sent to a sandbox and runs there, so it needs Python's standard library
and git alone. A path is relative to the root, without `.` and `..`; bytes in it that are no
UTF-8 are kept (surrogateescape).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

OURS = ".nddt"
"""Directory in the root for what is on its way, and for conflicts; it is not looked at."""
INCOMING = f"{OURS}/incoming-"
"""What the path of a stage begins with: a directory for the files of one exchange."""
YOUNG_NS = 20_000_000
"""What has changed more recently than this may change again within one tick of the clock."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
IN_THE_WAY = {errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}
GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false")


class Entry(NamedTuple):
    """What is at a path: as long as it is equal, nothing there has changed."""

    kind: str
    """`f` for a file, `d` for a directory, `l` for a symbolic link, `?` for a directory that
    cannot be looked into."""
    mode: int
    stamp: str
    """Of a file size, times and inode; of a link its target; of git's index what is in it."""


class Operation(NamedTuple):
    """A change to a path, which is made only if there is what one expects."""

    path: str
    entry: Entry | None
    """What is to be there; None for nothing. A file's content comes from the stage."""
    expected: Entry | None


class Outcome(NamedTuple):
    """What came of an operation."""

    entry: Entry | None
    """What is there now."""
    reason: str
    """Why it was not done: empty if it was, `kept` if there was something else."""


# -- looking --------------------------------------------------------------------------------


def entries(root: str, private: str = "") -> dict[str, Entry]:  # noqa: C901  (one walk)
    """Look at all of a tree, but for what is ignored there (see `ignored`).

    Args:
        root: Of the tree.
        private: A path that is ignored, too, unless git tracks it.
    """
    found: dict[str, Entry] = {}
    began = time.time_ns()
    young = []
    waiting = [("", False)]
    with _no_repository() as nothing:
        skipped: set[str] = set()
        while waiting:
            directory, in_git = waiting.pop()
            try:
                with os.scandir(os.path.join(root, directory)) as listing:
                    children = list(listing)
            except FileNotFoundError:
                found.pop(directory, None)
                continue
            except PermissionError:
                if not directory:
                    raise
                found[directory] = Entry("?", 0, "")
                continue
            names = {one.name for one in children}
            if not in_git and (not directory or ".git" in names):
                skipped |= ignored(root, directory, nothing, "" if directory else private)
            is_repository = in_git and "HEAD" in names
            for one in children:
                path = os.path.join(directory, one.name)
                if path in skipped or path == OURS or (in_git and one.name.endswith(".lock")):
                    continue
                is_index = is_repository and one.name == "index"
                try:
                    status = one.stat(follow_symlinks=False)
                    entry = _entry(os.path.join(root, path), status, nothing if is_index else "")
                except FileNotFoundError:  # somebody works in there
                    continue
                if entry is None:
                    continue
                found[path] = entry
                if entry.kind == "d":
                    waiting.append((path, in_git or one.name == ".git"))
                elif max(status.st_ctime_ns, status.st_mtime_ns) > began - YOUNG_NS:
                    young.append(path)
    if young:
        time.sleep(YOUNG_NS / 1e9)
        found.update({path: now for path in young if (now := look(root, path))})
    return found


def look(root: str, path: str) -> Entry | None:
    """Look at one path; None for nothing."""
    full = os.path.join(root, path)
    try:
        status = os.lstat(full)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not _is_index(full):
        return _entry(full, status, "")
    with _no_repository() as nothing:
        return _entry(full, status, nothing)


def _is_index(full: str) -> bool:
    directory, name = os.path.split(full)
    return name == "index" and "/.git" in directory and os.path.exists(f"{directory}/HEAD")


def _entry(full: str, status: os.stat_result, repository: str) -> Entry | None:
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if stat.S_ISDIR(status.st_mode):
        return Entry("d", mode, "")
    if stat.S_ISLNK(status.st_mode):
        return Entry("l", 0, os.readlink(full))
    if not stat.S_ISREG(status.st_mode):
        return None
    if repository:
        # Looking at the state of a repository is enough to have git write its index anew.
        listed = _git(("ls-files", "-s", "-v", "-z"), repository, full)
        if listed is not None:
            return Entry("f", mode, f"index {hashlib.sha256(listed).hexdigest()}")
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return Entry("f", mode, f"{status.st_size} {times} {status.st_ino}")


def digest(root: str, path: str) -> str:
    """Hash a file's content; empty if it cannot be read."""
    hashed = hashlib.blake2b(digest_size=20)
    try:
        with open(os.path.join(root, path), "rb", buffering=0) as file:
            while block := file.read(1 << 20):
                hashed.update(block)
    except OSError:
        return ""
    return hashed.hexdigest()


def ignored(root: str, directory: str, nothing: str, private: str = "") -> set[str]:
    """Ask git what of a directory is ignored: .gitignore and .nddtignore, as in a repository.

    The directory's own repository says what is ignored all the same because it is tracked;
    nothing else of it is read, since its configuration could name programs.

    Args:
        root: Of the tree.
        directory: In it, with or without a repository.
        nothing: See `_no_repository`.
        private: A path in it that is ignored, too, unless it is tracked.

    Returns:
        Paths of files and directories.
    """
    top = os.path.join(root, directory) if directory else root
    place = os.path.join(top, ".git")
    if os.path.isfile(place):
        with open(place, encoding="utf-8", errors="surrogateescape") as file:
            place = os.path.join(top, file.read().removeprefix("gitdir:").strip())
    exclude = os.path.join(place, "info", "exclude")
    more = [f"--exclude-from={exclude}"] if os.path.isfile(exclude) else []
    more += ["--exclude=/" + re.sub(r"([^\w/.-])", r"\\\1", private)] if private else []
    index = os.path.join(place, "index")
    words = ("ls-files", "-o", "-i", "--directory", "-z")
    untracked = _git((*words, "--exclude-standard", *more), nothing, index, top)
    if untracked is None:  # an index that only its own repository can read
        untracked = _git((*words, "--exclude-standard", *more), place, index, top)
    own = _git((*words, "--exclude-per-directory=.nddtignore"), nothing, "", top)
    listed = os.fsdecode((untracked or b"") + (own or b"")).split("\0")
    return {os.path.join(directory, one.rstrip("/")) for one in listed if one}


@contextlib.contextmanager
def _no_repository() -> Iterator[str]:
    """Have a repository with nothing in it, in which git does its work anywhere."""
    with tempfile.TemporaryDirectory(prefix="nddt-") as path:
        for name in ("objects", "refs"):
            os.mkdir(os.path.join(path, name))
        with open(os.path.join(path, "HEAD"), "w", encoding="ascii") as file:
            file.write("ref: refs/heads/none\n")
        yield path


def _git(words: tuple[str, ...], repository: str, index: str, tree: str = "/") -> bytes | None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environ |= {"GIT_DIR": repository, "GIT_WORK_TREE": tree, "GIT_OPTIONAL_LOCKS": "0"}
    environ |= {"GIT_INDEX_FILE": index or os.path.join(repository, "index")}
    done = subprocess.run(
        (*GIT, *words),
        cwd=tree,
        env=environ,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return done.stdout if done.returncode == 0 else None


# -- changing -------------------------------------------------------------------------------


def make_ours(root: str) -> None:
    """Make the directory that is ours, which git is to ignore.

    Raises:
        OSError: That cannot be, or there is something else, such as a link to elsewhere.
    """
    ours = os.path.join(root, OURS)
    os.makedirs(root, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(ours, 0o700)
        with open(os.path.join(ours, ".gitignore"), "w", encoding="ascii") as file:
            file.write("*\n")
    if not stat.S_ISDIR(os.lstat(ours).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is no directory", ours)


def prepare(root: str, stage: str) -> None:
    """Make a stage, which nobody else has: what a killed exchange began may still go on."""
    make_ours(root)
    os.mkdir(os.path.join(root, stage), 0o700)


def stages(root: str) -> list[str]:
    """List the stages that are there."""
    try:
        names = os.listdir(os.path.join(root, OURS))
    except FileNotFoundError:
        return []
    return [one for name in names if (one := f"{OURS}/{name}").startswith(INCOMING)]


def identity(root: str, new: str) -> str:
    """Give what tells this copy from any other, which is `new` for one that has none yet.

    A sandbox may be gone, and another one of its name be there: what was known of the first
    says nothing about the second.
    """
    path = os.path.join(root, OURS, "id")
    try:
        with open(path, encoding="ascii") as file:
            return file.read(64)
    except (OSError, ValueError):
        make_ours(root)
        with open(path, "w", encoding="ascii") as file:
            file.write(new)
        return new


def discard(root: str, *unused: str) -> None:
    """Remove stages, and the directory for them if nothing else is in there."""
    ours = os.path.join(root, OURS)
    for one in unused:
        shutil.rmtree(os.path.join(root, one), ignore_errors=True)
    if os.path.isdir(ours) and os.listdir(ours) in ([], [".gitignore"]):
        shutil.rmtree(ours, ignore_errors=True)


def apply(root: str, stage: str, operations: Iterable[Operation]) -> dict[str, Outcome]:
    """Make changes, each one whole or not at all, in an order in which they can be made.

    No link is followed on the way to a path, wherever it has come from.

    Args:
        root: Of the tree.
        stage: Where the files are; there need not be one for changes without any.
        operations: The changes.
    """
    todo = list(operations)
    removing = [one for one in todo if one.entry is None or _changes_kind(one)]
    outcomes = {}
    for one in sorted(removing, key=lambda one: one.path, reverse=True):
        outcomes[one.path] = _tried(root, stage, one._replace(entry=None))
    making = [one for one in todo if one.entry and _is_done(outcomes.get(one.path))]
    late = []
    for one in sorted(making, key=lambda one: one.path):
        expected = None if one.path in outcomes else one.expected
        outcomes[one.path] = _tried(root, stage, one._replace(expected=expected))
        if one.entry and one.entry.kind == "d" and not outcomes[one.path].reason:
            late.append((one.path, one.entry))
    # Only now, since a directory may be one that nobody may write to.
    for path, entry in reversed(late):
        with _parent(root, path) as (parent, name), contextlib.suppress(OSError):
            os.chmod(name, entry.mode, dir_fd=parent)
            outcomes[path] = Outcome(entry, "")
    return outcomes


def _changes_kind(one: Operation) -> bool:
    return bool(one.entry and one.expected and one.entry.kind != one.expected.kind)


def _is_done(outcome: Outcome | None) -> bool:
    return outcome is None or not outcome.reason


def _tried(root: str, stage: str, one: Operation) -> Outcome:  # noqa: PLR0911  (a line for each outcome)
    try:
        with _parent(root, one.path, make=one.entry is not None) as (parent, name):
            now = look(root, one.path)
            if now != one.expected and not _is_directory_twice(now, one.entry):
                if one.entry is None and now is None:
                    return Outcome(None, "")
                return Outcome(now, "kept")
            with _writable(parent):
                _change(os.path.join(root, stage), one, parent, name, now)
    except FileNotFoundError:
        if one.entry is None:
            return Outcome(None, "")
        return Outcome(None, "it did not arrive")
    except OSError as error:
        if error.errno in IN_THE_WAY:
            return Outcome(look(root, one.path), "kept")
        return Outcome(one.expected, error.strerror or str(error))
    return Outcome(look(root, one.path), "")


def _is_directory_twice(now: Entry | None, wanted: Entry | None) -> bool:
    return bool(now and wanted and now.kind == wanted.kind == "d")


def _remove(parent: int, name: str, now: Entry | None) -> None:
    if now and now.kind == "d":
        os.rmdir(name, dir_fd=parent)
    elif now:
        os.unlink(name, dir_fd=parent)


def _change(stage: str, one: Operation, parent: int, name: str, now: Entry | None) -> None:
    entry = one.entry
    if entry is None:
        _remove(parent, name, now)
    elif entry.kind == "d":
        if now is None:
            os.mkdir(name, 0o700, dir_fd=parent)
    elif entry.kind == "l":
        if now:
            os.unlink(name, dir_fd=parent)
        os.symlink(entry.stamp, name, dir_fd=parent)
    else:
        source = os.path.join(stage, one.path)
        if not stat.S_ISREG(os.lstat(source).st_mode):
            raise FileNotFoundError(source)
        try:
            os.replace(source, name, dst_dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, name, parent)


def _copy(source: str, name: str, parent: int) -> None:
    """Put a file where it cannot be renamed to: on another file system."""
    partial = f"{name[:200]}.nddt-{os.getpid()}"
    status = os.lstat(source)
    target = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
    try:
        with open(source, "rb") as incoming, open(target, "wb") as outgoing:
            shutil.copyfileobj(incoming, outgoing)
        os.chmod(partial, stat.S_IMODE(status.st_mode), dir_fd=parent)
        os.utime(partial, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=parent)
        os.replace(partial, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError:
        os.unlink(partial, dir_fd=parent)
        raise


def is_inside(path: str) -> bool:
    """Tell whether a path is one of the tree's, and not one of ours."""
    parts = path.split("/")
    return {"", ".", ".."}.isdisjoint(parts) and "\0" not in path and parts[0] != OURS


@contextlib.contextmanager
def _parent(root: str, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open the directory of a path, following no link.

    Raises:
        OSError: There is none, or a link is in the way.
        ValueError: The path leads out of the tree, or to what is ours.
    """
    if not is_inside(path):
        raise ValueError(path)
    with below(os.open(root, DIRECTORY), path, 0o755 if make else None) as found:
        yield found


@contextlib.contextmanager
def below(top: int, path: str, mode: int | None) -> Iterator[tuple[int, str]]:
    """Open the directory of a path, following no link, and give it with the path's last part.

    Args:
        top: An open directory, which is closed in the end.
        path: In it.
        mode: With which missing directories are made; None if they are not.
    """
    *directories, name = path.split("/")
    here = top
    try:
        for one in directories:
            try:
                next_one = os.open(one, DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            except FileNotFoundError:
                if mode is None:
                    raise
                with _writable(here), contextlib.suppress(FileExistsError):
                    os.mkdir(one, mode, dir_fd=here)
                next_one = os.open(one, DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = next_one
        yield here, name
    finally:
        os.close(here)


@contextlib.contextmanager
def _writable(directory: int) -> Iterator[None]:
    """Let its owner write to a directory for a moment."""
    mode = stat.S_IMODE(os.fstat(directory).st_mode)
    if mode & 0o300 == 0o300:
        yield
        return
    with contextlib.suppress(PermissionError):
        os.fchmod(directory, mode | 0o300)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.fchmod(directory, mode)


# -- in a sandbox, where the wishes come on stdin -------------------------------------------


def main(root: str) -> None:
    """Answer one wish a line, JSON both ways, until there is none."""
    # All that git and others print must not be taken for an answer.
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    while line := sys.stdin.buffer.readline():
        json.dump(answer(root, json.loads(line)), out, separators=(",", ":"))
        out.write("\n")
        out.flush()


def answer(root: str, wish: dict[str, Any]) -> Any:
    """Do what `Remote` in workspace.py asks for."""
    if wish["do"] == "entries":
        found = entries(root)
        same = checksum(found) == wish["unless"]
        return [identity(root, wish["identity"]), None if same else found]
    if wish["do"] == "look":
        return {path: now for path in wish["paths"] if (now := look(root, path))}
    if wish["do"] == "digests":
        return {path: digest(root, path) for path in wish["paths"]}
    if wish["do"] == "prepare":
        discard(root, *stages(root))  # one exchange at a time looks at a sandbox
        return prepare(root, wish["stage"])
    if wish["do"] == "discard":
        return discard(root, wish["stage"])
    return apply(root, wish["stage"], [operation(one) for one in wish["operations"]])


def operation(read: Any) -> Operation:
    """Read an operation that was JSON."""
    path, *both = read
    return Operation(path, *(Entry(*one) if one else None for one in both))


def checksum(found: dict[str, Entry]) -> str:
    """Hash entries, to tell whether they are those of before."""
    text = json.dumps(sorted(found.items()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
