"""What a client and a relay say to each other: frames, and how much of it may be on its way.

Each way carries frames: one byte for the kind, four for the length, then the payload. The text
of this file is sent to sandboxes beside `relay.py`.
"""

from __future__ import annotations

import struct

HEAD = struct.Struct(">BI")
COUNT = struct.Struct(">Q")
COUNTS = struct.Struct(">QQ")
OPENING = struct.Struct(">QQIB")
CODE = struct.Struct(">i")

# From the client. OPEN has what it has got of stdout and stderr, the seconds that a session
# waits for a lost client, whether the session must be there already, and the script.
OPEN, STDIN, STDIN_END, GOT, END, BYE, DIED = range(7)
# To the client. HELLO has how many bytes of stdin have arrived; GONE means that there is no
# such session any more.
HELLO, STDOUT, STDERR, TOOK, EXIT, GONE = range(16, 22)

CHUNK = 65536
WINDOW = 1 << 20
"""Bytes of output that may be on their way to a connected client."""
STORE = 64 << 20
"""Bytes of output that wait for a client that is away; then the program waits, too."""
STDIN_WINDOW = 1 << 20
"""Bytes of stdin that the client sends before it has heard of their arrival."""
LAST_WORDS_S = 0.5
"""How long the output is watched after the program's end, for processes that it left."""
LAST_WORDS = 1 << 20
"""Bytes that a pipe holds at most: what comes later is not the program's."""
ENDING_S = 2.0
"""How long a program has after SIGTERM."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Put a payload into a frame."""
    return HEAD.pack(kind, len(payload)) + payload


class Frames:
    """Takes the frames out of a stream of bytes.

    Args:
        most: Bytes that a payload may have; a frame with more is a ValueError.
    """

    def __init__(self, most: int = 1 << 32) -> None:
        self._bytes = bytearray()
        self._most = most

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the frames that are complete with this data."""
        self._bytes += data
        found = []
        while len(self._bytes) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._bytes)
            if length > self._most:
                raise ValueError(length)
            end = HEAD.size + length
            if len(self._bytes) < end:
                break
            found.append((kind, bytes(self._bytes[HEAD.size : end])))
            del self._bytes[:end]
        return found


class Output:
    """What the program has printed on one stream, until the client has it."""

    def __init__(self, kind: int, pipe: int) -> None:
        self.kind = kind
        self.pipe = pipe
        self.ended = False
        self.last_words = LAST_WORDS
        self._kept = bytearray()
        self._begin = 0  # how many bytes the client is known to have
        self._sent = 0  # how many have been sent on the present connection, in all

    @property
    def held(self) -> int:
        """How many bytes are kept."""
        return len(self._kept)

    @property
    def is_sent(self) -> bool:
        """Whether all there is has been sent."""
        return self.ended and self._sent == self._begin + len(self._kept)

    def add(self, data: bytes) -> None:
        """Keep what the program has printed; nothing means that it prints no more."""
        self._kept += data
        self.ended = not data

    def got(self, count: int) -> None:
        """Forget what the client has; `count` is in all."""
        del self._kept[: max(0, count - self._begin)]
        self._begin = max(self._begin, count)

    def resume(self, count: int) -> None:
        """Go on behind what the client has."""
        self.got(count)
        self._sent = self._begin

    def next_frame(self) -> bytes:
        """Return what is to be sent next; empty if there is nothing."""
        start = self._sent - self._begin
        data = bytes(self._kept[start : start + CHUNK])
        self._sent += len(data)
        return frame(self.kind, data) if data else b""
