"""Looking after the sandboxes that exist: list, stop, clean up."""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import naming
from scripts.errors import NddtError, TryAgainError, UsageError
from scripts.machine import audit, console, makers, state
from scripts.naming import said
from scripts.run import keeper, sandboxes
from scripts.transport import inside
from scripts.transport.ssh import Connection
from scripts.workspace import protected

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.contracts.sandbox import Sandbox
    from scripts.run.work import Work

log = logging.getLogger("nddt")

KEPT_IMAGES = 3
"""How many of an owner's newest images stay: the tools, the agent, and one to go back to."""
PARALLEL = 8
"""How many sandboxes are removed at a time."""
_UNLISTED = {"id", "handle", "maker", "grants"}
"""Fields of a sandbox that are for nddt alone."""
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


def is_orphaned(work: Work, sandbox: Sandbox) -> bool:
    """Tell whether an ephemeral sandbox has outlived its process, which was of this machine.

    One that does not say who made it, as those of an older nddt, is none.
    """
    return sandbox.mode == "ephemeral" and makers.has_ended(
        work.environ, sandbox.maker, pid=sandbox.pid, made_at=sandbox.created
    )


def _is_anothers(work: Work, sandbox: Sandbox) -> bool:
    """Tell whether another installation made it, whose user and host have our names."""
    known = sandbox.maker.installation
    return bool(known) and not makers.is_ours(work.environ, sandbox.maker)


def listing(work: Work, *, all_owners: bool, as_json: bool) -> str:
    """Build the table of sandboxes, or the same as a JSON array."""
    found = work.provider.sandboxes(work.settings)
    shown = [one for one in found if all_owners or one.owner == work.settings.owner]
    keepers = {one.name: _keeper(work, one) for one in shown}
    if as_json:
        plain = [asdict(replace(one, handle=None)) | {"keeper": keepers[one.name]} for one in shown]
        return json.dumps(
            [{k: v for k, v in one.items() if k not in _UNLISTED} for one in plain], indent=2
        )
    now = time.time()
    rows = [("NAME", "STATE", "MODE", "AGE", "KEEPER", "IMAGE", "WORKSPACE", "OWNER")]
    for s in shown:
        how = (s.state, s.mode, age(s.created, now), str(keepers[s.name] or "-"))
        rows.append((s.name, *how, s.image, s.workspace or "-", s.owner))
    return console.table([row if all_owners else row[:-1] for row in rows])


def _keeper(work: Work, sandbox: Sandbox) -> int | None:
    """Look up the process here that an agent in a sandbox has its keys from; None if none does."""
    if sandbox.owner != work.settings.owner:
        return None
    found = keeper.find_keeper(state.sandbox_directory(work.environ, work.key(sandbox.name)))
    return found.pid if found else None


def _asked_agent(work: Work, sandbox: Sandbox) -> bool:
    """Tell whether an agent goes on in a sandbox, by what is known or quickly asked from here."""
    if _keeper(work, sandbox):
        return True
    connection = Connection(state.sandbox_directory(work.environ, work.key(sandbox.name)))
    return connection.is_open() and connection.ask(inside.AGENT_RUNS).ok


def start_and_tell(work: Work, found: Sandbox) -> str:
    """Start a sandbox and tell its name."""
    if found.state != "running":
        begin_to_watch(work, found)
        work.provider.start(work.settings, found)
    return found.name


def begin_to_watch(work: Work, found: Sandbox) -> None:
    """Remember the files that programs here act on, before a sandbox starts without a session."""
    if found.workspace and not found.is_synced:
        directory = Path(found.workspace)
        protected.begin(work.environ, directory, (directory,), work.key(found.name))


def stop_and_tell(work: Work, found: Sandbox) -> str:
    """Stop a sandbox and tell its name; it keeps its disk."""
    sandboxes.forget(work, found)
    if found.state == "running":
        work.provider.stop(work.settings, found)
    _look_a_last_time(work, found)
    return found.name


def _look_a_last_time(work: Work, found: Sandbox) -> None:
    """Tell what a sandbox that has ended has changed, unless another one has its name by now."""
    if sandboxes.has_its_files(work, found):
        protected.check_ended(work.environ, work.key(found.name))


def chosen(
    work: Work, *, everything: bool, name: str | None, older_than_s: int
) -> tuple[Sandbox, ...]:
    """Choose the sandboxes that a clean-up removes; never another owner's.

    Args:
        work: The provider and the settings.
        everything: All of the owner's, running ones too.
        name: This one alone.
        older_than_s: Of those, only what is older than this many seconds.
    """
    if name:
        found: tuple[Sandbox, ...] = (sandboxes.existing(work, name),)
    else:
        all_found = work.provider.sandboxes(work.settings)
        found = tuple(one for one in all_found if one.owner == work.settings.owner)
    if not name and not everything:
        found = tuple(one for one in found if _is_of_here(work, one))
    elif not name:
        in_use = [one for one in found if _is_run_of_anothers(work, one)]
        for one in in_use:
            remove = said(f"{work.provider.NAME}.cleanup --name {one.name}")
            how = f"if it is nobody's any more: {remove}"
            log.warning(
                "%s runs for another machine's %s, and stays — %s", one.name, one.owner, how
            )
        found = tuple(one for one in found if one not in in_use)
    limit = time.time() - older_than_s
    return tuple(one for one in found if not older_than_s or one.created <= limit)


def _is_of_here(work: Work, sandbox: Sandbox) -> bool:
    """Tell whether a sandbox is this directory's, and no run that goes on in another terminal."""
    here = str(work.settings.directory) if work.settings.workspace != "none" else ""
    if sandbox.workspace != here:
        return False
    if _is_anothers(work, sandbox):
        return False
    is_run = sandbox.mode == "ephemeral" and sandbox.state == "running"
    return not is_run or is_orphaned(work, sandbox)


def _is_run_of_anothers(work: Work, sandbox: Sandbox) -> bool:
    is_run = sandbox.mode == "ephemeral" and sandbox.state == "running"
    return is_run and _is_anothers(work, sandbox)


def clean_up(
    work: Work,
    which: tuple[Sandbox, ...],
    *,
    images: bool,
    discard: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Remove sandboxes, and old images if asked to, after consent.

    Args:
        work: The provider and the settings.
        which: The sandboxes, as `chosen` returns them.
        images: Whether old images go, too.
        discard: Whether work in copies of the directory may be lost.
        report: Called with the name of each thing that has been removed.

    Returns:
        All these names.

    Raises:
        UsageError: Consent is missing.
        TryAgainError: Something could not be removed; all else has been.
    """
    if not which and not images:
        log.info("nothing to clean up here; %s takes all that is yours", said("cleanup --all"))
        return ()
    if which:
        question = _question(work, which, discard=discard)
        console.confirm(question, yes=work.yes, otherwise="agree with --yes")
    removed, failed = _removed(work, which, report, discard=discard)
    if images:
        for name in work.provider.prune_images(work.settings, work.settings.owner, KEPT_IMAGES):
            removed.append(name)
            report(name)
    if failed:
        raise TryAgainError(
            f"{len(failed)} of {len(which)} could not be removed",
            "try again later",
            detail="\n".join(failed),
        )
    return tuple(removed)


def _question(work: Work, which: tuple[Sandbox, ...], *, discard: bool) -> str:
    states = {
        one: "an agent works in it" if _asked_agent(work, one) else one.state for one in which
    }
    names = ", ".join(f"{one.name} ({state})" for one, state in states.items())
    if not any(one.is_synced for one in which):
        return f"Remove {names}?"
    becomes = "is lost" if discard else "goes to .nddt/rescue"
    return f"Remove {names}? What was never fetched from a copy of the directory {becomes}."


def _removed(
    work: Work, which: tuple[Sandbox, ...], report: Callable[[str], None], *, discard: bool
) -> tuple[list[str], list[str]]:
    """Remove sandboxes, several at a time.

    Returns:
        The names of what has been removed, and a line for each that has not.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  (only for this)

    # A plain log of it would say no more than the names.
    seen = len(which) > 1 and console.is_terminal(2)
    show = console.progress("removing") if seen else lambda _: None
    removed, failed = [], []

    def remove(one: Sandbox) -> str:
        try:
            sandboxes.remove_with_files(work, one, discard=discard)
        except NddtError as error:
            return f"{error.message} — {error.next_step}" if error.next_step else error.message
        return ""

    with ThreadPoolExecutor(PARALLEL) as pool:
        for one, problem in zip(which, pool.map(remove, which), strict=True):
            if problem:
                failed.append(f"{one.name}: {problem}")
                continue
            removed.append(one.name)
            _look_a_last_time(work, one)
            audit.sandbox(one.name)
            report(one.name)
            show(f"{len(removed)} of {len(which)}")
    show("")
    return removed, failed


def this_name(work: Work) -> str:
    """Build the name of this directory's persistent sandbox."""
    shared = work.settings.directory if work.settings.workspace != "none" else None
    return work.settings.name or naming.persistent_name(shared)
