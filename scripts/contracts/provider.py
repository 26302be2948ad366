"""What all providers answer.

A provider looks after the life of sandboxes and makes a command whose stdin and stdout reach
a shell inside; all else is written once, on top of that pipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from _typeshed import DataclassInstance

    from scripts.contracts.action import Action
    from scripts.contracts.image import Recipe
    from scripts.contracts.sandbox import Link, Sandbox, Specification
    from scripts.settings.fields import Settings
    from scripts.settings.host import Host


class Provider(Protocol):
    """What a provider's module has."""

    NAME: str
    TITLE: str
    """Its name in texts for people."""
    SETTINGS: type[DataclassInstance] | None
    """Its own settings: a frozen dataclass of `declaring.variable`s; None if it has none."""
    USUAL: Mapping[str, int]
    """Variable → the limit that it sets where nobody else does; what is not here has none."""
    VARIABLES: tuple[str, ...]
    """Patterns of the variables that choose whose account or engine it is, and how it is reached:
    a project's .env sets them only with consent."""
    ACTIONS: tuple[Action, ...]
    """Tasks that it alone has."""
    LISTENERS: tuple[str, ...]
    """How the names of programs of its own begin that listen in a sandbox."""
    STARTS_SLOWLY: bool
    """Making a sandbox takes seconds: that it is being made is said."""
    ANSWERS_SLOWLY: bool
    """To ask it takes a network: what is only to be shown is told from notes of this machine."""
    FALLS_SILENT: bool
    """A connection can end without a word from either side: ssh asks whether it lives."""
    BREAKS: bool
    """Connections break: a session outlives them, and is come back to by new ones."""
    HAS_ROUTES: bool
    """A sandbox without a network may have routes all the same, and no address beyond them."""

    def is_set_up(self, settings: Settings) -> bool:
        """Tell whether the user has what it takes to ask it, such as a key; it is not asked."""

    def posture(self, settings: Settings) -> tuple[tuple[str, str, str], ...]:
        """List the walls that it alone has: what each is, how it stands, which setting says so."""

    def idle_s(self, settings: Settings) -> int:
        """Tell after how many seconds it stops a persistent sandbox that nobody uses; 0: never."""

    def workspace(self, settings: Settings) -> str:
        """Say how it shows the directory unless NDDT_WORKSPACE does: `mount` or `sync`."""

    def user(self, settings: Settings) -> tuple[int, int]:
        """Return UID and GID of the user inside, to whom files in the workspace belong."""

    def network(self, settings: Settings, found: Host) -> Host:
        """Return the part of this machine's network configuration that makes sense in sandboxes."""

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
        """Return a directory of this machine on each disk that sandboxes' own files fill."""

    def prepare(self, settings: Settings, *, yes: bool) -> None:
        """Make sure that the provider answers, installing what is missing if agreed to.

        Raises:
            UnavailableError: It does not, or consent is missing.
        """

    def find_image(self, settings: Settings, name: str) -> bool:
        """Look an image up, waiting for one that is being built; False if there is none."""

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
            settings: All of them.
            recipe: Of the image with the tools.
            package: Its name in the registry.
            build_tools: Builds that image, if it is needed and missing.

        Raises:
            CannotCreateError: There is no such package or tag, or no answer.
        """

    def ask(self, settings: Settings, image: str, words: Sequence[str]) -> str:
        """Ask a new sandbox what a program prints in it, made from an image.

        Raises:
            NoImageError: The image has to be built first.
            CannotCreateError: It failed.
        """

    def ephemeral(
        self, settings: Settings, want: Specification, image: str, link: Link
    ) -> AbstractContextManager[tuple[str, ...]]:
        """Make a sandbox that is gone at the block's end, and give the pipe into it.

        Its id is in the link's file for that as soon as there is one.

        Raises:
            NoImageError: The image has to be built first.
            CannotCreateError: The sandbox cannot be made.
        """

    def known_pipe(self, settings: Settings, name: str, link: Link) -> tuple[str, ...] | None:
        """Find a pipe that probably reaches a sandbox, without asking anybody; None for none."""

    def pipe(self, settings: Settings, sandbox: Sandbox, link: Link) -> tuple[str, ...]:
        """Build the command that reaches a running sandbox."""

    def explain(self, errors: str, link: Link) -> None:
        """Look at what a pipe has printed.

        Raises:
            NddtError: It tells that trying again is of no use.
        """

    def pipe_environment(self, settings: Settings) -> Mapping[str, str]:
        """Return what these commands need beyond our own environment."""

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
