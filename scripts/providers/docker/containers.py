"""Containers as sandboxes: made, found, started, stopped, removed, and the way into them."""

from __future__ import annotations

import logging
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scripts import naming
from scripts.contracts import grants
from scripts.contracts.sandbox import Sandbox, Specification, made
from scripts.errors import CannotCreateError
from scripts.machine import bind_sources, makers
from scripts.naming import said
from scripts.providers.docker.arguments import FINGERPRINT, INIT, docker_arguments, run_arguments
from scripts.providers.docker.engine import (
    binds,
    connected,
    docker_command,
    endpoint,
    program,
    shown_by_running,
)
from scripts.providers.docker.images import check_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from scripts.contracts.sandbox import Link
    from scripts.settings.fields import Settings
    from scripts.settings.parsing import Mount

log = logging.getLogger("nddt")


def _run(
    settings: Settings, want: Specification, image: str, *options: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Build the `docker run` of a new sandbox, but for its program: there is no other.

    Returns:
        Also the command in the sandbox behind which nothing runs if it shows something else.

    Raises:
        CannotCreateError: What it is to show could become something else.
    """
    found = bind_sources.check_sources(want.binds, "name directories of which none is in another")
    _warn_of_others(settings, want.name, want.binds)
    words = (*docker_arguments(settings, want), *run_arguments(want, image))
    words = ("run", *options, *words, *INIT, image, "--")
    return words, _comparing(settings, want.binds, found)


def _comparing(settings: Settings, shown: Sequence[Mount], found: Sequence[str]) -> tuple[str, ...]:
    """Build the command that compares what is shown with what was looked at, and goes on.

    Empty where an engine of another machine, also a virtual one, has numbers of its own.
    """
    path = endpoint(settings)
    if not shown or sys.platform != "linux" or not path.startswith("unix://") or "desktop" in path:
        return ()
    text = bind_sources.comparison([one.target for one in shown], found)
    return ("/bin/sh", "-c", text, "nddt-same")


def _warn_of_others(settings: Settings, name: str, shown: Sequence[Mount]) -> None:
    """Say which running sandboxes could exchange what this one shows, or the other way round."""
    others = shown_by_running(settings) if shown else {}
    others = {other: theirs for other, theirs in others.items() if other != name}
    for other, source, through in bind_sources.entangled(shown, others):
        log.warning(
            "sandboxes %s and %s show directories of which one is in the other, %s in %s: while "
            "one starts, the other can have it show any directory — start it when the other is "
            "stopped",
            *(name, other, source, through),
        )


def ephemeral(
    settings: Settings,
    want: Specification,
    image: str,
    link: Link,
) -> AbstractContextManager[tuple[str, ...]]:
    """Build the command whose container is the connection and goes with it."""
    words, compare = _run(settings, want, image, "--rm", "-i", f"--cidfile={link.id_file}")
    return nullcontext((program(), *words, *compare, "sh", *link.server))


def known_pipe(settings: Settings, name: str, link: Link) -> None:
    """Know none: a container of that name may have become somebody else's."""


def pipe(settings: Settings, sandbox: Sandbox, link: Link) -> tuple[str, ...]:
    """Build the command that reaches a running container, behind a look at what it shows.

    Somebody may have started it by hand, when one of its directories led elsewhere.
    """
    shown = cast("tuple[Mount, ...]", sandbox.handle or ())
    remove = said(f"docker.cleanup --name {sandbox.name}")
    advice = f"put it back, or remove the sandbox: {remove}"
    compare = _comparing(settings, shown, bind_sources.check_sources(shown, advice))
    return (program(), "exec", "-i", sandbox.id, *compare, "sh", *link.server)


def explain(errors: str, link: Link) -> None:  # noqa: ARG001
    """Say that a container shows something else; all else the docker command says itself.

    Raises:
        CannotCreateError: It does.
    """
    if bind_sources.EXCHANGED in errors.splitlines():
        problem = "the sandbox does not show the directories that are there now"
        raise CannotCreateError(problem, f"start it once more: {said('docker.stop')}, then again")


def create(settings: Settings, want: Specification, image: str) -> Sandbox:
    """Start a container that waits."""
    with tempfile.TemporaryDirectory(prefix="nddt-") as own:
        note = Path(own, "id")  # there is one once there is a container of this very command
        words, compare = _run(settings, want, image, "--detach", f"--cidfile={note}")
        done = docker_command(settings, *words, "sleep", "infinity")
        ours = note.read_text() if note.exists() else ""
    if done.ok:
        found = made(want, image, ours)
        check_shown(settings, found, compare)
        return found
    check_image(done)
    if ours:
        docker_command(settings, "rm", "--force", "--volumes", ours)
    elif "already in use" in done.stderr:
        problem = f"the name {want.name} is in use"
        raise CannotCreateError(problem, "choose another with --name, or add --persistent")
    lines = done.stderr.splitlines()
    reason = next((one for one in lines if "Error response" in one), done.last_line)
    raise CannotCreateError(f"{want.name} could not be created: {reason}")


def check_shown(settings: Settings, sandbox: Sandbox, compare: Sequence[str]) -> None:
    """See that a container that has started shows what was looked at, and end it if not.

    Raises:
        CannotCreateError: It does not.
    """
    if compare and not (done := docker_command(settings, "exec", sandbox.id, *compare, "true")).ok:
        docker_command(settings, "kill", sandbox.id)
        problem = f"sandbox {sandbox.name} does not show what it was made to show: {done.last_line}"
        raise CannotCreateError(problem, "stop other sandboxes of its directories, and try again")


def _sandbox(container: Any) -> Sandbox:  # noqa: ANN401  (docker-py has no types of its own)
    labels = container.labels
    states = {"running": "running", "exited": "stopped", "created": "stopped"}
    return Sandbox(
        name=container.name,
        id=container.id,
        state=states.get(container.status, container.status),
        mode=labels.get(naming.LABEL, ""),
        image=container.attrs["Config"]["Image"],
        workspace=labels.get(f"{naming.LABEL}.workspace", ""),
        owner=labels.get(f"{naming.LABEL}.owner", ""),
        created=naming.number(labels.get(f"{naming.LABEL}.created", "")),
        pid=naming.number(labels.get(f"{naming.LABEL}.pid", "")),
        maker=makers.of_labels(labels),
        fingerprint=labels.get(FINGERPRINT, ""),
        is_synced=f"{naming.LABEL}.sync" in labels,
        is_offline=f"{naming.LABEL}.offline" in labels,
        grants=grants.read_grants(labels.get(naming.GRANTS, "")),
        handle=binds(container.attrs["Mounts"]),
    )


def _is_sandbox(container: Any) -> bool:  # noqa: ANN401
    """Tell whether a container was made as a sandbox, and has not its labels from an image."""
    return bool(container.labels.get(naming.SANDBOX) == container.name)


def find(settings: Settings, name: str) -> Sandbox | None:
    """Look a container up by its name."""
    from docker.errors import NotFound  # noqa: PLC0415

    with connected(settings) as client:
        # Asked for one, the engine takes the beginning of an id for a name, too.
        similar = client.containers.list(all=True, filters={"name": name}, sparse=True)
        ids = [one.id for one in similar if f"/{name}" in one.attrs["Names"]]
        try:
            container = client.containers.get(ids[0]) if ids else None
        except NotFound:  # removed since
            container = None
        if container is None:
            return None
        if not _is_sandbox(container):
            raise CannotCreateError(
                f"the name {name} belongs to a container that is not nddt's",
                "choose another with --name",
            )
        return _sandbox(container)


def sandboxes(settings: Settings) -> tuple[Sandbox, ...]:
    """List all containers that were made as sandboxes."""
    with connected(settings) as client:
        found = client.containers.list(
            all=True, filters={"label": naming.SANDBOX}, ignore_removed=True
        )
        ours = [_sandbox(one) for one in found if _is_sandbox(one)]
    return tuple(sorted(ours, key=lambda one: -one.created))


def start(settings: Settings, sandbox: Sandbox) -> None:
    """Start a stopped container, if it shows what it was made to show: there is no other way."""
    with connected(settings) as client:
        container = client.containers.get(sandbox.id)
        shown = binds(container.attrs["Mounts"])
        advice = f"remove it: {said(f'docker.cleanup --name {sandbox.name}')}"
        found = bind_sources.check_sources(shown, advice)
        _warn_of_others(settings, sandbox.name, shown)
        container.start()
    check_shown(settings, sandbox, _comparing(settings, shown, found))


def stop(settings: Settings, sandbox: Sandbox) -> None:
    """Stop a container; `sleep infinity` has nothing to say goodbye for."""
    with connected(settings) as client:
        client.containers.get(sandbox.id).stop(timeout=2)


def remove(settings: Settings, sandbox: Sandbox) -> None:
    """Remove a container and its anonymous volumes."""
    from docker.errors import APIError, NotFound  # noqa: PLC0415

    with connected(settings) as client:
        try:
            client.containers.get(sandbox.id).remove(force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if "already in progress" not in str(error):
                raise
