"""Directories of this machine that a sandbox may change, now or by what it has left there.

No program is looked for in them, by nddt nor by what nddt starts: an activated environment of
Python's, direnv or npm put a directory of the project's own first on PATH.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.machine import files, foreign_json, search_path, state
from scripts.machine.bind_sources import identity, way

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

log = logging.getLogger("nddt")

MOST = 200
"""How many are remembered, the last ones."""


def note_shown(environ: Mapping[str, str], directories: Iterable[Path]) -> None:
    """Remember directories that a sandbox may change from now on.

    Args:
        environ: Our own environment.
        directories: Those that it shows, or whose copy comes back.
    """
    wanted = dict.fromkeys(os.path.realpath(one) for one in directories)
    if wanted.keys() <= set(_noted(environ)):
        return
    file = _file(environ)
    try:
        files.make_private(file.parent)
        with files.lock(file.parent):
            known = [one for one in _noted(environ) if one not in wanted]
            files.write(file, json.dumps([*known, *wanted][-MOST:]))
    except OSError as error:
        log.warning("%s cannot be written: %s", file, error.strerror)


def _file(environ: Mapping[str, str]) -> Path:
    return state.state_directory(environ) / "shown.json"


def _noted(environ: Mapping[str, str]) -> list[str]:
    try:
        return [str(one) for one in foreign_json.read_json(_file(environ), most=1 << 22)]
    except (OSError, ValueError, TypeError):
        return []


def known(environ: Mapping[str, str], more: Iterable[Path]) -> AbstractSet[object]:
    """Look up what such directories are, whatever they are called.

    The home directory counts as none, nor what it is in: who shows that shows all that is his.

    Args:
        environ: Our own environment.
        more: Further directories: the caller's, with the repository around it, and mounts.
    """
    home = Path(os.path.realpath(environ.get("HOME") or "/"))
    own = {identity(one) for one in (home, *home.parents)}
    # No Path is made of what is noted: each command pays for that.
    return {*map(identity, _noted(environ)), *map(identity, more)} - own


def leads_into(path: str, suspect: AbstractSet[object]) -> bool:
    """Tell whether what is in a directory could be a sandbox's, also by a link on the way."""
    return not suspect.isdisjoint(map(identity, way(Path(path, "_"))))


def outside(path: str, suspect: AbstractSet[object]) -> str:
    """Take out of PATH, of which all is absolute, what leads into such a directory."""
    places = path.split(os.pathsep)
    kept = [one for one in places if not leads_into(one, suspect)]
    search_path.passed_over += [one for one in places if one not in kept]
    return os.pathsep.join(kept) or os.defpath


def on_the_way(path: Path, environ: Mapping[str, str]) -> Path | None:
    """Find such a directory in which a path, or a link on the way, lies."""
    suspect = known(environ, ())
    return next((one for one in way(path) if identity(one) in suspect), None)


def around(directory: Path) -> Iterator[Path]:
    """Find what a sandbox for a directory may be shown: it, and the repository that it is in."""
    yield directory
    for one in (directory, *directory.parents):
        if os.path.lexists(one / ".git"):
            yield one
            return
