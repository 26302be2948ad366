"""Which repositories a directory's remotes named before a sandbox could have added any.

A remote that comes later may be an agent's work. So at a directory's first use, in whatever way,
its remotes are noted, and what comes later counts once the user has agreed.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import naming
from scripts.machine import files, git_places, git_settings, state

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scripts.settings.fields import Settings

_URL = re.compile(
    r"(?:https?://(?:[^@/]*@)?([\w.-]+(?::\d+)?)/|ssh://git@([\w.-]+)/|git@([\w.-]+):)"
    r"([\w.-]+/[\w.-]+?)(?:\.git)?/?"
)


def repository(url: str) -> str | None:
    """Read which repository a remote's address means, as HOST/OWNER/NAME; None if it is none."""
    match = _URL.fullmatch(url)
    if not match or match[4].split("/")[1] in {".", ".."}:
        return None
    return f"{(match[1] or match[2] or match[3]).lower()}/{match[4]}"


def now(directory: Path) -> tuple[str, ...]:
    """Read the repositories that a directory's remotes name now, as HOST/OWNER/NAME."""
    entries = git_settings.configured(git_places.repository_of(str(directory)))
    urls = (url or "" for name, url in entries if re.fullmatch(r"remote\..*\.url", name))
    return tuple(dict.fromkeys(filter(None, map(repository, urls))))


def sorted_out(environ: Mapping[str, str], directory: Path) -> tuple[list[str], list[str]]:
    """Read which of the repositories that remotes name now count, and which came later."""
    found, noted = now(directory), _noted(environ, directory)
    names = {one.lower() for one in (found if noted is None else noted)}
    counts = [one for one in found if one.lower() in names]
    return counts, [one for one in found if one.lower() not in names]


def note_first_use(settings: Settings) -> None:
    """Note the remotes of what a sandbox is about to be shown, if that is new."""
    environ = settings.process_environment
    shown = [one.source for one in settings.mounts if not one.readonly]
    shown += [settings.directory] if settings.workspace != "none" else []
    for directory in shown:
        if not _note(environ, _real(directory)).exists():
            noted = _noted(environ, directory)
            _write(environ, directory, now(directory) if noted is None else noted)


def agree_to_remotes(
    environ: Mapping[str, str], directory: Path, repositories: Iterable[str]
) -> None:
    """Let repositories count for a directory that has been used before."""
    _write(environ, directory, (*(_noted(environ, directory) or ()), *repositories))


def _noted(environ: Mapping[str, str], directory: Path) -> tuple[str, ...] | None:
    """Read what was noted for a directory; None if this is its first use.

    For what lies in a directory that was used before, or is a worktree of its repository, that
    is what was noted there: a sandbox could have made or changed it.
    """
    for place in (_real(directory), _repository(directory)):
        for one in (place, *place.parents):
            with suppress(OSError):
                return tuple(_note(environ, one).read_text(encoding="utf-8").split())
    return None


def _write(environ: Mapping[str, str], directory: Path, repositories: Iterable[str]) -> None:
    text = "".join(f"{one}\n" for one in dict.fromkeys(repositories))
    place, shared = _real(directory), _repository(directory)
    places = [place]
    # The repository of a worktree lies elsewhere, and is shown to the sandbox as well.
    if not shared.is_relative_to(place) and not _note(environ, shared).exists():
        places.append(shared)
    for one in places:
        note = _note(environ, one)
        files.write(note, text, survives_a_crash=True)


def _note(environ: Mapping[str, str], path: Path) -> Path:
    return state.state_directory(environ) / "remotes" / naming.digest([str(path)], 32)


def _real(directory: Path) -> Path:
    return Path(os.path.realpath(directory))


def _repository(directory: Path) -> Path:
    """Tell where the configuration of a directory's repository is; itself without any."""
    found = git_places.repository_of(str(directory))
    return _real(Path(git_places.common_of(found))) if found else _real(directory)
