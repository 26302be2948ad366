"""What is asked before a sandbox is handed something that can do harm."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import plain_text
from scripts.machine import console, live_sockets
from scripts.machine.bind_sources import is_around
from scripts.run.work import OWN_PROGRAM
from scripts.sandbox_places import WORKSPACE
from scripts.settings.parsing import Mount
from scripts.workspace import private_places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.run.work import Work
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")


def ask_for_consent(work: Work) -> None:
    """Ask for all that needs consent in these settings.

    Raises:
        UsageError: It was not given.
    """
    _tell_of_own_program(work.settings)
    _agree_to_directories(work)
    if work.settings.docker_forward:
        _agree_to_docker(work)


def _tell_of_own_program(chosen: Settings) -> None:
    if chosen.sources["NDDT_WORKSPACE_READONLY"] == OWN_PROGRAM:
        log.warning(
            "%s is shown to be read, not changed: %s — cd to a project; to work on nddt itself, "
            "set NDDT_WORKSPACE=sync, and read what comes back before you run it",
            chosen.directory,
            OWN_PROGRAM,
        )


def _agree_to_directories(work: Work) -> None:
    """Ask before `/` or the home directory is handed over as a whole, or a private place."""
    chosen = work.settings
    home = Path(chosen.process_environment.get("HOME", "/"))
    instead = dict.fromkeys(chosen.mounts, "show a directory in it, or agree with --yes")
    if chosen.workspace != "none":
        workspace = Mount(chosen.directory, WORKSPACE, readonly=chosen.readonly)
        instead[workspace] = "cd to a project, set NDDT_WORKSPACE=none, or agree with --yes"
    for one, otherwise in instead.items():
        is_whole = is_around(one.source, home)
        reasons = [] if is_whole else [private_places.private(one.source, work.environ)]
        if chosen.workspace != "sync" or one in chosen.mounts:
            reasons.append(_listening(one.source, work.environ))
        reason = "".join(f" {one}." for one in reasons if one)
        if not (is_whole or reason):
            continue
        how = "to read" if one.readonly else "to read and to write"
        shown = f"all of {one.source}" if is_whole else str(one.source)
        question = f"Show {shown} to the agent, {how}?{reason}"
        console.confirm(question, yes=work.yes, otherwise=otherwise)


def _listening(directory: Path, environ: Mapping[str, str]) -> str:
    """Say which programs of this machine could be talked to; empty for none."""
    found = live_sockets.within(directory, environ)
    one = (
        "a program of yours listens there" if len(found) == 1 else "programs of yours listen there"
    )
    return f"{plain_text.some(found)}: {one}" if found else ""


def _agree_to_docker(work: Work) -> None:
    """Ask before a sandbox gets a Docker with which it can do harm outside."""
    risk = work.provider.docker_risk(work.settings)
    if risk and work.yes:
        log.warning(risk)
    elif risk:
        console.confirm(
            f"{risk}. Is that all right?",
            yes=False,
            otherwise="take NDDT_DOCKER_FORWARD away, or agree with --yes",
        )
