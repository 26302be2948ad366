"""Files and directories, copied by hand: a stream of tar each way.

tar keeps modes, times, links and any name, is on every machine, and does not let what comes out
of a sandbox be written anywhere but where it belongs.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import process
from scripts.errors import DataError, TransportLostError, UsageError

if TYPE_CHECKING:
    from scripts.ssh import Connection

MARK = "sandbox:"
"""What a path in the sandbox begins with."""

_TELL = 'cd /workspace && if [ -d "$1" ]; then echo directory; elif [ -e "$1" ]; then echo file; fi'

_SEND = (
    'cd /workspace && if [ -d "$1" ]; then exec tar -cf - -C "$1" .; '
    'else exec tar -chf - -C "$(dirname -- "$1")" -- "./$(basename -- "$1")"; fi'
)

# $1 is where to, $2 the name of what comes, $3 what it is. A file comes into a directory beside
# its place, so that it appears there whole.
_RECEIVE = """
fail() { echo "nddt: $1" >&2; cat >/dev/null; exit 65; }
cd /workspace || exit 69
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


def check(source: str, target: str) -> None:
    """Look at what is to be copied, before anything else is done.

    Raises:
        UsageError: Not exactly one of the two is in the sandbox.
        DataError: The source is not there.
    """
    if source.startswith(MARK) == target.startswith(MARK):
        raise UsageError(
            f"one of the two paths must be in the sandbox, and begin with {MARK}",
            f"for example: inv cp notes.txt {MARK}notes.txt",
        )
    if not source.startswith(MARK) and not Path(source).exists():
        raise DataError(f"there is no {source}", "correct the path")


def copy(connection: Connection, source: str, target: str) -> None:
    """Copy into a sandbox, or out of it; a directory with all that is in it.

    As with cp, an existing directory as the target takes the copy in.

    Args:
        connection: To the sandbox.
        source: A path; in the sandbox if it begins with `sandbox:`, relative to /workspace.
        target: The same, on the other side.

    Raises:
        DataError: The source is not there, or the target cannot be.
        TransportLostError: Not all could be copied.
    """
    if target.startswith(MARK):
        _copy_in(connection, Path(source), _name(source), _inside(target))
    else:
        _copy_out(connection, _inside(source), Path(target))


def _inside(path: str) -> str:
    plain = path.removeprefix(MARK) or "."
    return plain if plain.startswith("/") else f"./{plain}"


def _remote(connection: Connection, text: str, *words: str) -> tuple[str, ...]:
    command = shlex.join(("sh", "-c", text, "nddt-cp", *words))
    return connection.session_argv("-T", "nddt", command)


def _name(path: str) -> str:
    """Give what a copy is called in an existing directory; `.` means that directory itself."""
    name = os.path.basename(path.rstrip("/"))  # noqa: PTH119  (pathlib takes x/. for x)
    return "." if name in {"", ".", ".."} else name


def _copy_in(connection: Connection, source: Path, name: str, target: str) -> None:
    if source.is_dir():
        pack: tuple[str, ...] = ("tar", "-cf", "-", "-C", str(source), ".")
    else:
        pack = ("tar", "-chf", "-", "-C", str(source.parent), "--", f"./{source.name}")
    kind = "directory" if source.is_dir() else "file"
    code, done = process.pipeline(pack, _remote(connection, _RECEIVE, target, name, kind))
    if done.code == 65:
        raise DataError(done.last_line.removeprefix("nddt: "), "correct the path")
    if code != 0 or not done.ok:
        raise TransportLostError("not all could be copied", "see above", detail=done.stderr)


def _copy_out(connection: Connection, source: str, target: Path) -> None:
    told = process.capture(_remote(connection, _TELL, source))
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
            _unpack_directory(connection, source, to)
        else:
            _unpack_file(connection, source, name, to)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{to} cannot be written: {reason}", "correct the path") from error


def _unpack_directory(connection: Connection, source: str, to: Path) -> None:
    if to.exists() and not to.is_dir():
        raise DataError(f"{to} is a file, and cannot hold a directory", "correct the path")
    to.mkdir(exist_ok=True)
    _unpack(connection, source, to)


def _unpack_file(connection: Connection, source: str, name: str, to: Path) -> None:
    if to.is_dir():
        raise DataError(f"{to} is a directory, which a file cannot replace", "correct the path")
    new = Path(tempfile.mkdtemp(prefix=".nddt.", dir=to.parent))
    try:
        _unpack(connection, source, new)
        (new / name).replace(to)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _unpack(connection: Connection, source: str, to: Path) -> None:
    # Neither its owner nor a bit that lends his rights to others comes out of a sandbox.
    unpack = ("tar", "-xf", "-", "--no-same-owner", "--no-same-permissions", "-C", str(to))
    code, done = process.pipeline(_remote(connection, _SEND, source), unpack)
    if code != 0 or not done.ok:
        raise TransportLostError("not all could be copied", "see above", detail=done.stderr)
