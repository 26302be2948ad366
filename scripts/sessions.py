"""Sessions: one program in a sandbox, from its script on the way in to its exit code."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from scripts import console, conversations, free_space, inside, ports, process, signals, ssh
from scripts.connections import PATIENCE_S
from scripts.errors import NotReachedError, PortTakenError, TimeLimitError, TransportLostError
from scripts.ssh import Lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from scripts.connections import Line
    from scripts.plan import Plan

log = logging.getLogger("nddt")


def run(line: Line, plan: Plan, stdin: IO[bytes] | None, meanwhile: Callable[[], None]) -> int:
    """Run the plan's program in its sandbox.

    Args:
        line: The way there.
        plan: See there.
        stdin: What the program reads; None for our own stdin.
        meanwhile: What there is to do while the sandbox starts.

    Returns:
        The program's exit code.
    """
    session, brings = plan.session, plan.brings
    text = inside.script(
        plan.argv,
        brings.variables,
        directory="/workspace",
        before=f"{brings.unpack()}\n{plan.before}",
        after="\n".join((plan.after, *brings.after)),
    )
    returning: AbstractContextManager[None] = nullcontext()
    if plan.is_agent:
        returning = conversations.fetched(plan.conversations, line)
    if plan.terminal and plan.is_agent and (line.stays or line.is_durable):
        name = inside.AGENT if line.stays else session
        with returning:
            return _in_tmux(line, plan, session, name, text, meanwhile)
    if line.is_durable and not plan.terminal:
        from scripts import durable  # noqa: PLC0415  (what a local run does without)

        meanwhile()
        program = durable.Session(session, text, stdin)
        with returning:
            return program.attend(line, brings.forwards, plan.timeout_s)
    with _leased(line, plan, session, text, meanwhile) as lease, returning:
        terminal = "-t" if plan.terminal else "-T"
        argv = line.connection.session_argv(terminal, "nddt", inside.start(session))
        code = _waited_for(argv, plan, stdin, terminal=plan.terminal)
        if code == 255 and lease.ends_within(1):
            raise TransportLostError("the connection to the sandbox broke", detail=lease.errors)
        return code


def agent_ports(line: Line) -> dict[int, int] | None:
    """Ask which ports the agent in a persistent sandbox knows; None if none runs.

    Returns:
        Port of the sandbox → port of this machine.
    """
    done = process.capture(line.connection.session_argv("-T", "nddt", inside.AGENT_PORTS))
    return ports.read_map(done.stdout.partition("=")[2]) if done.ok else None


def come_back(line: Line, plan: Plan) -> int:
    """Come back to the agent that runs in a persistent sandbox.

    Returns:
        Its exit code, 0 if it goes on without the terminal.
    """
    with conversations.fetched(plan.conversations, line):
        return _in_tmux(line, plan, plan.session, inside.AGENT, None, lambda: None)


# -- a session whose end is ours --------------------------------------------------------------


@contextmanager
def _leased(
    line: Line, plan: Plan, session: str, text: str | None, meanwhile: Callable[[], None]
) -> Iterator[Lease]:
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
        meanwhile()
        lease.hand_over()
        yield lease
    finally:
        # A second Ctrl-C must not leave half of it behind; closing has its own time limit.
        with signals.ignored(), line.connection.cancelling(forwards):
            lease.close()


def _waited_for(
    argv: tuple[str, ...], plan: Plan, stdin: IO[bytes] | None = None, *, terminal: bool
) -> int:
    with console.kept_terminal() if terminal else nullcontext():
        started = process.spawn(argv, stdin=stdin)
        try:
            with free_space.left(plan.fills, plan.disk_reserve, started.terminate):
                code = process.wait(started, plan.timeout_s or None)
        finally:
            if started.poll() is None:
                started.terminate()
                started.wait()
    if code is None:
        raise TimeLimitError(f"the time limit of {plan.timeout_s} s is over", "raise --timeout")
    return code


# -- a conversation in tmux, where a lost terminal or connection does not end it --------------


def _in_tmux(
    line: Line,
    plan: Plan,
    session: str,
    name: str,
    text: str | None,
    meanwhile: Callable[[], None],
) -> int:
    """Run a program in tmux, over as many connections as it takes; see `inside.start_in_tmux`.

    Args:
        line: The way there.
        plan: See there.
        session: The session's id.
        name: What tmux calls it.
        text: The session's script; None if it runs already.
        meanwhile: What there is to do while the sandbox starts.
    """
    if name == inside.AGENT:
        log.info("Ctrl-\\ leaves the agent running; inv attach comes back to it")
    code = _attached(line, plan, session, name, text, meanwhile)
    if code is None and not line.is_durable:
        raise TransportLostError(
            "the connection to the sandbox broke; the agent goes on", "inv attach comes back to it"
        )
    while code is None:
        for _ in line.again(PATIENCE_S):
            try:
                code = _attached(line, plan, session, name, None, lambda: None)
            except PortTakenError:
                plan = _without_ports(plan)
            if code is not None:
                break
    return code


def _without_ports(plan: Plan) -> Plan:
    forwards = ports.given_up(plan.brings.forwards)
    return replace(plan, brings=replace(plan.brings, forwards=forwards))


def _attached(
    line: Line,
    plan: Plan,
    session: str,
    name: str,
    text: str | None,
    meanwhile: Callable[[], None],
) -> int | None:
    """Be at the program's screen, and give its exit code; None if the connection broke."""
    argv = line.connection.session_argv("-t", "nddt", inside.start_in_tmux(session, name))
    if name == inside.AGENT:
        meanwhile()
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
            with signals.ignored(), line.connection.cancelling(ports.among(forwards)):
                line.connection.drop_sockets(forwards)
        return None if code == 255 and not line.connection.is_open() else code
    try:
        with _leased(line, plan, session, text, meanwhile) as lease:
            code = _waited_for(argv, plan, terminal=True)
            lost = code == 255 and lease.ends_within(1)
        line.errors = lease.errors
    except NotReachedError as error:
        line.errors = error.detail
        return None
    return None if lost else code


def _store(line: Line, plan: Plan, session: str, text: str) -> None:
    forwards = [word for forward in plan.brings.forwards for word in forward.arguments]
    store = line.connection.session_argv(*forwards, "-T", "nddt", inside.store(session))
    stored = process.capture(store, stdin=text.encode("utf-8", "surrogateescape"))
    ssh.check_ports(stored.stderr, plan.brings.forwards)
    if not stored.ok:
        raise TransportLostError("the connection to the sandbox broke", detail=stored.stderr)
