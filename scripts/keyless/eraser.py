"""What makes secrets illegible in all that comes back to a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORTEST_SECRET = 12
"""Characters of a key; a shorter one may be a word such as `none`, which answers may hold."""


class Eraser:
    """Makes secrets in a stream illegible, with no more delay than one that has begun needs.

    What is written over them is as long as they are, so that lengths stay true.

    Args:
        secrets: What is erased; short ones may be words, and stay.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._secrets: list[bytes] = []
        self._held = b""
        self.add(secrets)

    def add(self, secrets: Iterable[bytes]) -> None:
        """Erase more from now on."""
        wanted = {one for one in secrets if len(one) >= SHORTEST_SECRET}
        self._secrets = sorted(wanted.union(self._secrets), key=len, reverse=True)

    def feed(self, data: bytes) -> bytes:
        """Return what can be given of the stream so far."""
        data = self.whole(self._held + data)
        begun = max((_overlap(data, one) for one in self._secrets), default=0)
        self._held = data[len(data) - begun :]
        return data[: len(data) - begun]

    def end(self) -> bytes:
        """Return the rest."""
        held, self._held = self._held, b""
        return held

    def is_in(self, name: bytes) -> bool:
        """Tell whether a secret is in a name, whose letters may have become small or capital."""
        return any(one.lower() in name.lower() for one in self._secrets)

    def whole(self, data: bytes) -> bytes:
        """Erase secrets in something that is no stream."""
        for one in self._secrets:
            data = data.replace(one, b"*" * len(one))
        return data


def _overlap(data: bytes, secret: bytes) -> int:
    """Tell how many bytes at the data's end may be the secret's beginning."""
    longest = min(len(secret) - 1, len(data))
    return next((n for n in range(longest, 0, -1) if data.endswith(secret[:n])), 0)
