"""The copy in a sandbox, which answers what is asked of it.

This file's text is sent to the sandbox and runs there, so it needs Python's standard library,
git, and what is sent along (`SENT`), alone.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from scripts import errors, plain_text
from scripts.machine import beneath, descriptors, git, git_places, git_settings, search_path
from scripts.machine.beneath import Beneath
from scripts.workspace.copies import changing, file_stream, ignored, mark, own_directory, tree
from scripts.workspace.copies.changing import Operation
from scripts.workspace.copies.file_stream import Stream
from scripts.workspace.copies.tree import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


SENT = (
    *(plain_text, errors, descriptors, beneath, search_path, git_places, git, git_settings),
    *(ignored, tree, own_directory, mark, changing, file_stream),
)
"""Modules that are sent along, each after those that it imports."""


def main(root: str) -> None:
    """Fulfil one wish a line until there is none: see `answer`."""
    # All that git and others print must not be taken for an answer.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    given = sys.stdin.buffer
    while line := given.readline():
        for piece in answer(root, json.loads(line), given.read, given.readline):
            out.write(piece)
        out.flush()


def answer(
    root: str,
    wish: dict[str, Any],
    read: Callable[[int], bytes],
    line: Callable[[], bytes],
) -> Iterator[bytes]:
    """Do what `Copies` in exchange.py asks for.

    Args:
        root: Of the tree.
        wish: What is to be done.
        read: Reads bytes that follow the wish.
        line: Reads a line of them.

    Returns:
        Lines of JSON, an empty one at the end; but files if they were asked for, as `pack` reads
        them.
    """
    if wish["do"] == "fetch":
        for path, limit in wish["files"]:
            yield from file_stream.pack(root, path, limit)
        return
    for row in _rows(root, wish, read, line):
        yield json.dumps(row, separators=(",", ":")).encode() + b"\n"
    yield b"\n"


def _rows(
    root: str, wish: dict[str, Any], read: Callable[[int], bytes], line: Callable[[], bytes]
) -> Iterator[Any]:
    do = wish["do"]
    if do == "entries":
        found = _entries_of_copy(root)
        is_known = tree.checksum(found) == wish["unless"]
        yield *mark.look_up_identity(root, wish["identity"], wish["exchange"]), is_known
        yield from ((path, *one) for path, one in found.items() if not is_known)
    elif do == "look":
        yield from ((path, *now) for path in wish["paths"] if (now := tree.look(root, path)))
    elif do == "digests":
        yield from ((path, tree.digest(root, path)) for path in wish["paths"])
    elif do == "prepare":
        # One exchange at a time looks at a sandbox.
        own_directory.discard(root, *own_directory.stages(root))
        own_directory.prepare(root, wish["stage"])
    elif do == "receive":
        with Beneath(os.path.join(root, wish["stage"])) as stage:
            came = [
                (path, file_stream.unpack(stage, path, Stream(read, line, size)))
                for path, size in wish["files"]
            ]
        # Only now, since nobody reads while he writes.
        yield from ((path, reason) for path, reason in came if reason)
    elif do == "note":
        mark.note_exchange(root, wish["exchange"])
    elif do == "discard":
        own_directory.discard(root, wish["stage"])
    else:
        stage_path = os.path.join(root, wish["stage"])
        done = changing.apply(root, stage_path, [_operation(one) for one in wish["operations"]])
        yield from ((path, one.entry, one.reason) for path, one in done.items())


def _entries_of_copy(root: str) -> dict[str, Entry]:
    """Look at all of a copy, and remove pipes that would have git wait for ever.

    They never leave it anyway, and nobody gets at what is in the copy while they are there.
    """
    try:
        return tree.entries(root)
    except errors.DataError:
        pipes = [*git_places.waited_for(root)]
        if not pipes:
            raise
    for path in pipes:
        os.unlink(path)
    return tree.entries(root)


def _operation(read: Any) -> Operation:
    """Read an operation that was JSON."""
    path, *both = read
    return Operation(path, *(Entry(*one) if one else None for one in both))
