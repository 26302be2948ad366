"""The audit log: a line of JSON for each action; what, when, where, by whom, how it ended.

Never what the agent was asked or said, nor the value of a variable.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import signals
from scripts.errors import EndedBySignalError, NddtError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.settings import Settings

log = logging.getLogger("nddt")

LIMIT = 4 << 20
"""Bytes after which a new file is begun."""
KEPT = 3
"""How many full files are kept beside it, as NAME.1 and so on."""


@dataclass(kw_only=True)
class Record:
    """One action, filled in while it goes on."""

    action: str
    begun: float = field(default_factory=time.time)
    settings: Settings | None = None
    sandboxes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    code: int | None = 0
    """The exit code; None where it is never known."""

    def write(self) -> None:
        """Write the line, if it is known where; a log that cannot be written is worth a warning."""
        if self.settings is None:
            return
        from scripts import state  # noqa: PLC0415  (most of what `import tasks` does needs neither)

        default = state.state_directory(self.settings.process_environment) / "audit.log"
        path = Path(self.settings.log_file or default)
        try:
            with signals.ignored():
                _append(path, self._line(self.settings))
        except OSError as error:
            hint = "set NDDT_LOG to a file that can, or to /dev/null"
            log.warning("the log %s cannot be written: %s — %s", path, error.strerror, hint)

    def _line(self, settings: Settings) -> bytes:
        import json  # noqa: PLC0415
        from datetime import UTC, datetime  # noqa: PLC0415

        shown = {
            "time": datetime.fromtimestamp(self.begun, UTC).isoformat(timespec="milliseconds"),
            "action": self.action,
            "user": settings.owner,
            "provider": settings.provider,
            "sandboxes": self.sandboxes,
            "workspace": str(settings.directory) if settings.workspace != "none" else "",
            **self.facts,
            "exit": self.code,
            "seconds": round(time.time() - self.begun, 3),
        }
        return json.dumps(shown).encode("ascii") + b"\n"


_current: ContextVar[Record | None] = ContextVar("_current", default=None)


@contextmanager
def recorded(action: str) -> Iterator[Record]:
    """Write a line when an action ends, however it does, once it is known about what it is."""
    record = Record(action=action)
    token = _current.set(record)
    try:
        yield record
    except BaseException as error:
        record.code = _exit_code(error)
        raise
    finally:
        _current.reset(token)
        record.write()


def _exit_code(error: BaseException) -> int:
    if isinstance(error, NddtError | EndedBySignalError):
        return error.exit_code
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def about(settings: Settings) -> None:
    """Note whose action it is, and where; without this it is none that is worth a line."""
    if record := _current.get():
        record.settings = settings


def sandbox(name: str) -> None:
    """Note that the action is about a sandbox."""
    record = _current.get()
    if record and name not in record.sandboxes:
        record.sandboxes.append(name)


def note(**facts: str) -> None:
    """Note what else there is to know."""
    if record := _current.get():
        record.facts |= facts


# -- the file ---------------------------------------------------------------------------------


def _append(path: Path, line: bytes) -> None:
    """Write a line at once, so that those of several processes do not mix."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "ab", buffering=0, opener=_at_once) as file:
        if file.write(line) != len(line):
            raise OSError(0, "the disk is full")
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_size > LIMIT:
            _rotate(path, file.fileno())


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o600)  # a pipe would wait for its reader


def _rotate(path: Path, descriptor: int) -> None:
    """Put a full file aside, unless another process does; what is being written goes along."""
    import fcntl  # noqa: PLC0415  (once in a long while)

    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            for number in range(KEPT - 1, 0, -1):
                with suppress(FileNotFoundError):
                    Path(f"{path}.{number}").replace(f"{path}.{number + 1}")
            path.replace(f"{path}.1")
