"""The session's environment: the agent's key and address, the user's variables, the terminal's."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import env_forward
from scripts.contracts.provisions import Provision, this_machine
from scripts.errors import CredentialsError
from scripts.settings import host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.contracts.agent import Agent
    from scripts.settings.fields import Settings


ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")
LOCALE = "C.UTF-8"
"""The one that each system has in which letters outside of ASCII are letters."""


def zone(environment: Mapping[str, str], clock: Path = Path("/etc/localtime")) -> dict[str, str]:
    """Name the time zone of this machine, unless the caller names one.

    Args:
        environment: The caller's.
        clock: What leads to the file of the zone; its path ends with the zone's name.
    """
    if environment.get("TZ"):
        return {}
    with suppress(OSError):
        _, found, name = str(clock.readlink()).partition("zoneinfo/")
        return {"TZ": name} if found and ZONE.fullmatch(name) else {}
    return {}


def _model_url(settings: Settings, agent: Agent, demo_url: str | None) -> str | None:
    """Name the address of a model on this machine, if the agent is to use one."""
    if demo_url is not None:
        return demo_url
    url = settings.environment.get(agent.BASE_URL, "")
    return url if url and host.loopback_endpoint(url, agent.BASE_URL) else None


def _credentials(settings: Settings, agent: Agent) -> dict[str, str]:
    found = env_forward.select(settings.env_vars, settings.environment)
    if agent.CREDENTIALS and not any(name in found for name in agent.CREDENTIALS):
        configured = env_forward.select(agent.CONFIGURATION, settings.environment)
        if not any(name in configured for name in agent.CREDENTIALS):
            found |= _login(settings, agent)
    return found


def _login(settings: Settings, agent: Agent) -> Mapping[str, str]:
    """Use this machine's login; it is for the agent's maker alone, not for another address."""
    found = {} if settings.environment.get(agent.BASE_URL) else agent.login(settings)
    if not found:
        raise CredentialsError(f"{agent.NAME} has no key or token", agent.WAYS_IN)
    return found


def _configured(settings: Settings, agent: Agent, sandbox_home: str) -> tuple[Settings, Provision]:
    """Bring the user's configuration along; its variables count less than all others.

    Returns:
        The settings with these variables, and what comes along.
    """
    brings, urls = agent.configuration(settings, sandbox_home)
    variables = dict(brings.variables)
    if settings.environment.get(agent.BASE_URL):  # a key is for the address that it was set with
        variables = {k: v for k, v in variables.items() if k not in agent.CREDENTIALS}
    brings = replace(brings, variables=variables) + this_machine(urls)
    environment = {**variables, **settings.environment}
    return replace(settings, environment=environment), brings


def agent_variables(
    settings: Settings, agent: Agent, demo_url: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Collect what the agent's environment gets from the user, and what is ours.

    Raises:
        CredentialsError: There is no credential, and the model is not on this machine.
    """
    url = _model_url(settings, agent, demo_url)
    ours = dict(agent.variables(url))
    if demo_url is not None:
        # The demo shows the way that a key would take; a real one has no business there.
        return {}, ours
    if url is not None:
        theirs = env_forward.select(settings.env_vars, settings.environment)
        if any(name in theirs for name in agent.CREDENTIALS):
            ours = dict(agent.variables(None))
        return theirs, ours | env_forward.select(agent.CONFIGURATION, settings.environment)
    theirs = _credentials(settings, agent)
    return theirs, ours | env_forward.select(agent.CONFIGURATION, settings.environment)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a session has in its environment where every key enters the sandbox."""

    variables: Mapping[str, str] = field(repr=False)
    secret: frozenset[str]
    """Names of the variables that are shown to nobody."""
    addresses: tuple[str, ...]
    """Names of the variables whose addresses may mean this machine."""
    configuration: Provision
    """The user's configuration of the agent, without its variables."""


def wanted(
    settings: Settings,
    agent: Agent,
    known: host.Host,
    sandbox_home: str,
    demo_url: str | None,
    *,
    runs_agent: bool,
) -> Wanted:
    """Choose the variables of a session, before it is decided which keys stay here.

    Args:
        settings: All of them.
        agent: Whose.
        known: What the sandbox knows of this machine's network.
        sandbox_home: The home directory in the sandbox.
        demo_url: Address of the demo endpoint, if that is the model.
        runs_agent: Whether it is the agent that runs, and needs a credential.

    Raises:
        CredentialsError: It has none.
    """
    configured = Provision()
    if runs_agent and demo_url is None:
        settings, configured = _configured(settings, agent, sandbox_home)
    if runs_agent:
        theirs, ours = agent_variables(settings, agent, demo_url)
    else:
        theirs = env_forward.select(settings.env_vars, settings.environment)
        ours = env_forward.select(agent.CONFIGURATION, settings.environment)
    terminal = env_forward.select(env_forward.TERMINAL, settings.environment)
    place = zone(settings.environment)
    chosen = {**known.session_variables(), **terminal, **ours, **theirs}
    proxies = (name for name in known.proxies if name.isupper() and name != "NO_PROXY")
    return Wanted(
        variables={"LANG": LOCALE, **place, **configured.variables, **chosen},
        secret=configured.secret | frozenset(theirs) | frozenset(known.proxies),
        addresses=tuple(name for name in (agent.BASE_URL, *proxies) if name in chosen),
        configuration=replace(configured, variables={}, secret=frozenset()),
    )


def bring_environment(chosen: Wanted, instead: Mapping[str, str]) -> Provision:
    """Bring the environment along, with the ways to addresses in it that mean this machine.

    Args:
        chosen: What it is where every key enters.
        instead: Variables in place of some of these; their addresses have a way already.
    """
    urls = {name: chosen.variables[name] for name in chosen.addresses if name not in instead}
    variables = {**chosen.variables, **instead}
    return (
        chosen.configuration
        + Provision(variables=variables, secret=chosen.secret)
        + this_machine(urls)
    )
