"""Images and sandboxes: found, made, started, and never somebody else's."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scripts import audit, console, image, naming, ports, providers, state
from scripts.errors import CannotCreateError, NddtError, NoImageError, UnavailableError
from scripts.plan import specification
from scripts.ssh import Connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.plan import Plan
    from scripts.providers import Provider, Sandbox, Specification
    from scripts.settings import Settings

log = logging.getLogger("nddt")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every step needs."""

    provider: Provider
    settings: Settings
    yes: bool = False
    """Questions are agreed to beforehand."""
    as_it_is: bool = False
    """An existing sandbox is good, whatever it was made from."""

    @property
    def environ(self) -> Mapping[str, str]:
        """Our own environment."""
        return self.settings.process_environment

    def key(self, sandbox: str) -> str:
        """Tell a sandbox of this provider from any other's."""
        return naming.key(self.provider.NAME, sandbox)


def work_with(loaded: Settings, name: str, *, yes: bool = False) -> Work:
    """Put together what every step needs, with a provider of this name."""
    provider = providers.get(name)
    chosen = loaded.workspace or provider.workspace(loaded)
    fitting = replace(loaded, provider=name, workspace=chosen)
    return Work(provider=provider, settings=fitting, yes=yes)


def wanted(work: Work) -> Specification:
    """Describe the directory's persistent sandbox, or the one that NDDT_NAME names."""
    user = work.provider.user(work.settings)
    return specification(work.settings, user, persistent=True, pid=os.getpid())


# -- images ---------------------------------------------------------------------------------


def agent_version(work: Work, plan: Plan) -> str:
    """Give the agent's version; the registry is asked once a day, if at all."""

    def look_up(package: str) -> str:
        log.info("looking up %s", package)
        work.provider.prepare(work.settings, yes=work.yes)
        return work.provider.look_up(
            work.settings, plan.recipe, package, lambda: build(work, plan, "")
        )

    if plan.image("1") == plan.image("2"):  # a ready-made image has the version that it has
        return plan.version
    memory = state.cache_directory(work.environ) / "versions.json"
    return image.version(plan.version, plan.recipe.package, memory, look_up)


def build(work: Work, plan: Plan, version: str) -> None:
    """Build an image unless it is there; of several processes one builds."""
    name = plan.image(version)
    if work.provider.has_image(work.settings, name):
        return
    with state.lock(state.runtime_directory(work.environ) / "l-build"):
        if not work.provider.has_image(work.settings, name):
            work.provider.build(work.settings, plan.recipe, version, yes=work.yes)


def build_image(work: Work, plan: Plan) -> str:
    """Build the plan's image, if it is not there, and give its name."""
    work.provider.prepare(work.settings, yes=work.yes)
    if plan.sandbox.is_synced:
        from scripts import workspace  # noqa: PLC0415  (only where a directory is copied)

        workspace.need(work)
    version = agent_version(work, plan)
    build(work, plan, version)
    return plan.image(version)


# -- sandboxes ------------------------------------------------------------------------------


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
        make = f"make one: inv {work.provider.NAME}.create-sandbox"
        raise UnavailableError(f"there is no sandbox {name}", make)
    return check_owner(work, found)


def create_sandbox(work: Work, plan: Plan) -> str:
    """Make sure that the plan's persistent sandbox runs, and give its name."""
    audit.sandbox(plan.sandbox.name)
    with state.lock(state.sandbox_directory(work.environ, work.key(plan.sandbox.name))):
        create_or_start(work, plan, agent_version(work, plan))
    return plan.sandbox.name


def create_or_start(work: Work, plan: Plan, version: str) -> Sandbox:
    """Make sure that the plan's persistent sandbox runs, and give it."""
    want, title = plan.sandbox, work.provider.TITLE
    work.provider.prepare(work.settings, yes=work.yes)
    plan.prepare()
    found = work.provider.find(work.settings, want.name)
    if found is not None and _is_replaced(work, plan, check_owner(work, found), version):
        remove(work, found)
        found = None
    if found is None:
        return _create(work, plan, version)
    if found.state != "running":
        log.info("Starting %s sandbox: %s", title, want.name)
        work.provider.start(work.settings, found)
    else:
        log.info("Using existing %s sandbox: %s", title, want.name)
    return found


def create(work: Work, plan: Plan, version: str) -> Sandbox:
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
        build(work, plan, version)
        made = work.provider.create(work.settings, want, image_wanted)
    log.info("Sandbox is ready!")
    return made


def remove(work: Work, sandbox: Sandbox, *, discard: bool = False) -> None:
    """Remove a sandbox, and everything of it that is here.

    Args:
        work: See there.
        sandbox: Which.
        discard: Whether work in its copy of the directory may be lost; else it is put aside.
    """
    if sandbox.is_synced and not discard:
        from scripts import workspace  # noqa: PLC0415  (what most sandboxes do without)

        workspace.rescue(work, sandbox)
    forget(work, sandbox.name)
    work.provider.remove(work.settings, sandbox)
    shutil.rmtree(state.copy_directory(work.environ, work.key(sandbox.name)), ignore_errors=True)


def remove_passed(work: Work, made: Sandbox) -> None:
    """Remove the sandbox of a run that is over, or say how it is removed."""
    try:
        remove(work, made, discard=True)
    except NddtError as error:
        log.warning(
            "sandbox %s could not be removed: %s — inv %s.cleanup --name %s --yes does it",
            made.name,
            error.message,
            work.provider.NAME,
            made.name,
        )


def _is_replaced(work: Work, plan: Plan, found: Sandbox, version: str) -> bool:
    """Ask whether an out-of-date sandbox is to be made anew.

    Raises:
        UnavailableError: It is not, but has a network that nobody wants.
    """
    image_wanted = plan.image(version)
    fits = work.as_it_is or found.fingerprint == plan.sandbox.fingerprint(image_wanted)
    if fits or found.mode != "persistent":
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
    if plan.sandbox.is_offline and not found.is_offline:
        problem = f"sandbox {found.name} has a network, though NDDT_NETWORK forbids it"
        raise UnavailableError(problem, "--yes makes it anew")
    log.warning("%s is used as it is: %s — --yes makes it anew", found.name, changed)
    return False


def forget(work: Work, name: str) -> None:
    """Close the connection to a sandbox, with its ports, and remove its files."""
    directory = state.sandbox_directory(work.environ, work.key(name))
    Connection(directory).close()
    ports.forget(work.environ, work.key(name))
    shutil.rmtree(directory, ignore_errors=True)
