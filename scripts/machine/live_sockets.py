"""Sockets of this machine's programs: who sees the directory of one can talk to its program.

A read-only mount keeps nobody from that, nor does a sandbox without a network.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.machine.bind_sources import way_through

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TABLE = Path("/proc/net/unix")
"""What is bound on Linux, but for that of other containers."""
_ROW = re.compile(rb"\w+: \w+ \w+ (?P<flags>\w{8}) (?P<type>\w{4}) \w\w +\d+ (?P<path>[^@].*)")
_LISTENS = 0x10000
"""Flag of a socket that takes connections (`__SO_ACCEPTCON`)."""
_DATAGRAM = 2
"""Type of one that needs none."""
_PATH = re.compile(r"/[^\s,;:]+")
"""In the value of a variable, such as `unix:path=/run/bus,guid=…`, or tmux's `/tmp/x,5,0`."""


def within(directory: Path, environ: Mapping[str, str]) -> list[str]:
    """Find the sockets in a directory at which a program listens, or which a variable names.

    Args:
        directory: Absolute.
        environ: The user's: a socket's name may stand in any variable.

    Returns:
        Their paths, with the variables' names.
    """
    names = {Path(path): f" (${name})" for name, path in _named(environ)}
    found = [*names, *(directory / one for one in _bound())]
    near = {one.parent: one for one in found}
    shown = {place for place, one in near.items() if way_through(one, (directory,))}
    live = (one for one in dict.fromkeys(found) if one.parent in shown and _is_socket(one))
    return sorted(f"{one}{names.get(one, '')}" for one in live)


def _named(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        yield from ((name, path) for path in _PATH.findall(value))


def _bound() -> Iterator[str]:
    """Read the paths of what listens; one may be relative, to a directory that is not told."""
    try:
        table = TABLE.read_bytes()
    except OSError:  # it is no Linux
        return
    for line in table.splitlines():
        row = _ROW.fullmatch(line)
        if row and (int(row["flags"], 16) & _LISTENS or int(row["type"], 16) == _DATAGRAM):
            yield os.fsdecode(row["path"])


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except (OSError, ValueError):
        return False
