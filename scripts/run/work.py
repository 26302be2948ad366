"""What every step of a command needs."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scripts import naming, providers
from scripts.errors import CannotCreateError
from scripts.plan import specification
from scripts.workspace import private_places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scripts.contracts.provider import Provider
    from scripts.contracts.sandbox import Sandbox, Specification
    from scripts.settings.fields import Settings


log = logging.getLogger("nddt")

OWN_PROGRAM = "nddt's own program is in it"
"""Where it comes from that a sandbox cannot change the directory."""


def _nothing_to_rescue(_work: Work, sandbox: Sandbox) -> None:
    raise CannotCreateError(f"nobody is here to rescue what was done in {sandbox.name}")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every step needs."""

    provider: Provider
    settings: Settings
    yes: bool = False
    """Questions are agreed to beforehand."""
    as_it_is: bool = False
    """An existing sandbox is good, whatever it was made from, if it has no more than is allowed."""
    rescue: Callable[[Work, Sandbox], None] = field(default=_nothing_to_rescue, repr=False)
    """Puts what was never fetched from a sandbox's copy aside, before it goes."""
    is_last: bool = False
    """The sandbox goes afterwards: what is allowed is of no interest any more."""

    @property
    def environ(self) -> Mapping[str, str]:
        """Our own environment."""
        return self.settings.process_environment

    def key(self, sandbox: str) -> str:
        """Build the key of a sandbox, which no sandbox of another provider has."""
        return naming.key(self.provider.NAME, sandbox)


def work_with(
    loaded: Settings,
    name: str,
    *,
    yes: bool = False,
    rescue: Callable[[Work, Sandbox], None] = _nothing_to_rescue,
) -> Work:
    """Put together what every step needs, with a provider of this name."""
    provider = providers.get(name)
    chosen = loaded.workspace or provider.workspace(loaded)
    fitting = _with_own_program(replace(loaded, provider=name, workspace=chosen))
    return Work(provider=provider, settings=fitting, yes=yes, rescue=rescue)


def _with_own_program(chosen: Settings) -> Settings:
    """Let a directory with nddt's own program in it, such as its clone, be only read."""
    if chosen.workspace != "mount" or chosen.readonly:
        return chosen
    if not private_places.program_in(chosen.directory, chosen.process_environment):
        return chosen
    sources = {**chosen.sources, "NDDT_WORKSPACE_READONLY": OWN_PROGRAM}
    return replace(chosen, readonly=True, sources=sources)


def wanted(work: Work) -> Specification:
    """Describe the directory's persistent sandbox, or the one that NDDT_NAME names."""
    user = work.provider.user(work.settings)
    return specification(work.settings, user, persistent=True, pid=os.getpid())
