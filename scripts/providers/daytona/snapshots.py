"""Snapshots: what sandboxes at Daytona are made from, built there from our Dockerfile."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from scripts.errors import CannotCreateError, ConfigError, UnavailableError
from scripts.machine import console
from scripts.providers.daytona import build_log
from scripts.providers.daytona.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from daytona_api_client.models.snapshot_dto import SnapshotDto

    from scripts.contracts.image import Recipe
    from scripts.providers.daytona.api import Api

log = logging.getLogger("nddt")

ACCEPT_S = 60
"""How long the platform may take to begin with a build."""
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


def find_snapshot(api: Api, name: str) -> SnapshotDto | None:
    """Look a snapshot up by its name or id; None if there is none."""
    try:
        return api.call("look up a snapshot", api.snapshots.get_snapshot, name)
    except Refusal as error:
        if error.status == 404 and "Cannot " not in error.text:
            return None
        raise


def state_of(snapshot: SnapshotDto) -> str:
    """Read the platform's own word."""
    return str(getattr(snapshot.state, "value", snapshot.state))


def wait_until_usable(api: Api, name: str) -> bool:
    """Tell whether a snapshot is there, waiting for one that is on its way.

    A failed one of nddt's is reported and removed, for its name would stay taken.

    Raises:
        ConfigError: One of somebody else's making has failed.
    """
    deadline = time.monotonic() + BUILD_S
    said = ""
    while True:
        found = find_snapshot(api, name)
        if found is None:
            return False
        state = state_of(found)
        if state == "active":
            return True
        if state in FAILED and not OURS.fullmatch(name):
            problem = f"snapshot {name} has failed: {_reason(found)}"
            raise ConfigError(problem, "correct NDDT_DAYTONA_SNAPSHOT, or build it again")
        if state in FAILED:
            log.warning("snapshot %s had failed: %s; building it again", name, _reason(found))
            remove_snapshot(api, found)
            return False
        if state == "inactive":
            log.info("activating snapshot %s, which was unused for long", name)
            api.call("activate a snapshot", api.snapshots.activate_snapshot, found.id)
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


def _reason(snapshot: SnapshotDto) -> str:
    return " ".join(str(snapshot.error_reason or "no reason given").split())[:300]


def build_snapshot(
    api: Api, name: str, recipe: Recipe, version: str, size: tuple[int, int, int]
) -> None:
    """Build a snapshot, with the build's log as progress.

    Args:
        api: What it is asked by.
        name: Of the snapshot.
        recipe: What goes into it.
        version: The agent's; empty means the tools alone.
        size: CPUs, memory and disk in GiB of its sandboxes.

    Raises:
        CannotCreateError: The build failed; nothing of it is left.
    """
    log.info("Building custom Daytona sandbox with %s installed...", recipe.title)
    log.info("This will take a few minutes on first build...")
    tail: deque[str] = deque(maxlen=30)
    show = console.progress("building")

    def on_log(line: str) -> None:
        tail.append(line)
        show(line)

    reason = _built(api, name, recipe.text(version), size, on_log)
    show("")
    if reason:
        text = "\n".join(tail)
        raise CannotCreateError(
            f"the snapshot could not be built: {reason}",
            _next_step(text, recipe),
            # Without a terminal, the log has just been printed as a whole.
            detail=text if console.is_terminal(2) else "",
        )


def _built(
    api: Api, name: str, dockerfile: str, size: tuple[int, int, int], show: Callable[[str], None]
) -> str:
    """Build, and say why if that failed."""
    from daytona_api_client.models.create_build_info import CreateBuildInfo  # noqa: PLC0415
    from daytona_api_client.models.create_snapshot import CreateSnapshot  # noqa: PLC0415

    cpu, memory, disk = size
    wanted = CreateSnapshot(
        name=name,
        build_info=CreateBuildInfo(dockerfile_content=dockerfile, context_hashes=[]),
        cpu=cpu,
        memory=memory,
        disk=disk,
        region_id=api.region,
    )
    doing, ask = "build a snapshot", api.snapshots.create_snapshot
    try:
        made = api.call(doing, ask, wanted, within_s=ACCEPT_S, repeat=False)
    except Refusal as error:
        limit_s = BUILD_S if error.is_unsure or error.status == 409 else 10
        return _outcome(api, name, limit_s, error)

    def address() -> str:
        deadline = time.monotonic() + BUILD_S
        while (
            state_of(find_snapshot(api, made.id) or made) == "pending"
            and time.monotonic() < deadline
        ):
            time.sleep(POLL_S)
        ask = api.snapshots.get_snapshot_build_logs_url
        return api.call("find the log of a build", ask, made.id).url

    late = Refusal(doing, None, "no answer", "late")
    with build_log.followed(address, api.client.default_headers, show):
        return _outcome(api, made.id, BUILD_S, late)


def _outcome(api: Api, name: str, within_s: float, error: Refusal) -> str:
    """Wait for the end of a build, and say why if it failed.

    Args:
        api: What it is asked by.
        name: Of the snapshot, or its id.
        within_s: How long that may take.
        error: What came of beginning it, or comes of it if it does not end.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = find_snapshot(api, name)
        state = state_of(found) if found is not None else "missing"
        if state == "active":
            return ""
        if found is not None and state in FAILED:
            reason = _reason(found)
            remove_snapshot(api, found)
            return reason
        if state not in PENDING:
            raise error
        time.sleep(POLL_S)
    raise error


def _next_step(text: str, recipe: Recipe) -> str:
    if "ETARGET" in text or "No matching version" in text or "E404" in text:
        return f"check {recipe.version_settings}"
    return "the lines above say why"


def remove_snapshot(api: Api, snapshot: SnapshotDto) -> None:
    """Remove a snapshot, and wait until its name is free again."""
    try:
        api.call("remove a snapshot", api.snapshots.remove_snapshot, snapshot.id)
    except Refusal as error:
        if error.status != 404:
            raise
    deadline = time.monotonic() + REMOVAL_S
    while find_snapshot(api, snapshot.name) is not None and time.monotonic() < deadline:
        time.sleep(POLL_S)


def prune(api: Api, used: set[str], keep: int) -> tuple[str, ...]:
    """Remove our old snapshots but the newest `keep`, and name those.

    Args:
        api: What it is asked by.
        used: Names of those that sandboxes are made from; they stay.
        keep: How many stay besides.
    """
    found: list[SnapshotDto] = []
    page = 1
    while True:
        ask = api.snapshots.get_all_snapshots
        answer = api.call("list snapshots", ask, page=page, limit=100)
        found += [one for one in answer.items if OURS.fullmatch(one.name)]
        if page >= answer.total_pages:
            break
        page += 1
    found.sort(key=lambda one: str(one.created_at), reverse=True)
    removed = []
    for one in found[keep:]:
        if one.name not in used and not _is_recent(one):
            remove_snapshot(api, one)
            removed.append(one.name)
    return tuple(removed)


def _is_recent(snapshot: SnapshotDto) -> bool:
    at = snapshot.last_used_at
    if not at:
        return False
    at = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    return datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC)) < RECENT
