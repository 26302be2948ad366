"""The order of steps, and tidying up on every way out."""

from __future__ import annotations

import functools
import logging
import time
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING

from scripts import (
    audit,
    connections,
    housekeeping,
    inside,
    lifecycle,
    ports,
    process,
    protected,
    sessions,
    signals,
    state,
)
from scripts.errors import (
    CannotCreateError,
    DiskFullError,
    NoImageError,
    NotReachedError,
    PortTakenError,
)
from scripts.ssh import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from scripts.connections import Line
    from scripts.lifecycle import Work
    from scripts.plan import Plan

log = logging.getLogger("nddt")

GONE_S = 20
"""How long the end of a sandbox may take that is to be made once more."""


def run(
    work: Work,
    plan: Plan,
    *,
    stdin: IO[bytes] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> int:
    """Run the plan's session in its sandbox.

    Args:
        work: See there.
        plan: See there.
        stdin: What the program inside reads; None for our own stdin.
        meanwhile: What there is to do while the sandbox starts.

    Returns:
        The program's exit code.

    Raises:
        TimeLimitError: It took longer than the plan allows; it has been ended.
        DiskFullError: It filled a disk of this machine, and has been ended.
        TransportLostError: The connection broke for good.
        EndedBySignalError: We were asked to end; so was the program.
    """
    audit.sandbox(plan.sandbox.name)
    if plan.git.warning:
        log.warning(plan.git.warning)
    once = functools.cache(meanwhile)
    with signals.raised(), _watched(work, plan, is_conversation=plan.terminal and plan.is_agent):
        if plan.sandbox.persistent:
            line = connections.kept(work, plan)
            known = sessions.agent_ports(line) if plan.terminal and plan.is_agent else None
            act = partial(_in_lasting, work, line, stdin=stdin, meanwhile=once)
            return ports.opened(work, plan, act, known or {})
        if plan.sandbox.is_synced:
            with connections.passing(work, plan) as line:
                act = partial(_in_lasting, work, line, stdin=stdin, meanwhile=once)
                return ports.opened(work, plan, act)
        if work.provider.IS_REMOTE:  # it takes long enough to be worth a word
            log.info("Creating %s sandbox: %s", work.provider.TITLE, plan.sandbox.name)
        act = partial(_in_ephemeral, work, stdin=stdin, meanwhile=once)
        try:
            return ports.opened(work, plan, act)
        except (NoImageError, NotReachedError) as error:
            _remedy(work, plan, error)
            return ports.opened(work, plan, act)


def _watched(work: Work, plan: Plan, *, is_conversation: bool) -> AbstractContextManager[None]:
    """Tell of files that a session has changed and that programs of this machine act on."""
    directory = state.sandbox_directory(work.environ, work.key(plan.sandbox.name))

    def goes_on(went_on: bool) -> bool:  # noqa: FBT001  (all that there is to say)
        """Tell whether the agent may have been left running."""
        if not (plan.sandbox.persistent and (is_conversation or went_on)):
            return False
        connection = Connection(directory)
        runs = connection.session_argv("-T", "nddt", inside.AGENT_RUNS)
        return not connection.is_open() or process.capture(runs).ok

    return protected.watched(work.environ, work.settings.directory, protected.roots(plan), goes_on)


def _in_lasting(
    work: Work, line: Line, plan: Plan, stdin: IO[bytes] | None, meanwhile: Callable[[], None]
) -> int:
    """Run in a sandbox that outlives its connection, for ever or until the run is over."""
    with _stopped_when_full(work, line), plan.brings.served():
        if not plan.sandbox.is_synced:
            return sessions.run(line, plan, stdin, meanwhile)
        from scripts import workspace  # noqa: PLC0415  (what a mounted directory does without)

        act = partial(sessions.run, line, plan, stdin, meanwhile)
        return workspace.session(work, line, plan, act)


@contextmanager
def _stopped_when_full(work: Work, line: Line) -> Iterator[None]:
    """Stop a sandbox that has filled a disk, with all that it does in the background."""
    try:
        yield
    except DiskFullError:
        if line.stays:
            log.warning("sandbox %s is stopped", housekeeping.stop(work, line.sandbox))
        raise


def _in_ephemeral(
    work: Work, plan: Plan, stdin: IO[bytes] | None, meanwhile: Callable[[], None]
) -> int:
    try:
        with connections.ephemeral(work, plan) as line, plan.brings.served():
            return sessions.run(line, plan, stdin, meanwhile)
    except PortTakenError:
        # Its end has only begun, and the next attempt's sandbox has the same name.
        deadline = time.monotonic() + GONE_S
        while work.provider.find(work.settings, plan.sandbox.name) is not None:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        raise


def _remedy(work: Work, plan: Plan, error: NoImageError | NotReachedError) -> None:
    """Do what a first run lacks: the provider, the image; or say what else is wrong."""
    work.provider.prepare(work.settings, yes=work.yes)
    version = lifecycle.agent_version(work, plan)
    if isinstance(error, NotReachedError):
        found = work.provider.find(work.settings, plan.sandbox.name)
        if found is not None:
            lifecycle.check_owner(work, found)
            raise CannotCreateError(
                f"the name {found.name} is in use",
                "choose another with --name, or add --persistent",
            )
        if work.provider.has_image(work.settings, plan.image(version)):
            raise CannotCreateError(
                "the sandbox could not be started", "see the lines above", detail=error.detail
            ) from error
    lifecycle.build(work, plan, version)


def come_back(work: Work, plan: Plan) -> int | None:
    """Come back to the agent that runs in the plan's sandbox.

    Returns:
        Its exit code, 0 if it goes on without the terminal; None if none runs.
    """
    with signals.raised(), _watched(work, plan, is_conversation=True):
        line = connections.kept(work, plan)
        known = sessions.agent_ports(line)
        if known is None:
            return None

        def act(plan: Plan) -> int:
            with _stopped_when_full(work, line), plan.brings.served():
                code = sessions.come_back(line, plan)
            if plan.sandbox.is_synced and plan.sandbox.workspace:
                from scripts import workspace  # noqa: PLC0415

                workspace.pull(work, line, plan.sandbox.workspace)
            return code

        return ports.opened(work, plan, act, known)
