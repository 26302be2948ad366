"""Tasks about this directory, this machine, and what the user has agreed to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.cli import lazy, task
from scripts.words.options import dry, help_

if TYPE_CHECKING:
    from invoke.context import Context

    from scripts.commands import common as common_commands
    from scripts.commands import files as files_commands
    from scripts.commands import network as network_commands
    from scripts.commands import sandboxes as sandboxes_commands
    from scripts.commands import settings as settings_commands
else:
    common_commands = lazy("scripts.commands.common")
    files_commands = lazy("scripts.commands.files")
    network_commands = lazy("scripts.commands.network")
    sandboxes_commands = lazy("scripts.commands.sandboxes")
    settings_commands = lazy("scripts.commands.settings")


@task(
    help={
        "restore": "Bring back what was there before.",
        "accept": "Forget it: all is fine as it is.",
    }
)
def protected(c: Context, restore: bool = False, accept: bool = False) -> None:
    """Show changes to files that programs here act on."""
    files_commands.protected_files(restored=restore, accepted=accept)


@task(help=help_("yes", "verbose", install="Put the line into ~/.ssh/config."))
def ssh_config(c: Context, install: bool = False, yes: bool = False, verbose: bool = False) -> None:
    """Let your own ssh reach every sandbox by its name."""
    settings_commands.ssh_config(installed=install, yes=yes, verbose=verbose)


@task(plans=True, help=help_("provider", "yes", "verbose"))
def setup(
    c: Context, provider: str | None = None, yes: bool = False, verbose: bool = False
) -> None:
    """Install what is missing here, and build the image."""
    sandboxes_commands.build_image(
        common_commands.Common(provider=provider, yes=yes, verbose=verbose, dry=dry(c))
    )


@task(
    plans=True,
    help=help_("verbose", allowed="Show what is allowed instead, but for package hosts."),
)
def network(c: Context, allowed: bool = False, verbose: bool = False) -> None:
    """Show which hosts this directory's sandboxes were refused."""
    common = common_commands.Common(verbose=verbose, dry=dry(c))
    network_commands.show_network(common, allowed=allowed)


@task(help=help_("host", "verbose"))
def allow(c: Context, host: str, verbose: bool = False) -> None:
    """Allow a host to this directory's sandboxes, at once."""
    network_commands.allow(common_commands.Common(verbose=verbose), host)


@task(help=help_("host", "verbose"))
def deny(c: Context, host: str, verbose: bool = False) -> None:
    """Take back what network.allow has allowed."""
    network_commands.deny(common_commands.Common(verbose=verbose), host)


@task(plans=True, help=help_("yes", revoke="Take back what was agreed to."))
def trust(c: Context, revoke: bool = False, yes: bool = False) -> None:
    """Agree to what this project's .env would widen."""
    settings_commands.trust_project(revoked=revoke, yes=yes, dry=dry(c))


@task(plans=True, help=help_("profile", security="Show what a sandbox may do, instead."))
def config(c: Context, profile: str | None = None, security: bool = False) -> None:
    """Show every setting, its value and where it comes from."""
    settings_commands.show_settings(profile=profile, about_security=security, dry=dry(c))
