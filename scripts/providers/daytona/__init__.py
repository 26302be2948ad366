"""Sandboxes in Daytona's cloud, or on a server of one's own that runs Daytona."""

from __future__ import annotations

import logging
import shlex
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scripts import naming, process, signals
from scripts.errors import (
    CannotCreateError,
    ConfigError,
    EndedBySignalError,
    NddtError,
    NoImageError,
    UnavailableError,
)
from scripts.host import Host
from scripts.providers import Sandbox, Specification
from scripts.providers.daytona import access
from scripts.providers.daytona.access import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from scripts.image import Recipe
    from scripts.providers import Link
    from scripts.providers.daytona.api import Api
    from scripts.settings import Settings

log = logging.getLogger("nddt")

NAME = "daytona"
TITLE = "Daytona"
WORKSPACE = "none"
IS_REMOTE = True
HOSTED = "https://app.daytona.io/api"
FINGERPRINT = f"{naming.LABEL}.fingerprint"
DEFAULT_SIZE = (2, 4, 8)
"""CPUs, memory and disk in GiB."""
EPHEMERAL_IDLE_MINUTES = 15
"""How long an ephemeral sandbox may outlive a client that was killed or cut off."""
START_S = 180
REMOVE_S = 60
GONE = {"destroying", "destroyed"}
FAILED = {"error", "build_failed"}
STARTABLE = {"stopped", "archived"}


def user(settings: Settings) -> tuple[int, int]:  # noqa: ARG001  (the protocol's)
    """Give the same for everybody: an organization shares snapshots."""
    return (1000, 1000)


def network(settings: Settings, found: Host) -> Host:
    """Give nothing of this machine's network to a sandbox in the cloud."""
    if settings.daytona_api_url != HOSTED:
        return found
    return Host(ca_certs="", proxies={}, apt_mirror="", npm_registry="", pip_index_url="")


def _size(settings: Settings) -> tuple[int, int, int]:
    cpu, memory, disk = DEFAULT_SIZE
    return settings.cpus or cpu, settings.memory_gib or memory, settings.disk_gib or disk


def image_name(settings: Settings, recipe: Recipe, version: str) -> str:
    """Give `nddt-<agent>-<version>-<hash>`: sizes belong to a snapshot, too."""
    if settings.daytona_snapshot:
        return settings.daytona_snapshot
    return f"nddt-{recipe.tag(version, map(str, _size(settings)))}"


def check_mount(settings: Settings) -> None:
    """Refuse: the cloud cannot see this machine's files."""
    raise ConfigError(
        f"Daytona cannot see the files of this machine ({settings.sources['NDDT_WORKSPACE']} "
        "says NDDT_WORKSPACE=mount)",
        "set NDDT_WORKSPACE=none",
    )


def _api(settings: Settings) -> Api:
    from scripts.providers.daytona.api import Api  # noqa: PLC0415  (what a warm run does without)

    return Api(settings)


def prepare(settings: Settings, *, yes: bool) -> None:
    """Make sure that OpenSSH is here."""
    from scripts import engine  # noqa: PLC0415

    environ = settings.process_environment
    engine.ensure_installed(("ssh", "ssh-keygen"), yes=yes, environ=environ)
