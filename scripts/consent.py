"""What is asked before a sandbox is handed something that can do harm."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import console
from scripts.settings import Mount

if TYPE_CHECKING:
    from scripts.lifecycle import Work

log = logging.getLogger("nddt")


def agree(work: Work) -> None:
    """Ask for all that needs consent in these settings.

    Raises:
        UsageError: It was not given.
    """
    _agree_to_directories(work)
    if work.settings.docker_forward:
        _agree_to_docker(work)


def is_sensitive(directory: Path, home: Path) -> bool:
    """Tell whether a directory is one that nobody means to hand to an agent as a whole."""
    resolved = directory.resolve()
    return resolved in {Path("/"), home.resolve()} or resolved in home.resolve().parents


def _agree_to_directories(work: Work) -> None:
    """Ask before `/` or the home directory is handed over as a whole."""
    chosen = work.settings
    home = Path(chosen.process_environment.get("HOME", "/"))
    instead = dict.fromkeys(chosen.mounts, "show a directory in it, or agree with --yes")
    if chosen.workspace != "none":
        workspace = Mount(chosen.directory, "/workspace", readonly=chosen.readonly)
        instead[workspace] = "cd to a project, set NDDT_WORKSPACE=none, or agree with --yes"
    for one, otherwise in instead.items():
        if is_sensitive(one.source, home):
            how = "to read" if one.readonly else "to read and to write"
            question = f"Show all of {one.source} to the agent, {how}?"
            console.confirm(question, yes=work.yes, otherwise=otherwise)


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
