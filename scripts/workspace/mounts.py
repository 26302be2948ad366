"""More directories that a sandbox shows: what cannot be, or would do harm here, is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from scripts.errors import ConfigError
from scripts.machine import bind_sources
from scripts.transport import inside
from scripts.workspace import private_places
from scripts.workspace.git_links import TOP, WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scripts.contracts.sandbox import Specification
    from scripts.settings.fields import Settings
    from scripts.settings.parsing import Mount


def check_mounts(settings: Settings, sandbox: Specification, conversations: str) -> None:
    """Refuse directories that are not there, and places that are not free.

    Args:
        settings: What is to be shown.
        sandbox: Where.
        conversations: Where the agent keeps them, relative to its home directory.

    Raises:
        ConfigError: One of them cannot be shown there, or to nobody.
    """
    if sandbox.workspace is not None:
        private_places.refuse_private(sandbox.workspace, settings)
    for one in settings.mounts:
        private_places.refuse_private(one.source, settings)
    _check_program(settings, sandbox)
    first = PurePosixPath(conversations).parts[0]
    own = (TOP, *map(PurePosixPath, (f"{sandbox.home}/{first}", *inside.PRIVATE)))
    shown = {PurePosixPath(one.target): one.source for one in settings.mounts}
    if sandbox.workspace is not None and not sandbox.is_synced:
        shown[WORKSPACE] = sandbox.workspace
    for one in settings.mounts:
        target = PurePosixPath(one.target)
        found = _problem(one.source, target, own, shown) or _way_out(one, settings, sandbox)
        if sandbox.is_synced and WORKSPACE in target.parents:
            found = f"at {target}, in the copy of the directory", "choose a place elsewhere"
        if found:
            problem, next_step = found
            where = f"NDDT_MOUNTS ({settings.sources['NDDT_MOUNTS']})"
            raise ConfigError(f"{where} shows {one.named or one.source} {problem}", next_step)


def _check_program(settings: Settings, sandbox: Specification) -> None:
    """Refuse to let nddt's own program be changed."""
    changed = [one.source for one in settings.mounts if not one.readonly]
    if sandbox.workspace is not None and not (sandbox.is_synced or sandbox.is_readonly):
        changed.append(sandbox.workspace)
    for one in changed:
        if own := private_places.program_in(one, settings.process_environment):
            problem = f"{one} is only shown to be read: in {own} nddt keeps its own program"
            raise ConfigError(problem, "add :ro, or choose another directory")


def may_have(sandbox: Specification, more: Iterable[Mount]) -> bool:
    """Tell whether a sandbox that shows more, too, could exchange nothing of what it shows."""
    return bind_sources.exchangeable(having(sandbox, more).binds) is None


def having(sandbox: Specification, more: Iterable[Mount]) -> Specification:
    """Show more, where nothing is shown yet."""
    taken = {one.target for one in sandbox.mounts}
    new = (replace(one, source=one.source.resolve()) for one in more if one.target not in taken)
    return replace(sandbox, mounts=(*new, *sandbox.mounts))


def _way_out(one: Mount, settings: Settings, sandbox: Specification) -> tuple[str, str] | None:
    """Tell why a directory could become another one, by what the sandbox can do, and what to do."""
    named = one.named or one.source
    others = [other.source for other in settings.mounts if not other.readonly and other != one]
    is_changed = sandbox.is_synced or not sandbox.is_readonly
    if sandbox.workspace is not None and is_changed:
        others.append(sandbox.workspace)
    if through := bind_sources.way_through(named, others):
        how = f"take it away: all of {WORKSPACE} is shown anyway"
        if through != sandbox.workspace:
            how = f"show {through} with :ro, or take this one away"
        link = "so that it could put a link to any directory in its place"
        return f"which is in {through}, where the sandbox can change all, {link}", how
    if sandbox.workspace is None or one.readonly:
        return None
    if bind_sources.way_through(sandbox.workspace, (one.source,)):
        link = "could put a link to any directory in its place"
        return f"with {sandbox.workspace} in it, so that the sandbox {link}", "add :ro to it"
    return None


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
