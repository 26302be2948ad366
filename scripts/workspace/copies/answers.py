"""What a copy in a sandbox answers, which may be meant to do harm.

It is checked for its form, for what was asked and for its size.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from scripts.errors import DataError
from scripts.machine import foreign_json
from scripts.workspace.copies import tree
from scripts.workspace.copies.changing import Outcome
from scripts.workspace.copies.tree import Entry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from scripts.workspace.copies.changing import Operation


ROWS = 100_000
"""So many rows may an answer have, and more where the copy here is large, too."""
BYTES = 16 << 20
ROW_BYTES = 1 << 15
"""Of a row: a path and a link's target, each byte of which may be written as six."""
SLOWEST = 20_000
"""Bytes a second: what comes more slowly has stopped."""
_STAMPS = {
    "d": re.compile(""),
    "?": re.compile(""),
    "l": re.compile(r"[^\0]{1,4095}", re.DOTALL),
    "f": re.compile(r"index [0-9a-f]{64}|\d{1,18}( -?\d{1,20}){2} \d{1,20}", re.ASCII),
}


class Other(Protocol):
    """The copy in the sandbox: what fulfils wishes as `answering.py` does, and a way for rsync."""

    def ask(self, wish: Mapping[str, Any]) -> None:
        """Send a wish."""

    def send(self, data: bytes) -> None:
        """Send bytes that belong to it."""

    def line(self, limit: int = ROW_BYTES) -> bytes:
        """Read a line of the answer, without its end."""

    def read(self, size: int) -> bytes:
        """Read so many bytes of it."""

    def patient(self, seconds: float) -> None:
        """Say how long the answer may take as a whole."""

    def rsync(self, words: Sequence[str], *, source: str, target: str) -> tuple[str, ...]:
        """Build the command; a path that begins with `:` is the other copy's."""


class Mark(NamedTuple):
    """What a copy was when it and the directory last agreed."""

    identity: str
    """Tells it from any other; empty if they never have."""
    exchange: str
    """The last one that both remember."""


UNKNOWN = Mark("", "")


def ask_entries(other: Other, mark: Mark, known: dict[str, Entry]) -> None:
    """Ask what is in the copy, unless it is what is known."""
    wish = {"unless": tree.checksum(known), "identity": secrets.token_hex(16)}
    other.ask({"do": "entries", "exchange": mark.exchange, **wish})


def entries(
    other: Other, mark: Mark, known: Mapping[str, Entry], expected: int
) -> tuple[Mark, dict[str, Entry]]:
    """Read what is in the copy, which has been asked for.

    Args:
        other: The copy.
        mark: What it was.
        known: What was there.
        expected: So many entries are no fault.

    Returns:
        Also the mark that the copy has: another one if it is none that this side knows, since it
        is new, its disk comes back from an earlier time, or somebody has removed its mark.
    """
    rows = _rows(other, expected)
    with understood():
        identity, remembers, is_known = _first(next(rows, None))
        there = dict(map(_read, rows))
    found = Mark(identity, mark.exchange if remembers else "")
    if is_known:
        return found, dict(known)
    # What is ignored by now has not been removed.
    missing = {path for path in known if path not in there}
    if missing:
        other.ask({"do": "look", "paths": sorted(missing)})
        with understood():
            looked = dict(map(_read, _rows(other, len(missing))))
            if not missing.issuperset(looked):
                raise ValueError("it tells of what was not asked")
        there |= looked
    _check_tree(there)
    return found, there


def ask_digests(other: Other, there: Mapping[str, Entry], paths: Collection[str]) -> None:
    """Ask for hashes of files of the copy."""
    other.ask({"do": "digests", "paths": paths})
    other.patient(60 + sum(tree.size(there[path]) for path in paths) / SLOWEST)


def digests(other: Other, paths: Collection[str]) -> dict[str, str]:
    """Read these hashes."""
    with understood():
        return dict(_hashed(row, paths) for row in _rows(other, len(paths)))


def fulfil(other: Other, do: str, **about: str) -> None:
    """Have something done about the stage of the copy, or its mark."""
    other.ask({"do": do, **about})
    with understood():
        if next(_rows(other, 0), None) is not None:
            raise ValueError("there is nothing to tell")


def apply(other: Other, stage: str, operations: Sequence[Operation]) -> dict[str, Outcome]:
    """Have changes made to the copy."""
    asked = {one.path for one in operations}
    other.ask({"do": "apply", "stage": stage, "operations": operations})
    with understood():
        told = dict(_outcome(row, asked) for row in _rows(other, len(asked)))
    return {p: told.get(p, Outcome(None, "the sandbox says nothing")) for p in asked}


def reasons(other: Other, expected: int) -> list[str]:
    """Read why files did not arrive in the copy."""
    with understood():
        return [str(row[1])[:200] for row in _rows(other, expected)]


def _rows(other: Other, expected: int) -> Iterator[Any]:
    """Read the rows of an answer.

    Args:
        other: The copy.
        expected: So many there are; a few more are no fault.

    Raises:
        ValueError: It is no such answer, or too long.
    """
    rows, size = ROWS + 2 * expected, BYTES + 1000 * expected
    while line := other.line():
        rows, size = rows - 1, size - len(line)
        if rows < 0 or size < 0:
            raise ValueError("it has no end")
        yield foreign_json.parse(line, what="a line")


@contextmanager
def understood() -> Iterator[None]:
    """Say that an answer makes no sense.

    Raises:
        DataError: That.
    """
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        said = error.message if isinstance(error, DataError) else str(error)
        problem = f"the sandbox's answer makes no sense: {said[:200]}"
        raise DataError(problem, "do not trust what is in it") from error


def _first(row: Any) -> tuple[str, bool, bool]:  # noqa: ANN401  (JSON)
    identity, remembers, is_known = row
    if not (isinstance(identity, str) and len(identity) <= 64):
        raise ValueError("it says nothing of itself")
    if not (isinstance(remembers, bool) and isinstance(is_known, bool)):
        raise TypeError("it answers what was not asked")
    return identity, remembers, is_known


def _read(row: Any) -> tuple[str, Entry]:  # noqa: ANN401  (JSON)
    """Read a path and what is there."""
    path, kind, mode, stamp = row
    if not (isinstance(path, str) and isinstance(kind, str) and isinstance(stamp, str)):
        raise TypeError("an entry is none")
    if type(mode) is not int or not 0 <= mode <= 0o777:
        raise ValueError("an entry has no mode")
    if kind not in _STAMPS or not _STAMPS[kind].fullmatch(stamp):
        raise ValueError("an entry is of no kind")
    names = os.fsencode(path).split(b"/")
    os.fsencode(stamp)
    if len(path) > 4096 or max(map(len, names)) > 255 or not tree.is_inside(path):
        raise DataError(f"the sandbox has a file at {path[:200]!r}", "do not trust what is in it")
    return path, Entry(kind, mode, stamp)


def _check_tree(read: Mapping[str, Entry]) -> None:
    """See that what is said is one tree.

    Raises:
        DataError: There is something below what is no directory.
    """
    for path in read:
        above = [path[:i] for i, letter in enumerate(path) if letter == "/"]
        if any(read[one].kind != "d" for one in above if one in read):
            raise DataError(
                f"the sandbox has a file at {path[:200]!r}", "do not trust what is in it"
            )


def _hashed(row: Any, asked: Collection[str]) -> tuple[str, str]:  # noqa: ANN401  (JSON)
    path, digest = row
    if path not in asked or not re.fullmatch("[0-9a-f]{40}|", digest):
        raise ValueError("a hash is none")
    return path, digest


def _outcome(row: Any, asked: set[str]) -> tuple[str, Outcome]:  # noqa: ANN401  (JSON)
    path, entry, reason = row
    if path not in asked or not isinstance(reason, str):
        raise ValueError("an outcome is none")
    return path, Outcome(_read((path, *entry))[1] if entry else None, reason[:200])
