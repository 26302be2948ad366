"""A lease: the session that brings another one's script, and whose end is that one's end."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from typing import TYPE_CHECKING

from scripts.errors import NotReachedError
from scripts.machine import pipes, process, running
from scripts.transport import inside
from scripts.transport.forwards import check_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripts.transport.forwards import Forward
    from scripts.transport.ssh import Connection
from scripts.transport import ssh

log = logging.getLogger("nddt")

READY = b"ready\n"
"""What a lease says when it has the script."""
HELD_S = 1.5
"""How long a session is idle that has ended and whose pipes something else holds."""
HELD_LOOKS = 15
"""How often it is looked at meanwhile."""
DONE_S = 3
"""How long what is left of an ended session may take to be ended, and its server after that."""


class Lease:
    """A session's script on its way in, and afterwards the proof that its client lives.

    Args:
        connection: Where to.
        session: The session's id.
        script: See `inside.script`; None if the session runs already.
        forwards: Ports that the session needs.
        master: Whether this is the connection itself, or a session of a master that stays.
        durable: Whether the session outlives a broken connection, though not its client.
    """

    def __init__(
        self,
        connection: Connection,
        session: str,
        script: str | None,
        forwards: Sequence[Forward] = (),
        *,
        master: bool,
        durable: bool = False,
    ) -> None:
        self._script = (script or "").encode("utf-8", "surrogateescape")
        self._forwards = forwards
        self._is_master = master
        options = [word for forward in forwards for word in forward.arguments]
        size = None if script is None else len(self._script)
        words = (*options, "-T", "nddt", inside.lease(session, size, durable=durable))
        if master:
            # What a broken connection leaves would keep the new one from listening.
            connection.control.unlink(missing_ok=True)
        argv = connection.master_argv(*words) if master else connection.session_argv(*words)
        self._process = process.spawn(argv, pipes=True)
        self._errors = pipes.Overheard(self._process)
        self._lines = pipes.Lines(pipes.piped(self._process.stdout))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._code: int | None = None
        self._told = threading.Event()
        self._is_done = threading.Event()
        self.code: int | None = None
        """The exit code of a program that has ended, though its session would not."""

    def ends_within(self, seconds: float) -> bool:
        """Tell whether the connection has broken, of which sessions may know a little before."""
        return running.wait(self._process, seconds) is not None

    @property
    def errors(self) -> str:
        """The last lines that ssh and the pipe's command have printed."""
        return self._errors.text

    def hand_over(self) -> None:
        """Send the script and wait until the sandbox has it.

        Raises:
            NotReachedError: The sandbox was not reached.
            PortTakenError: A port of this machine is somebody else's.
        """
        answer = b""
        with contextlib.suppress(BrokenPipeError, TimeoutError):
            pipes.write_stdin(pipes.piped(self._process.stdin), self._script, ssh.CONNECT_S)
            answer = self._lines.next(len(READY), ssh.CONNECT_S)
        if answer != READY:
            self.close()
            check_ports(self.errors, self._forwards)
            raise NotReachedError("the sandbox was not reached", detail=self.errors)
        self._listener.start()

    def _listen(self) -> None:
        """Hear what `inside.lease` says: how the program has ended, and that all is tidied up."""
        with contextlib.suppress(OSError, ValueError):  # it is closed
            while heard := re.fullmatch(rb"ended (\d{1,3})\n", self._lines.next(16, None)):
                self._code = min(int(heard[1]), 255)
                self._told.set()
        # It was the word `done`, the end, or what no lease says.
        self._is_done.set()

    @contextlib.contextmanager
    def seeing_off(self, session: running.Started) -> Iterator[None]:
        """End a session whose program has ended, but not what else holds its output.

        Then `code` is the program's. What it has printed has arrived before that is known, and
        goes on to our stdout and stderr as fast as those who read them take it.

        Args:
            session: The ssh of the session, with our stdout and stderr.
        """
        over = threading.Event()

        def see_off() -> None:
            self._told.wait()
            idle = 0
            while idle < HELD_LOOKS and not over.wait(HELD_S / HELD_LOOKS):
                idle = idle + 1 if pipes.takes_more(1, 2) else 0
            if not over.is_set():
                self.code = self._code
                session.terminate()

        threading.Thread(target=see_off, daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def close(self) -> None:
        """Let go: the sandbox ends what is left of the session, and a pipe's command ends."""
        with contextlib.suppress(BrokenPipeError):
            pipes.piped(self._process.stdin).close()
        patience_s: float = ssh.CLOSE_S
        if self._listener.ident is not None:
            # What the program has left can hold these pipes, too, and the server's stdin.
            is_done = self._is_done.wait(DONE_S if self._told.is_set() else ssh.CLOSE_S)
            patience_s = DONE_S if is_done else 0
        # The pipe's command has the same stderr, so its end is seen here, too. A container that
        # is about to end takes no notice of one more signal.
        if not self._errors.wait_for_end(patience_s):
            running.end_all(self._process)
            # A master that stays has the pipes of a session, too, until that is over there.
            self._errors.wait_for_end(ssh.CLOSE_S if self._is_master else 0)
        running.finish(self._process, ssh.CLOSE_S)
        self._told.set()
