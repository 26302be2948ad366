"""What a task does that one provider alone has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.contracts.action import RUNNING, Call
from scripts.errors import UnavailableError
from scripts.naming import said
from scripts.run import housekeeping, sandboxes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.commands.common import Common
    from scripts.contracts.action import Action


def act(common: Common, action: Action, options: Mapping[str, str | None]) -> None:
    """Do it, and print what comes of it."""
    action.check(options)
    work = common.work()
    found = None
    if action.about:
        name = housekeeping.this_name(work)
        found = sandboxes.existing(work, name)
        if action.about == RUNNING and found.state != "running":
            how = f"start it: {said(f'{work.provider.NAME}.start --name {found.name}')}"
            raise UnavailableError(f"sandbox {found.name} does not run ({found.state})", how)
        if action.ends:
            sandboxes.forget(work, found)
    call = Call(settings=work.settings, options=options, sandbox=found, yes=work.yes)
    print(action.act(call))
