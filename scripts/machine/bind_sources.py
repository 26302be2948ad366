"""Directories of this machine that a container shows: the same at each of its starts.

The engine looks up the source of a bind mount by its path, anew at each start. Whoever can change
a directory on the way there can put a link in, and have any directory of this machine shown. So
no source is in a directory that the same sandbox can change, and each leads to itself.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scripts.errors import CannotCreateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MOST_LINKS = 40
"""So many links a kernel follows in one path (path_resolution(7))."""
EXCHANGED = "nddt: a directory was exchanged while the sandbox started"
"""What a container says that shows something else than was looked at."""
# A place in a directory that is shown, too, can be moved aside with what is mounted on it. So each
# directory has to be the root of a mount of its own: only then does `..` lead to another mount.
# A file in such a place is nddt's own, which no sandbox can exchange.
_NESTED = """mount_of() {
    while read -r key value; do [ "$key" != mnt_id: ] || echo "$value"; done
}
same() {
    seen=' '
    while [ $# != 0 ]; do
        {
            [ "$(/usr/bin/stat -Lc %d:%i /proc/self/fd/3)" = "$2" ] || return 1
            if [ -d /proc/self/fd/3 ]; then
                here=$(mount_of </proc/self/fdinfo/3)
                around=$(mount_of 4</proc/self/fd/3/.. </proc/self/fdinfo/4)
                case "$here$seen" in "$around "* | *" $here "*) return 1 ;; esac
                seen="$seen$here "
            fi
        } 3<"$1" || return 1
        shift 2
    done
}
same"""
_PATH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC


class Bind(Protocol):
    """What is shown."""

    @property
    def source(self) -> Path:
        """The directory or file of this machine, absolute."""

    @property
    def readonly(self) -> bool:
        """Whether it cannot be changed where it is shown."""


def way_through(path: Path, directories: Iterable[Path]) -> Path | None:
    """Tell which of these directories has a name of the path in it, or of a link on the way.

    Who can change that one can change where the path leads. The path's own end is not in itself.

    Args:
        path: An absolute path, which need not exist.
        directories: Compared as what they are, not by their names.
    """
    known = {identity(one): one for one in directories}
    return next((known[one] for one in map(identity, way(path)) if one in known), None)


def identity(directory: Path | str) -> object:
    """Tell a directory from others, whatever it is called; one that is not there by its path."""
    try:
        found = os.stat(directory)  # noqa: PTH116  (each start pays for it)
    except OSError:
        return os.fspath(directory)
    return found.st_dev, found.st_ino


def way(path: Path) -> Iterator[Path]:
    """Find the directories in which a kernel looks a name up, from `/` on."""
    rest, here, links = deque(path.parts[1:]), Path("/"), 0
    while rest:
        name = rest.popleft()
        if name == "..":
            here = here.parent
            continue
        yield here
        try:
            target = Path(os.readlink(here / name))  # noqa: PTH115  (each start pays for it)
        except OSError:  # it is no link
            here /= name
            continue
        links += 1
        if links > MOST_LINKS:  # for a kernel it leads nowhere
            return
        here = Path("/") if target.is_absolute() else here
        rest.extendleft(reversed([part for part in target.parts if part != "/"]))


def exchangeable(binds: Sequence[Bind]) -> tuple[Path, Path] | None:
    """Find a source that a sandbox which shows all of these could exchange.

    Returns:
        The source, and the directory through which; None if there is none.
    """
    writable = [one.source for one in binds if not one.readonly]
    for one in binds:
        if (through := way_through(one.source, writable)) is not None:
            return one.source, through
    return None


def entangled(
    binds: Sequence[Bind], others: Mapping[str, Sequence[Bind]]
) -> Iterator[tuple[str, Path, Path]]:
    """Find the sandboxes that could exchange what this one shows, or the other way round.

    Args:
        binds: What it shows.
        others: Name of another → what that shows.

    Yields:
        The other's name, the source, and the directory through which; one for each other.
    """
    for name, theirs in others.items():
        for shown, changed in ((binds, theirs), (theirs, binds)):
            writable = [one.source for one in changed if not one.readonly]
            found = ((one.source, way_through(one.source, writable)) for one in shown)
            source, through = next((pair for pair in found if pair[1]), (None, None))
            if source is not None and through is not None:
                yield name, source, through
                break


def check_sources(binds: Sequence[Bind], next_step: str) -> tuple[str, ...]:
    """Refuse to start a container that would, or could the next time, show something else.

    Args:
        binds: What it shows.
        next_step: What to do about it.

    Returns:
        What each source is, for `comparison`.

    Raises:
        CannotCreateError: A source is not there, leads elsewhere, or is in a directory that the
            sandbox can change.
    """
    found = []
    for one in binds:
        try:
            real = os.path.realpath(one.source, strict=True)
            found.append(_inode(Path(real)))
        except OSError as error:
            problem = f"{one.source}, which the sandbox shows, cannot be used: {error.strerror}"
            raise CannotCreateError(problem, next_step) from error
        if real != str(one.source):
            problem = f"{one.source}, which the sandbox shows, leads to {real} now"
            raise CannotCreateError(problem, next_step)
    if pair := exchangeable(binds):
        source, through = pair
        raise CannotCreateError(
            f"the sandbox shows {source}, and could put a link to any directory in its place: it "
            f"can change {through}",
            next_step,
        )
    return tuple(found)


def _inode(path: Path) -> str:
    """Look up a path's device and inode, as `stat -c %d:%i` writes them, following no link."""
    here = os.open("/", _PATH)
    try:
        for name in path.parts[1:]:
            deeper = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = deeper
        found = os.fstat(here)
    finally:
        os.close(here)
    if stat.S_ISLNK(found.st_mode):  # a descriptor like this can be that of a link itself
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return f"{found.st_dev}:{found.st_ino}"


def comparison(targets: Sequence[str], inodes: Sequence[str]) -> str:
    """Write shell text for a container that has started, which becomes the command behind it.

    Between a look here and the engine's own, somebody else can exchange what is on the way. So
    what is shown is looked at once more where it is shown, before anything else runs there.

    Args:
        targets: Where each source is shown.
        inodes: What `check` has found at the sources, in the same order.
    """
    if any(one.startswith(f"{around}/") for one in targets for around in targets):
        pairs = (word for pair in zip(targets, inodes, strict=True) for word in pair)
        same = f"{_NESTED} {shlex.join(pairs)}"
    else:
        shown = f'"$(/usr/bin/stat -Lc %d:%i -- {shlex.join(targets)})"'
        same = f"[ {shown} = {shlex.quote(chr(10).join(inodes))} ]" if targets else ":"
    return f'{same} || {{ echo {shlex.quote(EXCHANGED)} >&2; exit 73; }}; exec "$@"'


def is_around(directory: Path, inner: Path) -> bool:
    """Tell whether a directory is another one, or has it somewhere in it."""
    return inner.resolve().is_relative_to(directory.resolve())
