"""Tasks that every provider has, about what is in a sandbox."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scripts.cli import NddtTask, lazy, task
from scripts.words.options import common_options, help_

if TYPE_CHECKING:
    from invoke.context import Context

    from scripts.commands import files as files_commands
    from scripts.commands import network as network_commands
else:
    files_commands = lazy("scripts.commands.files")
    network_commands = lazy("scripts.commands.network")


def tasks_of(provider: str | None) -> dict[str, NddtTask]:  # long: one function for each task
    """Make the tasks that are about what is in a sandbox; None follows NDDT_PROVIDER."""
    common = partial(common_options, provider)

    @task(
        name="ports",
        help=help_(
            "name",
            "verbose",
            add="Open this port of the sandbox, too, and print where.",
            remove="Close a port that --add has opened.",
            open="Open this port of the sandbox in the browser.",
        ),
    )
    def ports_(
        c: Context,
        add: str | None = None,
        remove: str | None = None,
        open: str | None = None,  # noqa: A002  (the option's name)
        name: str | None = None,
        verbose: bool = False,
    ) -> None:
        """Show which ports of the sandbox are open, or open one."""
        one = common(c, name, yes=False, verbose=verbose)
        network_commands.show_ports(one, add=add, remove=remove, browse=open)

    @task(
        help=help_(
            "name",
            "verbose",
            source="What is copied; sandbox:PATH if it is in the sandbox.",
            target="Where to; sandbox:PATH if that is in the sandbox.",
        )
    )
    def cp(
        c: Context, source: str, target: str, name: str | None = None, verbose: bool = False
    ) -> None:
        """Copy files into the sandbox, or out of it."""
        files_commands.copy(common(c, name, yes=False, verbose=verbose), source, target)

    @task(help=help_("name", "yes", "verbose"))
    def push(c: Context, name: str | None = None, yes: bool = False, verbose: bool = False) -> int:
        """Send what has changed here to the sandbox's copy."""
        return files_commands.push(common(c, name, yes, verbose))

    @task(help=help_("name", "yes", "verbose"))
    def pull(c: Context, name: str | None = None, yes: bool = False, verbose: bool = False) -> int:
        """Bring back what has changed in the sandbox's copy."""
        return files_commands.pull(common(c, name, yes, verbose))

    @task(help=help_("name", "yes", "verbose"))
    def diff(c: Context, name: str | None = None, yes: bool = False, verbose: bool = False) -> None:
        """Show what pull would bring."""
        files_commands.diff(common(c, name, yes, verbose))

    return {str(one.name): one for one in (ports_, cp, push, pull, diff)}
