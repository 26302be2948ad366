"""The order of steps, and tidying up on every way out."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, TypeVar

from scripts.brings import ports
from scripts.errors import (
    CannotCreateError,
    DiskFullError,
    NoImageError,
    NotReachedError,
    PortTakenError,
)
from scripts.keyless import remotes
from scripts.machine import audit, signals
from scripts.run import (
    background,
    connections,
    housekeeping,
    images,
    passing_connections,
    sandboxes,
    sessions,
)
from scripts.run.keeper import Keeper
from scripts.workspace import protected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from scripts.brings.ports import Opening
    from scripts.plan import Plan
    from scripts.run.work import Work
    from scripts.transport.line import Line

log = logging.getLogger("nddt")

T = TypeVar("T")

GONE_S = 20
"""How long the end of a sandbox may take that is to be made once more."""


def run(work: Work, plan: Plan, *, stdin: IO[bytes] | None = None) -> int:
    """Run the plan's session in its sandbox.

    Args:
        work: The provider and the settings.
        plan: What the session is made from.
        stdin: What the program inside reads; None for our own stdin.

    Returns:
        The program's exit code.

    Raises:
        TimeLimitError: It took longer than the plan allows; it has been ended.
        DiskFullError: It filled a disk of this machine, and has been ended.
        TransportLostError: The connection broke for good.
        EndedBySignalError: We were asked to end; so was the program.
    """
    audit.sandbox(plan.sandbox.name)
    remotes.note_first_use(work.settings)
    if plan.git.warning:
        log.warning("%s", plan.git.warning)
    with signals.raised(), _watched(work, plan), signals.limited(plan.timeout_s):
        if plan.sandbox.persistent:
            if plan.terminal and plan.is_agent:
                return _converse(work, plan)
            line = connections.kept(work, plan)
            return _with_ports(work, plan, partial(_in_lasting, work, line, stdin))
        if plan.sandbox.is_synced:
            with passing_connections.passing(work, plan) as line:
                return _with_ports(work, plan, partial(_in_lasting, work, line, stdin))
        if work.provider.STARTS_SLOWLY:  # it takes long enough to be worth a word
            log.info("Creating %s sandbox: %s", work.provider.TITLE, plan.sandbox.name)
        act = partial(_in_ephemeral, work, stdin)
        try:
            return _with_ports(work, plan, act)
        except (NoImageError, NotReachedError) as error:
            _remedy(work, plan, error)
            return _with_ports(work, plan, act)


def _converse(work: Work, plan: Plan) -> int:
    """Hold a conversation with an agent that may go on without us."""
    keeping = Keeper(work, plan)
    line = connections.kept(work, plan)
    known = sessions.agent_ports(line)
    plan = plan.bringing(keeping.bring_keeper(agent_runs=known is not None))
    return _with_ports(work, plan, partial(_in_lasting, work, line, None), known or {})


def _watched(work: Work, plan: Plan) -> AbstractContextManager[None]:
    """Tell of files that a session has changed and that programs of this machine act on."""
    places = plan.writable_directories
    return protected.watched(work.environ, work.settings.directory, places, _staying(work, plan))


def begin_to_watch(work: Work, plan: Plan) -> None:
    """Remember the watched files as they are, for a new sandbox without a session."""
    if key := _staying(work, plan):
        protected.begin(work.environ, work.settings.directory, plan.writable_directories, key)


def _staying(work: Work, plan: Plan) -> str:
    """Return a sandbox's key if it can change the directory after a session, else nothing."""
    # A copy's own processes do not reach it.
    stays = plan.sandbox.persistent and not plan.sandbox.is_synced
    return work.key(plan.sandbox.name) if stays else ""


def _session(line: Line, plan: Plan, stdin: IO[bytes] | None) -> int:
    with background.running(plan.brings.background_services):
        return sessions.run_session(line, plan, stdin)


def _in_lasting(work: Work, line: Line, stdin: IO[bytes] | None, plan: Plan) -> int:
    """Run in a sandbox that outlives its connection, for ever or until the run is over."""
    with _stopped_when_full(work, line):
        if not plan.sandbox.is_synced:
            return _session(line, plan, stdin)
        from scripts.run import directory_copy  # noqa: PLC0415  (what a mounted directory does without)

        return directory_copy.session(work, line, plan, partial(_session, line, plan, stdin))


@contextmanager
def _stopped_when_full(work: Work, line: Line) -> Iterator[None]:
    """Stop a sandbox that has filled a disk, with all that it does in the background."""
    try:
        yield
    except DiskFullError:
        ours = sandboxes.noted(line.connection.directory, line.sandbox)
        if line.stays and (found := sandboxes.still_there(work, ours)):
            log.warning("sandbox %s is stopped", housekeeping.stop_and_tell(work, found))
        raise


def _in_ephemeral(work: Work, stdin: IO[bytes] | None, plan: Plan) -> int:
    try:
        with passing_connections.ephemeral(work, plan) as line:
            return _session(line, plan, stdin)
    except PortTakenError:
        # Its end has only begun, and the next attempt's sandbox has the same name.
        deadline = time.monotonic() + GONE_S
        while work.provider.find(work.settings, plan.sandbox.name) is not None:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        raise


def _remedy(work: Work, plan: Plan, error: NoImageError | NotReachedError) -> None:
    """Set up what a first run lacks, the provider or the image; raise what else is wrong."""
    with signals.unlimited():
        work.provider.prepare(work.settings, yes=work.yes)
    version = images.agent_version(work, plan)
    if isinstance(error, NotReachedError):
        found = work.provider.find(work.settings, plan.sandbox.name)
        if found is not None:
            sandboxes.check_owner(work, found)
            raise CannotCreateError(
                f"the name {found.name} is in use",
                "choose another with --name, or add --persistent",
            )
        if work.provider.find_image(work.settings, plan.image(version)):
            raise CannotCreateError(
                "the sandbox could not be started", "see the lines above", detail=error.detail
            ) from error
    images.build_missing(work, plan, version)


def come_back(work: Work, plan: Plan) -> int | None:
    """Come back to the agent that runs in the plan's sandbox.

    Returns:
        Its exit code, 0 if it goes on without the terminal; None if none runs.
    """
    with signals.raised(), _watched(work, plan), signals.limited(plan.timeout_s):
        keeping = Keeper(work, plan)
        line = connections.kept(work, plan)
        known = sessions.agent_ports(line)
        if known is None:
            return None
        plan = plan.bringing(keeping.bring_keeper(agent_runs=True))

        def act(plan: Plan) -> int:
            services = plan.brings.background_services
            with _stopped_when_full(work, line), background.running(services):
                code = sessions.come_back(line, plan)
            if plan.sandbox.is_synced and plan.sandbox.workspace and not plan.sandbox.is_readonly:
                from scripts.run import directory_copy  # noqa: PLC0415

                ask = directory_copy.ask_to_delete
                directory_copy.pull(work, line, plan.sandbox.workspace, may_delete=ask)
            return code

        return _with_ports(work, plan, act, known)


# -- ports ------------------------------------------------------------------------------------


def _with_ports(
    work: Work,
    plan: Plan,
    act: Callable[[Plan], T],
    usual: Mapping[int, int] | None = None,
) -> T:
    """Run a session with its ports open; choose others if somebody takes these meanwhile.

    Args:
        work: The provider and the settings.
        plan: The session without its ports.
        act: Runs it.
        usual: The ports of an agent that runs already; it cannot learn of others.
    """
    usual = usual or {}
    avoided: set[int] = set()
    for attempt in range(1, ports.ATTEMPTS + 1):
        with ports.reserved(
            work.environ,
            work.key(plan.sandbox.name),
            (*usual, *work.settings.ports),
            start=work.settings.port_range_start,
            usual=usual,
            avoided=avoided,
        ) as openings:
            _announce(openings, usual)
            try:
                return act(plan.bringing(ports.bring_ports(openings)))
            except PortTakenError:
                if attempt == ports.ATTEMPTS:
                    raise
                avoided.update(one.outside for one in openings)
    raise AssertionError


def _announce(openings: tuple[Opening, ...], usual: Mapping[int, int]) -> None:
    if openings:
        places = ", ".join(f"port {one.inside} is {one.url}" for one in openings)
        log.info("in the sandbox %s", places)
    for one in openings:
        was = usual.get(one.inside, one.outside)
        if was != one.outside:
            log.warning(
                "port %d of this machine is in use, so the sandbox's port %d is now at %s, of "
                "which the agent knows nothing",
                was,
                one.inside,
                one.url,
            )
