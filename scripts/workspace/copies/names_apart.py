"""Names of a sandbox's files that a directory here cannot hold apart.

Many file systems of macOS and Windows take `Makefile` and `makefile` for one file, or an `é` of
one character and one of two: the content of one would end up in the other.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

from scripts.machine.beneath import Beneath
from scripts.workspace.copies import own_directory
from scripts.workspace.copies.reconcile import is_in
from scripts.workspace.copies.tree import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

_PROBE = "É"
"""Two letters of it differ in case, and it can be written as one character or as two."""


def blocked(there: Iterable[str], here: Collection[str], directories: Iterable[Path]) -> set[str]:
    """Name the paths that cannot come: each has a twin that is here, or comes in its place.

    Args:
        there: Paths of the sandbox's copy.
        here: Paths of this one.
        directories: Where they would come to.
    """
    twins = _groups(there, _folded)
    if not twins:
        return set()
    keys = [key for one in directories if (key := _key(one))]
    found: set[str] = set()
    for key in keys:
        for group in _groups(there, key):
            stays = next((one for one in group if one in here), group[0])
            found |= {one for one in group if one != stays}
    return {path for path in there if is_in(path, found)} if found else found


def _groups(paths: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    """Put together what has the same key; groups of one are left out."""
    found = defaultdict(list)
    for path in sorted(paths):
        found[key(path)].append(path)
    return [group for group in found.values() if len(group) > 1]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _form(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _key(directory: Path) -> Callable[[str], str] | None:
    """Look what the file system of a directory takes for one name; None if it tells all apart."""
    own_directory.make_ours(str(directory))
    name = f"{OURS}/{_PROBE}{secrets.token_hex(4)}"
    with ExitStack() as stack:
        door = stack.enter_context(Beneath(directory))
        stack.callback(door.remove, name)
        door.write(name, b"")
        folds_case = door.status(name.lower()) is not None
        folds_form = door.status(unicodedata.normalize("NFD", name)) is not None
    if folds_case:
        return _folded
    return _form if folds_form else None
