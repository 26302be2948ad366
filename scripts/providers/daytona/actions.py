"""Tasks that Daytona alone has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.contracts.action import RUNNING, SANDBOX, Action, Call, Option
from scripts.errors import UnavailableError, UsageError
from scripts.naming import said
from scripts.settings import parsing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.contracts.sandbox import Sandbox
    from scripts.settings.fields import Settings

DAY_MINUTES = 24 * 60
"""How long Daytona lets an address be good."""


def archive(settings: Settings, sandbox: Sandbox) -> None:
    """Move a sandbox's disk to where it costs nothing; starting it takes longer then."""
    from scripts.providers.daytona import inventory  # noqa: PLC0415
    from scripts.providers.daytona.api import Api  # noqa: PLC0415

    api = Api(settings)
    with api.explained("write:sandboxes"):
        if sandbox.state == "running":
            inventory.stop_sandbox(api, sandbox)
        api.call("archive a sandbox", api.sandboxes.archive_sandbox, sandbox.id)


def _archive(call: Call) -> str:
    if call.sandbox is None:
        raise ValueError("there is no sandbox to archive")
    archive(call.settings, call.sandbox)
    return call.sandbox.name


def _check_preview(options: Mapping[str, str | None]) -> None:
    port, minutes = options["port"], options["minutes"] or ""
    if port is None:
        raise UsageError("it is not said which port", "for example: --port 3000")
    try:
        parsing.port(port)
    except ValueError as error:
        raise UsageError(f"{port!r} is no port", f"it is {error}") from error
    if not (minutes.isdecimal() and 1 <= int(minutes) <= DAY_MINUTES):
        how = f"it is 1 to {DAY_MINUTES}, a day"
        raise UsageError(f"{minutes!r} minutes are not possible", how)


def _preview(call: Call) -> str:
    """Ask for an address at Daytona by which anybody can reach a port of a sandbox, for a time.

    Raises:
        UnavailableError: The sandbox has no network that Daytona could come by.
    """
    from scripts.providers.daytona.api import Api  # noqa: PLC0415

    sandbox, port = call.sandbox, int(call.options["port"] or 0)
    if sandbox is None or sandbox.is_offline:
        raise UnavailableError(
            f"sandbox {sandbox.name if sandbox else ''} has no network, so Daytona cannot show "
            "its ports",
            f"have it on this machine: {said(f'ports --add {port}')}",
        )
    api, valid_s = Api(call.settings), int(call.options["minutes"] or 0) * 60
    with api.explained():
        ask, known = api.sandboxes.get_signed_port_preview_url, (sandbox.id, port)
        signed = api.call("sign an address", ask, *known, expires_in_seconds=valid_s, repeat=False)
    return signed.url


ACTIONS = (
    Action(
        name="archive",
        text="Move this directory's sandbox to where it costs nothing.",
        about=SANDBOX,
        ends=True,
        act=_archive,
    ),
    Action(
        name="preview",
        text="Print Daytona's address of a port of the sandbox.",
        about=RUNNING,
        options={
            "port": Option(help="Port of the sandbox, such as 3000."),
            "minutes": Option(
                help="How long it is good or goes on; default 60, or 10 for tests.", default="60"
            ),
        },
        check=_check_preview,
        act=_preview,
    ),
)
