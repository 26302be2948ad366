"""Connections to sandboxes that go with one run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from scripts.machine import files, search_path, signals, state
from scripts.run import connections, images, sandboxes
from scripts.transport.line import FIRST_PATIENCE_S, Line
from scripts.transport.ssh import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.contracts.sandbox import Link
    from scripts.plan import Plan
    from scripts.run.work import Work


PASSING_KEEP_S = 10
"""How long a connection stays open without sessions, where nobody else will use it."""


@contextmanager
def passing(work: Work, plan: Plan) -> Iterator[Line]:
    """Make a new sandbox, and the way to it; it is removed in the end unless `stays` is set.

    Raises:
        CannotCreateError: The sandbox cannot be made.
    """
    work = replace(work, settings=replace(work.settings, keep_connection_s=PASSING_KEEP_S))
    with state.own_directory(work.environ) as directory:
        connection = Connection(directory)
        made = sandboxes.create_for_one_run(work, plan, images.agent_version(work, plan))
        line = Line(
            sandbox=made.name,
            connection=connection,
            is_kept=True,
            stays=False,
            is_durable=work.provider.BREAKS,
            retake=partial(connections.reopen, work, plan.sandbox, connection),
        )
        files.write(directory / state.ID, made.id)
        try:
            connections.open_first(work, plan.sandbox, line, made)
            if line.errors:
                next(line.again(FIRST_PATIENCE_S))
            connections.prove(work, plan, line)
            yield line
        finally:
            with signals.ignored():
                connection.close()
                if not line.stays:
                    sandboxes.remove_passed(work, made)


@contextmanager
def ephemeral(work: Work, plan: Plan) -> Iterator[Line]:
    """Make a new sandbox, and the way to it; it is gone at the block's end.

    Raises:
        NoImageError: The image has to be built first.
        CannotCreateError: The sandbox cannot be made.
    """
    with state.own_directory(work.environ) as directory:
        connection = Connection(directory)
        name = plan.image(images.agent_version(work, plan))
        if not search_path.find_program("ssh-keygen"):
            work.provider.prepare(work.settings, yes=work.yes)
        link = connections.link_of(work, connection)
        plan.prepare()
        with (
            _without_others(work, plan.sandbox.name, link),
            work.provider.ephemeral(work.settings, plan.sandbox, name, link) as pipe,
        ):
            connections.write_configuration(work, plan.sandbox, connection, pipe)
            yield Line(
                sandbox=plan.sandbox.name,
                connection=connection,
                is_kept=False,
                stays=False,
                is_durable=work.provider.BREAKS,
                retake=partial(_rewrite, work, plan, connection, link),
            )


@contextmanager
def _without_others(work: Work, name: str, link: Link) -> Iterator[None]:
    """At the block's end forget other connections to the sandbox, which has gone by then."""
    try:
        yield
    finally:
        made = sandboxes.noted(link.directory, name)  # none if the name was refused
        if made and state.sandbox_directory(work.environ, work.key(name)).exists():
            sandboxes.forget(work, made)


def _rewrite(
    work: Work, plan: Plan, connection: Connection, link: Link, errors: str, attempt: int
) -> None:
    pipe = connections.pipe_again(work, plan.sandbox.name, link, errors, attempt)
    connections.write_configuration(work, plan.sandbox, connection, pipe)
