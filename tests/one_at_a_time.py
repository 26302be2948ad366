"""What is built once a machine, though several processes of tests want it at the same moment."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def _file(name: str) -> IO[str]:
    path = Path(tempfile.gettempdir(), f"nddt-test-{os.getuid()}-{name.replace(':', '-')}.lock")
    return path.open("w", encoding="utf-8")


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Wait until no other process is in a block of this name; one that is killed leaves it."""
    with _file(name) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def one_task_at_a_time(name: str) -> AsyncIterator[None]:
    """Wait for that, while other tasks go on."""
    with _file(name) as file:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            await asyncio.sleep(0.1)
        yield
