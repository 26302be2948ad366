"""Reading tar archives that come from a sandbox, which may hold anything."""

from __future__ import annotations

import tarfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from scripts.machine.descriptors import BLOCK

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

HEADERS = 1 << 20
"""Bytes that may come before a member, of which some have to be held in memory."""


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """Read at most so many."""


class _Limited:
    """The first so many bytes of a stream; more are an error."""

    def __init__(self, stream: Readable, limit: int) -> None:
        self._stream = stream
        self._left = limit
        self.before_next = HEADERS

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        self.before_next -= len(data)
        if self._left < 0:
            raise ValueError("there is too much of it")
        if self.before_next < 0:
            raise ValueError("there is too much before a file")
        return data


@contextmanager
def understood() -> Iterator[None]:
    """Translate what goes wrong while an archive is read, or what is in it.

    Raises:
        ValueError: It is broken.
    """
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error) or "it ends too soon") from error


def members(
    stream: Readable, *, limit: int, most: int
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Read an archive, one member after the other; to be used in `understood`.

    Args:
        stream: An archive that is not compressed.
        limit: Bytes that it may have as a whole.
        most: Members that it may have.

    Returns:
        What tar says of each, and what a regular file holds, to be read before the next one.

    Raises:
        OSError: The stream cannot be read.
        ValueError: There is too much of it.
    """
    limited = _Limited(stream, limit)
    # It only ever calls `read`, though its type asks for more.
    with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]
        while member := archive.next():
            if most <= 0:
                raise ValueError("there are too many of them")
            most -= 1
            # What it has in the archive, whatever it says; and what the buffer holds already.
            data = max(0, archive.offset - member.offset_data)
            limited.before_next = HEADERS + data + 2 * tarfile.RECORDSIZE
            yield member, archive.extractfile(member) if member.isreg() else None
            # It would keep them all.
            archive.members.clear()
            archive.pax_headers.clear()


def content(member: tarfile.TarInfo, file: IO[bytes]) -> Iterator[bytes | int]:
    """Read a file as `descriptors.blocks` does.

    Raises:
        ValueError: Its holes are in no order.
    """
    place = 0
    plain: Any = cast("io.BufferedReader", file).raw  # whose buffer cannot leave holes out
    holes: Any = member.sparse if member.issparse() else None
    data: list[tuple[int, int]] = [(0, member.size)] if holes is None else holes
    for start, size in (one for one in data if one[1]):  # empty ones fill a header up
        if start < place or start + size > member.size:
            raise ValueError("a file has holes in no order")
        if start > place:
            yield start - place
            plain.seek(start)
        place = start + size
        left = size
        while left:
            block = plain.read(min(left, BLOCK))
            if not block:
                raise ValueError("it ends too soon")
            left -= len(block)
            yield block
    if member.size > place:
        yield member.size - place
