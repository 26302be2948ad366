"""The directory in sandboxes that have a copy of it: sent before, brought back after.

Nothing is lost: what cannot be brought back stays in the sandbox, and the sandbox stays.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import connections, console, inside, lifecycle, process, state, tree
from scripts.connections import PATIENCE_S, DeadLineError
from scripts.errors import DataError, NddtError, TransportLostError
from scripts.sync import Copies, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scripts.connections import Line
    from scripts.lifecycle import Work
    from scripts.plan import Plan
    from scripts.providers import Sandbox

log = logging.getLogger("nddt")

PLACE = "/workspace"
IMPATIENCE_S = 10
"""How long to try again after what was done there has failed, or was ended by the user."""


class Remote:
    """The copy in a sandbox: `tree.py` runs there for as long as its block lasts.

    Args:
        line: The way there.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        source = Path(tree.__file__).read_bytes()
        command = inside.python("tree", len(source), PLACE)
        argv = line.connection.session_argv("-T", "nddt", command)
        self._process = process.spawn(argv, pipes=True)
        self._send(source)

    def _send(self, data: bytes) -> None:
        if self._process.stdin:
            with suppress(BrokenPipeError):  # the answer will not come, either
                self._process.stdin.write(data)
                self._process.stdin.flush()

    def ask(self, wish: Mapping[str, Any]) -> None:
        """Send a wish."""
        self._send(json.dumps(wish, separators=(",", ":")).encode() + b"\n")

    def answer(self) -> Any:  # noqa: ANN401  (JSON)
        """Wait for its answer.

        Raises:
            TransportLostError: The connection broke.
            DataError: The sandbox cannot do it.
        """
        line = self._process.stdout.readline() if self._process.stdout else b""
        if line.endswith(b"\n"):
            return json.loads(line)
        self._process.kill()
        self._process.wait()
        errors = (
            self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
        )
        if "Traceback" in errors:
            raise DataError(
                f"the copy in the sandbox cannot be read: {errors.strip().splitlines()[-1]}",
                f"look at it with: inv shell --name {self._line.sandbox}",
            )
        raise TransportLostError("the connection to the sandbox broke", detail=errors)

    def rsync(self, words: Sequence[str], *, source: str, target: str) -> tuple[str, ...]:
        """Give the command of rsync over the same connection."""
        shell = shlex.join(self._line.connection.session_argv())
        paths = (f"nddt:{PLACE}/{p[1:]}" if p.startswith(":") else p for p in (source, target))
        return (*words, "-e", shell, *paths)

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        if process.wait(self._process, 5) is None:
            self._process.kill()
            self._process.wait()


# -- what is known of a sandbox's copy --------------------------------------------------------


def _notes(work: Work, name: str) -> Path:
    return state.copy_directory(work.environ, work.key(name))


def _settings_file(work: Work, directory: Path) -> str:
    """Give the path in a directory of its .env file, which holds keys that are for nddt."""
    path = os.path.relpath(directory / work.settings.env_file, directory)
    return path if tree.is_inside(path) else ""


@contextmanager
def _copies(work: Work, line: Line, directory: Path) -> Iterator[Copies]:
    """Have both copies, for one process at a time."""
    notes = _notes(work, line.sandbox)
    notes.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with state.lock(notes):
        remote = Remote(line)
        try:
            yield Copies(
                here=directory,
                other=remote,
                memory=notes / "known.json",
                private=_settings_file(work, directory),
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


def need(work: Work) -> None:
    """Make sure that what copies is installed here."""
    if not (process.find("rsync") and process.find("git")):
        from scripts import engine  # noqa: PLC0415  (only where something is missing)

        engine.ensure_installed(("rsync", "git"), yes=work.yes, environ=work.environ)


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
    need(work)

    def once() -> Report:
        with _copies(work, line, directory) as copies:
            return act(copies)

    try:
        report = _lasting(line, once, patience_s)
    except OSError as error:
        reason = f"{error.filename or directory}: {error.strerror or error}"
        raise DataError(f"the directory cannot be used: {reason}", "see to it") from error
    _tell(report, done)
    return report


def push(work: Work, line: Line, directory: Path) -> Report:
    """Send what has changed here."""
    return _exchanged(work, line, directory, Copies.push, "sent")


def pull(work: Work, line: Line, directory: Path, patience_s: float = PATIENCE_S) -> Report:
    """Bring back what has changed in the sandbox.

    Args:
        work: See there.
        line: The way to the sandbox.
        directory: The one here.
        patience_s: How long to try again if the connection breaks.

    Raises:
        DataError: Something of it could not be brought back.
    """
    report = _exchanged(work, line, directory, Copies.pull, "brought back", patience_s)
    if report.failed:
        raise DataError(f"{len(report.failed)} files could not be brought back")
    return report


def _tell(report: Report, done: str) -> None:
    if report.changed:
        log.info("%d files and directories %s", len(report.changed), done)
    for path, reason in list(report.failed.items())[:10]:
        log.warning("%s was not %s: %s", console.one_line(path), done, console.one_line(reason))
    if report.conflicts:
        some = ", ".join(map(console.one_line, report.conflicts[:5]))
        some += " …" if len(report.conflicts) > 5 else ""
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
        work: See there.
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
        conflicts += pull(work, line, directory).conflicts
    except NddtError as error:
        line.stays = True
        raise type(error)(*_left(line, error), detail=error.detail) from error
    except BaseException as error:
        line.stays = True
        log.warning("%s — %s", *_left(line, error))
        raise
    return code or (DataError.exit_code if conflicts else 0)


def _left(line: Line, error: BaseException) -> tuple[str, str]:
    """Say that there is work in the sandbox, and how it is fetched."""
    reason = error.message if isinstance(error, NddtError) else "you have ended it"
    return (
        f"what was done in {line.sandbox} is still there: {reason}",
        f"fetch it with: inv pull --name {line.sandbox}",
    )


# -- before a sandbox goes --------------------------------------------------------------------


def rescue(work: Work, sandbox: Sandbox) -> None:
    """Put what has changed in a copy aside, before it goes.

    Raises:
        NddtError: That is not possible.
    """
    need(work)
    work = replace(work, settings=replace(work.settings, name=sandbox.name))
    try:
        line = connections.existing_line(work, lifecycle.wanted(work))
        place, count = _rescued(work, line, Path(sandbox.workspace))
    except NddtError as error:
        raise type(error)(
            f"what was done in {sandbox.name} was never fetched, and cannot be now: "
            f"{error.message}",
            f"to lose it: inv cleanup --name {sandbox.name} --discard --yes",
        ) from error
    if count:
        log.warning("%d files of %s that were never fetched are in %s", count, line.sandbox, place)


def _rescued(work: Work, line: Line, directory: Path) -> tuple[Path, int]:
    is_there = directory.is_dir()
    ours = directory / tree.OURS if is_there else state.state_directory(work.environ)
    place = ours / "rescue" / line.sandbox
    with (
        tempfile.TemporaryDirectory(prefix="nddt-") as nothing,
        _copies(work, line, directory if is_there else Path(nothing)) as copies,
    ):
        trees, paths = copies.changes()
        files = [path for path in paths if path in trees.there]
        if files:
            if is_there:
                tree.make_ours(str(directory))
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            copies.fetch(trees, files, place)
    return place, len(files)


@contextmanager
def compared(work: Work, line: Line, directory: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Have what differs side by side, as `here` and `sandbox` in a directory.

    Gives that directory, and the paths.
    """
    need(work)
    with tempfile.TemporaryDirectory(prefix="nddt-") as made:
        here, there = Path(made, "here"), Path(made, "sandbox")
        here.mkdir()
        there.mkdir()
        with _copies(work, line, directory) as copies:
            trees, paths = copies.changes()
            copies.fetch(trees, [path for path in paths if path in trees.there], there)
        for path in paths:
            source, target = directory / path, here / path
            if source.is_symlink() or source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        yield Path(made), paths
