"""Providers: one module each, and what all of them answer.

A provider looks after the life of sandboxes and gives a command whose stdin and stdout reach
a shell inside; all else is written once, on top of that pipe.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from scripts import naming

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scripts.image import Recipe
    from scripts.settings import Settings

NAMES = ("docker",)


@dataclass(frozen=True, kw_only=True)
class Specification:
    """The sandbox that a plan wants."""

    name: str
    persistent: bool
    workspace: Path | None
    """Directory of this machine that is /workspace; None shares nothing."""
    user: str
    labels: Mapping[str, str]

    def fingerprint(self, image: str) -> str:
        """Hash what a sandbox is made from: another hash, another sandbox."""
        return naming.digest((image, str(self.workspace), self.user), 16)


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


class Provider(Protocol):
    """What a provider's module has."""

    NAME: str

    def user(self, settings: Settings) -> tuple[int, int]:
        """Give UID and GID that a sandbox must use so that files belong to the caller."""

    def check_mount(self, settings: Settings) -> None:
        """Refuse a workspace that the provider cannot show in a sandbox.

        Raises:
            ConfigError: Its next step is a setting that works.
        """

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

    def look_up(self, settings: Settings, recipe: Recipe, package: str) -> str:
        """Ask the package's registry, from inside, which version `package@tag` is.

        Raises:
            CannotCreateError: There is no such package or tag, or no answer.
        """

    def ephemeral_pipe(
        self, settings: Settings, want: Specification, image: str, server: Sequence[str]
    ) -> tuple[str, ...]:
        """Give the command that is a new sandbox for as long as it runs."""

    def pipe(self, settings: Settings, name: str, server: Sequence[str]) -> tuple[str, ...]:
        """Give the command that reaches a running sandbox."""

    def pipe_environment(self, settings: Settings) -> Mapping[str, str]:
        """Give what these commands need beyond our own environment."""

    def create(self, settings: Settings, want: Specification, image: str) -> None:
        """Make a persistent sandbox, running."""

    def find(self, settings: Settings, name: str) -> Sandbox | None:
        """Look a sandbox up.

        Raises:
            CannotCreateError: The name belongs to something that is not ours.
        """

    def sandboxes(self, settings: Settings) -> tuple[Sandbox, ...]:
        """List everybody's sandboxes, newest first."""

    def start(self, settings: Settings, name: str) -> None:
        """Start a stopped sandbox."""

    def stop(self, settings: Settings, name: str) -> None:
        """Stop a running sandbox."""

    def remove(self, settings: Settings, name: str) -> None:
        """Remove a sandbox with all that belongs to it; one that is gone is fine."""

    def prune_images(self, settings: Settings, owner: str, keep: int) -> tuple[str, ...]:
        """Remove an owner's unused images but the newest `keep`, and name those."""


def get(name: str) -> Provider:
    """Load a provider's module."""
    return cast("Provider", importlib.import_module(f"scripts.providers.{name}"))
