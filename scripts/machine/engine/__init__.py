"""A container engine for this machine: found, or installed and started after consent."""

from __future__ import annotations

import getpass
import grp
import logging
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.errors import UnavailableError
from scripts.machine import files, process, search_path, state
from scripts.machine.engine import daemon as local
from scripts.machine.engine import privilege
from scripts.machine.engine.base_image import bootstrap_base, ensure_base
from scripts.machine.engine.daemon import Daemon
from scripts.machine.engine.programs import (
    docker_client,
    engine_advice,
    engine_version,
    ensure_installed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Daemon",
    "bootstrap_base",
    "docker_client",
    "ensure_base",
    "ensure_installed",
    "ensure_running",
    "podman_socket",
]

log = logging.getLogger("nddt")

GROUP = "docker"
"""The members of this group may use the socket; Debian's package makes it."""


def podman_socket(environ: Mapping[str, str]) -> str | None:
    """Name the address of Podman's socket for DOCKER_HOST; None if there is none we may use.

    See podman-system-service(1) for the two places.
    """
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    for path in (Path(runtime, "podman/podman.sock"), Path("/run/podman/podman.sock")):
        if _is_socket(path) and os.access(path, os.R_OK | os.W_OK):
            return f"unix://{path}"
    return None


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def ensure_running(*, yes: bool, environ: Mapping[str, str], daemon: Daemon | None = None) -> None:
    """Make sure that an engine answers; install and start one here after consent.

    Args:
        yes: Agreed to beforehand.
        environ: DOCKER_HOST and DOCKER_CONTEXT say where the engine is.
        daemon: Where the local one keeps its files; None for the usual places.

    Raises:
        UnavailableError: It does not, and the text tells what to do.
    """
    daemon = daemon or Daemon()
    if search_path.find_program(docker_client()) and engine_version(environ).ok:
        return
    _check_elsewhere(yes=yes, environ=environ)
    if sys.platform != "linux":
        raise UnavailableError("no Docker engine answers", engine_advice())
    ensure_installed(("docker", "dockerd"), yes=yes, environ=environ)
    if not engine_version(environ).ok:
        _check_permission(daemon, yes=yes, environ=environ)
        _start(daemon, yes=yes, environ=environ)


def _start(daemon: Daemon, *, yes: bool, environ: Mapping[str, str]) -> None:
    if not local.is_running(daemon):
        problem = "the Docker daemon does not run"
        privilege.agree_to_root(problem, (daemon.start_command(),), yes=yes)
    # One at a time; who waited finds it running.
    with files.lock(state.runtime_directory(environ) / "l-engine"):
        if engine_version(environ).ok:
            return
        log.info("starting the Docker daemon")
        local.start_daemon(daemon, environ)
    _check_permission(daemon, yes=yes, environ=environ)


def _check_elsewhere(*, yes: bool, environ: Mapping[str, str]) -> None:
    """Refuse to start anything here if the engine is meant to be somewhere else."""
    endpoint = environ.get("DOCKER_HOST", "")
    way_back = "unset DOCKER_HOST"
    chosen = environ.get("DOCKER_CONTEXT", "")
    if endpoint or chosen:
        ensure_installed(("docker",), yes=yes, environ=environ)
    if not endpoint and search_path.find_program("docker"):
        endpoint, way_back = _endpoint_of_context(environ), "choose another: docker context use"
    if not endpoint:
        return
    asked = engine_version(environ)
    if not asked.ok:
        raise UnavailableError(
            f"the Docker engine at {endpoint} does not answer: {asked.last_line}",
            f"start it there, or {way_back}",
        )


def _endpoint_of_context(environ: Mapping[str, str]) -> str:
    """Name the address of the current docker context; empty for the default one."""
    form = "{{.Name}} {{.Endpoints.docker.Host}}"
    found = process.capture(("docker", "context", "inspect", "--format", form), env=environ)
    if not found.ok:
        raise UnavailableError(found.last_line, "choose another: docker context use default")
    name, _, address = found.stdout.strip().partition(" ")
    return "" if name == "default" else address


def _check_permission(daemon: Daemon, *, yes: bool, environ: Mapping[str, str]) -> None:
    """Tell somebody whom the socket refuses how to be let in.

    A new membership counts for new logins only. `sg` would start one, but with that group
    as the main one: it would own every file that the agent writes.
    """
    if not _is_socket(daemon.socket) or os.access(daemon.socket, os.R_OK | os.W_OK):
        return
    if not (daemon.under_systemd or local.is_running(daemon)):
        return
    problem, again = f"you may not use {daemon.socket}", "log out and in again, then repeat this"
    user = getpass.getuser()
    if _group_name(daemon.socket) != GROUP:
        raise UnavailableError(problem, "run this as root, or let dockerd serve a group of yours")
    if user not in grp.getgrnam(GROUP).gr_mem:
        join = ("usermod", "-aG", GROUP, user)
        privilege.agree_to_root(f"{problem}: you are not in its group {GROUP}", (join,), yes=yes)
        done = privilege.capture(join, environ)
        if not done.ok:
            raise UnavailableError(f"usermod failed: {done.last_line}", privilege.typed((join,)))
    raise UnavailableError(f"you are in group {GROUP}, but this login is older than that", again)


def _group_name(path: Path) -> str:
    try:
        return path.group()
    except KeyError:
        return ""
