"""The demo's model, for an agent that may go on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts import agents
from scripts.errors import UsageError
from scripts.machine import files, state
from scripts.run import housekeeping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scripts.demo.model_endpoint import Endpoint
    from scripts.run.work import Work


def port_note(work: Work) -> Path:
    """Name the file with the port of a demo whose agent lasts, in tmux."""
    key = work.key(housekeeping.this_name(work))
    return state.sandbox_directory(work.environ, key) / "demo-port"


def endpoint(work: Work, note: Path | None) -> Endpoint:
    """Make the endpoint of a demo; an agent that lasts finds the next one at the same port.

    Raises:
        UsageError: The agent asks no model.
    """
    agent = agents.get(work.settings.agent)
    reply = agent.demo()
    if reply is None:
        raise UsageError(f"{agent.TITLE} asks no model", "leave --demo out")
    from scripts.demo.model_endpoint import Endpoint  # noqa: PLC0415  (nobody else needs it)

    if note is None:
        return Endpoint(reply)
    try:
        return Endpoint(reply, ("127.0.0.1", int(note.read_text(encoding="ascii"))))
    except (OSError, ValueError):
        return Endpoint(reply)


@contextmanager
def answering(endpoint: Endpoint, note: Path | None) -> Iterator[None]:
    """Let it answer from now on, and note its port for the next one."""
    endpoint.start()
    if note is not None:
        files.write(note, endpoint.url.rpartition(":")[2])
    yield
