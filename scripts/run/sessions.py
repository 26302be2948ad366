"""Sessions: one program in a sandbox, from its script on the way in to its exit code."""

from __future__ import annotations

import logging
import shlex
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from scripts.brings import conversations, ports
from scripts.errors import NddtError, NotReachedError, PortTakenError, TransportLostError
from scripts.machine import console, free_space, process, running, signals
from scripts.naming import said
from scripts.sandbox_places import WORKSPACE
from scripts.transport import inside
from scripts.transport.forwards import check_ports, open_ports, without_open_ports
from scripts.transport.lease import Lease
from scripts.transport.line import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from scripts.plan import Plan
    from scripts.transport.line import Line

log = logging.getLogger("nddt")

STORE_S = 600
"""How long a session's script may be on its way, which has the user's configuration in it."""


def run_session(line: Line, plan: Plan, stdin: IO[bytes] | None) -> int:
    """Run the plan's program in its sandbox.

    Args:
        line: The way there.
        plan: What the session is made from.
        stdin: What the program reads; None for our own stdin.

    Returns:
        The program's exit code.
    """
    session, brings = plan.session.id, plan.brings
    text = inside.script(
        plan.argv,
        brings.variables,
        directory=WORKSPACE,
        before=f"{brings.unpack()}\n{plan.before}",
        after="\n".join((plan.after, *brings.after)),
    )
    returning: AbstractContextManager[None] = nullcontext()
    if plan.is_agent:
        returning = fetched(plan.conversations, line)
    if plan.terminal and plan.is_agent and (line.stays or line.is_durable):
        name = inside.AGENT if line.stays else session
        with returning:
            return _in_tmux(line, plan, session, name, text)
    if line.is_durable and not plan.terminal:
        from scripts.transport import durable  # noqa: PLC0415  (what a local run does without)

        program = durable.Session(session, text, stdin)
        with returning:
            return program.attend(line, brings.forwards)
    with _leased(line, plan, session, text) as lease, returning:
        terminal = "-t" if plan.terminal else "-T"
        argv = line.connection.session_argv(terminal, "nddt", inside.run_stored(session))
        code = _waited_for(argv, plan, stdin, terminal=plan.terminal, lease=lease)
        if code == 255 and lease.ends_within(1):
            raise TransportLostError("the connection to the sandbox broke", detail=lease.errors)
        return code


def agent_ports(line: Line) -> dict[int, int] | None:
    """Ask which ports the agent in a persistent sandbox knows; None if none runs.

    Returns:
        Port of the sandbox → port of this machine.
    """
    done = line.connection.ask(inside.AGENT_PORTS)
    if done.code in {65, 124}:
        raise TransportLostError(
            f"the sandbox does not say whether an agent runs: {done.last_line}",
            f"end what runs in it: {said(f'stop --name {line.sandbox}')}",
        )
    return ports.read_map(done.stdout.partition("=")[2]) if done.ok else None


def come_back(line: Line, plan: Plan) -> int:
    """Come back to the agent that runs in a persistent sandbox.

    Args:
        line: The way there.
        plan: What the session is made from.

    Returns:
        Its exit code, 0 if it goes on without the terminal.
    """
    with fetched(plan.conversations, line):
        return _in_tmux(line, plan, plan.session.id, inside.AGENT, None)


# -- a session whose end is ours --------------------------------------------------------------


@contextmanager
def _leased(line: Line, plan: Plan, session: str, text: str | None) -> Iterator[Lease]:
    """Store a session's script, if it is a new one, and let go of the session in the end."""
    lease = Lease(
        line.connection,
        session,
        text,
        plan.brings.forwards,
        master=not line.is_kept,
        durable=line.is_durable and plan.is_agent,
    )
    # A connection that outlives us keeps the forwards of a session.
    forwards = plan.brings.forwards if line.is_kept else ()
    try:
        lease.hand_over()
        yield lease
    finally:
        # A second Ctrl-C must not leave half of it behind; closing has its own time limit.
        with signals.ignored(), line.connection.cancelling(forwards):
            lease.close()


def _waited_for(
    argv: tuple[str, ...],
    plan: Plan,
    stdin: IO[bytes] | None = None,
    *,
    terminal: bool,
    lease: Lease | None = None,
) -> int:
    with console.kept_terminal() if terminal else nullcontext():
        started = process.spawn(argv, stdin=stdin)
        try:
            with (
                free_space.end_when_disk_is_full(
                    plan.watched_disks, plan.disk_reserve, started.terminate
                ),
                lease.seeing_off(started) if lease else nullcontext(),
            ):
                code = running.exit_code(started.wait())
        finally:
            if started.poll() is None:
                started.terminate()
                started.wait()
    return code if lease is None or lease.code is None else lease.code


# -- a conversation in tmux, where a lost terminal or connection does not end it --------------


def _in_tmux(
    line: Line,
    plan: Plan,
    session: str,
    name: str,
    text: str | None,
) -> int:
    """Run a program in tmux, over as many connections as it takes; see `inside.start_in_tmux`.

    Args:
        line: The way there.
        plan: What the session is made from.
        session: The session's id.
        name: What tmux calls it.
        text: The session's script; None if it runs already.
    """
    if name == inside.AGENT:
        log.info("Ctrl-\\ leaves the agent running; %s comes back to it", said("attach"))
    code = _attached(line, plan, session, name, text)
    if code is None and not line.is_durable:
        raise TransportLostError(
            "the connection to the sandbox broke; the agent goes on",
            f"{said('attach')} comes back to it",
        )
    while code is None:
        for _ in line.again(PATIENCE_S):
            try:
                code = _attached(line, plan, session, name, None)
            except PortTakenError:
                plan = _without_ports(plan)
            if code is not None:
                break
    return code


def _without_ports(plan: Plan) -> Plan:
    forwards = without_open_ports(plan.brings.forwards)
    return replace(plan, brings=replace(plan.brings, forwards=forwards))


def _attached(
    line: Line,
    plan: Plan,
    session: str,
    name: str,
    text: str | None,
) -> int | None:
    """Show the program's screen; return its exit code, None if the connection broke."""
    argv = line.connection.session_argv("-t", "nddt", inside.start_in_tmux(session, name))
    if name == inside.AGENT:
        forwards = plan.brings.forwards
        line.connection.drop_sockets(forwards)
        try:
            if text is None:
                line.connection.forward(forwards)
            else:
                _store(line, plan, session, text)
            code = _waited_for(argv, plan, terminal=True)
        finally:
            # An agent that goes on keeps the ports that it needs itself, but not the user's keys.
            with signals.ignored(), line.connection.cancelling(open_ports(forwards)):
                line.connection.drop_sockets(forwards)
        return None if code == 255 and not line.connection.is_open() else code
    try:
        with _leased(line, plan, session, text) as lease:
            code = _waited_for(argv, plan, terminal=True, lease=lease)
            lost = code == 255 and lease.ends_within(1)
        line.errors = lease.errors
    except NotReachedError as error:
        line.errors = error.detail
        return None
    return None if lost else code


def _store(line: Line, plan: Plan, session: str, text: str) -> None:
    forwards = [word for forward in plan.brings.forwards for word in forward.arguments]
    store = line.connection.session_argv(*forwards, "-T", "nddt", inside.store(session))
    given = text.encode("utf-8", "surrogateescape")
    stored = process.capture(store, stdin=given, timeout_s=STORE_S)
    check_ports(stored.stderr, plan.brings.forwards)
    if not stored.ok:
        raise TransportLostError("the connection to the sandbox broke", detail=stored.stderr)


# -- conversations -----------------------------------------------------------------------------


@contextmanager
def fetched(kept: conversations.Store, line: Line) -> Iterator[None]:
    """At the block's end bring new conversations back, unless the connection has been lost.

    A failure is worth a line, and nothing more.

    Args:
        kept: Where to.
        line: The way to the sandbox.
    """
    try:
        yield
    except TransportLostError:
        raise
    except BaseException:
        with signals.ignored():
            _warn_of(_fetch(kept, line, conversations.HURRY_S))
        raise
    else:
        problem = _fetch(kept, line, conversations.FETCH_S)
        if problem and line.is_durable:
            # After a long session there may be no new connection without a new token.
            with suppress(NddtError):
                line.retake("", 1)
                problem = _fetch(kept, line, conversations.FETCH_S)
        _warn_of(problem)


def _fetch(kept: conversations.Store, line: Line, limit_s: float) -> str:
    if kept.is_shown:
        return ""
    command = f"exec sh -c {shlex.quote(conversations.sender(kept.inside))}"
    return conversations.fetch(kept, line.session_argv("-T", "nddt", command), limit_s)


def _warn_of(problem: str) -> None:
    if problem:
        log.warning("the conversation could not be brought back: %s", problem[:500])
