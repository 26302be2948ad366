"""Sandboxes as containers of a Docker engine, local or not, or of Podman.

The docker command makes the pipes and builds, because it knows contexts, credentials and
ssh:// engines; docker-py answers everything else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.contracts.action import Action
from scripts.errors import ConfigError
from scripts.naming import said
from scripts.providers.docker import arguments, containers, engine, images

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.settings import host
    from scripts.settings.fields import Settings

NAME = "docker"
TITLE = "Docker"
SETTINGS = None
USUAL: Mapping[str, int] = {}
VARIABLES = ("DOCKER_*",)
LISTENERS: tuple[str, ...] = ()
STARTS_SLOWLY = False
ANSWERS_SLOWLY = False
FALLS_SILENT = False
BREAKS = False
HAS_ROUTES = False

# What the modules of this folder do for it.
docker_risk = arguments.docker_risk
create = containers.create
ephemeral = containers.ephemeral
explain = containers.explain
find = containers.find
known_pipe = containers.known_pipe
pipe = containers.pipe
remove = containers.remove
sandboxes = containers.sandboxes
start = containers.start
stop = containers.stop
pipe_environment = engine.pipe_environment
ask = images.ask
build = images.build
find_image = images.find_image
image_name = images.image_name
look_up = images.look_up
prepare = images.prepare
prune_images = images.prune_images


def is_set_up(settings: Settings) -> bool:  # noqa: ARG001  (the protocol's)
    """Say yes: nothing has to be set up, and whether there is an engine, the engine says."""
    return True


def posture(settings: Settings) -> tuple[tuple[str, str, str], ...]:
    """Tell what a container may do."""
    kept = "ten of root's, by sudo" if settings.sudo else "none"
    kept = "ten of root's, as you are root" if os.getuid() == 0 else kept
    system = "read-only, but for home and /tmp" if settings.readonly_root else "writable"
    reserve = settings.disk_reserve_gib
    disk = f"all but {reserve} GiB of what is free" if reserve else "no limit"
    return (
        ("capabilities", kept, "NDDT_SUDO"),
        ("its system", system, "NDDT_READONLY_ROOT"),
        ("disk", disk, "NDDT_DISK_RESERVE"),
        ("processes", str(settings.pids or "no limit"), "NDDT_PIDS"),
    )


def idle_s(settings: Settings) -> int:  # noqa: ARG001  (the protocol's)
    """Stop none."""
    return 0


def workspace(settings: Settings) -> str:
    """Show the directory itself, or give a copy to an engine on another machine."""
    return "sync" if engine.remote_host(settings) else "mount"


def user(settings: Settings) -> tuple[int, int]:
    """Return the caller's UID and GID; for a rootless engine root, which is the caller there."""
    if engine.endpoint(settings).startswith("unix:///run/user/"):
        return (0, 0)
    return (os.getuid(), os.getgid())


def network(settings: Settings, found: host.Host) -> host.Host:  # noqa: ARG001  (the protocol's)
    """Return all of it: containers are on this machine's network."""
    return found


def check_mount(settings: Settings) -> None:
    """Refuse to mount a directory of this machine into an engine on another one."""
    host = engine.remote_host(settings)
    if host:
        wanted = "set NDDT_WORKSPACE=sync or none"
        if settings.workspace != "mount":
            wanted = f"take NDDT_MOUNTS ({settings.sources['NDDT_MOUNTS']}) away, or: {said('cp')}"
        raise ConfigError(
            f"the engine at {host} cannot see this machine's files",
            f"{wanted}; or use an engine on this machine",
        )


def check_limits(settings: Settings) -> None:
    """Take any: an engine has all of them."""


def disks(settings: Settings) -> tuple[Path, ...]:
    """Tell where an engine of this machine keeps all it has, if it is where it usually is."""
    home = Path(settings.process_environment.get("HOME", "/"), ".local/share")
    usual = (Path("/var/lib/docker"), home / "docker", home / "containers")
    here = not engine.remote_host(settings)
    return tuple(one for one in usual if here and one.exists())


ACTIONS = (
    Action(
        name="bootstrap-base",
        text="Make the base image from a mirror, without a registry.",
        asks=True,
        act=images.bootstrap_base,
    ),
)
