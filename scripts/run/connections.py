"""Connections to sandboxes that are kept, and broken ones taken anew."""

from __future__ import annotations

import logging
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.contracts import grants
from scripts.contracts.sandbox import Link
from scripts.errors import NddtError, TransportLostError, UnavailableError
from scripts.machine import audit, files, state
from scripts.naming import said
from scripts.network import offline
from scripts.run import images, sandboxes
from scripts.transport import inside
from scripts.transport.line import FIRST_PATIENCE_S, DeadLineError, Line
from scripts.transport.ssh import Connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.contracts.sandbox import Sandbox, Specification
    from scripts.plan import Plan
    from scripts.run.work import Work

log = logging.getLogger("nddt")

SILENT_S = 15
"""Seconds after which a silent network connection is asked whether it lives; three times."""
PASSING = "passing"
"""File that marks a kept connection to a sandbox that goes with somebody's run."""
COPIED = "copied"
"""File that names the directory that a persistent sandbox has a copy of."""


def link_of(work: Work, connection: Connection) -> Link:
    """Write what a provider needs to make a pipe for a connection."""
    silent_s = SILENT_S if work.provider.FALLS_SILENT else None
    server = inside.server(connection.public_key(), silent_s=silent_s)
    return Link(directory=connection.directory, server=server)


def write_configuration(
    work: Work, want: Specification, connection: Connection, pipe: tuple[str, ...]
) -> None:
    """Write the configuration of a connection through a pipe."""
    connection.write(
        pipe,
        want.user,
        work.provider.pipe_environment(work.settings),
        kept=want.persistent,
        silent_s=SILENT_S if work.provider.FALLS_SILENT else None,
    )


def pipe_again(work: Work, name: str, link: Link, errors: str, attempt: int) -> tuple[str, ...]:
    """Ask the provider for a new pipe into a sandbox in which our program still runs.

    Raises:
        DeadLineError: None does.
    """
    work.provider.explain(errors, link)
    known = work.provider.known_pipe(work.settings, name, link)
    if known and attempt == 0:
        return known
    found = work.provider.find(work.settings, name)
    ours = sandboxes.noted(link.directory, name)
    if found is None or (ours and found.id != ours.id):
        raise DeadLineError(f"sandbox {name} was removed, and the run in it is lost")
    if found.state != "running":
        raise DeadLineError(
            f"sandbox {name} was stopped ({found.state}), and the run in it is lost",
            "a longer NDDT_IDLE_MINUTES keeps an unused one running",
        )
    return work.provider.pipe(work.settings, found, link)


# -- a kept connection ------------------------------------------------------------------------


def kept(work: Work, plan: Plan) -> Line:
    """Open the connection to the plan's persistent sandbox.

    If it is open and nothing has changed, that costs no question to the provider.
    """
    line = lasting_line(work, plan.sandbox)
    connection = line.connection
    note = connection.directory / "fingerprint"
    version = images.agent_version(work, plan)
    wanted = plan.sandbox.fingerprint(plan.image(version))

    def is_known() -> bool:
        if not note.exists():
            return False
        if note.read_text() == wanted:
            return True
        if work.as_it_is:
            _check_allowed(work, plan.sandbox, connection)
        return work.as_it_is

    if is_known() and connection.is_open():
        log.info(_using(work, plan.sandbox.name))
        return line
    with files.lock(connection.directory):
        if is_known() and connection.is_open():
            return line
        if is_known() and _open_known(work, plan.sandbox, connection):
            return line
        found = sandboxes.create_or_start(work, plan, version)
        connection.directory.mkdir(mode=0o700, exist_ok=True)
        if not connection.is_open():
            open_first(work, plan.sandbox, line, found)
        files.write(note, found.fingerprint)
    if line.errors:
        next(line.again(FIRST_PATIENCE_S))
    prove(work, plan, line)
    return line


def prove(work: Work, plan: Plan, line: Line) -> None:
    """Check that a sandbox that is to have no network has none, before anything runs in it."""
    if not plan.sandbox.is_offline or work.as_it_is:
        return
    routes, setting = work.provider.HAS_ROUTES, work.settings.network
    try:
        offline.prove(line.connection, may_have_routes=routes, setting=setting)
    except NddtError:
        ours = sandboxes.noted(line.connection.directory, line.sandbox)
        if line.stays and ours:  # or the next one would take it for proven
            sandboxes.forget(work, ours)
        raise


def existing(work: Work, want: Specification, *, start: bool = True) -> Connection:
    """Open the connection to a sandbox that is there, and is started if need be.

    If it is open, or there is a way that was good before, that costs no question to the provider.

    Args:
        work: The provider and the settings.
        want: Its name, and the user inside.
        start: Whether it is started if it does not run.

    Raises:
        UnavailableError: There is no such sandbox, or it does not run.
    """
    audit.sandbox(want.name)
    if connection := known(work, want):
        return connection
    line = lasting_line(work, want)
    connection = line.connection
    with files.lock(connection.directory):
        if connection.is_open():
            _check_allowed(work, want, connection)
            return connection
        found = sandboxes.existing(work, want.name)
        sandboxes.check_allowed(work, want, found.grants)
        if found.state != "running" and not start:
            how = f"start it: {said(f'{work.provider.NAME}.start --name {want.name}')}"
            raise UnavailableError(f"sandbox {want.name} does not run ({found.state})", how)
        if found.state != "running":
            log.info("Starting %s sandbox: %s", work.provider.TITLE, want.name)
            work.provider.start(work.settings, found)
        sandboxes.note_identity(work, found)
        open_first(work, want, line, found)
    if line.errors:
        next(line.again(FIRST_PATIENCE_S))
    return connection


def existing_line(work: Work, want: Specification) -> Line:
    """Open the way to a sandbox that is there, as `existing` does."""
    existing(work, want)
    return lasting_line(work, want)


def known(work: Work, want: Specification) -> Connection | None:
    """Look up the connection to a sandbox, if it is open, or can be without asking the provider."""
    connection = Connection(state.sandbox_directory(work.environ, work.key(want.name)))
    if connection.is_open():
        _check_allowed(work, want, connection)
        return connection
    if connection.directory.exists():
        with files.lock(connection.directory):
            if connection.is_open() or _open_known(work, want, connection):
                _check_allowed(work, want, connection)
                return connection
    return None


def _check_allowed(work: Work, want: Specification, connection: Connection) -> None:
    """Refuse a sandbox if its grants, as they are noted here, are more than is allowed now.

    Raises:
        UnavailableError: It has.
    """
    try:
        there = grants.read_grants(
            (connection.directory / state.GRANTS).read_text(encoding="utf-8")
        )
    except OSError:
        there = sandboxes.existing(work, want.name).grants
    sandboxes.check_allowed(work, want, there)


def known_copy(work: Work, want: Specification) -> tuple[Path, Line] | None:
    """Look up the directory that a persistent sandbox has a copy of, and the way there.

    That is all that a copy needs; None if it is not known without asking the provider.
    """
    line = lasting_line(work, want)
    note = line.connection.directory / COPIED
    if not (note.exists() and known(work, want)):
        return None
    audit.sandbox(want.name)
    return Path(os.fsdecode(note.read_bytes())), line


def lasting_line(work: Work, want: Specification) -> Line:
    """Make the way to a persistent sandbox, whether it is open or not."""
    connection = Connection(state.sandbox_directory(work.environ, work.key(want.name)))
    return Line(
        sandbox=want.name,
        connection=connection,
        is_kept=True,
        stays=True,
        is_durable=work.provider.BREAKS,
        retake=partial(reopen, work, want, connection),
    )


def _using(work: Work, name: str) -> str:
    return f"Using existing {work.provider.TITLE} sandbox: {name}"


def open_first(work: Work, want: Specification, line: Line, found: Sandbox) -> None:
    """Connect to a running sandbox; where connections break, a failure goes to `line.errors`."""
    link = link_of(work, line.connection)
    note = line.connection.directory / COPIED
    note.unlink(missing_ok=True)
    has = line.connection.directory / state.GRANTS
    if found.grants is None:
        has.unlink(missing_ok=True)
    else:
        files.write(has, found.grants.text())
    if found.is_synced and found.mode == "persistent":
        files.write(note, os.fsencode(found.workspace))
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
        with files.lock(mark.parent):
            if not Connection(mark.parent).is_open():
                shutil.rmtree(mark.parent, ignore_errors=True)


def _open(work: Work, want: Specification, connection: Connection, pipe: tuple[str, ...]) -> None:
    write_configuration(work, want, connection, pipe)
    connection.keep_open(work.settings.keep_connection_s)


def _open_known(work: Work, want: Specification, connection: Connection) -> bool:
    """Connect by the pipe that led there before; False if there is none, or it fails."""
    pipe = work.provider.known_pipe(work.settings, want.name, link_of(work, connection))
    if pipe is None:
        return False
    log.info(_using(work, want.name))
    try:
        _open(work, want, connection, pipe)
    except TransportLostError as error:
        work.provider.explain(error.detail, link_of(work, connection))
        return False
    return True


def reopen(
    work: Work, want: Specification, connection: Connection, errors: str, attempt: int
) -> None:
    """Open a broken connection again, unless another process has done so."""
    with files.lock(connection.directory):
        if not connection.is_open():  # else another process was faster
            link = link_of(work, connection)
            _open(work, want, connection, pipe_again(work, want.name, link, errors, attempt))
