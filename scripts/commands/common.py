"""What the commands have in common: the options of most of them, and how a session is planned."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts import plan
from scripts.brings import ports
from scripts.configuration import reading
from scripts.machine import audit, console, makers, state
from scripts.run import connections
from scripts.run.work import work_with
from scripts.workspace import protected

if TYPE_CHECKING:
    from scripts.contracts.agent import Request
    from scripts.contracts.sandbox import Sandbox
    from scripts.run.work import Work


def _rescue(work: Work, sandbox: Sandbox) -> None:
    from scripts.run import rescue  # noqa: PLC0415  (only for copies)

    rescue.rescue(work, sandbox)


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options that most tasks have; None means not given."""

    provider: str | None = None
    name: str | None = None
    persistent: bool = False
    timeout: str | None = None
    ports: str | None = None
    mounts: str | None = None
    profile: str | None = None
    keyless: bool = False
    yes: bool = False
    verbose: bool = False
    dry: bool = False

    def work(self) -> Work:
        """Load the settings and the provider."""
        console.set_up_logging(verbose=self.verbose)
        loaded = reading.from_here(
            provider=self.provider,
            name=self.name,
            persistent=self.persistent,
            timeout_s=self.timeout,
            ports=self.ports,
            mounts=self.mounts,
            profile=self.profile,
            model_access="tunnel" if self.keyless else None,
        )
        if not self.dry:
            audit.about(loaded)
            makers.keep(loaded.process_environment)
            for tidy in (state.tidy, ports.tidy, connections.tidy):
                tidy(loaded.process_environment)
            protected.tell_of_changes(loaded.process_environment, loaded.directory)
        return work_with(loaded, loaded.provider, yes=self.yes, rescue=_rescue)


def make_plan(
    work: Work,
    request: Request,
    *,
    terminal: bool = False,
    command: tuple[str, ...] = (),
) -> plan.Plan:
    """Plan a session that brings nothing along yet, after a look at what the provider cannot do.

    Raises:
        ConfigError: A setting makes no sense there.
    """
    if work.settings.workspace == "mount" or work.settings.mounts:
        work.provider.check_mount(work.settings)
    if work.settings.docker_forward:
        work.provider.docker_risk(work.settings)
    work.provider.check_limits(work.settings)
    return plan.make(
        work.settings,
        request,
        provider=work.provider,
        terminal=terminal,
        pid=os.getpid(),
        command=command,
    )
