"""The way to a sandbox: a connection, and how to have another one if it breaks."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.errors import NddtError, TransportLostError
from scripts.naming import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.transport.ssh import Connection

log = logging.getLogger("nddt")

PATIENCE_S = 900
"""How long a program waits for a lost client, and a client for a lost program."""
FIRST_PATIENCE_S = 60
"""How long a first connection may take, with all its attempts."""
PAUSES_S = (0.1, 0.3, 1, 2, 5, 10, 20)
"""Waits between attempts to connect; the last one again and again."""


class DeadLineError(TransportLostError):
    """The sandbox is gone, or the program in it is: connecting again is of no use."""


@dataclass(kw_only=True)
class Line:
    """The way to a sandbox: a connection, and how to have another one if it breaks."""

    sandbox: str
    connection: Connection
    is_kept: bool
    """True: one ssh master carries all sessions. False: each session is its own ssh, or
    the sandbox is the connection: both for one run."""
    stays: bool
    """Whether the sandbox stays when the run is over."""
    is_durable: bool
    """Whether a program in the sandbox outlives the connection."""
    retake: Callable[[str, int], None]
    """Connects again, given what ssh has printed and how many attempts there were.

    Raises a DeadLineError if there is nothing to come back to.
    """
    errors: str = ""
    """What ssh has printed when the connection broke last."""

    def session_argv(self, *words: str) -> tuple[str, ...]:
        """Build the command of a session beside the program's, or after it."""
        is_direct = self.is_durable and not self.is_kept  # there the master ends with the program
        make = self.connection.direct_argv if is_direct else self.connection.session_argv
        return make(*words)

    def again(self, patience_s: float) -> Iterator[None]:
        """Connect again and again, until the caller is content.

        Args:
            patience_s: How long.

        Raises:
            DeadLineError: There is nothing to come back to.
            TransportLostError: It has taken too long.
        """
        log.info("the connection to the sandbox broke; connecting again")
        deadline = time.monotonic() + patience_s
        attempt, reason = 0, ""
        while time.monotonic() < deadline:
            time.sleep(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
            try:
                self.retake(self.errors, attempt)
            except DeadLineError:
                raise
            except NddtError as error:
                if error.is_final:
                    raise
                reason = f": {error.message}"
            else:
                yield
            attempt += 1
        raise TransportLostError(
            f"sandbox {self.sandbox} cannot be reached{reason}",
            f"look for it with: {said('list')}",
            detail=self.errors,
        )
