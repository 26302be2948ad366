"""Conversations: each directory has its own on this machine, whatever sandbox they are held in.

A sandbox of this machine shows their directory itself. To any other, what the agent may come
back to goes along with the session, and what is new there comes back at its end. A sandbox
is not trusted: what it leaves in the directory, or sends, leads nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import logging
import os
import re
import shutil
import signal
import stat
import tarfile
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from scripts import naming
from scripts.contracts.provisions import File, Provision
from scripts.errors import ConfigError
from scripts.machine import archive, files, free_space, pipes, process, running, state
from scripts.machine.beneath import Beneath
from scripts.machine.descriptors import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

BROUGHT = 16 << 20
"""Bytes that go along at most; they pass through the sandbox's memory."""
FETCHED = 128 << 20
"""Bytes that come back at most."""
PADDING = 1 << 16
"""Bytes of what may follow an archive, and of what is said about it."""
MOST_FILES = 10_000
DEPTH = 8
"""Directories below each other in which there are conversations: see `NAME`."""
FETCH_S = 120
HURRY_S = 8
"""How long it may take where somebody waits for us to end."""
ID = re.compile(r"[\w-]+")
NAME = re.compile(r"(?:[\w-][\w.-]*/){0,6}[\w-][\w.-]*\.(?:jsonl|json|md|txt)", re.ASCII)
"""What a conversation consists of: its lines, those of its helpers, notes, long outputs."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """The conversations of one directory."""

    directory: Path
    """Where they are on this machine."""
    inside: str
    """Where they are in a sandbox, relative to the home directory."""
    is_shown: bool
    """Whether the sandbox shows the directory; else they are copied."""
    reserve: int = 0
    """Bytes that are to stay free on its disk."""

    def prepare(self) -> None:
        """Make the directory, if a sandbox is to show it.

        Raises:
            ConfigError: That is not possible.
        """
        if self.is_shown:
            try:
                files.make_private(self.directory)
            except OSError as error:
                raise ConfigError(
                    f"{self.directory} cannot be made: {error.strerror}",
                    "conversations are kept there; set XDG_STATE_HOME to another directory",
                ) from error


def store(settings: Settings, agent: str, inside: str) -> Store:
    """Tell the store of the settings' directory; all that share nothing have one in common."""
    workspace = settings.directory if settings.workspace != "none" else None
    name = naming.persistent_name(workspace)
    home = state.state_directory(settings.process_environment)
    return Store(
        directory=home / "conversations" / agent / name,
        inside=inside,
        is_shown=settings.workspace == "mount",
        reserve=settings.disk_reserve_gib * free_space.GIB,
    )


# -- files here, of which a sandbox may have made any one -------------------------------------


@dataclass(frozen=True)
class _Known:
    size: int
    modified: float


def _door(directory: Path) -> Beneath:
    with Beneath(directory.parent) as above:
        return above.at(directory.name)


@contextlib.contextmanager
def _not_too_many(directory: Path) -> Iterator[None]:
    """Leave out what is beyond what anybody looks at."""
    try:
        yield
    except TooLargeError:
        log.warning("there are too many files in %s; not all conversations are found", directory)


def _files(directory: Path) -> dict[str, _Known]:
    """List the regular files, without following any link."""
    found: dict[str, _Known] = {}
    if not directory.is_dir():
        return found
    with _door(directory) as door, _not_too_many(directory):
        for listing in door.walk(depth=DEPTH):
            if listing.problem:
                if listing.problem.errno == errno.ENAMETOOLONG:
                    where = directory / listing.path
                    log.warning("conversations in %s are too deep, and left out", where)
                continue
            for one in listing.children:
                path = f"{listing.path}/{one.name}".lstrip("/")
                if not NAME.fullmatch(path) or len(found) >= MOST_FILES:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = one.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found[path] = _Known(status.st_size, status.st_mtime)
    return found


def _read(directory: Path, name: str) -> bytes:
    with _door(directory) as door:
        return door.read(name, BROUGHT)


def _is_newer(name: str, one: _Known, than: _Known | None) -> bool:
    """Tell which of two to keep: the lines of a conversation only ever get more."""
    if than is None:
        return True
    if name.endswith(".jsonl"):
        return one.size > than.size
    return one.modified > than.modified


# -- on the way in ----------------------------------------------------------------------------


def _of(conversation: str, names: dict[str, _Known]) -> list[str]:
    return [
        one for one in names if one == f"{conversation}.jsonl" or one.startswith(f"{conversation}/")
    ]


def _chosen(names: dict[str, _Known], wanted: str) -> list[str]:
    """Order what is wanted, the most important first."""
    newest = sorted(
        (one for one in names if "/" not in one and one.endswith(".jsonl")),
        key=lambda one: -names[one].modified,
    )
    ids = [one.removesuffix(".jsonl") for one in newest]
    if wanted == "last":
        ids = ids[:1]
    elif wanted in ids:
        ids = [wanted]
    return [name for one in ids for name in _of(one, names)]


def bring_conversations(kept: Store, wanted: str | None) -> Provision:
    """Let a session have conversations of earlier ones.

    Args:
        kept: Where they are.
        wanted: See `Agent.recalls`.
    """
    if kept.is_shown:
        return Provision()
    names = _files(kept.directory)
    notes = [one for one in names if one.startswith("memory/")]
    files: dict[str, File] = {}
    left = BROUGHT
    for name in (*notes, *(_chosen(names, wanted) if wanted else ())):
        if names[name].size > left:
            if wanted != "*":
                log.warning("%s is too long to come along", kept.directory / name)
            continue
        left -= names[name].size
        with contextlib.suppress(OSError):  # it has just been removed
            content = _read(kept.directory, name)
            files[f"session/conversations/{name}"] = File(
                content=content, modified=names[name].modified
            )
    return Provision(files=files, before=(_unpack(kept.inside),)) if files else Provision()


def _unpack(inside: str) -> str:
    """Build shell text that keeps, of each file, the one that `_is_newer` would."""
    return (
        '(umask 077; cd "$NDDT_SESSION/conversations" && find . -type f | while read -r f; do '
        f'to=~/{inside}/$f; case $f in *.jsonl) [ "$(stat -c %s "$f")" -gt '
        '"$(stat -c %s "$to" 2>/dev/null || echo -1)" ] ;; '
        '*) [ ! -e "$to" ] || [ "$f" -nt "$to" ] ;; esac || continue; '
        'mkdir -p "${to%/*}"; cp -p "$f" "$to.nddt.$$" && mv "$to.nddt.$$" "$to"; done); '
        'rm -rf "$NDDT_SESSION/conversations"'
    )


# -- on the way back --------------------------------------------------------------------------


def sender(inside: str) -> str:
    """Build the command that sends what is not on its stdin: lines of size, blank and name."""
    return (
        f"cd ~/{inside} 2>/dev/null || exec tar -cz -T /dev/null; export LC_ALL=C; "
        r"{ find . -type f -printf '%s %P\n' | sort | comm -13 /dev/fd/3 - ; } 3<&0 </dev/null | "
        "cut -d' ' -f2- | tar -cz --format=posix --no-recursion --verbatim-files-from -T - "
        "2>/dev/null"
    )


def take(kept: Store, stream: IO[bytes]) -> int:
    """Take conversations from what a sandbox sends, as far as they are new.

    Args:
        kept: Where to.
        stream: A compressed tar archive, which may hold anything.

    Returns:
        How many files were new.

    Raises:
        OSError: It is broken, or cannot be written.
        ValueError: It is broken, or too large.
    """
    count = 0
    names = _files(kept.directory)
    with archive.understood(), gzip.GzipFile(fileobj=stream, mode="rb") as plain:
        for member, file in archive.members(plain, limit=FETCHED, most=MOST_FILES):
            name = member.name
            plain_file = member.type in {tarfile.REGTYPE, tarfile.AREGTYPE}
            if file is None or not plain_file or member.issparse() or not NAME.fullmatch(name):
                continue
            # A clock that is ahead must not keep what comes later away.
            modified = min(max(float(member.mtime), 0.0), time.time())
            one = _Known(member.size, modified)
            if _is_newer(name, one, names.get(name)) and _write(kept, name, file, one):
                names[name] = one
                count += 1
    return count


def _write(kept: Store, name: str, file: IO[bytes], known: _Known) -> bool:
    """Write a file, if there is room for it."""
    files.make_private(kept.directory)
    with _door(kept.directory) as door:
        if door.room() - kept.reserve < known.size:
            log.warning("there is no room for the conversation %s", name)
            return False
        modified_ns = int(known.modified * 1e9)
        with door.create(name, make=0o700, modified_ns=modified_ns) as new:
            shutil.copyfileobj(file, new)
    return True


def fetch(kept: Store, argv: tuple[str, ...], limit_s: float) -> str:
    """Bring back what is new in a sandbox.

    Args:
        kept: Where to.
        argv: Runs `sender` there.
        limit_s: How long it may take.

    Returns:
        What went wrong; empty if nothing did.
    """
    known = (f"{one.size} {name}" for name, one in _files(kept.directory).items())
    lines = sorted(line.encode() for line in known)
    problem = ""
    with process.spawn(argv, pipes=True) as started:
        over = threading.Event()

        def end() -> None:
            over.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGTERM)

        timer = threading.Timer(limit_s, end)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError), pipes.piped(started.stdin) as stdin:
                stdin.writelines(line + b"\n" for line in lines)
            take(kept, pipes.piped(started.stdout))
            if len(pipes.piped(started.stdout).read(PADDING)) == PADDING:
                raise ValueError("there is too much after it")  # noqa: TRY301  (as in `take`)
        except (OSError, ValueError) as error:
            problem = str(error)
            if over.is_set():
                problem = f"no answer in {limit_s:.0f} s"
            elif running.wait(started, 0.5) is None:  # ssh has a word to say when it fails
                end()
        try:
            said = pipes.piped(started.stderr).read(PADDING)
        finally:
            timer.cancel()
            if running.wait(started, 0.5) is None:
                end()
        errors = said.decode(errors="replace").splitlines()
    if started.returncode == 255:  # ssh's own
        problem = (errors or [problem])[-1]
    return problem
