"""Two commands that do the same: what is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.errors import UnavailableError
from scripts.machine import process

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
NDDT = str(ROOT / "nddt")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two commands that do the same, ours and the one by hand."""

    title: str
    ours: tuple[str, ...]
    by_hand: tuple[str, ...]
    directory: Path
    limit: str
    """What is promised of the medians: a ratio such as `1.35 x`, or a sum such as `+15 ms`."""
    clock: Callable[[], float] = time.perf_counter
    """Counts the seconds that are compared."""


def output(directory: Path, *argv: str) -> str:
    """Have a command do something, and return what it prints."""
    done = process.capture(argv, cwd=directory, timeout_s=None)  # it is what is measured
    if not done.ok:
        raise UnavailableError(f"{argv[0]} {argv[1]} failed: {done.last_line}", "see --verbose")
    return done.stdout
