"""What is remembered of files that programs act on: what they were like, and what has changed.

A record of what has changed stays until it is restored or accepted, so that both are possible
later, too.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scripts import naming
from scripts.machine import files, foreign_json, state
from scripts.machine.beneath import Beneath
from scripts.workspace import acted_on
from scripts.workspace.changed_files import REMEMBERED, Change, Found, Look, is_same, look, look_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

log = logging.getLogger("nddt")


def place_of(environ: Mapping[str, str], directory: Path) -> Path:
    """Name the directory for what is remembered of a directory."""
    return state.state_directory(environ) / "protected" / naming.persistent_name(directory)


def save(file: Path, rows: Iterable[object]) -> None:
    """Write rows; say so if that cannot be."""
    try:
        files.write(file, json.dumps(list(rows)))
    except OSError as error:
        log.warning("%s cannot be written: %s", file, error.strerror)


def load(file: Path) -> list[list[object]]:
    """Read rows; none if there are none."""
    try:
        return list(foreign_json.read_json(file, most=16 * REMEMBERED))
    except (OSError, ValueError):
        return []


def _read(row: object) -> Found | None:
    return Found(*row) if isinstance(row, list) else None


def recorded(environ: Mapping[str, str], directory: Path) -> tuple[Change, ...]:
    """Read the changes of earlier sessions that nobody has restored or accepted."""
    return recorded_at(place_of(environ, directory))


def recorded_at(place: Path) -> tuple[Change, ...]:
    """Read likewise, where they are remembered."""
    rows = load(place / "changes.json")
    return tuple(Change(str(a), str(b), _read(c), _read(d)) for a, b, c, d in rows)


def record(place: Path, new: Iterable[Change]) -> None:
    """Remember changes on top of earlier ones: what was first is what may be restored."""
    known = {(one.root, one.path): one for one in recorded_at(place)}
    for one in new:
        earlier = known.get((one.root, one.path))
        if earlier is not None and earlier.after == one.before:
            known[one.root, one.path] = one._replace(before=earlier.before)
        else:
            known[one.root, one.path] = one
    kept = [one for one in known.values() if one.before != one.after]
    save(place / "changes.json", kept)


def accept(environ: Mapping[str, str], directory: Path) -> None:
    """Forget what has changed: it is fine as it is."""
    (place_of(environ, directory) / "changes.json").unlink(missing_ok=True)
    refresh(environ, directory)


class Measure(NamedTuple):
    """What such files were like when nothing was left to be told of them."""

    file: Path
    """Where it is kept, named after the sandbox and the process whose session goes on."""
    sandbox: str
    """Which can write there when no session is on; empty for none."""
    places: tuple[Path, ...]
    look: Look

    @property
    def pid(self) -> int:
        """The process whose session goes on; 0 for none."""
        return int(self.file.stem.rpartition("-")[2])


def measure_of(
    environ: Mapping[str, str], directory: Path, sandbox: str, places: Sequence[Path], pid: int = 0
) -> Measure:
    """Name the measure of a session, which is still empty."""
    what = (sandbox,) if sandbox else ("", *map(str, places))
    file = place_of(environ, directory) / f"{naming.digest(what, 8)}-{pid}.json"
    return Measure(file, sandbox, tuple(places), {})


def keep(measure: Measure) -> None:
    """Write a measure."""
    rows = [measure.sandbox, [str(one) for one in measure.places]]
    save(measure.file, [*rows, *((*key, one) for key, one in measure.look.items())])


def kept(file: Path) -> Measure | None:
    """Read a measure; None if there is none."""
    with suppress(ValueError, TypeError):
        sandbox, places, *rows = load(file)
        look = {(str(a), str(b)): Found(*c) for a, b, c in rows if isinstance(c, list)}
        return Measure(file, str(sandbox), tuple(Path(str(one)) for one in places), look)
    return None


def measures(place: Path, name: str = "*") -> Iterator[Measure]:
    """Find the measures of sessions that are over."""
    for file in place.glob(f"{name}-*.json"):
        found = kept(file)
        if found and not (found.pid and state.is_alive(found.pid)):
            yield found


def look_again(environ: Mapping[str, str], measure: Measure) -> Look:
    """Look once more; of directories that are gone what is known stays, and a mark of that."""
    gone = {str(one) for one in measure.places if not one.is_dir()}
    kept = {key: found for key, found in measure.look.items() if key[0] in gone}
    marks = {(one, ""): Found("!", 0, "gone", None) for one in gone}
    return look(measure.places, acted_on.own_settings(environ)) | kept | marks


def refresh(environ: Mapping[str, str], directory: Path) -> None:
    """Take what is there now for the measure."""
    for one in measures(place_of(environ, directory)):
        keep(one._replace(look=look_again(environ, one)))


def untold(place: Path, found: Iterable[Change]) -> tuple[Change, ...]:
    """Leave out what another session has told of already."""
    told = {_in_short(one) for one in recorded_at(place)}
    return tuple(one for one in found if _in_short(one) not in told)


def _in_short(change: Change) -> Change:
    before, after = (one and one._replace(content=None) for one in change[2:])
    return change._replace(before=before, after=after)


def settle(place: Path) -> None:
    """Forget changes that somebody has undone by hand, so that they are told of once more."""
    known = recorded_at(place)
    left = [one for one in known if not _is_undone(one)]
    if len(left) < len(known):
        save(place / "changes.json", left)


def _is_undone(change: Change) -> bool:
    with suppress(OSError), Beneath(change.root) as top:
        return is_same(look_at(top, change.path), change.before)
    return False
