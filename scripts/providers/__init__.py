"""Providers: one module each, and what all of them answer.

A provider looks after the life of sandboxes and gives a command whose stdin and stdout reach
a shell inside; all else is written once, on top of that pipe.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from scripts import naming

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from scripts.host import Host
    from scripts.image import Recipe
    from scripts.settings import Mount, Settings

NAMES = ("docker", "daytona")


@dataclass(frozen=True, kw_only=True)
class Specification:
    """The sandbox that a plan wants."""

    name: str
    persistent: bool
    workspace: Path | None
    """Directory of this machine that is /workspace; None shares nothing."""
    is_synced: bool = False
    """Whether /workspace is a copy of it, instead of the directory itself."""
    is_readonly: bool = False
    mounts: tuple[Mount, ...] = ()
    """More directories that it shows."""
    covers: tuple[Mount, ...] = ()
    """What it shows read-only in those; a sandbox made without is as good, so no fingerprint."""
    docker: str = ""
    """Whose Docker it has: `isolated` means its own, `host` the engine's, empty none."""
    user: str
    labels: Mapping[str, str]
    cpus: int = 0
    """0 means the provider's default."""
    memory_gib: int = 0
    """0 means the provider's default."""
    is_offline: bool = False
    """Whether the provider gives it no network."""
    pids: int = 0
    """How many processes and threads it may have at a time; 0 means no limit."""
    has_sudo: bool = False
    """Whether its user, who is not root, may become it; that it can is its image's."""
    has_readonly_root: bool = False
    """Whether only its home directory, /workspace and what is temporary can be changed."""

    @property
    def home(self) -> str:
        """The home directory of its user, as in the Dockerfile."""
        return "/root" if self.user == "root" else f"/home/{self.user}"

    def fingerprint(self, image: str) -> str:
        """Hash what a sandbox is made from: another hash, another sandbox."""
        limits = (self.cpus, self.memory_gib, self.pids, self.has_readonly_root)
        size = map(str, limits)
        shows = (str(self.workspace), str(self.is_synced), str(self.is_readonly))
        made = (str(self.mounts), self.docker, self.user, *size)
        network = ("offline",) if self.is_offline else ()
        return naming.digest((image, *shows, *made, *network), 16)


@dataclass(frozen=True, kw_only=True)
class Link:
    """What a pipe into a sandbox is made for: one connection."""

    directory: Path
    """Private directory of this machine, for files that the pipe's command needs."""
    server: tuple[str, ...]
    """Arguments of the `sh` in the sandbox."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A sandbox that exists."""

    name: str
    state: str
    """`running`, `stopped`, or the provider's own word for anything else."""
    mode: str
    """`ephemeral` or `persistent`."""
    image: str
    workspace: str
    owner: str
    created: int
    """Seconds since 1970."""
    pid: int
    """The process that made it, on its owner's machine."""
    fingerprint: str
    """What it was made from; another one means that it is out of date."""
    is_synced: bool = False
    """Whether its /workspace is a copy, in which there may be work that is nowhere else."""
    is_offline: bool = False
    """Whether it was made without a network."""
    handle: object = field(default=None, repr=False, compare=False)
    """The provider's own object, of no meaning to others."""


def made(want: Specification, image: str) -> Sandbox:
    """Give the sandbox that has just been made from a specification."""
    return Sandbox(
        name=want.name,
        state="running",
        mode=want.labels[naming.LABEL],
        image=image,
        workspace=want.labels[f"{naming.LABEL}.workspace"],
        owner=want.labels[f"{naming.LABEL}.owner"],
        created=int(want.labels[f"{naming.LABEL}.created"]),
        pid=int(want.labels[f"{naming.LABEL}.pid"]),
        fingerprint=want.fingerprint(image),
        is_synced=want.is_synced,
        is_offline=want.is_offline,
    )


class Provider(Protocol):
    """What a provider's module has."""

    NAME: str
    TITLE: str
    """Its name in texts for people."""
    IS_REMOTE: bool
    """Whether sandboxes are on other machines: connections to them may break and be taken anew."""

    def workspace(self, settings: Settings) -> str:
        """Say how it shows the directory unless NDDT_WORKSPACE does: `mount` or `sync`."""

    def user(self, settings: Settings) -> tuple[int, int]:
        """Give UID and GID of the user inside, to whom files in the workspace belong."""

    def network(self, settings: Settings, found: Host) -> Host:
        """Give the part of this machine's network configuration that makes sense in sandboxes."""

    def image_name(self, settings: Settings, recipe: Recipe, version: str) -> str:
        """Name the image with a version of the agent; an empty one means the tools alone."""

    def check_mount(self, settings: Settings) -> None:
        """Refuse a workspace that the provider cannot show in a sandbox.

        Raises:
            ConfigError: Its next step is a setting that works.
        """

    def check_limits(self, settings: Settings) -> None:
        """Refuse limits that the provider cannot set.

        Raises:
            ConfigError: It names the setting.
        """

    def docker_risk(self, settings: Settings) -> str:
        """Say what the Docker of NDDT_DOCKER_FORWARD lays open, in a sentence; empty for nothing.

        Raises:
            ConfigError: The provider has none of that kind.
        """

    def disks(self, settings: Settings) -> tuple[Path, ...]:
        """Give a directory of this machine on each disk that sandboxes' own files fill."""

    def prepare(self, settings: Settings, *, yes: bool) -> None:
        """Make sure that the provider answers, installing what is missing if agreed to.

        Raises:
            UnavailableError: It does not, or consent is missing.
        """

    def has_image(self, settings: Settings, name: str) -> bool:
        """Tell whether an image exists."""

    def build(self, settings: Settings, recipe: Recipe, version: str, *, yes: bool) -> None:
        """Build the image with a version of the agent; an empty one means the tools alone.

        Raises:
            CannotCreateError: The build failed.
        """

    def look_up(
        self, settings: Settings, recipe: Recipe, package: str, build_tools: Callable[[], None]
    ) -> str:
        """Ask the package's registry which version `package@tag` is.

        Args:
            settings: See there.
            recipe: Of the image with the tools.
            package: See above.
            build_tools: Builds that image, if it is needed and missing.

        Raises:
            CannotCreateError: There is no such package or tag, or no answer.
        """

    def ask(self, settings: Settings, image: str, words: Sequence[str]) -> str:
        """Give what a program prints in a new sandbox made from an image.

        Raises:
            NoImageError: The image has to be built first.
            CannotCreateError: It failed.
        """

    def ephemeral(
        self, settings: Settings, want: Specification, image: str, link: Link
    ) -> AbstractContextManager[tuple[str, ...]]:
        """Give the pipe into a new sandbox, which is gone at the block's end.

        Raises:
            NoImageError: The image has to be built first.
            CannotCreateError: The sandbox cannot be made.
        """

    def known_pipe(self, settings: Settings, name: str, link: Link) -> tuple[str, ...] | None:
        """Give a pipe that probably reaches a sandbox, without asking anybody; None for none."""

    def pipe(self, settings: Settings, sandbox: Sandbox, link: Link) -> tuple[str, ...]:
        """Give the command that reaches a running sandbox."""

    def explain(self, errors: str, link: Link) -> None:
        """Look at what a pipe has printed.

        Raises:
            NddtError: It tells that trying again is of no use.
        """

    def pipe_environment(self, settings: Settings) -> Mapping[str, str]:
        """Give what these commands need beyond our own environment."""

    def create(self, settings: Settings, want: Specification, image: str) -> Sandbox:
        """Make a persistent sandbox, running."""

    def find(self, settings: Settings, name: str) -> Sandbox | None:
        """Look a sandbox up.

        Raises:
            CannotCreateError: The name belongs to something that is not ours.
        """

    def sandboxes(self, settings: Settings) -> tuple[Sandbox, ...]:
        """List everybody's sandboxes, newest first."""

    def start(self, settings: Settings, sandbox: Sandbox) -> None:
        """Start a stopped sandbox."""

    def stop(self, settings: Settings, sandbox: Sandbox) -> None:
        """Stop a running sandbox."""

    def remove(self, settings: Settings, sandbox: Sandbox) -> None:
        """Remove a sandbox with all that belongs to it; one that is gone is fine."""

    def prune_images(self, settings: Settings, owner: str, keep: int) -> tuple[str, ...]:
        """Remove an owner's unused images but the newest `keep`, and name those."""


def get(name: str) -> Provider:
    """Load a provider's module."""
    return cast("Provider", importlib.import_module(f"scripts.providers.{name}"))
