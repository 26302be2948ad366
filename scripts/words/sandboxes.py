"""Tasks that every provider has, about the life of sandboxes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from scripts.cli import NddtTask, lazy, task
from scripts.words.options import common_options, help_, several

if TYPE_CHECKING:
    from invoke.context import Context

    from scripts.commands import run as run_commands
    from scripts.commands import sandboxes as sandboxes_commands
else:
    run_commands = lazy("scripts.commands.run")
    sandboxes_commands = lazy("scripts.commands.sandboxes")


def tasks_of(provider: str | None) -> dict[str, NddtTask]:  # long: one function for each task
    """Make the tasks that every provider has; None follows NDDT_PROVIDER."""
    common = partial(common_options, provider)

    @task(plans=True, help=help_("yes", "verbose"))
    def build_image(c: Context, yes: bool = False, verbose: bool = False) -> None:
        """Build the sandbox's image, if anything in it changed."""
        sandboxes_commands.build_image(common(c, None, yes, verbose))

    @task(plans=True, iterable=["mount"], help=help_("name", "mount", "profile", "yes", "verbose"))
    def create_sandbox(
        c: Context,
        name: str | None = None,
        mount: list[str] | None = None,
        profile: str | None = None,
        yes: bool = False,
        verbose: bool = False,
    ) -> None:
        """Make this directory's sandbox, or start it."""
        one = common(c, name, yes, verbose)
        sandboxes_commands.create_sandbox(replace(one, mounts=several(mount), profile=profile))

    @task(help=help_("name", "ports", "profile", "keyless", "demo", "yes", "verbose"))
    def attach(
        c: Context,
        name: str | None = None,
        ports: str | None = None,
        profile: str | None = None,
        keyless: bool = False,
        demo: bool = False,
        yes: bool = False,
        verbose: bool = False,
    ) -> int:
        """Come back to the agent in this directory's sandbox."""
        one = replace(common(c, name, yes, verbose), ports=ports, profile=profile, keyless=keyless)
        return run_commands.attach(one, demo=demo)

    @task(
        plans=True,
        iterable=["mount"],
        help=help_("name", "command", "ports", "mount", "profile", "keyless", "yes", "verbose"),
    )
    def shell(
        c: Context,
        name: str | None = None,
        command: str | None = None,
        ports: str | None = None,
        mount: list[str] | None = None,
        profile: str | None = None,
        keyless: bool = False,
        yes: bool = False,
        verbose: bool = False,
    ) -> int:
        """Open a shell in the sandbox, or run one command."""
        one = replace(common(c, name, yes, verbose), ports=ports, mounts=several(mount))
        one = replace(one, profile=profile, keyless=keyless)
        return run_commands.shell(one, command)

    @task(plans=True, name="list", help=help_("all-owners", "json", "verbose"))
    def list_(
        c: Context, all_owners: bool = False, json: bool = False, verbose: bool = False
    ) -> None:
        """List your sandboxes."""
        sandboxes_commands.list_sandboxes(
            common(c, None, yes=False, verbose=verbose), all_owners=all_owners, as_json=json
        )

    @task(plans=True, help=help_("name", "verbose"))
    def start(c: Context, name: str | None = None, verbose: bool = False) -> None:
        """Start this directory's stopped sandbox."""
        sandboxes_commands.start(common(c, name, yes=False, verbose=verbose))

    @task(plans=True, help=help_("name", "verbose"))
    def stop(c: Context, name: str | None = None, verbose: bool = False) -> None:
        """Stop this directory's sandbox; it keeps its files."""
        sandboxes_commands.stop(common(c, name, yes=False, verbose=verbose))

    @task(
        plans=True,
        tidies=True,
        help=help_("all", "name", "older-than", "images", "discard", "yes", "verbose"),
    )
    def cleanup(
        c: Context,
        all: bool = False,  # noqa: A002  (the option's name)
        name: str | None = None,
        older_than: str | None = None,
        images: bool = False,
        discard: bool = False,
        yes: bool = False,
        verbose: bool = False,
    ) -> None:
        """Remove this directory's sandboxes, running or not."""
        sandboxes_commands.clean_up(
            common(c, name, yes, verbose),
            everything=all,
            older_than=older_than,
            images=images,
            discard=discard,
        )

    made = (build_image, create_sandbox, attach, shell, list_, start, stop, cleanup)
    return {str(one.name): one for one in made}
