"""Contents of files on their way from one tree to the other, as a stream.

This file is sent to a sandbox beside `answering.py`.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from typing import TYPE_CHECKING

from scripts.machine.beneath import Beneath
from scripts.machine.descriptors import BLOCK, blocks, pour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_CHUNK = struct.Struct(">q")
"""Before each piece of a file: how many bytes it has, less than 0 for a hole, 0 for the end."""


def pack(root: str, path: str, limit: int) -> Iterator[bytes]:
    """Read a file as `unpack` takes it; at its end is a line that says what went wrong."""
    reason, modified_ns = "", 0
    try:
        with Beneath(root) as door, door.open(path) as file:
            status = os.fstat(file.fileno())
            modified_ns = status.st_mtime_ns
            _check_size(status.st_size, limit)
            for one in blocks(file):
                size = one if isinstance(one, int) else len(one)
                limit -= size
                _check_size(0, limit)
                yield _CHUNK.pack(-size if isinstance(one, int) else size)
                if not isinstance(one, int):
                    yield one
    except OSError as error:
        reason = error.strerror or str(error)
    yield _CHUNK.pack(0) + json.dumps([reason, modified_ns]).encode() + b"\n"


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise OSError(errno.EFBIG, "it has grown meanwhile")


class Stream:
    """What `pack` reads, on its way.

    Args:
        read: Reads so many bytes, and no fewer.
        line: Reads a line, its end included.
        limit: Bytes that the file may have.

    Raises:
        ValueError: It is no such thing, or has more bytes. This comes while it is read.
    """

    def __init__(self, read: Callable[[int], bytes], line: Callable[[], bytes], limit: int) -> None:
        self._read, self._line, self._left = read, line, limit
        self.reason = ""
        """Why the sender could not read it; known at its end."""
        self.modified_ns = 0

    def __iter__(self) -> Iterator[bytes | int]:
        while size := _CHUNK.unpack(self._read(_CHUNK.size))[0]:
            self._left -= abs(size)
            if size > BLOCK or self._left < 0:
                raise ValueError("there is more of a file than was asked for")
            yield -size if size < 0 else self._read(size)
        reason, modified_ns = json.loads(self._line())
        self.reason = str(reason)[:200]
        self.modified_ns = min(max(int(modified_ns), 0), 1 << 62)

    def check(self) -> None:
        """See that the file has come whole.

        Raises:
            OSError: The sender could not read it.
        """
        if self.reason:
            raise OSError(errno.EIO, self.reason)


def unpack(stage: Beneath, path: str, stream: Stream) -> str:
    """Write a file that comes in a stream, which is read to the file's end whatever happens.

    Returns:
        Why it is not there; empty if it is.
    """
    pieces = iter(stream)
    try:
        with stage.create(path, make=0o700) as file:
            pour(pieces, file)
            stream.check()
            file.flush()
            os.utime(file.fileno(), ns=(stream.modified_ns, stream.modified_ns))
    except OSError as error:
        for _ in pieces:
            pass
        return error.strerror or str(error)
    return ""
