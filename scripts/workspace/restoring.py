"""Changes to files that programs act on, shown and undone."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from scripts import plain_text
from scripts.errors import DataError
from scripts.machine.beneath import Beneath
from scripts.naming import said
from scripts.workspace import change_records
from scripts.workspace.changed_files import is_same, look_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scripts.workspace.changed_files import Change, Found

log = logging.getLogger("nddt")


def restore(environ: Mapping[str, str], directory: Path) -> int:
    """Bring back what was there before, except where it has changed once more since.

    Returns:
        How many paths have been restored.

    Raises:
        DataError: Not all could be.
    """
    known = change_records.recorded(environ, directory)
    try:
        undo(environ, directory, known, ())
    finally:
        change_records.refresh(environ, directory)
    return len(known)


def undo(
    environ: Mapping[str, str],
    directory: Path,
    known: Sequence[Change],
    others: Sequence[Change],
) -> None:
    """Undo changes; of the record, the others are left."""
    failed = {}
    # What was added goes first: it may be a link where a directory has to be.
    for one in sorted(known, key=lambda one: (one.before is not None, one.path)):
        reason = _put_back(one)
        if reason:
            failed[one] = reason
            log.warning("%s stays as it is: %s", one, reason)
    change_records.save(
        change_records.place_of(environ, directory) / "changes.json", (*others, *failed)
    )
    if failed:
        what = f"{len(failed)} of {len(known)} files could not be restored"
        raise DataError(what, f"see to them, then: {said('protected --accept')}")


def _put_back(change: Change) -> str:
    """Restore one path; return the reason if that cannot be."""
    before = change.before
    if "!" in {one.kind for one in (before, change.after) if one}:
        return "it is not one file"
    if before is not None and before.content is None:
        return "it was too large to be remembered, or no file"
    try:
        with Beneath(change.root) as top:
            if not is_same(look_at(top, change.path), change.after):
                return "it has changed once more since"
            _write(top, change.path, before)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _write(top: Beneath, path: str, wanted: Found | None) -> None:
    data = str(wanted.content).encode("latin-1") if wanted else b""
    if wanted and wanted.kind == "f":
        top.write(path, data, mode=wanted.mode, make=0o777)
        return
    top.remove(path)
    if wanted:
        top.symlink(path, os.fsdecode(data), make=0o777)


def difference(change: Change) -> list[str]:
    """Show what has changed, in lines that a terminal can be given."""
    import difflib  # noqa: PLC0415  (what most sessions do without)

    sides = _lines(change.before), _lines(change.after)
    title = f"{change}, in {plain_text.one_line(change.root)}"
    lines = list(difflib.unified_diff(sides[0], sides[1], lineterm="", n=2))[2:]
    modes = [one.mode if one else 0 for one in (change.before, change.after)]
    how = [f"mode {modes[0]:o} → {modes[1]:o}"] if all(modes) and modes[0] != modes[1] else []
    return [title, *how, *map(plain_text.printable, lines)]


def _lines(one: Found | None) -> list[str]:
    if one is None:
        return []
    if one.content is None:
        return [f"(too large or no file: {one.digest})"]
    text = one.content.encode("latin-1").decode("utf-8", "surrogateescape")
    return [f"link to {text}"] if one.kind == "l" else text.removesuffix("\n").split("\n")
