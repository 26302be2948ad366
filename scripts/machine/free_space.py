"""Free space on this machine's disks, some of which a sandbox is to leave."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from scripts.errors import DiskFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

GIB = 1 << 30
INTERVAL_S = 0.25
"""How often it is looked at: what a fast disk takes meanwhile is less than the usual reserve."""


def free(place: Path) -> int:
    """Look up the bytes that anybody can still write to the disk that a directory is on."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


@contextmanager
def end_when_disk_is_full(
    places: Sequence[Path], reserve: int, end: Callable[[], None]
) -> Iterator[None]:
    """End a program when too little is left of a disk that it can fill.

    Args:
        places: A directory on each of these disks.
        reserve: Bytes that are to be left; where less is free already, half of that.
        end: Ends the program.

    Raises:
        DiskFullError: At the block's end, if the program was ended.
    """
    limits: dict[Path, int] = {}
    for place in places if reserve else ():
        with suppress(OSError):  # it has gone, or is none of ours
            now = free(place)
            limits[place] = reserve if now > reserve else now // 2
    if not limits:
        yield
        return
    full: list[Path] = []
    over = threading.Event()

    def watch() -> None:
        while not full and not over.wait(INTERVAL_S):
            with suppress(OSError):
                full.extend(place for place, limit in limits.items() if free(place) < limit)
        if full:
            end()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    if full:
        raise DiskFullError(
            f"less than {limits[full[0]] / GIB:.1f} GiB is free on the disk of {full[0]}, so the "
            "session was ended",
            "make room there; NDDT_DISK_RESERVE says how much a sandbox must leave",
        )
