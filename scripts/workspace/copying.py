"""Files and directories, copied by hand: a stream of tar each way.

tar keeps modes, times, links and any name. What comes out of a sandbox is not unpacked by tar:
it may hold anything, and the place where it goes may be one that the sandbox changes meanwhile.
"""

from __future__ import annotations

import os
import select
import shlex
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from scripts.errors import DataError, TransportLostError, UsageError
from scripts.machine import archive, pipes, process, running
from scripts.machine.beneath import Beneath
from scripts.machine.descriptors import pour
from scripts.naming import said
from scripts.sandbox_places import WORKSPACE
from scripts.workspace.unpacking import Unpacking, mask, modified_ns, plain

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator

    from scripts.transport.ssh import Connection

ANSWER_S = 60
"""How long a sandbox may take to look at one path."""
MARK = "sandbox:"
"""What a path in the sandbox begins with."""

MOST = 1_000_000
"""Files and directories that come out in one go."""
END_S = 10
"""How long tar may take to end when it has sent all."""

_AT = f"cd {WORKSPACE} && "

_TELL = _AT + 'if [ -d "$1" ]; then echo directory; elif [ -e "$1" ]; then echo file; fi'

_SEND = (
    f"{_AT}"
    'if [ -d "$1" ]; then exec tar -cSf - -C "$1" .; '
    'else exec tar -chSf - -C "$(dirname -- "$1")" -- "./$(basename -- "$1")"; fi'
)

# $1 is where to, $2 the name of what comes, $3 what it is. A file comes into a directory beside
# its place, so that it appears there whole.
_RECEIVE = (
    f"cd {WORKSPACE} || exit 69\n"
    """
fail() { echo "nddt: $1" >&2; cat >/dev/null; exit 65; }
to=$1; [ ! -d "$to" ] || to=${to%/}/$2
[ -d "$(dirname -- "$to")" ] || fail "there is no directory for sandbox:${1#./}"
if [ "$3" = directory ]; then
    [ ! -e "$to" ] || [ -d "$to" ] || fail "sandbox:${1#./} is a file, and cannot hold a directory"
    mkdir -p -- "$to" && exec tar -xf - --no-same-owner -C "$to"
fi
[ ! -d "$to" ] || fail "sandbox:${to#./} is a directory, which a file cannot replace"
new=$(mktemp -d -- "$(dirname -- "$to")/.nddt.XXXXXX") || { cat >/dev/null; exit 73; }
trap 'rm -rf -- "$new"' EXIT
tar -xf - --no-same-owner -C "$new" && mv -fT -- "$new/$2" "$to"
"""
)


def check_copy(source: str, target: str) -> None:
    """Look at what is to be copied, before anything else is done.

    Raises:
        UsageError: Not exactly one of the two is in the sandbox.
        DataError: The source is not there.
    """
    if source.startswith(MARK) == target.startswith(MARK):
        raise UsageError(
            f"one of the two paths must be in the sandbox, and begin with {MARK}",
            f"for example: {said(f'cp notes.txt {MARK}notes.txt')}",
        )
    if not source.startswith(MARK) and not Path(source).exists():
        raise DataError(f"there is no {source}", "correct the path")


def copy(connection: Connection, source: str, target: str, *, reserve: int = 0) -> None:
    """Copy into a sandbox, or out of it; a directory with all that is in it.

    As with cp, an existing directory as the target takes the copy in.

    Args:
        connection: To the sandbox.
        source: A path; in the sandbox if it begins with `sandbox:`, relative to /workspace.
        target: The same, on the other side.
        reserve: Bytes that are to stay free on this machine's disk.

    Raises:
        DataError: The source is not there, or the target cannot be, or there is no room.
        TransportLostError: Not all could be copied.
    """
    if target.startswith(MARK):
        _copy_in(connection, Path(source).absolute(), _name(source), _inside(target))
    else:
        _copy_out(connection, _inside(source), Path(target), reserve)


def _inside(path: str) -> str:
    plain = path.removeprefix(MARK) or "."
    return plain if plain.startswith("/") else f"./{plain}"


def _remote(connection: Connection, text: str, *words: str) -> tuple[str, ...]:
    command = shlex.join(("sh", "-c", text, "nddt-cp", *words))
    return connection.session_argv("-T", "nddt", command)


def _name(path: str) -> str:
    """Choose what a copy is called in an existing directory; `.` means that directory itself."""
    name = os.path.basename(path.rstrip("/"))  # noqa: PTH119  (pathlib takes x/. for x)
    return "." if name in {"", ".", ".."} else name


def _copy_in(connection: Connection, source: Path, name: str, target: str) -> None:
    if source.is_dir():
        pack: tuple[str, ...] = ("tar", "-cf", "-", "-C", str(source), ".")
    else:
        pack = ("tar", "-chf", "-", "-C", str(source.parent), "--", f"./{source.name}")
    kind = "directory" if source.is_dir() else "file"
    packed, done = process.pipeline(pack, _remote(connection, _RECEIVE, target, name, kind))
    if done.code == 65:
        raise DataError(done.last_line.removeprefix("nddt: "), "correct the path")
    if not (packed.ok and done.ok):
        detail = f"{packed.stderr}{done.stderr}"
        raise TransportLostError("not all could be copied", "see above", detail=detail)


def _copy_out(connection: Connection, source: str, target: Path, reserve: int) -> None:
    told = process.capture(_remote(connection, _TELL, source), timeout_s=ANSWER_S)
    if not told.ok:
        raise TransportLostError("the sandbox cannot be reached", detail=told.stderr)
    kind = told.stdout.strip()
    if not kind:
        raise DataError(f"there is no {MARK}{source.removeprefix('./')}", "correct the path")
    name = _name(source)
    to = target / name if target.is_dir() else target
    if not to.parent.is_dir():
        raise DataError(f"there is no directory for {target}", "make it, or correct the path")
    try:
        if kind == "directory":
            _unpack_directory(connection, source, to, reserve)
        else:
            _unpack_file(connection, source, name, to, reserve)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{to} cannot be written: {reason}", "correct the path") from error


def _unpack_directory(connection: Connection, source: str, to: Path, reserve: int) -> None:
    if to.exists() and not to.is_dir():
        raise DataError(f"{to} is a file, and cannot hold a directory", "correct the path")
    to.mkdir(exist_ok=True)
    with Beneath(to) as door:
        unpacking = Unpacking(door, door.room() - reserve)
        # What has come of a copy that breaks off is as good as the rest would be.
        with _received(connection, source, unpacking.room) as came:
            for member, file in came:
                unpacking.take(member, file)
        unpacking.close()
    told = f"{MARK}{source.removeprefix('./')}"
    if unpacking.special:
        problem = f"{told} has devices or pipes, which do not come along: "
        raise DataError(f"{problem}{_some(unpacking.special)}", "all else is there")
    if unpacking.large:
        problem = f"there is no room for all of {told}: "
        raise DataError(f"{problem}{_some(unpacking.large)}", "all else is there")
    if unpacking.refused:
        problem = f"not all could be copied: these cannot be made: {_some(unpacking.refused)}"
        raise TransportLostError(problem)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5])


def _unpack_file(connection: Connection, source: str, name: str, to: Path, reserve: int) -> None:
    if to.is_dir():
        raise DataError(f"{to} is a directory, which a file cannot replace", "correct the path")
    with Beneath(to.parent) as door:
        room = door.room() - reserve
        # It appears only when all has come without a fault.
        with door.create(to.name) as new, _received(connection, source, room) as came:
            mode = None
            for member, file in came:
                if mode is not None or file is None or plain(member.name) != name:
                    problem = "the sandbox sent something that is no file"
                    raise DataError(
                        f"{to} cannot be written: {problem}", "look at it in the sandbox"
                    )
                if member.size > room:
                    problem = f"there is no room for its {member.size} bytes"
                    raise DataError(f"{to} cannot be written: {problem}", "make some")
                mode = member.mode & ~mask()
                pour(archive.content(member, file), new)
                new.flush()
                os.utime(new.fileno(), ns=(modified_ns(member),) * 2)
            if mode is None:
                raise TransportLostError("not all could be copied")
        door.permit(to.name, mode)


@contextmanager
def _received(
    connection: Connection, source: str, room: int
) -> Iterator[Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]]:
    """Have the members of what a sandbox sends.

    Raises:
        TransportLostError: At the block's end, if not all has come.
    """
    limit = 2 * max(room, 0) + (1 << 30)  # what has no room is passed over
    with process.spawn(_remote(connection, _SEND, source), pipes=True) as started:
        errors = _Errors(pipes.piped(started.stderr))
        try:
            pipes.piped(started.stdin).close()
            stream = _Patient(pipes.piped(started.stdout))
            with archive.understood():
                yield archive.members(stream, limit=limit, most=MOST)
                stream.read(1 << 16)  # what pads it
        except ValueError as error:
            started.kill()
            problem = f"not all could be copied: what comes is no archive: {str(error)[:200]}"
            raise TransportLostError(problem) from error
        except BaseException:
            started.kill()
            raise
        if running.wait(started, END_S) != 0:
            started.kill()
            raise TransportLostError("not all could be copied", "see above", detail=errors.text())


class _Patient:
    """A stream that must not be silent for too long."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._descriptor = stream.fileno()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes.

        Raises:
            TransportLostError: Nothing comes.
        """
        if not self._poll.poll(1000 * ANSWER_S):
            raise TransportLostError("the sandbox sends nothing any more")
        return os.read(self._descriptor, size)


class _Errors:
    """The end of what a program says on stderr, which must not have to wait for us."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._end = b""
        self._thread = threading.Thread(target=self._follow, args=(stream,), daemon=True)
        self._thread.start()

    def _follow(self, stream: IO[bytes]) -> None:
        with suppress(OSError, ValueError):  # it has been closed
            while block := os.read(stream.fileno(), 4096):
                self._end = (self._end + block)[-65536:]

    def text(self) -> str:
        """Read it, of which the last lines matter."""
        self._thread.join(1)
        lines = self._end.decode(errors="replace").splitlines()
        return "\n".join(lines[-20:])
