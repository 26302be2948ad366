"""The directory in sandboxes that have a copy of it: sent before, brought back after.

Nothing is lost: what cannot be brought back stays in the sandbox, and the sandbox stays.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import plain_text
from scripts.errors import DataError, NddtError, TimeIsUpError, TransportLostError
from scripts.machine import console, files, free_space, state
from scripts.machine.beneath import Beneath
from scripts.naming import said
from scripts.run import images
from scripts.run.remote_copy import Remote
from scripts.transport.line import PATIENCE_S, DeadLineError
from scripts.workspace.copies import tree
from scripts.workspace.copies.exchange import Copies
from scripts.workspace.copies.staying import Staying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.plan import Plan
    from scripts.run.work import Work
    from scripts.transport.line import Line
    from scripts.workspace.copies.report import Report

log = logging.getLogger("nddt")

IMPATIENCE_S = 10
"""How long to try again after what was done there has failed, or was ended by the user."""


# -- what is known of a sandbox's copy --------------------------------------------------------


def _notes(work: Work, name: str) -> Path:
    return state.copy_directory(work.environ, work.key(name))


def _settings_file(work: Work, directory: Path) -> str:
    """Name the path in a directory of its .env file, which holds keys that are for nddt."""
    path = os.path.relpath(directory / work.settings.env_file, directory)
    return path if tree.is_inside(path) else ""


@contextmanager
def both_copies(work: Work, line: Line, directory: Path) -> Iterator[Copies]:
    """Have both copies, for one process at a time."""
    notes = _notes(work, line.sandbox)
    files.make_private(notes.parent)
    with files.lock(notes):
        remote = Remote(line, work.environ)
        try:
            yield Copies(
                here=directory,
                other=remote,
                memory=notes / "known.json",
                notes=state.staying_directory(work.environ, directory),
                private=_settings_file(work, directory),
                reserve=work.settings.disk_reserve_gib * free_space.GIB,
            )
        finally:
            remote.close()


def _lasting(line: Line, act: Callable[[], Report], patience_s: float) -> Report:
    """Do it, over as many connections as it takes."""
    try:
        return act()
    except TransportLostError as error:
        if not line.is_durable or line.connection.is_open():
            raise
        line.errors = error.detail
    for _ in line.again(patience_s):
        try:
            return act()
        except DeadLineError:
            raise
        except TransportLostError as error:
            if line.connection.is_open():
                raise
            line.errors = error.detail
    raise TransportLostError("the connection to the sandbox broke")


# -- there and back ---------------------------------------------------------------------------


def _exchanged(
    work: Work,
    line: Line,
    directory: Path,
    act: Callable[[Copies], Report],
    done: str,
    patience_s: float = PATIENCE_S,
) -> Report:
    """Make an exchange, and tell what has been `done`.

    Raises:
        DataError: The directory here cannot be read or changed.
    """
    images.need_copying(work)

    def once() -> Report:
        with both_copies(work, line, directory) as copies:
            return act(copies)

    try:
        report = _lasting(line, once, patience_s)
    except OSError as error:
        reason = f"{error.filename or directory}: {error.strerror or error}"
        raise DataError(f"the directory cannot be used: {reason}", "see to it") from error
    _tell(report, done)
    return report


def push(work: Work, line: Line, directory: Path) -> Report:
    """Send what has changed here, but for what is to stay (`staying.py`)."""
    return _exchanged(work, line, directory, Copies.push, "sent")


def let_go(work: Work, directory: Path, is_agreed: Callable[[list[str]], bool]) -> None:
    """Let copies have what was ignored before the rules changed, if the user agrees.

    Raises:
        DataError: The directory here cannot be read.
    """
    private = _settings_file(work, directory)
    place = state.staying_directory(work.environ, directory)
    with usable(directory):
        Staying(directory, place, private).let_go(is_agreed)


def pull(
    work: Work,
    line: Line,
    directory: Path,
    patience_s: float = PATIENCE_S,
    may_delete: Callable[[int], bool] | None = None,
) -> Report:
    """Bring back what has changed in the sandbox.

    Args:
        work: The provider and the settings.
        line: The way to the sandbox.
        directory: The one here.
        patience_s: How long to try again if the connection breaks.
        may_delete: Asked if most files are gone there, with their number; None: they stay here.

    Raises:
        DataError: Something of it could not be brought back.
    """
    pulled = partial(Copies.pull, may_delete=may_delete or _may_not)
    report = _exchanged(work, line, directory, pulled, "brought back", patience_s)
    if report.failed:
        raise DataError(f"{len(report.failed)} files could not be brought back")
    return report


def ask_to_delete(count: int) -> bool:
    """Ask before most files of a directory are deleted."""
    return console.ask(f"The sandbox has lost {count} files, most of its copy: delete them here?")


def _may_not(_count: int) -> bool:
    return False


def _tell(report: Report, done: str) -> None:
    if report.changed:
        log.info("%d files and directories %s", len(report.changed), done)
    for path, reason in list(report.failed.items())[:10]:
        log.warning("%s was not %s: %s", path, done, reason)
    if report.staying:
        log.warning(
            "%d files that were ignored stay here, though the rules have changed since: %s — "
            "%s sends them",
            len(report.staying),
            plain_text.some(report.staying),
            said("push"),
        )
    if report.is_strange:
        log.warning(
            "the sandbox's copy is not what the last exchange left, but an earlier or another one: "
            "nothing of here is deleted or replaced by it"
        )
    if report.lost:
        log.warning(
            "%d files are gone in the sandbox, most of its copy, and stay here — %s deletes them",
            report.lost,
            said("pull --yes"),
        )
    if report.commits:
        log.warning(
            "the sandbox has commits of its own on %s — see them with: git log %s",
            plain_text.some([one.split("/", 3)[3] for one in report.commits]),
            report.commits[0],
        )
    if report.conflicts:
        some = plain_text.some(report.conflicts)
        where = f"; the sandbox's versions are in {report.saved}" if report.saved else ""
        log.warning(
            "%d changed both here and in the sandbox, and stay as they are here: %s%s",
            len(report.conflicts),
            some,
            where,
        )


def session(work: Work, line: Line, made: Plan, act: Callable[[], int]) -> int:
    """Send the directory, do something in the sandbox, and bring back what that has changed.

    Args:
        work: The provider and the settings.
        line: The way to the sandbox, which stays if there is something left to bring back.
        made: The plan.
        act: Gives an exit code.

    Returns:
        That exit code; instead of 0 it is 65 if something was changed on both sides.
    """
    directory = made.sandbox.workspace
    if directory is None:
        return act()
    conflicts = push(work, line, directory).conflicts
    if made.sandbox.is_readonly:
        return act()
    try:
        code = act()
    except BaseException:
        try:
            pull(work, line, directory, IMPATIENCE_S)
        except BaseException as error:
            line.stays = True
            log.warning("%s — %s", *_left(line, error))
            if not isinstance(error, NddtError):
                raise
        raise
    try:
        report = pull(work, line, directory, may_delete=ask_to_delete)
    except NddtError as error:
        line.stays = True
        raise type(error)(*_left(line, error), detail=error.detail) from error
    except BaseException as error:
        line.stays = True
        log.warning("%s — %s", *_left(line, error))
        raise
    return code or (DataError.exit_code if conflicts or report.is_incomplete else 0)


def _left(line: Line, error: BaseException) -> tuple[str, str]:
    """Say that there is work in the sandbox, and how it is fetched."""
    reason = "the time limit is over" if isinstance(error, TimeIsUpError) else "you have ended it"
    reason = error.message if isinstance(error, NddtError) else reason
    return (
        f"what was done in {line.sandbox} is still there: {reason}",
        f"fetch it with: {said(f'pull --name {line.sandbox}')}",
    )


@contextmanager
def usable(place: Path) -> Iterator[None]:
    """Say that a place on this machine cannot be used.

    Raises:
        DataError: That.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{place} cannot be used: {reason}", "see what is there") from error


@contextmanager
def compared(work: Work, line: Line, directory: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Have what differs side by side, as `here` and `sandbox` in a directory.

    Returns:
        That directory, and the paths.
    """
    images.need_copying(work)
    with tempfile.TemporaryDirectory(prefix="nddt-") as made, Beneath(made) as door:
        with (
            door.at("sandbox", make=0o700) as there,
            both_copies(work, line, directory) as copies,
        ):
            trees, paths = copies.changes()
            failed = copies.fetch(trees, [path for path in paths if path in trees.there], there)
        with usable(directory), Beneath(directory) as source, door.at("here", make=0o700) as here:
            for path in paths:
                if reason := _copy_one(source, path, here, copies.carrier.budget(here)):
                    failed[path] = reason
        for path, reason in failed.items():
            log.warning("%s is not shown: %s", path, reason)
        yield Path(made), paths


def _copy_one(source: Beneath, path: str, target: Beneath, room: int) -> str:
    """Copy a file or a link, if it is there; return why that cannot be."""
    with suppress(OSError):
        found = source.status(path)
        if found and stat.S_ISLNK(found.st_mode):
            target.symlink(path, source.target(path), make=0o700)
        elif found and stat.S_ISREG(found.st_mode):
            if found.st_size > room:
                return f"there is no room for its {found.st_size} bytes"
            mode, limit = found.st_mode | 0o600, found.st_size
            target.copy_in(source, path, path, limit=limit, mode=mode, make=0o700)
    return ""
