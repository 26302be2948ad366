"""What the proxy has decided: one line each in a file, which is rotated."""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scripts.machine.rotating_log import append

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_BYTES = 1 << 20
"""The size at which a log is put aside; the one before it goes."""


class Decisions:
    """A log that any number of processes write at a time.

    Args:
        path: Its file; the directory is made if missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def _old(self) -> Path:
        return self._path.with_name(f"{self._path.name}.1")

    def note(self, what: str, where: str, reason: str) -> None:
        """Add a line: `allowed`, `blocked` or `failed`, host and port, and why."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = "\t".join((now, what, where, " ".join(reason.split()))) + "\n"
        with contextlib.suppress(OSError):  # a full disk must not decide about the network
            append(self._path, line.encode("utf-8", "replace"), most=MOST_BYTES, kept=1)

    def read(self) -> Iterator[tuple[str, str, str, str]]:
        """Return time, decision, host and port, and reason, oldest first."""
        for path in (self._old, self._path):
            with contextlib.suppress(FileNotFoundError):
                for line in path.read_text(encoding="utf-8").splitlines():
                    words = line.split("\t")
                    if len(words) == 4:
                        yield words[0], words[1], words[2], words[3]

    def blocked(self) -> list[tuple[str, str, str, str]]:
        """Return what was blocked, the latest first: host and port, how often, when last, why."""
        last: dict[str, tuple[str, str]] = {}
        times: Counter[str] = Counter()
        for when, what, where, reason in self.read():
            if what == "blocked":
                last.pop(where, None)
                last[where] = (when, reason)
                times[where] += 1
        return [(one, str(times[one]), *last[one]) for one in reversed(last)]
