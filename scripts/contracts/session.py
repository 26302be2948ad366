"""Which session of which sandbox it is, and where it has its things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.machine import state
from scripts.transport import inside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Session:
    """One session, or a conversation: the agent in tmux, which outlives its sessions."""

    id: str
    """12 hexadecimal digits."""
    sandbox: str
    """The sandbox's key, as `naming.key` makes it."""
    is_conversation: bool = False
    """Whether it is a conversation, which finds its things in the same places each time that
    the user comes back to it."""
    is_alone: bool = True
    """Whether no other session can be in the same sandbox."""

    @property
    def name(self) -> str:
        """What its things in the sandbox are called, as `inside.place` takes it."""
        return inside.AGENT if self.is_conversation else self.id

    def directory(self, environ: Mapping[str, str], of: str = "") -> Path:
        """Name the directory of its sockets on this machine; it need not exist.

        Args:
            environ: Our own environment.
            of: Whose sockets, where they have a directory to themselves.
        """
        if self.is_conversation:
            return state.sandbox_directory(environ, self.sandbox) / of
        return state.per_process_path(environ, "-".join(filter(None, (self.id, of))))
