"""The audit log: a line of JSON for each action; what, when, where, by whom, how it ended.

Never what the agent was asked or said, nor the value of a variable.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scripts.errors import EndedBySignalError, NddtError
from scripts.machine import signals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scripts.machine.bind_sources import Bind

log = logging.getLogger("nddt")

LIMIT = 4 << 20
"""Bytes after which a new file is begun."""
KEPT = 3
"""How many full files are kept beside it, as NAME.1 and so on."""


class Subject(Protocol):
    """Whose action it is, and where: the settings of a command."""

    @property
    def process_environment(self) -> Mapping[str, str]:
        """Our own environment."""

    @property
    def log_file(self) -> str:
        """Path of the log; empty for the usual one."""

    @property
    def owner(self) -> str:
        """The user, as user@host."""

    @property
    def provider(self) -> str:
        """Where the sandboxes are."""

    @property
    def directory(self) -> Path:
        """The caller's directory."""

    @property
    def workspace(self) -> str:
        """How a sandbox has it; `none` for not at all."""

    @property
    def mounts(self) -> Sequence[Bind]:
        """What else of this machine a sandbox has."""


@dataclass(kw_only=True)
class Record:
    """One action, filled in while it goes on."""

    action: str
    begun: float = field(default_factory=time.time)
    settings: Subject | None = None
    sandboxes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    code: int | None = 0
    """The exit code; None where it is never known."""

    def write(self) -> None:
        """Write the line, if it is known where; a log that cannot be written is worth a warning."""
        if self.settings is None:
            return
        from scripts.machine import state  # noqa: PLC0415  (most of what `import tasks` does needs neither)
        from scripts.machine.rotating_log import append  # noqa: PLC0415  (as below)

        default = state.state_directory(self.settings.process_environment) / "audit.log"
        path = Path(self.settings.log_file or default)
        try:
            with signals.ignored():
                append(
                    path,
                    self._line(self.settings),
                    most=LIMIT,
                    kept=KEPT,
                    changeable=_changeable(self.settings),
                )
        except OSError as error:
            hint = "set NDDT_LOG to a file that can, or to /dev/null"
            log.warning("the log %s cannot be written: %s — %s", path, error.strerror, hint)

    def _line(self, settings: Subject) -> bytes:
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


def about(settings: Subject) -> None:
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


def _changeable(settings: Subject) -> list[Path]:
    """Tell which directories a sandbox can change."""
    found = [one.source for one in settings.mounts if not one.readonly]
    return [*found, settings.directory] if settings.workspace != "none" else found
