"""The keeper of an agent that goes on: a process of this machine that lasts as long as that.

It has what the agent needs of this machine: keys that stay here, the way to allowed hosts, the
forwards that lead to them. Whoever starts the agent, or comes back to it, starts its keeper, or
finds it; this is their side, and `keeping` is the keeper itself. What it is told goes through a
pipe, so that keys are in its memory alone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from scripts import naming
from scripts.contracts.provisions import Provision
from scripts.errors import TransportLostError
from scripts.machine import pipes, process, running, state
from scripts.transport.forwards import SamePort

if TYPE_CHECKING:
    import subprocess  # noqa: TID251  (only its type)
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from scripts.contracts.sandbox import Specification
    from scripts.plan import Plan
    from scripts.run.work import Work
    from scripts.settings.fields import Settings
    from scripts.transport.forwards import Forward

NOTE = "keeper"
"""File of a sandbox's directory: its keeper has it locked, and its pid and mark are in it."""
START_S = 60
"""How long the sandbox may take to answer a keeper."""
READY = b"ready\n"
"""What a keeper says, and the sandbox to it."""
END_S = 5
"""How long it may take to end."""
PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from scripts.run.keeping import main; main()"
)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a keeper is told."""

    settings: Settings
    sandbox: Specification
    directory: Path
    """Of the connection."""
    forwards: tuple[Forward, ...]
    background_services: tuple[Callable[[], AbstractContextManager[object]], ...] = field(
        repr=False
    )
    mark: str
    is_new: bool
    """Whether the agent is only about to start."""
    idle_s: int
    """Seconds after which an agent that does nothing is not kept any more; 0 for never."""


# -- the one that runs ----------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """A keeper that runs."""

    pid: int
    mark: str


def find_keeper(directory: Path) -> Running | None:
    """Look up the keeper of a sandbox's agent, by the sandbox's directory; None if none runs."""
    with suppress(OSError, ValueError), (directory / NOTE).open("rb") as file:
        if _is_locked(file):
            pid, _, mark = file.read(200).decode().strip().partition(" ")
            return Running(int(pid), mark)
    return None


def _is_locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def wait_for_end(directory: Path, within_s: float) -> bool:
    """Wait for a keeper's end; False if it has not come."""
    deadline = time.monotonic() + within_s
    while find_keeper(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def end(directory: Path) -> None:
    """End the keeper of a sandbox's agent, if one runs."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        # Whoever holds the lock is the process that has noted itself.
        if found := find_keeper(directory):
            with suppress(ProcessLookupError):
                os.kill(found.pid, signum)
            if wait_for_end(directory, END_S):
                return


# -- a client's side ------------------------------------------------------------------------


class Keeper:
    """What a conversation's client knows of its keeper.

    Args:
        work: The provider and the settings.
        plan: The conversation's; what it brings is what is kept.
    """

    def __init__(self, work: Work, plan: Plan) -> None:
        self._work, self._plan = work, plan
        key = work.key(plan.sandbox.name)
        self._directory = state.sandbox_directory(work.environ, key)
        self._mark = naming.digest([one.mark for one in plan.brings.kept], 16)
        self._process: subprocess.Popen[bytes] | None = None
        if self._is_wanted and not self._will_do(find_keeper(self._directory)):
            self._start()

    @property
    def _is_wanted(self) -> bool:
        return bool(self._plan.brings.kept or tuple(self._forwards()))

    def _forwards(self) -> Iterator[Forward]:
        for kept in self._plan.brings.kept:
            yield from kept.forwards
        yield from (one for one in self._plan.brings.forwards if isinstance(one, SamePort))

    def _will_do(self, found: Running | None) -> bool:
        """Tell whether a keeper runs, and has no other keys."""
        has_keys = any(one.mark for one in self._plan.brings.kept)
        return found is not None and not (has_keys and found.mark != self._mark)

    def _start(self) -> None:
        """Start the process; it waits for a `Told` on its stdin, and ends if none comes."""
        root = str(Path(__file__).parents[2])
        words = (sys.executable, "-I", "-c", PROGRAM, root, self._plan.sandbox.name)
        self._process = process.spawn(words, pipes=True, env=self._without_keys(self._work.environ))

    def _without_keys(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Leave out what has a key: other programs can read the environment of a process."""
        from scripts.keyless.eraser import SHORTEST_SECRET  # noqa: PLC0415  (only where one starts)

        names = self._plan.brings.secret
        secrets = {
            value
            for known in (self._work.settings.environment, self._work.environ)
            for name in names
            if len(value := known.get(name, "")) >= SHORTEST_SECRET
        }
        return {
            name: value
            for name, value in variables.items()
            if name not in names and not any(one in value for one in secrets)
        }

    def bring_keeper(self, *, agent_runs: bool) -> Provision:
        """Bring it along as a service; it begins with the session, and goes on by itself."""

        @contextmanager
        def begun() -> Iterator[None]:
            self._ready(agent_runs=agent_runs)
            yield

        return Provision(background_services=(begun,))

    def _ready(self, *, agent_runs: bool) -> None:
        """Let it begin, and wait until the agent finds all that it needs.

        One with other keys is ended only now: the sandbox could have been refused until here.

        Args:
            agent_runs: Whether the agent runs already.

        Raises:
            TransportLostError: It cannot begin.
        """
        if not self._is_wanted:
            return
        if self._process is None:
            # One that is there but has no agent is about to end, or has been told of a new one.
            if agent_runs or not wait_for_end(self._directory, END_S):
                return
            self._start()
        found = find_keeper(self._directory)
        if found and not self._will_do(found):
            end(self._directory)
        started, self._process = self._process, None
        if started is not None:
            self._tell(started, is_new=not agent_runs)

    def _tell(self, started: subprocess.Popen[bytes], *, is_new: bool) -> None:
        import pickle  # noqa: PLC0415  (only here)

        settings, kept = self._work.settings, self._plan.brings.kept
        told = Told(
            settings=replace(
                settings,
                environment=self._without_keys(settings.environment),
                own_environment=self._without_keys(settings.own_environment),
                process_environment=self._without_keys(settings.process_environment),
                sources=dict(settings.sources),
            ),
            sandbox=self._plan.sandbox,
            directory=self._directory,
            forwards=tuple(dict.fromkeys(self._forwards())),
            background_services=tuple(one.make_service() for one in kept),
            mark=self._mark,
            is_new=is_new,
            idle_s=self._work.provider.idle_s(settings),
        )
        tell(started, pickle.dumps(told))


def tell(started: subprocess.Popen[bytes], message: bytes) -> None:
    """Tell a process what to keep, and wait until it does.

    Raises:
        TransportLostError: It says why it cannot, or takes too long, and has been ended.
    """
    said = pipes.Overheard(started)
    with suppress(BrokenPipeError), pipes.piped(started.stdin) as stdin:
        stdin.write(message)
    with pipes.piped(started.stdout) as stdout:
        # It has sockets and forwards to make before it asks the sandbox.
        if pipes.Lines(stdout).next(len(READY), 2 * START_S) == READY:
            return
    running.wait(started, END_S)  # it ends when nobody waits for it
    said.wait_for_end(END_S)
    running.finish(started, 0)
    raise TransportLostError("what the agent needs of this machine is not there", detail=said.text)
