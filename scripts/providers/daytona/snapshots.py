"""Snapshots: what sandboxes at Daytona are made from, built there from our Dockerfile."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.errors import CannotCreateError, UnavailableError
from scripts.providers.daytona.api import Refusal

if TYPE_CHECKING:
    from scripts.providers.daytona.api import Api

log = logging.getLogger("nddt")

BUILD_S = 90 * 60
"""How long a build may take; Daytona ends its own after one to two hours."""
REMOVAL_S = 60
"""How long a removed snapshot may keep its name; usually ten seconds."""
POLL_S = 1.0
PENDING = {"pending", "building", "pulling", "snapshotting"}
FAILED = {"error", "build_failed"}
OURS = re.compile(r"nddt-[a-z]+-[\w.]+-[0-9a-f]{10}")
RECENT = timedelta(days=1)
"""What was used so lately may be about to be used again, perhaps by a colleague."""


def find(api: Api, name: str) -> Any:  # noqa: ANN401  (the SDK's Snapshot, or None)
    """Look a snapshot up by its name; None if there is none."""
    try:
        return api.call("look up a snapshot", api.client.snapshot.get, name)
    except Refusal as error:
        if error.status == 404 and "Cannot " not in error.text:
            return None
        raise


def state_of(snapshot: Any) -> str:  # noqa: ANN401
    """Give the platform's own word."""
    return str(getattr(snapshot.state, "value", snapshot.state))


def is_usable(api: Api, name: str) -> bool:
    """Tell whether a snapshot is there, waiting for one that is on its way.

    A failed one is reported and removed, for its name would stay taken.
    """
    deadline = time.monotonic() + BUILD_S
    said = ""
    while True:
        found = find(api, name)
        if found is None:
            return False
        state = state_of(found)
        if state == "active":
            return True
        if state in FAILED:
            log.warning("snapshot %s had failed: %s; building it again", name, _reason(found))
            remove(api, found)
            return False
        if state == "inactive":
            log.info("activating snapshot %s, which was unused for long", name)
            api.call("activate a snapshot", api.client.snapshot.activate, found)
        elif state not in PENDING | {"removing"}:
            raise UnavailableError(
                f"snapshot {name} is in a state that this version of Daytona's SDK does not know",
                "try again, or look at it in Daytona's dashboard",
            )
        if said != state:
            log.info("waiting for snapshot %s: %s", name, state)
            said = state
        if time.monotonic() > deadline:
            raise UnavailableError(f"snapshot {name} is still {state}", "try again later")
        time.sleep(POLL_S)


def _reason(snapshot: Any) -> str:  # noqa: ANN401
    return " ".join(str(snapshot.error_reason or "no reason given").split())[:300]


def build(api: Api, name: str, dockerfile: str, size: tuple[int, int, int]) -> None:
    """Build a snapshot, with the build's log as progress.

    Args:
        api: See there.
        name: Of the snapshot.
        dockerfile: Its text; it must not COPY anything of ours.
        size: CPUs, memory and disk in GiB of its sandboxes.

    Raises:
        CannotCreateError: The build failed; nothing of it is left.
    """
    log.info("Building custom Daytona sandbox with Claude Code installed...")
    log.info("This will take a few minutes on first build...")
    tail: deque[str] = deque(maxlen=30)
    show = console.progress("building")

    def on_logs(chunk: str) -> None:
        for line in chunk.splitlines():
            tail.append(line)
            show(line)

    with tempfile.TemporaryDirectory(prefix="nddt-") as directory:
        file = Path(directory) / "Dockerfile"
        file.write_text(dockerfile, encoding="utf-8")
        reason = _built(api, name, file, size, on_logs)
    show("")
    if reason:
        text = "\n".join(tail)
        raise CannotCreateError(
            f"the snapshot could not be built: {reason}",
            _next_step(text),
            # Without a terminal, the log has just been printed as a whole.
            detail=text if console.is_terminal(2) else "",
        )


def _built(
    api: Api,
    name: str,
    file: Path,
    size: tuple[int, int, int],
    on_logs: Any,  # noqa: ANN401
) -> str:
    """Build, and give the reason if that failed."""
    from daytona import CreateSnapshotParams, Image, Resources  # noqa: PLC0415

    cpu, memory, disk = size
    parameters = CreateSnapshotParams(
        name=name,
        image=Image.from_dockerfile(str(file)),
        resources=Resources(cpu=cpu, memory=memory, disk=disk),
    )
    try:
        api.call(
            "build a snapshot",
            api.client.snapshot.create,
            parameters,
            on_logs=on_logs,
            timeout=0,
            within_s=BUILD_S,
            repeat=False,
        )
    except Refusal as error:
        return _reconciled(api, name, error)
    return ""


def _reconciled(api: Api, name: str, error: Refusal) -> str:
    """Find out what has become of a build that we lost sight of; give the reason if it failed."""
    deadline = time.monotonic() + (BUILD_S if error.is_unsure or error.status == 409 else 10)
    while time.monotonic() < deadline:
        found = find(api, name)
        if found is None and not error.is_unsure:
            raise error
        state = state_of(found) if found is not None else "missing"
        if state == "active":
            return ""
        if state in FAILED:
            reason = _reason(found)
            remove(api, found)
            return reason
        if state not in PENDING:
            raise error
        time.sleep(POLL_S)
    raise error


def _next_step(text: str) -> str:
    if "ETARGET" in text or "No matching version" in text or "E404" in text:
        return "check NDDT_NODE_VERSION and NDDT_CLAUDE_VERSION"
    return "the lines above say why"


def remove(api: Api, snapshot: Any) -> None:  # noqa: ANN401
    """Remove a snapshot, and wait until its name is free again."""
    try:
        api.call("remove a snapshot", api.client.snapshot.delete, snapshot)
    except Refusal as error:
        if error.status != 404:
            raise
    deadline = time.monotonic() + REMOVAL_S
    while find(api, snapshot.name) is not None and time.monotonic() < deadline:
        time.sleep(POLL_S)


def prune(api: Api, used: set[str], keep: int) -> tuple[str, ...]:
    """Remove our old snapshots but the newest `keep`, and name those.

    Args:
        api: See there.
        used: Names of those that sandboxes are made from; they stay.
        keep: How many stay besides.
    """
    found, page = [], 1
    while True:
        answer = api.call("list snapshots", api.client.snapshot.list, page=page, limit=100)
        found += [one for one in answer.items if OURS.fullmatch(one.name)]
        if page >= answer.total_pages:
            break
        page += 1
    found.sort(key=lambda one: str(one.created_at), reverse=True)
    removed = []
    for one in found[keep:]:
        if one.name not in used and not _is_recent(one):
            remove(api, one)
            removed.append(one.name)
    return tuple(removed)


def _is_recent(snapshot: Any) -> bool:  # noqa: ANN401
    at = snapshot.last_used_at
    if not at:
        return False
    at = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    return datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC)) < RECENT
