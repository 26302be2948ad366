"""Options that several tasks have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts import providers
from scripts.cli import lazy

if TYPE_CHECKING:
    from invoke.context import Context

    from scripts.commands import common as common_commands
    from scripts.commands.common import Common
else:
    common_commands = lazy("scripts.commands.common")

HELP = {
    "all": "All that are yours, in any directory, with the runs of other terminals.",
    "host": "Name, such as example.org, *.example.org, example.org:8443.",
    "all-owners": "Those of other users and machines, too.",
    "command": "Run this with bash in place of an interactive shell.",
    "demo": "Answer without a model: shows that all parts work, with no account.",
    "discard": "Lose what copies of the directory hold and nobody has fetched.",
    "images": "Remove old images, too; the newest 3 stay.",
    "json": "Print a JSON array.",
    "keyless": "Keep keys on this machine or do nothing: NDDT_MODEL_ACCESS=tunnel.",
    "mount": "Directory to show, HERE:IN_SANDBOX or HERE:IN_SANDBOX:ro; repeatable (NDDT_MOUNTS).",
    "name": "Name of the sandbox; default: made up from the directory (NDDT_NAME).",
    "older-than": "Only what is older than this, such as 90s, 30m, 12h, 7d.",
    "persistent": "Keep one sandbox per directory and reuse it (NDDT_PERSISTENT).",
    "port": "Port of the sandbox, such as 3000.",
    "ports": "Ports of the sandbox to reach from here, such as 3000,8080 (NDDT_PORTS).",
    "profile": "Its walls: open, standard, strict or airgap (NDDT_PROFILE).",
    "provider": f"Where sandboxes run: {' or '.join(providers.NAMES)} (NDDT_PROVIDER).",
    "timeout": "End the run after this many seconds; default 0, never (NDDT_TIMEOUT).",
    "verbose": "Show what is done, on stderr.",
    "yes": "Answer all questions with yes.",
}


def help_(*names: str, **own: str) -> dict[str, str]:
    """Collect the explanations of options that several tasks have, and of a task's own."""
    return {name: HELP[name] for name in names} | own


def dry(c: Context) -> bool:
    """Tell whether `--dry` was typed."""
    return bool(c.config.run.dry)


def several(values: list[str] | None) -> str | None:
    """Write an option that was given several times as its setting; None if it was not given."""
    return ",".join(values) if values else None


def common_options(
    provider: str | None, c: Context, name: str | None, yes: bool, verbose: bool
) -> Common:
    """Collect the options that most tasks have."""
    return common_commands.Common(
        provider=provider, name=name, yes=yes, verbose=verbose, dry=dry(c)
    )
