"""More directories that a sandbox shows: what cannot be, or would do harm here, is refused."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from scripts import inside
from scripts.errors import ConfigError
from scripts.git_links import TOP, WORKSPACE

if TYPE_CHECKING:
    from scripts.providers import Specification
    from scripts.settings import Settings


def check(settings: Settings, sandbox: Specification, conversations: str) -> None:
    """Refuse directories that are not there, and places that are not free.

    Args:
        settings: What is to be shown.
        sandbox: Where.
        conversations: Where the agent keeps them, relative to its home directory.

    Raises:
        ConfigError: One of them cannot be shown there.
    """
    first = PurePosixPath(conversations).parts[0]
    own = (TOP, *map(PurePosixPath, (f"{sandbox.home}/{first}", *inside.PRIVATE)))
    shown = {PurePosixPath(one.target): one.source for one in settings.mounts}
    if sandbox.workspace is not None and not sandbox.is_synced:
        shown[WORKSPACE] = sandbox.workspace
    for one in settings.mounts:
        target = PurePosixPath(one.target)
        found = _problem(one.source, target, own, shown)
        if sandbox.is_synced and WORKSPACE in target.parents:
            found = f"at {target}, in the copy of the directory", "choose a place elsewhere"
        if found:
            problem, next_step = found
            where = f"NDDT_MOUNTS ({settings.sources['NDDT_MOUNTS']})"
            raise ConfigError(f"{where} shows {one.source} {problem}", next_step)


def _problem(
    source: Path,
    target: PurePosixPath,
    own: tuple[PurePosixPath, ...],
    shown: dict[PurePosixPath, Path],
) -> tuple[str, str] | None:
    """Say what is wrong, and what to do."""
    if not os.path.isdir(source):  # noqa: PTH112  (False without permission)
        return "which is no directory", "correct it"
    for one in own:
        if one.is_relative_to(target) or target.is_relative_to(one):
            # What nddt and the agent write there would be written here.
            return f"at {target}, where the sandbox keeps files of its own", "choose another place"
    around = next((one for one in target.parents if one in shown), None)
    if around is not None:
        # The engine would make it, as root.
        place = shown[around] / target.relative_to(around)
        if not os.path.isdir(place):  # noqa: PTH112
            return f"at {target}, but there is no {place}", "make that directory first"
    return None
