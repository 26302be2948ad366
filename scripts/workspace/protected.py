"""Files of a directory by which programs of this machine can be made to run something.

What the sandbox may write to is looked at before a session and after it, and each such file that
differs is told of. While a sandbox lives on, what its last session left stays the measure: the
next command, whichever it is, tells what has changed since. A record of what has changed stays
until it is restored or accepted, so that both are possible later, too.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import naming
from scripts.machine import console, shown_places, signals
from scripts.naming import said
from scripts.workspace import acted_on, change_records, restoring
from scripts.workspace.changed_files import changes, look

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from scripts.workspace.change_records import Measure
    from scripts.workspace.changed_files import Change, Look

log = logging.getLogger("nddt")


LINES = 12
"""How much of a difference is shown without being asked for."""


def begin(
    environ: Mapping[str, str], directory: Path, places: Sequence[Path], sandbox: str
) -> None:
    """Take what is there for the measure, where a sandbox lives on without a session yet.

    Args:
        environ: Our own environment.
        directory: The caller's, to which a record belongs.
        places: What the sandbox can write to.
        sandbox: Its key.
    """
    shown_places.note_shown(environ, places)
    new = change_records.measure_of(environ, directory, sandbox, places)
    if places and not new.file.exists():
        change_records.keep(new._replace(look=look(places, acted_on.own_settings(environ))))


def tell_of_changes(environ: Mapping[str, str], directory: Path) -> None:
    """Tell what has changed in a directory since its last sessions, if a sandbox goes on."""
    _check(
        environ,
        change_records.place_of(environ, directory),
        change_records.measures(change_records.place_of(environ, directory)),
    )


def check_ended(environ: Mapping[str, str], sandbox: str) -> None:
    """Tell for the last time what a sandbox that has ended has changed.

    Args:
        environ: Our own environment.
        sandbox: Its key.
    """
    every = change_records.place_of(environ, Path("/")).parent
    for place in every.iterdir() if every.is_dir() else ():
        _check(
            environ,
            place,
            change_records.measures(place, naming.digest((sandbox,), 8)),
            is_last=True,
        )


def _check(
    environ: Mapping[str, str], place: Path, measures: Iterable[Measure], *, is_last: bool = False
) -> None:
    for measure in measures:
        gone = [place for place in measure.places if not place.is_dir()]
        if len(gone) == len(measure.places):
            # Until its sandbox ends, it may come back, as what is on another disk does.
            if is_last or not measure.sandbox:
                measure.file.unlink(missing_ok=True)
            continue
        for directory in (one for one in gone if (str(one), "") not in measure.look):
            log.warning(
                "%s is not there any more, so what was changed in it cannot be told "
                "— look at it yourself when it is back",
                directory,
            )
        now = change_records.look_again(environ, measure)
        change_records.settle(place)
        found = change_records.untold(place, changes(measure.look, now))
        if found:
            change_records.record(place, found)
            _tell(
                found,
                "since the last session here, by what went on in a sandbox or by yourself",
                "; --accept is for what is your own",
            )
        left = measure.file.with_name(f"{measure.file.stem.rpartition('-')[0]}-0.json")
        if measure.file != left or is_last:
            measure.file.unlink(missing_ok=True)
        if measure.sandbox and not is_last and (measure.file != left or measure.look != now):
            change_records.keep(measure._replace(file=left, look=now))


def _say_what_is_too_much(place: Path, found: Look) -> None:
    """Say once where there is more than is looked at, though nothing has changed there."""
    rows = sorted([*key, one.digest] for key, one in found.items() if one.kind == "!" and key[1])
    if rows == change_records.load(place / "excess.json"):
        return
    change_records.save(place / "excess.json", rows)
    for root, path, reason in rows[:10]:
        where = root if path == "…" else f"{root}/{path}"
        log.warning("%s in %s: what programs act on there is not all watched", reason, where)


@contextmanager
def watched(
    environ: Mapping[str, str],
    directory: Path,
    places: Sequence[Path],
    sandbox: str = "",
) -> Iterator[None]:
    """Tell in the end which of these files have changed, however that end comes about.

    Args:
        environ: Our own environment.
        directory: The caller's, to which a record belongs.
        places: What can be written to meanwhile.
        sandbox: Key of the one that can write there afterwards, too; empty if none can.
    """
    if not places:
        yield
        return
    shown_places.note_shown(environ, places)
    tell_of_changes(environ, directory)
    own = acted_on.own_settings(environ)
    left = change_records.measure_of(environ, directory, sandbox, places)
    known = change_records.kept(left.file) if sandbox else None
    is_same = known is not None and known.places == left.places
    before = known.look if known and is_same else look(places, own)
    change_records.settle(left.file.parent)
    _say_what_is_too_much(left.file.parent, before)
    mine = change_records.measure_of(environ, directory, sandbox, places, os.getpid())
    change_records.keep(mine._replace(look=before))
    left.file.unlink(missing_ok=True)  # its place is taken
    is_over = False
    try:
        yield
        is_over = True
    finally:
        with signals.ignored():
            now = look(places, own)
            earlier = change_records.recorded(environ, directory)
            found = change_records.untold(left.file.parent, changes(before, now))
            if found:
                change_records.record(left.file.parent, found)
            if sandbox:
                change_records.keep(left._replace(look=now))
            mine.file.unlink(missing_ok=True)
            if found:
                _tell(found, "meanwhile")
        # Who wants to end us wants no question.
        if found and is_over and console.can_ask():
            for one in found[:10]:
                log.warning("%s", _shortened(restoring.difference(one)))
            if console.ask("Restore them?"):
                try:
                    restoring.undo(environ, directory, found, earlier)
                finally:
                    change_records.refresh(environ, directory)


def _tell(found: Sequence[Change], when: str, more: str = "") -> None:
    some = ", ".join(map(str, found[:10])) + (" …" if len(found) > 10 else "")
    log.warning(
        "programs of this machine can be made to run something by what was changed %s: %s "
        "— %s shows it, %s undoes it%s",
        when,
        some,
        said("protected"),
        said("protected --restore"),
        more,
    )


def _shortened(lines: list[str]) -> list[str]:
    left = len(lines) - LINES
    return [*lines[:LINES], f"… {left} more lines: {said('protected')}"] if left > 0 else lines
