"""Files and directories, copied by hand: a stream of tar each way.

tar keeps modes, times, links and any name, is on every machine, and does not let what comes out
of a sandbox be written anywhere but where it belongs.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import process
from scripts.errors import DataError, TransportLostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.ssh import Connection

MARK = "sandbox:"
"""What a path in the sandbox begins with."""

UNPACK = ("tar", "-xf", "-", "--no-same-owner", "--no-same-permissions", "-C")
"""Neither its owner nor a bit that lends his rights to others comes out of a sandbox."""

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
    with _beside(to) as new:
        # What has come of a copy that breaks off is as good as the rest would be.
        came = _received(connection, source, new)
        devices = _without_devices(new)
        _moved(new, to)
        _check(*came)
    if devices:
        problem = f"{MARK}{source.removeprefix('./')} has devices, which do not come along: "
        raise DataError(f"{problem}{', '.join(devices[:5])}", "all else is there")


def _without_devices(directory: Path) -> list[str]:
    """Remove devices, which a root's tar makes: they would be this machine's."""
    found = [Path(parent, name) for parent, _, names in os.walk(directory) for name in names]
    modes = {path: path.lstat().st_mode for path in found}
    devices = [path for path in found if stat.S_ISBLK(modes[path]) or stat.S_ISCHR(modes[path])]
    for path in devices:
        path.unlink()
    return [str(path.relative_to(directory)) for path in devices]


def _moved(new: Path, to: Path) -> None:
    """Bring a directory to its place, into what is there."""
    if os.path.lexists(to):
        # What comes out of a sandbox may rely on a link that an earlier copy has left there.
        # Our own tar names every directory, and so takes such a link's place.
        _check(*process.pipeline(("tar", "-cf", "-", "-C", str(new), "."), (*UNPACK, str(to))))
        return
    mode = stat.S_IMODE(new.stat().st_mode)
    new.chmod(0o700)  # what cannot be written to cannot be moved
    new.replace(to)
    to.chmod(mode)


def _unpack_file(connection: Connection, source: str, name: str, to: Path) -> None:
    if to.is_dir():
        raise DataError(f"{to} is a directory, which a file cannot replace", "correct the path")
    with _beside(to) as new:
        _check(*_received(connection, source, new))
        if (new / name).is_symlink() or not (new / name).is_file():
            reason = "the sandbox sent something that is no file"
            raise DataError(f"{to} cannot be written: {reason}", "look at it in the sandbox")
        (new / name).replace(to)


@contextmanager
def _beside(to: Path) -> Iterator[Path]:
    """Have a new directory beside a path, in one that nobody else can look into."""
    private = Path(tempfile.mkdtemp(prefix=".nddt.", dir=to.parent))
    new = private / "new"
    new.mkdir()
    try:
        yield new
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _received(connection: Connection, source: str, to: Path) -> tuple[int, process.Result]:
    return process.pipeline(_remote(connection, _SEND, source), (*UNPACK, str(to)))


def _check(code: int, done: process.Result) -> None:
    if code != 0 or not done.ok:
        raise TransportLostError("not all could be copied", "see above", detail=done.stderr)
