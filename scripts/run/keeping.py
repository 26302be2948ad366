"""The keeper itself, a process of its own: see `keeper`, which starts it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import resource
import select
import signal
import sys
import time
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

from scripts.errors import EndedBySignalError, NddtError, TransportLostError
from scripts.machine import pipes, process, running, signals, state
from scripts.run import connections
from scripts.run.keeper import END_S, NOTE, READY, START_S, Told
from scripts.run.work import work_with
from scripts.transport import inside
from scripts.transport.line import DeadLineError

if TYPE_CHECKING:
    from scripts.transport.line import Line

PATIENCE_S = 900
PAUSE_S = 60
"""Seconds between attempts to connect once that has been in vain for so long."""
LOST = 255
"""The exit code of ssh where the connection breaks."""
PR_SET_DUMPABLE = 4
"""Of prctl(2)."""


def main() -> None:
    """Be told what to keep, say `ready`, and stay until the agent has ended."""
    _be_closed()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")
    try:
        told: Told = pickle.load(sys.stdin.buffer)  # noqa: S301  (our own, from our own pipe)
    except EOFError:  # there is nothing to keep
        return
    with contextlib.suppress(EndedBySignalError, KeyboardInterrupt), signals.raised():
        try:
            _keep(told)
        except NddtError as error:
            with contextlib.suppress(OSError):  # they have gone
                print(error, file=sys.stderr, flush=True)  # noqa: T201  (for who has started us)
            sys.exit(error.exit_code)


def _be_closed() -> None:
    """Let nobody look at our memory: no image of it in a file, and no other program."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  (only for this)

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _keep(told: Told) -> None:
    work = work_with(told.settings, told.settings.provider)
    line = connections.lasting_line(work, told.sandbox)
    with (told.directory / NOTE).open("ab") as file, ExitStack() as stack:
        if not _become_the_keeper(file, told.mark):
            _say_ready()  # the other one is
            return
        for one in told.background_services:
            stack.enter_context(one())
        line.connection.drop_sockets(told.forwards)
        has_ended = _followed(line, told)
        with signals.ignored(), line.connection.cancelling(told.forwards):
            if has_ended:  # and nobody comes back to it
                (told.directory / state.PLACEHOLDER).unlink(missing_ok=True)


def _become_the_keeper(file: IO[bytes], mark: str) -> bool:
    """Note ourselves as the keeper, for as long as the file is open, unless there is another."""
    for _ in range(50):  # somebody may be looking at it
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(f"{os.getpid()} {mark}\n".encode())
            file.flush()
            return True
        time.sleep(0.02)
    return False


def _say_ready() -> None:
    """Tell who has started us, and let go of what is theirs."""
    with contextlib.suppress(OSError):  # they have gone
        os.write(1, READY)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _followed(line: Line, told: Told) -> bool:
    """Stay as long as the agent runs, over as many connections as it takes.

    Returns:
        Whether it has ended; else it is out of reach.

    Raises:
        TransportLostError: It was so from the beginning, or nobody waits for us any more.
    """
    is_new, began = told.is_new, False
    while True:
        code, answered = _attended(line, told, is_new=is_new, is_first=not began)
        if code != LOST:
            return True
        if not (began or answered):
            raise TransportLostError("the sandbox was not reached", detail=line.errors)
        is_new, began = False, True
        time.sleep(1)  # a sandbox that says such things by itself is asked no more often
        if (is_there := _come_back(line)) is not None:
            return not is_there


def _attended(line: Line, told: Told, *, is_new: bool, is_first: bool) -> tuple[int, bool]:
    """Stay as long as the agent does, or the connection.

    A sandbox that does not answer in time counts as one that is not reached.

    Returns:
        The session's exit code, and whether there was a session.
    """
    words = [word for one in told.forwards for word in one.arguments]
    command = inside.attend(is_new=is_new, idle_s=told.idle_s)
    started = process.spawn(line.connection.session_argv(*words, "-T", "nddt", command), pipes=True)
    said = pipes.Overheard(started)
    try:
        answered = _await_answer(pipes.piped(started.stdout), is_first=is_first)
        if answered:
            _say_ready()
            pipes.piped(started.stdout).close()  # more would fill it, and nobody reads it
            code = started.wait()
        else:
            code = LOST if (ended := running.wait(started, END_S)) is None else ended
        said.wait_for_end(END_S)
        line.errors = said.text
    finally:
        running.end_all(started)
        running.finish(started, END_S)
    return code, answered


def _await_answer(pipe: IO[bytes], *, is_first: bool) -> bool:
    """Wait for the sandbox, as long as it may take and, the first time, somebody waits for us."""
    lines, waiting = pipes.Lines(pipe), select.poll()
    if is_first:
        waiting.register(1, 0)  # tells of nothing but that nobody reads it
    for _ in range(START_S):
        answer = lines.next(len(READY), 1)
        if answer == READY or waiting.poll(0):
            return answer == READY
    return False


def _come_back(line: Line) -> bool | None:
    """Connect again.

    Returns:
        None if that was possible, False if there is nothing to come back to, and True if there
        may be, but nobody lets us in any more.
    """
    while True:
        try:
            for _ in line.again(PATIENCE_S):
                return None
        except DeadLineError:
            return False
        except NddtError as error:
            if error.is_final:
                return True
            time.sleep(PAUSE_S)
