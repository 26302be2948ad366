"""Sandboxes as the platform tells of them: looked up, awaited, removed."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from scripts import naming
from scripts.contracts import grants
from scripts.contracts.sandbox import Sandbox
from scripts.errors import CannotCreateError, UnavailableError
from scripts.machine import makers
from scripts.naming import said
from scripts.providers.daytona.api import ANSWER_S, Api
from scripts.providers.daytona.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from typing import TypeAlias

    from daytona_api_client.models.sandbox import Sandbox as Whole
    from daytona_api_client.models.sandbox_list_item import SandboxListItem

    Found: TypeAlias = Whole | SandboxListItem

FINGERPRINT = f"{naming.LABEL}.fingerprint"
APART = f"{naming.LABEL}.apart"
"""Label of what is walled off from inside; without, the platform alone keeps it from a network."""
GONE = {"destroying", "destroyed"}
FAILED = {"error", "build_failed"}
STARTABLE = {"stopped", "archived"}
START_S = 180
STOP_S = 30
REMOVE_S = 30
OFTEN_S = 5
"""How long a change is looked at often: most take less."""
LIST_S = 90
PAGE = 100


def state_of(found: Found) -> str:
    """Read the platform's own word."""
    return str(getattr(found.state, "value", found.state))


def _is_gone(found: Found) -> bool:
    desired = getattr(found.desired_state, "value", found.desired_state)
    return state_of(found) in GONE or desired == "destroyed"


def reason_of(found: Found, otherwise: str) -> str:
    """Read in a line why a sandbox has failed."""
    return " ".join(str(found.error_reason or otherwise).split())[:300]


def read_sandbox(found: Found) -> Sandbox:
    """Read what is of interest to others, most of it from labels of ours."""
    labels = found.labels or {}
    state = state_of(found)
    is_offline = f"{naming.LABEL}.offline" in labels
    is_apart = APART in labels
    known = grants.read_grants(labels.get(naming.GRANTS, ""))
    return Sandbox(
        name=found.name,
        id=found.id,
        state="running" if state == "started" else state,
        mode=labels.get(naming.LABEL, ""),
        image=found.snapshot or "",
        workspace=labels.get(f"{naming.LABEL}.workspace", ""),
        owner=labels.get(f"{naming.LABEL}.owner", ""),
        created=naming.number(labels.get(f"{naming.LABEL}.created", "")),
        pid=naming.number(labels.get(f"{naming.LABEL}.pid", "")),
        maker=makers.of_labels(labels),
        # One that the platform alone keeps from a network is as good as one that has it.
        fingerprint=labels.get(FINGERPRINT, "") if is_apart or not is_offline else "",
        is_synced=f"{naming.LABEL}.sync" in labels,
        is_offline=is_apart,
        grants=replace(known, has_network=not is_apart) if known else None,
        handle=found,
    )


def get(api: Api, name_or_id: str, within_s: float = ANSWER_S) -> Whole | None:
    """Look a sandbox up by its name or id; None if there is none, or it is about to go."""
    try:
        found = api.call(
            "look up a sandbox", api.sandboxes.get_sandbox, name_or_id, within_s=within_s
        )
    except Refusal as error:
        if error.status == 404 and "Cannot " not in error.text:
            return None
        raise
    return None if _is_gone(found) else found


def ours(api: Api, name: str) -> Sandbox | None:
    """Look a sandbox of nddt's up by its name.

    Raises:
        CannotCreateError: The name is another's.
    """
    found = get(api, name)
    if found is None or found.name != name:  # the name may be another one's id
        return None
    if naming.LABEL not in found.labels:
        raise CannotCreateError(
            f"the name {name} belongs to a sandbox that is not nddt's",
            "choose another with --name or NDDT_NAME",
        )
    return read_sandbox(found)


def every(api: Api) -> tuple[Sandbox, ...]:
    """List all of the organization that carry our label, the newest first."""

    def pages() -> Iterator[SandboxListItem]:
        cursor: str | None = ""
        while cursor is not None:
            page = api.sandboxes.list_sandboxes(limit=PAGE, cursor=cursor or None)
            yield from page.items
            cursor = page.next_cursor or None

    found = api.call("list sandboxes", lambda: list(pages()), within_s=LIST_S)
    ours = [read_sandbox(one) for one in found if naming.LABEL in one.labels and not _is_gone(one)]
    return tuple(sorted(ours, key=lambda one: -one.created))


def pauses() -> Iterator[float]:
    """Count the seconds between two looks at something that changes, often at first."""
    began = time.monotonic()
    while True:
        yield 0.1 if time.monotonic() - began < OFTEN_S else 0.5


def wait(api: Api, doing: str, sandbox: Sandbox, wanted: AbstractSet[str], within_s: float) -> None:
    """Wait until a sandbox is in one of the wanted states, or is gone.

    Args:
        api: What it is asked by.
        doing: What that is for: `stop a sandbox`.
        sandbox: Which one.
        wanted: The platform's words.
        within_s: Seconds after which that has failed.

    Raises:
        Refusal: It is not in time.
        UnavailableError: It has failed.
    """
    deadline = time.monotonic() + within_s
    for pause_s in pauses():
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise Refusal(doing, None, "no answer", "late")
        found = get(api, sandbox.id, min(ANSWER_S, left_s))
        if found is None or state_of(found) in wanted:
            return
        if state_of(found) in FAILED:
            raise UnavailableError(
                f"Daytona could not {doing}: {reason_of(found, state_of(found))}",
                f"remove it: {said(f'daytona.cleanup --name {found.name}')}",
            )
        time.sleep(pause_s)


def stop_sandbox(api: Api, sandbox: Sandbox) -> None:
    """Stop a sandbox, and see that it has."""
    doing = "stop a sandbox"
    api.call(doing, api.sandboxes.stop_sandbox, sandbox.id)
    wait(api, doing, sandbox, {"stopped"}, STOP_S)


def start_sandbox(api: Api, sandbox: Sandbox) -> None:
    """Start a sandbox, whatever it is doing now.

    Raises:
        Refusal: Nobody may, or the platform cannot tell what has become of it.
        UnavailableError: It has failed, or does not run in time.
    """
    deadline = time.monotonic() + START_S
    is_asked = False
    for pause_s in pauses():
        if time.monotonic() > deadline:
            break
        found = get(api, sandbox.id)
        state = state_of(found) if found else "gone"
        if state == "started":
            return
        if found is None or state in FAILED:
            reason = reason_of(found, state) if found else state
            raise UnavailableError(
                f"sandbox {sandbox.name} cannot be started: {reason}",
                f"make a new one: {said(f'daytona.cleanup --name {sandbox.name}')}",
            )
        if state in STARTABLE and not is_asked:
            try:
                api.call("start a sandbox", api.sandboxes.start_sandbox, found.id)
                is_asked = True
            except Refusal as error:
                if not (error.is_unsure or error.is_busy):
                    raise
        time.sleep(pause_s)
    raise UnavailableError(f"sandbox {sandbox.name} did not start in {START_S} s", "try again")


def delete_sandbox(api: Api, sandbox: Sandbox, within_s: float = REMOVE_S) -> None:
    """Delete a sandbox, and see that it is gone."""
    try:
        api.call("delete a sandbox", api.sandboxes.delete_sandbox, sandbox.id, within_s=within_s)
    except Refusal as error:
        if error.status != 404:
            raise
    deadline = time.monotonic() + within_s
    while (left := get(api, sandbox.id)) is not None:
        if time.monotonic() > deadline:
            raise UnavailableError(f"{sandbox.name} is still {state_of(left)}", "try again later")
        time.sleep(0.5)
