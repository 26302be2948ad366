"""Files that go into a sandbox, come out of it, or make programs here run something."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import plain_text
from scripts.configuration import reading
from scripts.errors import DataError, UsageError
from scripts.machine import console, free_space, git
from scripts.run import connections, housekeeping, sandboxes
from scripts.run.work import wanted
from scripts.workspace import change_records, protected, restoring

if TYPE_CHECKING:
    from scripts.commands.common import Common
    from scripts.contracts.sandbox import Sandbox
    from scripts.run.work import Work
    from scripts.transport.line import Line

log = logging.getLogger("nddt")


def copy(common: Common, source: str, target: str) -> None:
    """Copy a file or a directory into a sandbox, or out of it."""
    from scripts.workspace import copying  # noqa: PLC0415  (only for this)

    copying.check_copy(source, target)
    work = common.work()
    want = wanted(work)
    connection = connections.existing(work, want)
    changed: tuple[Path, ...] = ()
    if source.startswith(copying.MARK):
        place = Path(target).absolute()
        changed = (place if place.is_dir() else place.parent,)
    with protected.watched(work.environ, work.settings.directory, changed):
        reserve = work.settings.disk_reserve_gib * free_space.GIB
        copying.copy(connection, source, target, reserve=reserve)


def _work_of_copy(common: Common) -> Work:
    work = replace(common, persistent=True).work()
    return replace(work, settings=replace(work.settings, name=housekeeping.this_name(work)))


def _copy_of(work: Work) -> tuple[Path, Line, Sandbox | None]:
    """Find a sandbox's copy of a directory.

    Returns:
        That directory, the way to the copy, and the sandbox if it had to be looked up.
    """
    if known := connections.known_copy(work, wanted(work)):
        return *known, None
    found = sandboxes.existing(work, work.settings.name)
    if not found.is_synced:
        raise UsageError(
            f"sandbox {found.name} has no copy of the directory",
            "NDDT_WORKSPACE=sync makes one that has",
        )
    return Path(found.workspace), connections.existing_line(work, wanted(work)), found


def push(common: Common) -> int:
    """Send what has changed here to the sandbox's copy."""
    from scripts.run import directory_copy  # noqa: PLC0415  (only for copies)

    def ask_to_send(paths: list[str]) -> bool:
        question = f"Send {len(paths)} files that were ignored before the rules changed, from now"
        return common.yes or console.ask(f"{question} on: {plain_text.some(paths)}?")

    work = _work_of_copy(common)
    here = None if common.name else work.settings.directory
    if here:  # also where there is no sandbox, for those to come
        directory_copy.let_go(work, here, ask_to_send)
    directory, line, _ = _copy_of(work)
    if directory != here:
        directory_copy.let_go(work, directory, ask_to_send)
    report = directory_copy.push(work, line, directory)
    return DataError.exit_code if report.conflicts or report.failed else 0


def pull(common: Common) -> int:
    """Bring back what has changed in the sandbox's copy."""
    from scripts.run import directory_copy  # noqa: PLC0415  (only for copies)

    work = _work_of_copy(common)
    directory, line, found = _copy_of(work)
    with protected.watched(work.environ, work.settings.directory, (directory,)):
        report = directory_copy.pull(
            work,
            line,
            directory,
            may_delete=lambda count: common.yes or directory_copy.ask_to_delete(count),
        )
    if found and housekeeping.is_orphaned(work, found):
        sandboxes.remove_passed(work, found)
    return DataError.exit_code if report.is_incomplete else 0


def diff(common: Common) -> None:
    """Show what `pull` would bring."""
    from scripts.run import directory_copy  # noqa: PLC0415  (only for copies)

    work = _work_of_copy(common)
    directory, line, _ = _copy_of(work)
    with directory_copy.compared(work, line, directory) as (place, paths):
        log.info("%d files and directories differ", len(paths))
        console.show_difference(git.difference(str(place), "here", "sandbox"), work.environ)


def protected_files(*, restored: bool, accepted: bool) -> None:
    """Print how files that programs of this machine act on were changed; restore or accept it."""
    console.set_up_logging(verbose=False)
    if restored and accepted:
        raise UsageError("--restore and --accept exclude each other", "give one of them")
    loaded = reading.from_here()
    here = loaded.process_environment, loaded.directory
    protected.tell_of_changes(*here)
    if restored:
        log.info("%d files are as they were", restoring.restore(*here))
    elif accepted:
        change_records.accept(*here)
    else:
        for one in change_records.recorded(*here):
            print("\n".join(restoring.difference(one)))
