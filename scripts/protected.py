"""Files of a directory by which programs of this machine can be made to run something.

What the sandbox may write to is looked at before a session and after it, and each such file that
differs is told of. A record of what has changed stays until it is restored or accepted, so that
both are possible later, too. No link is ever followed: where one leads is the sandbox's choice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scripts import console, naming, process, signals, state
from scripts.errors import DataError
from scripts.settings import Mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from scripts.plan import Plan
    from scripts.providers import Specification

log = logging.getLogger("nddt")

GIT = (
    *("config", "config.worktree", "commondir", "gitdir", "hooks/*", "info/attributes"),
    *("worktrees/*/commondir", "worktrees/*/gitdir", "worktrees/*/config.worktree"),
    *("modules/*/config", "modules/*/hooks/*", "modules/*/*/config", "modules/*/*/hooks/*"),
)
"""Of a git directory: what git runs, and where it looks for that."""

FILES = (
    *(".git", *(f".git/{one}" for one in GIT)),
    # editors, when the directory is opened
    *(".vscode/*.json", "*.code-workspace", ".idea/runConfigurations/*"),
    *(".zed/*.json", ".nvim.lua", ".nvimrc", ".exrc", ".dir-locals.el", ".vimrc"),
    *(".devcontainer.json", ".devcontainer/*.json", ".devcontainer/*/*.json"),
    # coding agents
    *(".claude/settings*.json", ".claude/hooks/*", ".mcp.json", ".cursor/*.json"),
    *(".cursor/hooks/*", ".gemini/settings.json", ".codex/config.toml", "opencode.json"),
    # shells and tools, at a `cd`, a commit or an install
    *(".envrc", ".mise.toml", "mise.toml", ".config/mise.toml", ".husky/*", "lefthook.yml"),
    *(".lefthook.yml", ".pre-commit-config.yaml", ".npmrc", ".yarnrc.yml", ".yarnrc"),
)
"""Of any directory. What the project's own build runs is its code, and not listed."""

DIRECTORIES = 300
"""So many directories are looked at, the nearest first, but none that is hidden or npm's."""
LIMIT = 1 << 20
"""Bytes of a file that are remembered; a larger one is told of, and cannot be restored."""
LINES = 12
"""How much of a difference is shown without being asked for."""

_STARTS = {one.partition("/")[0] for one in FILES if "*" not in one.partition("/")[0]}
_ENDS = tuple(one.removeprefix("*") for one in FILES if one.startswith("*"))

# What `git branch`, `git push -u` and `git remote add` write; nothing of it runs anything.
_QUIET = re.compile(r"branch\..*\.(remote|merge|rebase|description|vscode-merge-base)", re.DOTALL)
_QUIET_IF_NEW = re.compile(r"remote\..*\.(url|fetch)", re.DOTALL)


class Found(NamedTuple):
    """What is at a path."""

    kind: str
    """`f` for a file, `l` for a link, `?` for anything else."""
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
        return f"{console.one_line(self.path)} ({self.verb})"


Look = dict[tuple[str, str], Found]
"""Root and path in it → what is there."""


# -- looking ----------------------------------------------------------------------------------


def roots(plan: Plan) -> tuple[Path, ...]:
    """Give the directories of this machine that a session may write to."""
    want = plan.sandbox
    shown = () if want.workspace is None or want.is_readonly else (want.workspace,)
    store = plan.conversations.directory
    more = (one.source for one in want.mounts if not one.readonly and one.source != store)
    return tuple(dict.fromkeys((*shown, *more)))


def covers(want: Specification) -> tuple[Mount, ...]:
    """Give what a sandbox is to show read-only in directories that it may write to: git's hooks.

    Git's `config` is not among it: `git push -u` and many others write there.
    """
    shown = list(want.mounts)
    if want.workspace is not None and not want.is_synced:
        shown.append(Mount(want.workspace, "/workspace", readonly=want.is_readonly))
    taken = {one.target for one in shown}
    found = []
    for one in shown:
        names = (".git/hooks", *(("hooks",) if _is_git(one.source) else ()))
        for name in names if not one.readonly else ():
            path = one.source / name
            is_itself = path.is_dir() and path.resolve() == one.source.resolve() / name
            if is_itself and f"{one.target}/{name}" not in taken:
                found.append(Mount(path, f"{one.target}/{name}", readonly=True))
    return tuple(found)


def _is_git(directory: Path) -> bool:
    return all(os.path.lexists(directory / name) for name in ("HEAD", "objects", "refs"))


def look(places: Iterable[Path]) -> Look:
    """Look at all such files in these directories."""
    found: Look = {}
    for place in places:
        for path in _paths(place):
            one = _at(place / path)
            if one is not None:
                found[str(place), path] = one
    return found


def _paths(root: Path) -> Iterator[str]:
    if _is_git(root):
        for pattern in GIT:
            yield from _matching(str(root), "", pattern.split("/"))
    queue = [""]
    for inside in queue:  # it grows meanwhile
        with suppress(OSError), os.scandir(os.path.join(root, inside)) as entries:  # noqa: PTH118
            for entry in sorted(entries, key=lambda one: one.name):
                name = entry.name
                if name in _STARTS or name.endswith(_ENDS):
                    for words in _patterns(name):
                        yield from _matching(str(root), inside, words)
                is_meant = name[0] != "." and name != "node_modules"
                if is_meant and len(queue) < DIRECTORIES and entry.is_dir(follow_symlinks=False):
                    queue.append(f"{inside}{name}/")


def _patterns(name: str) -> list[list[str]]:
    words = [one.split("/") for one in FILES]
    return [[name, *rest] for first, *rest in words if fnmatchcase(name, first)]


def _matching(root: str, inside: str, pattern: Sequence[str]) -> Iterator[str]:
    """Give what fits a pattern below `inside`; a link on the way is such a path itself."""
    head, *rest = pattern
    directory = os.path.join(root, inside)  # noqa: PTH118  (pathlib costs)
    with suppress(OSError):
        names = [head] if "*" not in head else sorted(os.listdir(directory))  # noqa: PTH208
        for name in names:
            if not fnmatchcase(name, head) or (head == "*" and name.endswith(".sample")):
                continue
            with suppress(OSError):
                mode = os.lstat(os.path.join(directory, name)).st_mode  # noqa: PTH118
                if stat.S_ISDIR(mode):
                    if rest:
                        yield from _matching(root, f"{inside}{name}/", rest)
                elif not rest or stat.S_ISLNK(mode):
                    yield f"{inside}{name}"


def _at(path: Path) -> Found | None:
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            target = os.fsencode(path.readlink())
            return Found("l", 0, _digest(target), target.decode("latin-1"))
        if not stat.S_ISREG(mode):
            return None if stat.S_ISDIR(mode) else Found("?", 0, "", None)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            data = file.read(LIMIT + 1)
    except OSError:
        return None
    mode = stat.S_IMODE(mode)
    if len(data) > LIMIT:
        return Found("f", mode, f"{size} {_digest(data)}", None)
    return Found("f", mode, _digest(data), data.decode("latin-1"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def changes(before: Look, after: Look) -> tuple[Change, ...]:
    """Give what differs, but for what git itself writes to its configuration every day."""
    found = (
        Change(*key, before.get(key), after.get(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
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
    return all(
        "::" not in value
        and (_QUIET.fullmatch(name) or (_QUIET_IF_NEW.fullmatch(name) and name not in known))
        for name, value in had ^ has
    )


def _configured(content: str) -> set[tuple[str, str]] | None:
    """Give the names and values of a git configuration; None if git cannot read it."""
    # Elsewhere, so that no configuration of the directory's counts.
    words = ("git", "-C", "/", "config", "--file", "-", "--list", "--null")
    if not process.find("git"):
        return None
    done = process.capture(words, stdin=content.encode("latin-1"))
    pairs = (one.partition("\n") for one in done.stdout.split("\0") if one)
    return {(name, value) for name, _, value in pairs} if done.ok else None


# -- what is remembered -----------------------------------------------------------------------


def _place(environ: Mapping[str, str], directory: Path) -> Path:
    return state.state_directory(environ) / "protected" / naming.persistent_name(directory)


def _save(file: Path, rows: Iterable[object]) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.write(file, json.dumps(list(rows)))
    except OSError as error:
        log.warning("%s cannot be written: %s", file, error.strerror)


def _load(file: Path) -> list[list[object]]:
    try:
        return list(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []


def _read(row: object) -> Found | None:
    return Found(*row) if isinstance(row, list) else None


def recorded(environ: Mapping[str, str], directory: Path) -> tuple[Change, ...]:
    """Give the changes of earlier sessions that nobody has restored or accepted."""
    rows = _load(_place(environ, directory) / "changes.json")
    return tuple(Change(str(a), str(b), _read(c), _read(d)) for a, b, c, d in rows)


def _record(environ: Mapping[str, str], directory: Path, new: Iterable[Change]) -> None:
    """Remember changes on top of earlier ones: what was first is what may be restored."""
    known = {(one.root, one.path): one for one in recorded(environ, directory)}
    for one in new:
        earlier = known.get((one.root, one.path))
        if earlier is not None and earlier.after == one.before:
            known[one.root, one.path] = one._replace(before=earlier.before)
        else:
            known[one.root, one.path] = one
    kept = [one for one in known.values() if one.before != one.after]
    _save(_place(environ, directory) / "changes.json", kept)


def accept(environ: Mapping[str, str], directory: Path) -> None:
    """Forget what has changed: it is fine as it is."""
    (_place(environ, directory) / "changes.json").unlink(missing_ok=True)


# -- a session --------------------------------------------------------------------------------


@contextmanager
def watched(
    environ: Mapping[str, str],
    directory: Path,
    places: Sequence[Path],
    goes_on: Callable[[bool], bool] = bool,
) -> Iterator[None]:
    """Tell in the end which of these files have changed, however that end comes about.

    Args:
        environ: Our own environment.
        directory: The caller's, to which a record belongs.
        places: What can be written to meanwhile.
        goes_on: Tells whether something in the sandbox can still do so, as the next session is
            to know then; it is told whether that was so before.
    """
    if not places:
        yield
        return
    which = naming.digest(map(str, places), 8)
    memory = _place(environ, directory) / f"before-{which}.json"
    went_on = memory.exists()  # a session still goes on, or has been killed
    if went_on:
        before = {(str(a), str(b)): Found(*c) for a, b, c in _load(memory) if isinstance(c, list)}
    else:
        before = look(places)
        _save(memory, ((*key, one) for key, one in before.items()))
    is_over = False
    try:
        yield
        is_over = True
    finally:
        with signals.ignored():
            found = changes(before, look(places))
            if not goes_on(went_on):
                memory.unlink(missing_ok=True)
            earlier = recorded(environ, directory)
            if found:
                _record(environ, directory, found)
                _tell(found)
        # Who wants to end us wants no question.
        if found and is_over and console.can_ask():
            for one in found[:10]:
                log.warning("%s", "\n".join(_shortened(difference(one))))
            if console.ask("Restore them?"):
                _restore(environ, directory, found, earlier)


def _tell(found: Sequence[Change]) -> None:
    some = ", ".join(map(str, found[:10])) + (" …" if len(found) > 10 else "")
    log.warning(
        "programs of this machine can be made to run something by what was changed meanwhile: %s "
        "— inv protected shows it, inv protected --restore undoes it",
        some,
    )


def _shortened(lines: Sequence[str]) -> Sequence[str]:
    left = len(lines) - LINES
    return [*lines[:LINES], f"… {left} more lines: inv protected"] if left > 0 else lines


def difference(change: Change) -> list[str]:
    """Show what has changed, in lines that a terminal can be given."""
    import difflib  # noqa: PLC0415  (what most sessions do without)

    sides = _lines(change.before), _lines(change.after)
    title = f"{change}, in {console.one_line(change.root)}"
    lines = list(difflib.unified_diff(sides[0], sides[1], lineterm="", n=2))[2:]
    modes = [one.mode if one else 0 for one in (change.before, change.after)]
    how = [f"mode {modes[0]:o} → {modes[1]:o}"] if all(modes) and modes[0] != modes[1] else []
    return [title, *how, *map(console.printable, lines)]


def _lines(one: Found | None) -> list[str]:
    if one is None:
        return []
    if one.content is None:
        return [f"(too large or no file: {one.digest})"]
    text = one.content.encode("latin-1").decode("utf-8", "surrogateescape")
    return [f"link to {text}"] if one.kind == "l" else text.removesuffix("\n").split("\n")


# -- back to what it was ----------------------------------------------------------------------


def restore(environ: Mapping[str, str], directory: Path) -> int:
    """Bring back what was there before, except where it has changed once more since.

    Returns:
        How many paths have been restored.

    Raises:
        DataError: Not all could be.
    """
    known = recorded(environ, directory)
    _restore(environ, directory, known, ())
    return len(known)


def _restore(
    environ: Mapping[str, str],
    directory: Path,
    known: Sequence[Change],
    others: Sequence[Change],
) -> None:
    """Undo changes; of the record, the others are left."""
    failed = {}
    # What was added goes first: it may be a link where a directory has to be.
    for one in sorted(known, key=lambda one: (one.before is not None, one.path)):
        reason = _put_back(one)
        if reason:
            failed[one] = reason
            log.warning("%s stays as it is: %s", one, reason)
    _save(_place(environ, directory) / "changes.json", (*others, *failed))
    if failed:
        what = f"{len(failed)} of {len(known)} files could not be restored"
        raise DataError(what, "see to them, then: inv protected --accept")


def _put_back(change: Change) -> str:
    """Restore one path; give the reason if that cannot be."""
    if change.before is not None and change.before.content is None:
        return "it was too large to be remembered"
    if _at(Path(change.root, change.path)) != change.after:
        return "it has changed once more since"
    *way, name = change.path.split("/")
    opened = [os.open(change.root, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for part in way:
            if change.before is not None:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=opened[-1])
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            opened.append(os.open(part, flags, dir_fd=opened[-1]))
        _replace(name, change.before, opened[-1])
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return ""


def _replace(name: str, wanted: Found | None, directory: int) -> None:
    if wanted is None:
        os.unlink(name, dir_fd=directory)
        return
    new = f".nddt.{os.getpid()}"
    data = str(wanted.content).encode("latin-1")
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory)
    if wanted.kind == "l":
        os.symlink(data, new, dir_fd=directory)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(new, flags, 0o600, dir_fd=directory), "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), wanted.mode)
    os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
