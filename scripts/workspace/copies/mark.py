"""What tells a copy from any other, and from what it was before.

It lies in the home directory of the sandbox, where no clean-up of the tree reaches it. This file
is sent to a sandbox beside `answering.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os

from scripts.machine.beneath import Beneath
from scripts.workspace.copies import own_directory
from scripts.workspace.copies.tree import OURS

EXCHANGES = 1000
"""So many are remembered: each machine that has the copy in common asks for its own last one."""
_PLACE = ".local/state/nddt/copies"
_MOST = 64 + 16 * EXCHANGES


def look_up_identity(root: str, new: str, exchange: str) -> tuple[str, bool]:
    """Look up the identity of a copy, which becomes `new` where there is none yet.

    A sandbox may be gone, and another one of its name be there: what was known of the first
    says nothing about the second. And its disk may come back from before an exchange.

    Args:
        root: Of the tree.
        new: An identity that nobody has.
        exchange: The last one that is remembered here.

    Returns:
        Also whether the copy remembers that exchange, too.
    """
    identity, *exchanges = _read(root) or [new]
    if identity == new:
        _write(root, [identity])
    return identity, exchange in exchanges


def note_exchange(root: str, exchange: str) -> None:
    """Remember an exchange that is over."""
    if known := _read(root):
        identity, *exchanges = known
        _write(root, [identity, *exchanges[1 - EXCHANGES :], exchange])


def _file(root: str) -> str:
    return f"{_PLACE}/{hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]}"


def _read(root: str) -> list[str]:
    """Read the identity, and the exchanges after it; nothing if there is no such file."""
    for place, path in _places(root):
        try:
            with Beneath(place) as door:
                found = json.loads(door.read(path, _MOST))
        except (OSError, ValueError):
            continue
        if found and isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    return []


def _write(root: str, known: list[str]) -> None:
    """Write it, into the tree itself where there is no home directory to write to."""
    for place, path in _places(root):
        with contextlib.suppress(OSError):
            if place == root:
                own_directory.make_ours(root)
            with Beneath(place) as door:
                door.write(path, json.dumps(known).encode("ascii"))
                return


def _places(root: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (os.path.expanduser("~"), _file(root)), (root, f"{OURS}/id")
