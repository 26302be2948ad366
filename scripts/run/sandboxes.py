"""Sandboxes: found, made, started, removed, and never somebody else's."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from scripts.brings import ports
from scripts.contracts import grants
from scripts.contracts.grants import DIRECTORY
from scripts.contracts.sandbox import Identity
from scripts.errors import CannotCreateError, NddtError, NoImageError, UnavailableError
from scripts.machine import audit, console, files, state
from scripts.naming import said
from scripts.run import keeper
from scripts.transport.ssh import Connection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scripts.contracts.grants import Grants
    from scripts.contracts.sandbox import Sandbox, Specification
    from scripts.plan import Plan

from scripts.run import images
from scripts.run.work import Work, wanted

log = logging.getLogger("nddt")

UNKNOWN = "all (another version of nddt made it)"
"""Stands among settings where it is not known what a sandbox has."""


def check_owner(work: Work, found: Sandbox) -> Sandbox:
    """Refuse to touch what belongs to somebody else.

    Raises:
        CannotCreateError: The sandbox is another owner's.
    """
    if found.owner != work.settings.owner:
        raise CannotCreateError(
            f"the name {found.name} belongs to a sandbox of {found.owner}",
            "choose another with --name or NDDT_NAME",
        )
    return found


def existing(work: Work, name: str) -> Sandbox:
    """Look up one of our sandboxes.

    Raises:
        UnavailableError: There is none of that name.
    """
    audit.sandbox(name)
    found = work.provider.find(work.settings, name)
    if found is None:
        make = f"make one: {said(f'{work.provider.NAME}.create-sandbox')}"
        raise UnavailableError(f"there is no sandbox {name}", make)
    return check_owner(work, found)


def still_there(work: Work, which: Identity | None) -> Sandbox | None:
    """Look a sandbox up that was known before; None if it is gone, whatever has its name now."""
    found = work.provider.find(work.settings, which.name) if which else None
    return found if found and which and found.id == which.id else None


def create_sandbox(work: Work, plan: Plan) -> str:
    """Make sure that the plan's persistent sandbox runs, and give its name."""
    audit.sandbox(plan.sandbox.name)
    with files.lock(state.sandbox_directory(work.environ, work.key(plan.sandbox.name))):
        create_or_start(work, plan, images.agent_version(work, plan))
    return plan.sandbox.name


def create_or_start(work: Work, plan: Plan, version: str) -> Sandbox:
    """Make sure that the plan's persistent sandbox runs, and give it."""
    want, title = plan.sandbox, work.provider.TITLE
    work.provider.prepare(work.settings, yes=work.yes)
    plan.prepare()
    found = work.provider.find(work.settings, want.name)
    if found is not None and _ask_to_replace(work, plan, check_owner(work, found), version):
        remove_with_files(work, found)
        found = None
    if found is None:
        found = _create(work, plan, version)
    elif found.state != "running":
        log.info("Starting %s sandbox: %s", title, want.name)
        work.provider.start(work.settings, found)
    else:
        log.info("Using existing %s sandbox: %s", title, want.name)
    note_identity(work, found)
    return found


def create_for_one_run(work: Work, plan: Plan, version: str) -> Sandbox:
    """Make a sandbox for one run."""
    work.provider.prepare(work.settings, yes=work.yes)
    plan.prepare()
    return _create(work, plan, version)


def _create(work: Work, plan: Plan, version: str) -> Sandbox:
    """Make a sandbox, and its image if there turns out to be none."""
    want, image_wanted = plan.sandbox, plan.image(version)
    log.info("Creating %s sandbox: %s", work.provider.TITLE, want.name)
    try:
        made = work.provider.create(work.settings, want, image_wanted)
    except NoImageError:
        images.build_missing(work, plan, version)
        made = work.provider.create(work.settings, want, image_wanted)
    log.info("Sandbox is ready!")
    return made


def remove_with_files(work: Work, sandbox: Sandbox, *, discard: bool = False) -> None:
    """Remove a sandbox, and everything of it that is here.

    Args:
        work: The provider and the settings.
        sandbox: Which.
        discard: Whether work in its copy of the directory may be lost; else it is put aside.
    """
    if sandbox.is_synced and not discard:
        work.rescue(work, sandbox)
    forget(work, sandbox)
    work.provider.remove(work.settings, sandbox)
    if has_its_files(work, sandbox):
        known = state.copy_directory(work.environ, work.key(sandbox.name))
        shutil.rmtree(known, ignore_errors=True)


def remove_passed(work: Work, made: Sandbox) -> None:
    """Remove the sandbox of a run that is over, or say how it is removed."""
    try:
        remove_with_files(work, made, discard=True)
    except NddtError as error:
        log.warning(
            "sandbox %s could not be removed: %s — %s --name %s --yes does it",
            made.name,
            error.message,
            said(f"{work.provider.NAME}.cleanup"),
            made.name,
        )


def _ask_to_replace(work: Work, plan: Plan, found: Sandbox, version: str) -> bool:
    """Ask whether an out-of-date sandbox is to be made anew.

    Raises:
        UnavailableError: It is not, but has more than is allowed.
    """
    image_wanted = plan.image(version)
    if found.fingerprint == plan.sandbox.fingerprint(image_wanted):
        return False
    if work.as_it_is or found.mode != "persistent":
        check_allowed(work, plan.sandbox, found.grants)
        return False
    if found.image != image_wanted:
        changed = f"its image is {found.image}, now it would be {image_wanted}"
    elif found.workspace != str(plan.sandbox.workspace or ""):
        shown = plan.sandbox.workspace or "nothing"
        changed = f"it shows {found.workspace or 'nothing'}, now it would show {shown}"
    elif found.is_offline != plan.sandbox.is_offline:
        has = ("a network", "none")
        changed = f"it has {has[found.is_offline]}, now it would have {has[not found.is_offline]}"
    else:
        changed = "its size, or something else that it shows, is another one"
    question = f"sandbox {found.name} is out of date: {changed}. Make it anew? All but the "
    question += "workspace is lost."
    if work.yes or console.ask(question):
        return True
    if too_much := _exceeded(plan.sandbox, found.grants):
        raise _too_much(work, found.name, too_much, "--yes makes it anew")
    log.warning("%s is used as it is: %s — --yes makes it anew", found.name, changed)
    return False


def _exceeded(want: Specification, there: Grants | None) -> tuple[str, ...]:
    """Name the settings that allow less than what a sandbox has."""
    return (UNKNOWN,) if there is None else want.exceeded_by(there)


def _too_much(work: Work, name: str, names: Sequence[str], next_step: str) -> UnavailableError:
    sources = work.settings.sources
    shown = (f"{one} ({sources[one]})" if one in sources else one for one in names)
    problem = f"sandbox {name} has more than is allowed now: {', '.join(shown)}"
    return UnavailableError(problem, next_step)


def check_allowed(work: Work, want: Specification, there: Grants | None) -> None:
    """Refuse to run anything in a sandbox, taken as it is, that has more than is allowed now.

    What was an option of the command that made it counts only where something else is said now;
    nor does what is not said at all where it is the sandbox that is named, and not the directory.

    Raises:
        UnavailableError: It has.
    """
    if work.is_last:
        return
    by_name = work.settings.sources["NDDT_NAME"] == "option"
    given = there.given if there else ()

    def counts(name: str) -> bool:
        if name in {UNKNOWN, DIRECTORY}:
            return name == UNKNOWN
        return work.settings.is_said(name) or not (by_name or name in given)

    if too_much := tuple(filter(counts, _exceeded(want, there))):
        remove = said(f"{work.provider.NAME}.cleanup --name {want.name}")
        how = f"make it anew: {remove}, then again"
        raise _too_much(work, want.name, too_much, how)


def excess(work: Work) -> tuple[str, ...]:
    """Name the settings that allow less than what the directory's sandbox here has, if any has."""
    want = wanted(work)
    if work.provider.ANSWERS_SLOWLY:  # what is known of it here has to do
        note = state.sandbox_directory(work.environ, work.key(want.name)) / state.GRANTS
        there = grants.read_grants(note.read_text(encoding="utf-8")) if note.exists() else None
        return want.exceeded_by(there) if there else ()
    with suppress(NddtError):
        found = work.provider.find(work.settings, want.name)
        if found and found.owner == work.settings.owner:
            return _exceeded(want, found.grants)
    return ()


def note_identity(work: Work, found: Sandbox) -> None:
    """Note the identity of the sandbox whose files are kept here under its name.

    What there is of an earlier one of that name, which is gone, goes first.
    """
    directory = state.sandbox_directory(work.environ, work.key(found.name))
    earlier = noted(directory, found.name)
    if earlier and earlier.id != found.id:
        forget(work, earlier)
    directory.mkdir(mode=0o700, exist_ok=True)
    files.write(directory / state.ID, found.id)


def noted(directory: Path, name: str) -> Identity | None:
    """Read which sandbox a connection leads to, whatever has its name now; None if not known.

    Args:
        directory: The connection's.
        name: The sandbox's.
    """
    with suppress(OSError):
        if known := (directory / state.ID).read_text(encoding="ascii").strip():
            return Identity(name, known)
    return None


def has_its_files(work: Work, which: Identity) -> bool:
    """Tell whether what is kept here for a sandbox's name is its own, as far as that is noted."""
    known = noted(state.sandbox_directory(work.environ, work.key(which.name)), which.name)
    return known is None or known.id == which.id


def forget(work: Work, which: Identity) -> None:
    """Close the connection to a sandbox, with its ports and its keeper, and remove its files.

    If another one has its name by now, they are that one's, and stay.
    """
    if not has_its_files(work, which):
        return
    key = work.key(which.name)
    directory = state.sandbox_directory(work.environ, key)
    keeper.end(directory)
    Connection(directory).close()
    ports.forget(work.environ, key)
    shutil.rmtree(directory, ignore_errors=True)
