"""What is known of when two copies last agreed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scripts.errors import DataError
from scripts.machine import files, foreign_json
from scripts.workspace.copies import answers, reconcile
from scripts.workspace.copies.answers import Mark
from scripts.workspace.copies.reconcile import Known
from scripts.workspace.copies.tree import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scripts.workspace.copies.reconcile import Base, Trees


REMEMBERED = 1 << 28
"""Bytes of what is known of a copy, a line of 100 for each file."""


def read_known(file: Path) -> tuple[Mark, Base]:
    """Read what the other copy was, and what was known of it.

    Raises:
        DataError: The file is damaged.
    """
    try:
        identity, exchange, rows = foreign_json.read_json(file, most=REMEMBERED)
        return Mark(identity, exchange), {
            path: Known(_entry(here), _entry(there), digest)
            for path, (here, there, digest) in rows.items()
        }
    except FileNotFoundError:
        return answers.UNKNOWN, {}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is damaged", "remove it") from error


def write_known(file: Path, mark: Mark, base: Base) -> None:
    """Write that."""
    files.write(file, json.dumps((*mark, base), separators=(",", ":")))


def _entry(read: Sequence[Any] | None) -> Entry | None:
    return Entry(*read) if read else None


def note_same(base: Base, trees: Trees, paths: Sequence[str]) -> None:
    """Take note of what is the same on both sides."""
    for path in paths:
        here, there = trees.here.get(path), trees.there.get(path)
        before = base.get(path, reconcile.NEVER)
        if here is None and there is None:
            base.pop(path, None)
            continue
        digest = trees.digests_here.get(path, "")
        if not digest and path not in trees.digests_there:
            digest = before.digest
        # With another mode it is the version here that goes on.
        same_mode = here is None or there is None or here.mode == there.mode
        base[path] = Known(here if same_mode else before.here, there, digest)
