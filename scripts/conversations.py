"""Conversations: each directory has its own on this machine, whatever sandbox they are held in.

A sandbox of this machine shows their directory itself. To any other, what the agent may come
back to goes along with the session, and what is new there comes back at its end. A sandbox
is not trusted: what it leaves in the directory, or sends, leads nowhere else.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import re
import shlex
import signal
import stat
import tarfile
import threading
import time
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from scripts import naming, process, signals, state, tree
from scripts.errors import ConfigError, NddtError, TransportLostError
from scripts.provisions import File, Provision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scripts.connections import Line
    from scripts.settings import Settings

log = logging.getLogger("nddt")

BROUGHT = 16 << 20
"""Bytes that go along at most; they pass through the sandbox's memory."""
FETCHED = 128 << 20
"""Bytes that come back at most."""
MOST_FILES = 10_000
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

    def prepare(self) -> None:
        """Make the directory, if a sandbox is to show it.

        Raises:
            ConfigError: That is not possible.
        """
        if self.is_shown:
            try:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"{self.directory} cannot be made: {error.strerror}",
                    "conversations are kept there; set XDG_STATE_HOME to another directory",
                ) from error


def store(settings: Settings, agent: str, inside: str) -> Store:
    """Give the store of the settings' directory; all that share nothing have one in common."""
    workspace = settings.directory if settings.workspace != "none" else None
    name = naming.persistent_name(workspace)
    home = state.state_directory(settings.process_environment)
    return Store(
        directory=home / "conversations" / agent / name,
        inside=inside,
        is_shown=settings.workspace == "mount",
    )


# -- files here, of which a sandbox may have made any one -------------------------------------


@dataclass(frozen=True)
class _Known:
    size: int
    modified: float


def _files(directory: Path) -> dict[str, _Known]:
    """List the regular files, without following any link."""
    found: dict[str, _Known] = {}
    if not directory.is_dir():
        return found
    for where, _, names, descriptor in os.fwalk(directory, follow_symlinks=False):
        for name in names:
            path = os.path.relpath(os.path.join(where, name), directory)  # noqa: PTH118  (fwalk gives text)
            if not NAME.fullmatch(path) or len(found) >= MOST_FILES:
                continue
            with contextlib.suppress(FileNotFoundError):
                one = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(one.st_mode):
                    found[path] = _Known(one.st_size, one.st_mtime)
    return found


def _place(
    directory: Path, name: str, *, make: bool = False
) -> contextlib.AbstractContextManager[tuple[int, str]]:
    """Give the directory that a file is in, open, and its name there; no link leads astray."""
    top = os.open(directory, tree.DIRECTORY | os.O_NOFOLLOW)
    return tree.below(top, name, 0o700 if make else None)


def _read(directory: Path, name: str) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with _place(directory, name) as (parent, leaf):
        descriptor = os.open(leaf, flags, dir_fd=parent)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{name} is no file")
            return file.read(BROUGHT)


def _write(directory: Path, name: str, content: bytes, modified: float) -> None:
    with _place(directory, name, make=True) as (parent, leaf):
        partial = f".{leaf[-80:]}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=parent)
        with os.fdopen(os.open(partial, flags, 0o600, dir_fd=parent), "wb") as file:
            file.write(content)
            file.flush()
            os.utime(file.fileno(), (modified, modified))
        os.replace(partial, leaf, src_dir_fd=parent, dst_dir_fd=parent)


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


def bring(kept: Store, wanted: str | None) -> Provision:
    """Let a session have conversations of earlier ones.

    Args:
        kept: Where they are.
        wanted: See `agents.Agent.recalls`.
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
    """Give shell text that keeps, of each file, the one that `_is_newer` would."""
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
    """Give the command that sends what is not on its stdin: lines of size, blank and name."""
    return (
        f"cd ~/{inside} 2>/dev/null || exec tar -cz -T /dev/null; export LC_ALL=C; "
        r"{ find . -type f -printf '%s %P\n' | sort | comm -13 /dev/fd/3 - ; } 3<&0 </dev/null | "
        "cut -d' ' -f2- | tar -cz --format=posix --no-recursion --verbatim-files-from -T - "
        "2>/dev/null"
    )


class _Limited:
    """The first so many bytes of a stream; more are an error."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("there is too much of it")
        return data


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
    with gzip.GzipFile(fileobj=stream, mode="rb") as plain:
        limited = _Limited(plain, FETCHED)
        try:
            # It only ever calls `read`, though its type asks for more.
            with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]
                for number, member in enumerate(archive):
                    if number >= MOST_FILES:
                        raise ValueError("there are too many of them")
                    name = member.name
                    plain_file = member.type in {tarfile.REGTYPE, tarfile.AREGTYPE}
                    if not plain_file or member.issparse() or not NAME.fullmatch(name):
                        continue
                    # A clock that is ahead must not keep what comes later away.
                    modified = min(float(member.mtime), time.time())
                    one = _Known(member.size, modified)
                    if _is_newer(name, one, names.get(name)):
                        file = archive.extractfile(member)
                        content = file.read() if file else b""
                        kept.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                        _write(kept.directory, name, content, modified)
                        names[name] = one
                        count += 1
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(str(error) or "it ends too soon") from error
    return count


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
            with contextlib.suppress(BrokenPipeError), process.piped(started.stdin) as stdin:
                stdin.writelines(line + b"\n" for line in lines)
            take(kept, process.piped(started.stdout))
            process.piped(started.stdout).read()  # what pads the archive
        except (OSError, ValueError) as error:
            problem = str(error)
            if over.is_set():
                problem = f"no answer in {limit_s:.0f} s"
            elif process.wait(started, 0.5) is None:  # ssh has a word to say when it fails
                end()
        finally:
            timer.cancel()
        errors = process.piped(started.stderr).read().decode(errors="replace").splitlines()
    if started.returncode == 255:  # ssh's own
        problem = (errors or [problem])[-1]
    return problem


@contextlib.contextmanager
def fetched(kept: Store, line: Line) -> Iterator[None]:
    """Bring back what is new at the block's end, unless the connection has been lost.

    A failure is worth a line, and nothing more.

    Args:
        kept: Where to.
        line: The way to the sandbox.
    """
    try:
        yield
    except TransportLostError:
        raise
    except BaseException:
        with signals.ignored():
            _warn_of(_fetch(kept, line, HURRY_S))
        raise
    else:
        problem = _fetch(kept, line, FETCH_S)
        if problem and line.is_durable:
            # After a long session there may be no new connection without a new token.
            with contextlib.suppress(NddtError):
                line.retake("", 1)
                problem = _fetch(kept, line, FETCH_S)
        _warn_of(problem)


def _fetch(kept: Store, line: Line, limit_s: float) -> str:
    if kept.is_shown:
        return ""
    command = f"exec sh -c {shlex.quote(sender(kept.inside))}"
    return fetch(kept, line.session_argv("-T", "nddt", command), limit_s)


def _warn_of(problem: str) -> None:
    if problem:
        log.warning("the conversation could not be brought back: %s", problem)
