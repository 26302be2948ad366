"""Connections to sandboxes: kept ones, those that are the sandbox, and broken ones taken anew."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import audit, inside, lifecycle, offline, process, signals, state
from scripts.errors import NddtError, TransportLostError, UnavailableError
from scripts.providers import Link
from scripts.ssh import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from scripts.lifecycle import Work
    from scripts.plan import Plan
    from scripts.providers import Sandbox, Specification

log = logging.getLogger("nddt")

SILENT_S = 15
"""Seconds after which a silent network connection is asked whether it lives; three times."""
PATIENCE_S = 900
"""How long a program waits for a lost client, and a client for a lost program."""
FIRST_PATIENCE_S = 60
"""How long a first connection may take, with all its attempts."""
PASSING = "passing"
"""File that marks a kept connection to a sandbox that goes with somebody's run."""
COPIED = "copied"
"""File that names the directory that a persistent sandbox has a copy of."""
PASSING_KEEP_S = 10
"""How long a connection stays open without sessions, where nobody else will use it."""
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
    """Whether it is a connection that carries sessions; else each session is one of its own,
    or the sandbox itself."""
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
        """Give the command of a session beside the program's, or after it."""
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
            "look for it with: inv list",
            detail=self.errors,
        )


def _link(work: Work, connection: Connection) -> Link:
    silent_s = SILENT_S if work.provider.IS_REMOTE else None
    server = inside.server(connection.public_key(), silent_s=silent_s)
    return Link(directory=connection.directory, server=server)


def _write(work: Work, want: Specification, connection: Connection, pipe: tuple[str, ...]) -> None:
    connection.write(
        pipe,
        want.user,
        work.provider.pipe_environment(work.settings),
        kept=want.persistent,
        silent_s=SILENT_S if work.provider.IS_REMOTE else None,
    )


def _pipe_again(work: Work, name: str, link: Link, errors: str, attempt: int) -> tuple[str, ...]:
    """Give a new pipe to where a program of ours still runs.

    Raises:
        DeadLineError: None does.
    """
    work.provider.explain(errors, link)
    known = work.provider.known_pipe(work.settings, name, link)
    if known and attempt == 0:
        return known
    found = work.provider.find(work.settings, name)
    if found is None:
        raise DeadLineError(f"sandbox {name} was removed, and the run in it is lost")
    if found.state != "running":
        raise DeadLineError(
            f"sandbox {name} was stopped ({found.state}), and the run in it is lost",
            "a longer NDDT_IDLE_MINUTES keeps an unused one running",
        )
    return work.provider.pipe(work.settings, found, link)


# -- a kept connection ------------------------------------------------------------------------


def kept(work: Work, plan: Plan) -> Line:
    """Give the open connection to the plan's persistent sandbox.

    If it is open and nothing has changed, that costs no question to the provider.
    """
    line = _line(work, plan.sandbox)
    connection = line.connection
    note = connection.directory / "fingerprint"
    version = lifecycle.agent_version(work, plan)
    wanted = plan.sandbox.fingerprint(plan.image(version))

    def is_known() -> bool:
        return note.exists() and (work.as_it_is or note.read_text() == wanted)

    if is_known() and connection.is_open():
        log.info(_using(work, plan.sandbox.name))
        return line
    with state.lock(connection.directory):
        if is_known() and connection.is_open():
            return line
        if is_known() and _open_known(work, plan.sandbox, connection):
            return line
        found = lifecycle.create_or_start(work, plan, version)
        connection.directory.mkdir(mode=0o700, exist_ok=True)
        if not connection.is_open():
            _open_first(work, plan.sandbox, line, found)
        note.write_text(found.fingerprint)
    if line.errors:
        next(line.again(FIRST_PATIENCE_S))
    _prove(work, plan, line)
    return line


def _prove(work: Work, plan: Plan, line: Line) -> None:
    """See that a sandbox that is to have no network has none, before anything runs in it."""
    if not plan.sandbox.is_offline or work.as_it_is:
        return
    remote, setting = work.provider.IS_REMOTE, work.settings.network
    try:
        offline.prove(line.connection, may_have_routes=remote, setting=setting)
    except NddtError:
        if line.stays:  # or the next one would take it for proven
            lifecycle.forget(work, line.sandbox)
        raise


def existing(work: Work, want: Specification, *, start: bool = True) -> Connection:
    """Give the open connection to a sandbox that is there, and is started if need be.

    If it is open, or there is a way that was good before, that costs no question to the provider.

    Args:
        work: See there.
        want: Its name, and the user inside.
        start: Whether it is started if it does not run.

    Raises:
        UnavailableError: There is no such sandbox, or it does not run.
    """
    audit.sandbox(want.name)
    if connection := known(work, want):
        return connection
    line = _line(work, want)
    connection = line.connection
    with state.lock(connection.directory):
        if connection.is_open():
            return connection
        found = lifecycle.existing(work, want.name)
        if found.state != "running" and not start:
            how = f"start it: inv {work.provider.NAME}.start --name {want.name}"
            raise UnavailableError(f"sandbox {want.name} does not run ({found.state})", how)
        if found.state != "running":
            log.info("Starting %s sandbox: %s", work.provider.TITLE, want.name)
            work.provider.start(work.settings, found)
        _open_first(work, want, line, found)
    if line.errors:
        next(line.again(FIRST_PATIENCE_S))
    return connection


def existing_line(work: Work, want: Specification) -> Line:
    """Give the way to a sandbox that is there; see `existing`."""
    existing(work, want)
    return _line(work, want)


def known(work: Work, want: Specification) -> Connection | None:
    """Give the connection to a sandbox if it is open, or can be without asking the provider."""
    connection = Connection(state.sandbox_directory(work.environ, work.key(want.name)))
    if connection.is_open():
        return connection
    if connection.directory.exists():
        with state.lock(connection.directory):
            if connection.is_open() or _open_known(work, want, connection):
                return connection
    return None


def known_copy(work: Work, want: Specification) -> tuple[Path, Line] | None:
    """Give the directory that a persistent sandbox has a copy of, and the way there.

    That is all that a copy needs; None if it is not known without asking the provider.
    """
    line = _line(work, want)
    note = line.connection.directory / COPIED
    if not (note.exists() and known(work, want)):
        return None
    audit.sandbox(want.name)
    return Path(os.fsdecode(note.read_bytes())), line


def _line(work: Work, want: Specification) -> Line:
    connection = Connection(state.sandbox_directory(work.environ, work.key(want.name)))
    return Line(
        sandbox=want.name,
        connection=connection,
        is_kept=True,
        stays=True,
        is_durable=work.provider.IS_REMOTE,
        retake=partial(_reopen, work, want, connection),
    )


def _using(work: Work, name: str) -> str:
    return f"Using existing {work.provider.TITLE} sandbox: {name}"


def _open_first(work: Work, want: Specification, line: Line, found: Sandbox) -> None:
    """Connect to a sandbox that runs; where a second attempt may help, only take note of it."""
    link = _link(work, line.connection)
    note = line.connection.directory / COPIED
    note.unlink(missing_ok=True)
    if found.is_synced and found.mode == "persistent":
        note.write_bytes(os.fsencode(found.workspace))
    try:
        _open(work, want, line.connection, work.provider.pipe(work.settings, found, link))
    except TransportLostError as error:
        work.provider.explain(error.detail, link)
        if not line.is_durable:
            raise
        line.errors = error.detail or error.message
    if found.mode == "ephemeral":
        (line.connection.directory / PASSING).touch()


def tidy(environ: Mapping[str, str]) -> None:
    """Remove the files of connections to ephemeral sandboxes that have ended."""
    for mark in state.runtime_directory(environ).glob(f"s-*/{PASSING}"):
        with state.lock(mark.parent):
            if not Connection(mark.parent).is_open():
                shutil.rmtree(mark.parent, ignore_errors=True)


def _open(work: Work, want: Specification, connection: Connection, pipe: tuple[str, ...]) -> None:
    _write(work, want, connection, pipe)
    connection.keep_open(work.settings.keep_connection_s)


def _open_known(work: Work, want: Specification, connection: Connection) -> bool:
    """Try what has led to the sandbox before."""
    pipe = work.provider.known_pipe(work.settings, want.name, _link(work, connection))
    if pipe is None:
        return False
    log.info(_using(work, want.name))
    try:
        _open(work, want, connection, pipe)
    except TransportLostError as error:
        work.provider.explain(error.detail, _link(work, connection))
        return False
    return True


def _reopen(
    work: Work, want: Specification, connection: Connection, errors: str, attempt: int
) -> None:
    with state.lock(connection.directory):
        if not connection.is_open():  # else another process was faster
            link = _link(work, connection)
            _open(work, want, connection, _pipe_again(work, want.name, link, errors, attempt))


# -- a sandbox for one run that outlives its connection ---------------------------------------


@contextmanager
def passing(work: Work, plan: Plan) -> Iterator[Line]:
    """Give the way to a new sandbox, which is removed at the block's end unless `stays` is set.

    Raises:
        CannotCreateError: The sandbox cannot be made.
    """
    work = replace(work, settings=replace(work.settings, keep_connection_s=PASSING_KEEP_S))
    with state.own_directory(work.environ) as directory:
        connection = Connection(directory)
        made = lifecycle.create(work, plan, lifecycle.agent_version(work, plan))
        line = Line(
            sandbox=made.name,
            connection=connection,
            is_kept=True,
            stays=False,
            is_durable=work.provider.IS_REMOTE,
            retake=partial(_reopen, work, plan.sandbox, connection),
        )
        try:
            _open_first(work, plan.sandbox, line, made)
            if line.errors:
                next(line.again(FIRST_PATIENCE_S))
            _prove(work, plan, line)
            yield line
        finally:
            with signals.ignored():
                connection.close()
                if not line.stays:
                    lifecycle.remove_passed(work, made)


# -- a connection that goes with its sandbox --------------------------------------------------


@contextmanager
def ephemeral(work: Work, plan: Plan) -> Iterator[Line]:
    """Give the way to a new sandbox, which is gone at the block's end.

    Raises:
        NoImageError: The image has to be built first.
        CannotCreateError: The sandbox cannot be made.
    """
    with state.own_directory(work.environ) as directory:
        connection = Connection(directory)
        name = plan.image(lifecycle.agent_version(work, plan))
        if not process.find("ssh-keygen"):
            work.provider.prepare(work.settings, yes=work.yes)
        link = _link(work, connection)
        plan.prepare()
        with (
            _without_others(work, plan.sandbox.name),
            work.provider.ephemeral(work.settings, plan.sandbox, name, link) as pipe,
        ):
            _write(work, plan.sandbox, connection, pipe)
            yield Line(
                sandbox=plan.sandbox.name,
                connection=connection,
                is_kept=False,
                stays=False,
                is_durable=work.provider.IS_REMOTE,
                retake=partial(_rewrite, work, plan, connection, link),
            )


@contextmanager
def _without_others(work: Work, name: str) -> Iterator[None]:
    """Let go of other connections to the sandbox when it has gone."""
    try:
        yield
    finally:
        if state.sandbox_directory(work.environ, work.key(name)).exists():
            lifecycle.forget(work, name)


def _rewrite(
    work: Work, plan: Plan, connection: Connection, link: Link, errors: str, attempt: int
) -> None:
    pipe = _pipe_again(work, plan.sandbox.name, link, errors, attempt)
    _write(work, plan.sandbox, connection, pipe)
