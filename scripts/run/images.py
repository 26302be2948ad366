"""Images: which one a plan needs, and that it is there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scripts.contracts import image
from scripts.machine import files, search_path, signals, state

if TYPE_CHECKING:
    from scripts.plan import Plan
    from scripts.run.work import Work


log = logging.getLogger("nddt")


def agent_version(work: Work, plan: Plan) -> str:
    """Look up the agent's version; the registry is asked once a day, if at all."""

    def look_up(package: str) -> str:
        log.info("looking up %s", package)
        work.provider.prepare(work.settings, yes=work.yes)
        return work.provider.look_up(
            work.settings, plan.recipe, package, lambda: build_missing(work, plan, "")
        )

    if plan.image("1") == plan.image("2"):  # a ready-made image has the version that it has
        return plan.version
    memory = state.cache_directory(work.environ) / "versions.json"
    return image.version(plan.version, plan.recipe.package, memory, look_up)


def build_missing(work: Work, plan: Plan, version: str) -> None:
    """Build an image unless it is there; of several processes one builds.

    That is no part of what a time limit is for.
    """
    name = plan.image(version)
    if work.provider.find_image(work.settings, name):
        return
    with signals.unlimited(), files.lock(state.runtime_directory(work.environ) / "l-build"):
        if not work.provider.find_image(work.settings, name):
            work.provider.build(work.settings, plan.recipe, version, yes=work.yes)


def build_image(work: Work, plan: Plan) -> str:
    """Build the plan's image, if it is not there, and give its name."""
    work.provider.prepare(work.settings, yes=work.yes)
    if plan.sandbox.is_synced:
        need_copying(work)
    version = agent_version(work, plan)
    build_missing(work, plan, version)
    return plan.image(version)


def need_copying(work: Work) -> None:
    """Make sure that rsync and git, which copies need, are installed here."""
    if not (search_path.find_program("rsync") and search_path.find_program("git")):
        from scripts.machine import engine  # noqa: PLC0415  (only where something is missing)

        engine.ensure_installed(("rsync", "git"), yes=work.yes, environ=work.environ)
