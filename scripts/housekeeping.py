"""Looking after the sandboxes that exist: list, stop, clean up."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from scripts import audit, console, lifecycle, naming, state
from scripts.errors import NddtError, TryAgainError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.lifecycle import Work
    from scripts.providers import Sandbox

log = logging.getLogger("nddt")

KEPT_IMAGES = 3
"""How many of an owner's newest images stay: the tools, the agent, and one to go back to."""
PARALLEL = 8
"""How many sandboxes are removed at a time."""
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(duration: str) -> int:
    """Read a duration such as 90s, 30m, 12h, 7d or 2w.

    Raises:
        UsageError: It is none.
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", duration)
    if not found:
        raise UsageError(f"{duration!r} is no duration", "write it like 90s, 30m, 12h or 7d")
    return int(found[1]) * _UNITS_S[found[2]]


def age(created: int, now: float) -> str:
    """Say how long ago something was created, in its largest whole unit."""
    passed = max(0, int(now) - created)
    unit = next((u for u in "wdhm" if passed >= _UNITS_S[u]), "s")
    return f"{passed // _UNITS_S[unit]}{unit}"


def is_orphaned(sandbox: Sandbox) -> bool:
    """Tell whether an ephemeral sandbox of this machine has outlived its process."""
    return sandbox.mode == "ephemeral" and not state.is_alive(sandbox.pid)


def listing(work: Work, *, all_owners: bool, as_json: bool) -> str:
    """Give the table of sandboxes, or the same as a JSON array."""
    found = work.provider.sandboxes(work.settings)
    shown = [one for one in found if all_owners or one.owner == work.settings.owner]
    if as_json:
        plain = [asdict(replace(one, handle=None)) for one in shown]
        return json.dumps(
            [{k: v for k, v in one.items() if k != "handle"} for one in plain], indent=2
        )
    now = time.time()
    rows = [("NAME", "STATE", "MODE", "AGE", "IMAGE", "WORKSPACE", "OWNER")]
    rows += [
        (s.name, s.state, s.mode, age(s.created, now), s.image, s.workspace or "-", s.owner)
        for s in shown
    ]
    return console.table([row if all_owners else row[:-1] for row in rows])


def start(work: Work, name: str) -> str:
    """Start a sandbox and give its name."""
    found = lifecycle.existing(work, name)
    if found.state != "running":
        work.provider.start(work.settings, found)
    return found.name


def stop(work: Work, name: str) -> str:
    """Stop a sandbox and give its name; it keeps its disk."""
    found = lifecycle.existing(work, name)
    lifecycle.forget(work, found.name)
    if found.state == "running":
        work.provider.stop(work.settings, found)
    return found.name


def archive(work: Work, name: str) -> str:
    """Archive a sandbox of Daytona's and give its name."""
    from scripts.providers import daytona  # noqa: PLC0415  (no other provider can)

    found = lifecycle.existing(work, name)
    lifecycle.forget(work, found.name)
    daytona.archive(work.settings, found)
    return found.name


def chosen(
    work: Work, *, everything: bool, name: str | None, older_than_s: int
) -> tuple[Sandbox, ...]:
    """Choose the sandboxes that a clean-up removes; never another owner's.

    Args:
        work: See there.
        everything: All of the owner's, running ones too.
        name: This one alone.
        older_than_s: Of those, only what is older than this many seconds.
    """
    if name:
        found: tuple[Sandbox, ...] = (lifecycle.existing(work, name),)
    else:
        all_found = work.provider.sandboxes(work.settings)
        found = tuple(one for one in all_found if one.owner == work.settings.owner)
    if not name and not everything:
        found = tuple(one for one in found if _is_left_over(work, one))
    limit = time.time() - older_than_s
    return tuple(one for one in found if not older_than_s or one.created <= limit)


def _is_left_over(work: Work, sandbox: Sandbox) -> bool:
    here = str(work.settings.directory) if work.settings.workspace != "none" else ""
    if sandbox.workspace != here:
        return False
    # What an earlier task of the same command line has made is done with by now.
    made_by_us = sandbox.pid == os.getpid()
    return sandbox.state != "running" or is_orphaned(sandbox) or made_by_us


def clean_up(
    work: Work,
    sandboxes: tuple[Sandbox, ...],
    *,
    images: bool,
    discard: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Remove sandboxes, and old images if asked to, after consent.

    Args:
        work: See there.
        sandboxes: What `chosen` gave.
        images: See above.
        discard: Whether work in copies of the directory may be lost.
        report: Called with the name of each thing that has been removed.

    Returns:
        All these names.

    Raises:
        UsageError: Consent is missing.
        TryAgainError: Something could not be removed; all else has been.
    """
    if not sandboxes and not images:
        log.info("nothing to clean up here; inv cleanup --all takes all that is yours")
        return ()
    if sandboxes:
        question = _question(sandboxes, discard=discard)
        console.confirm(question, yes=work.yes, otherwise="agree with --yes")
    removed, failed = _removed(work, sandboxes, report, discard=discard)
    if images:
        for name in work.provider.prune_images(work.settings, work.settings.owner, KEPT_IMAGES):
            removed.append(name)
            report(name)
    if failed:
        raise TryAgainError(
            f"{len(failed)} of {len(sandboxes)} could not be removed",
            "try again later",
            detail="\n".join(failed),
        )
    return tuple(removed)


def _question(sandboxes: tuple[Sandbox, ...], *, discard: bool) -> str:
    names = ", ".join(f"{one.name} ({one.state})" for one in sandboxes)
    if not any(one.is_synced for one in sandboxes):
        return f"Remove {names}?"
    becomes = "is lost" if discard else "goes to .nddt/rescue"
    return f"Remove {names}? What was never fetched from a copy of the directory {becomes}."


def _removed(
    work: Work, sandboxes: tuple[Sandbox, ...], report: Callable[[str], None], *, discard: bool
) -> tuple[list[str], list[str]]:
    """Remove sandboxes, several at a time.

    Returns:
        The names of what has been removed, and a line for each that has not.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  (only for this)

    # A plain log of it would say no more than the names.
    seen = len(sandboxes) > 1 and console.is_terminal(2)
    show = console.progress("removing") if seen else lambda _: None
    removed, failed = [], []

    def remove(one: Sandbox) -> str:
        try:
            lifecycle.remove(work, one, discard=discard)
        except NddtError as error:
            return f"{error.message} — {error.next_step}" if error.next_step else error.message
        return ""

    with ThreadPoolExecutor(PARALLEL) as pool:
        for one, problem in zip(sandboxes, pool.map(remove, sandboxes), strict=True):
            if problem:
                failed.append(f"{one.name}: {problem}")
                continue
            removed.append(one.name)
            audit.sandbox(one.name)
            report(one.name)
            show(f"{len(removed)} of {len(sandboxes)}")
    show("")
    return removed, failed


def this_name(work: Work) -> str:
    """Give the name of this directory's persistent sandbox."""
    shared = work.settings.directory if work.settings.workspace != "none" else None
    return work.settings.name or naming.persistent_name(shared)
