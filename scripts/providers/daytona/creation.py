"""Making sandboxes, and never losing sight of one: whatever happens, its name is known."""

from __future__ import annotations

import logging
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts import naming
from scripts.errors import (
    CannotCreateError,
    ConfigError,
    EndedBySignalError,
    NddtError,
    NoImageError,
)
from scripts.machine import signals
from scripts.naming import said
from scripts.providers.daytona import inventory
from scripts.providers.daytona.explanations import NoRoomError
from scripts.providers.daytona.refusal import Refusal
from scripts.transport import wall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daytona_api_client.models.sandbox import Sandbox as Whole

    from scripts.contracts.sandbox import Sandbox, Specification
    from scripts.providers.daytona.api import Api

log = logging.getLogger("nddt")

EPHEMERAL_IDLE_MINUTES = 15
"""How long an ephemeral sandbox may outlive a client that was killed or cut off."""
CREATE_S = 60
"""How long the platform may take to answer, before we look for ourselves."""
_NO_BLOCKS = "Network access is restricted"
"""How the platform begins to refuse a block to an account that may not ask for one."""
_MISSING = re.compile(r"Snapshot \S+ (not found|is (?!not ))")
"""What a sandbox is refused with whose snapshot is not there, is not ready, or sleeps."""


def _request(api: Api, want: Specification, image: str) -> Whole:
    """Ask for a sandbox.

    Raises:
        Refusal: There is none, or it is unknown.
    """
    from daytona_api_client.models.create_sandbox import CreateSandbox  # noqa: PLC0415

    hours = api.own.delete_after_hours
    labels = {**want.labels, naming.GRANTS: want.grants.text()}
    labels[inventory.FINGERPRINT] = want.fingerprint(image)
    if want.is_offline:
        labels[inventory.APART] = "true"
    wanted = CreateSandbox(
        name=want.name,
        snapshot=image,
        labels=labels,
        env={wall.WANTED: "wanted"} if want.is_offline else {},
        target=api.region,
        kvm=None,  # by the model's defaults the platform would be asked for none of these two
        spot=None,
        auto_stop_interval=EPHEMERAL_IDLE_MINUTES,
        auto_delete_interval=0,  # as soon as it is stopped
    )
    if want.persistent:
        wanted.auto_stop_interval = api.own.idle_minutes
    if want.persistent or want.is_synced:  # if its client is killed, there is work in a copy
        wanted.auto_delete_interval = hours * 60 if hours else -1

    def create() -> Whole:
        ask = api.sandboxes.create_sandbox
        return api.call("create a sandbox", ask, wanted, within_s=CREATE_S, repeat=False)

    if not want.is_offline:
        return create()
    # The wall is ours; that the platform blocks what is outside of it, too, is a second one.
    wanted.network_block_all = True
    try:
        return create()
    except Refusal as error:
        if error.status != 400 or _NO_BLOCKS not in error.text:
            raise
        wanted.network_block_all = None
        return create()


def create_running(api: Api, want: Specification, image: str) -> Sandbox:
    """Make a sandbox that runs, or none.

    Raises:
        Refusal: There is none; or there may be one, and the user has been told so.
        NddtError: There is none, for a reason that needs no explanation.
    """
    try:
        made = _made(api, want, image)
    except (KeyboardInterrupt, EndedBySignalError):
        with signals.ignored():
            _remove_unseen(api, want)
        raise
    wanted = api.own.organization
    if wanted and made.organization_id != wanted:
        inventory.delete_sandbox(api, inventory.read_sandbox(made))
        raise ConfigError(
            f"DAYTONA_API_KEY belongs to the organization {made.organization_id}",
            "correct DAYTONA_ORGANIZATION_ID, or use a key of that organization",
        )
    return inventory.read_sandbox(made)


def _made(api: Api, want: Specification, image: str) -> Whole:
    """Ask for a sandbox and wait until it runs, whatever the answer is."""
    name = want.name
    error = Refusal("create a sandbox", None, "it does not start", "late")  # should it never run
    try:
        made = _request(api, want, image)
        if inventory.state_of(made) == "started":
            return made
        name = made.id  # that there is none of the name may be remembered
    except Refusal as refused:
        if refused.status == 400 and _MISSING.match(refused.text):
            raise NoImageError(
                refused.text, f"build it: {said('daytona.build-image')}"
            ) from refused
        if refused.kind == "offline":
            raise
        error = refused
    try:
        return _reconciled(api, want, name, error)
    except Refusal as unknown:
        if unknown is not error:  # else it has been looked for, and is not there
            _warn_of(want, unknown)
        raise


def _reconciled(api: Api, want: Specification, name: str, error: Refusal) -> Whole:
    """Find out what becomes of a sandbox that has been asked for.

    Args:
        api: What it is asked by.
        want: What has been asked for.
        name: Its name or id.
        error: What came of that, or comes of it if the sandbox does not run in time.
    """
    deadline = time.monotonic() + inventory.START_S
    misses = 0
    for pause_s in inventory.pauses():
        if time.monotonic() > deadline:
            break
        found = inventory.get(api, name)
        if found is None:
            misses += 1
            if misses > (3 if error.is_unsure else 0):
                raise error
            time.sleep(0.5)
            continue
        if not _is_made_from(found, want):
            owner = inventory.read_sandbox(found).owner or "somebody else"
            raise CannotCreateError(
                f"the name {want.name} belongs to a sandbox of {owner}",
                "choose another with --name or NDDT_NAME",
            )
        state = inventory.state_of(found)
        if state == "started":
            return found
        if state in inventory.FAILED:
            reason = inventory.reason_of(found, error.text)
            inventory.delete_sandbox(api, inventory.read_sandbox(found))
            raise CannotCreateError(f"the sandbox could not be started: {reason}", "try again")
        time.sleep(pause_s)
    _remove_unseen(api, want)
    raise error


def _is_made_from(found: Whole, want: Specification) -> bool:
    """Tell whether a sandbox carries the labels of this very process of this machine."""
    return all(found.labels.get(name) == value for name, value in want.labels.items())


def _remove_unseen(api: Api, want: Specification) -> None:
    """Remove what may have been made, or say how it is removed."""
    try:
        for _ in range(4):
            found = inventory.get(api, want.name)
            if found is not None:
                if _is_made_from(found, want):  # else ours cannot have been made
                    inventory.delete_sandbox(api, inventory.read_sandbox(found), within_s=20)
                return
            time.sleep(0.5)
    except (Refusal, NddtError) as error:
        _warn_of(want, error)


def _warn_of(want: Specification, error: Exception) -> None:
    """Tell of a sandbox that may exist and cannot be looked at."""
    log.warning(
        "sandbox %s may exist: %s — %s --name %s --yes removes it",
        want.name,
        error,
        said("daytona.cleanup"),
        want.name,
    )


@contextmanager
def lasting_for(api: Api, want: Specification, image: str) -> Iterator[Sandbox]:
    """Have a sandbox until the block's end."""
    with explained_with_room(api):
        made = create_running(api, want, image)
    try:
        yield made
    finally:
        with signals.ignored():
            try:
                inventory.delete_sandbox(api, made, within_s=20)
            except (Refusal, NddtError) as error:
                log.warning(
                    "sandbox %s could not be removed: %s — %s --name %s --yes "
                    "does it; unused, it goes by itself after %d minutes",
                    want.name,
                    error,
                    said("daytona.cleanup"),
                    want.name,
                    EPHEMERAL_IDLE_MINUTES,
                )


@contextmanager
def explained_with_room(api: Api) -> Iterator[None]:
    """Explain a refusal; if it is for want of room, tell which sandboxes could make some."""
    try:
        with api.explained("write:sandboxes"):
            yield
    except NoRoomError as error:
        with api.explained():
            found = inventory.every(api)
        ours = [one for one in found if one.owner == api.settings.owner]
        error.detail = "\n".join(f"yours: {one.name} ({one.state})" for one in ours)
        raise
