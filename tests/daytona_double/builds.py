"""What a Dockerfile's text says, and what its builder prints."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_ENTRYPOINT = re.compile(r"^\s*ENTRYPOINT\s+(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
SLEEP = ("sleep", "infinity")


class BuildLog:
    """What a builder printed, for readers that follow it while it grows."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._is_whole = False
        self._grown = asyncio.Condition()

    async def add(self, chunk: bytes) -> None:
        """Add what was printed."""
        async with self._grown:
            self._chunks.append(chunk)
            self._grown.notify_all()

    async def end(self) -> None:
        """Say that nothing more comes."""
        async with self._grown:
            self._is_whole = True
            self._grown.notify_all()

    async def follow(self, *, to_the_end: bool) -> AsyncIterator[bytes]:
        """Give the chunks, and wait for those to come if it shall go to the end."""
        place = 0
        while True:
            async with self._grown:
                while place == len(self._chunks):
                    if self._is_whole or not to_the_end:
                        return
                    await self._grown.wait()
                chunk = self._chunks[place]
            place += 1
            yield chunk


def image_tag(dockerfile: str) -> str:
    """Name the image of a Dockerfile by its text, so that each text is built once a machine."""
    return f"daytona-double:{hashlib.sha256(dockerfile.encode()).hexdigest()[:16]}"


def entrypoint_of(dockerfile: str) -> tuple[str, ...]:
    """Read the last ENTRYPOINT line; the platform knows no other, and no CMD."""
    lines = _ENTRYPOINT.findall(dockerfile)
    if not lines:
        return SLEEP
    try:
        return tuple(json.loads(lines[-1]))
    except json.JSONDecodeError:
        return ("/bin/sh", "-c", lines[-1])


def background_command(entrypoint: tuple[str, ...]) -> str | None:
    """Give the shell command of a sandbox's background session; None if it has nothing to do."""
    return None if entrypoint == SLEEP else shlex.join(entrypoint)
