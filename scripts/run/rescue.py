"""What was done in a copy and never fetched, put aside before its sandbox goes."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.errors import DataError, NddtError
from scripts.machine import state
from scripts.machine.beneath import Beneath
from scripts.naming import said
from scripts.run import connections, images
from scripts.run.directory_copy import both_copies, usable
from scripts.run.work import wanted
from scripts.workspace.copies import own_directory, tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.contracts.sandbox import Sandbox
    from scripts.run.work import Work
    from scripts.transport.line import Line

log = logging.getLogger("nddt")


def rescue(work: Work, sandbox: Sandbox) -> None:
    """Put what has changed in a copy aside, before it goes.

    Raises:
        NddtError: That is not possible.
    """
    images.need_copying(work)
    work = replace(work, settings=replace(work.settings, name=sandbox.name), is_last=True)
    try:
        line = connections.existing_line(work, wanted(work))
        place, count = _rescued(work, line, Path(sandbox.workspace))
    except NddtError as error:
        raise type(error)(
            f"what was done in {sandbox.name} was never fetched, and cannot be now: "
            f"{error.message}",
            f"to lose it: {said(f'cleanup --name {sandbox.name} --discard --yes')}",
        ) from error
    if count:
        log.warning("%d files of %s that were never fetched are in %s", count, line.sandbox, place)


def _rescued(work: Work, line: Line, directory: Path) -> tuple[Path, int]:
    is_there = directory.is_dir()
    root = directory if is_there else state.state_directory(work.environ)
    inside_root = f"{tree.OURS}/rescue/{line.sandbox}" if is_there else f"rescue/{line.sandbox}"
    if os.path.lexists(root / inside_root):  # what was put aside before stays
        inside_root += time.strftime("-%Y%m%d-%H%M%S")
    with (
        tempfile.TemporaryDirectory(prefix="nddt-") as nothing,
        both_copies(work, line, directory if is_there else Path(nothing)) as copies,
    ):
        trees, paths = copies.changes()
        files = [path for path in paths if path in trees.there]
        if files:
            with usable(root / inside_root):
                if is_there:
                    own_directory.make_ours(str(directory))
                with Beneath(root) as door, door.at(inside_root, make=0o700) as place:
                    failed = copies.fetch(trees, files, place)
            _check_all(failed)
    return root / inside_root, len(files)


def _check_all(failed: Mapping[str, str]) -> None:
    for path, reason in list(failed.items())[:10]:
        log.warning("%s was not fetched: %s", path, reason)
    if failed:
        raise DataError(f"{len(failed)} files could not be brought back")
