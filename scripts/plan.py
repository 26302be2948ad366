"""The plan: all that will be made, shown, forwarded and run; made without side effects."""

from __future__ import annotations

import secrets
import shlex
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from scripts import (
    agents,
    conversations,
    docker_inside,
    env_forward,
    free_space,
    git_links,
    host,
    image,
    mounts,
    naming,
    offline,
    protected,
    providers,
    ssh,
)
from scripts.errors import ConfigError, CredentialsError
from scripts.provisions import Provision
from scripts.settings import Mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from scripts.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One session in one sandbox."""

    sandbox: providers.Specification
    recipe: image.Recipe
    image: Callable[[str], str] = field(repr=False)
    """Names the image with a version of the agent; an empty one means the tools alone."""
    version: str
    """The agent's version as it was asked for: a number, or `latest` and the like."""
    command: Callable[[tuple[str, ...]], tuple[str, ...]] = field(repr=False)
    """Gives the command line for the lines that the agent is told beside its prompt."""
    session: str
    """Its id."""
    brings: Provision
    conversations: conversations.Store
    git: git_links.Links
    before: str
    """Shell text that prepares the sandbox."""
    after: str
    """Shell text that looks at what happened."""
    terminal: bool
    """Whether the session has the user's terminal."""
    is_agent: bool
    """Whether it is the agent that runs, and not some command."""
    timeout_s: int
    fills: tuple[Path, ...]
    """A directory on each disk of this machine that the sandbox can write to."""
    disk_reserve: int
    """Bytes that it leaves of each."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line."""
        return self.command(self.brings.told)

    def bringing(self, more: Provision) -> Plan:
        """Bring more along."""
        return replace(self, brings=self.brings + more)

    def prepare(self) -> None:
        """Make what of this machine the sandbox is to show, where nddt is to make it.

        Raises:
            ConfigError: That is not possible.
        """
        self.conversations.prepare()
        self.git.prepare()

    def describe(self) -> str:
        """Say all of it in lines for a person; secrets are masked."""
        return "\n".join(f"{title:<12} {value}" for title, value in self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        mode = "persistent" if self.sandbox.persistent else "ephemeral"
        yield "sandbox", f"{self.sandbox.name} ({mode})"
        yield "image", self.image(self.version)
        yield "base", self.recipe.base
        shown = self.sandbox.workspace
        how = "read only" if self.sandbox.is_readonly else "read and write"
        how = f"copied, {how}" if self.sandbox.is_synced else how
        yield "workspace", f"{shown} at /workspace, {how}" if shown else "none"
        for one in self.sandbox.mounts:
            how = "read only" if one.readonly else "read and write"
            yield "directory", f"{one.source} at {one.target}, {how}"
        if self.git.warning:
            yield "git", self.git.warning
        yield "user", self.sandbox.user
        yield from self.brings.shown
        for name, value in sorted(self.brings.variables.items()):
            hidden = name in self.brings.secret
            yield "variable", f"{name}={'***' if hidden else host.without_password(value)}"
        yield "terminal", "yes" if self.terminal else "no"
        yield "time limit", f"{self.timeout_s} s" if self.timeout_s else "none"
        yield "command", shlex.join(self.argv)


def specification(
    settings: Settings, user: tuple[int, int], *, persistent: bool, pid: int
) -> providers.Specification:
    """Describe the sandbox that the settings want.

    Args:
        settings: Name and workspace.
        user: UID and GID inside.
        persistent: Whether it stays.
        pid: This process.
    """
    workspace = settings.directory if settings.workspace != "none" else None
    made_up = (
        naming.persistent_name(workspace)
        if persistent
        else naming.ephemeral_name(datetime.now().astimezone(), pid)
    )
    return providers.Specification(
        name=settings.name or made_up,
        persistent=persistent,
        workspace=workspace,
        is_synced=settings.workspace == "sync",
        is_readonly=settings.readonly,
        mounts=settings.mounts,
        docker=settings.docker_forward,
        user="root" if user[0] == 0 else "nddt",
        cpus=settings.cpus,
        memory_gib=settings.memory_gib,
        is_offline=settings.network != "open",
        pids=settings.pids,
        has_sudo=settings.sudo and user[0] != 0,
        has_readonly_root=settings.readonly_root,
        labels=naming.labels(
            owner=settings.owner,
            workspace=str(workspace or ""),
            is_synced=settings.workspace == "sync",
            is_offline=settings.network != "open",
            mode="persistent" if persistent else "ephemeral",
            created=int(time.time()),
            pid=pid,
        ),
    )


def _writable(sandbox: providers.Specification) -> tuple[Path, ...]:
    """Give the directories of this machine that a sandbox can write to."""
    found = [one.source for one in sandbox.mounts if not one.readonly and one.source.is_dir()]
    if sandbox.workspace and not (sandbox.is_synced or sandbox.is_readonly):
        found.insert(0, sandbox.workspace)
    return tuple(found)


def _model_url(settings: Settings, agent: agents.Agent, demo_url: str | None) -> str | None:
    """Give the address of a model on this machine, if the agent is to use one."""
    if demo_url is not None:
        return demo_url
    url = settings.environment.get(agent.BASE_URL, "")
    return url if url and host.loopback_endpoint(url, agent.BASE_URL) else None


def _credentials(settings: Settings, agent: agents.Agent) -> dict[str, str]:
    found = env_forward.select(settings.env_vars, settings.environment)
    if not any(name in found for name in agent.CREDENTIALS):
        configured = env_forward.select(agent.CONFIGURATION, settings.environment)
        if not any(name in configured for name in agent.CREDENTIALS):
            found |= _login(settings, agent)
    return found


def _login(settings: Settings, agent: agents.Agent) -> Mapping[str, str]:
    """Use this machine's login; it is for the agent's maker alone, not for another address."""
    found = {} if settings.environment.get(agent.BASE_URL) else agent.login(settings)
    if not found:
        raise CredentialsError(f"{agent.NAME} has no key or token", agent.WAYS_IN)
    return found


def _configured(
    settings: Settings, agent: agents.Agent, sandbox_home: str
) -> tuple[Settings, Provision]:
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
    settings: Settings, agent: agents.Agent, demo_url: str | None
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


def this_machine(urls: Mapping[str, str]) -> Provision:
    """Make every address that means this machine mean it in the sandbox, too.

    Args:
        urls: Variable → URL.
    """
    found: dict[ssh.SamePort, None] = {}
    for name, url in urls.items():
        endpoint = host.loopback_endpoint(url if "//" in url else f"http://{url}", name)
        if endpoint:
            found[ssh.SamePort(*endpoint)] = None
    shown = tuple(("reaches", f"{one.host}:{one.port} of this machine") for one in found)
    return Provision(forwards=tuple(found), shown=shown)


def _shown_ports(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Tell of the ports; where they lead from is known when the session begins."""
    where = f"at the first free port of 127.0.0.1 from {settings.port_range_start} on"
    return tuple(("port", f"{one} {where}") for one in settings.ports)


def make(
    settings: Settings,
    request: agents.Request,
    *,
    provider: providers.Provider,
    terminal: bool,
    pid: int,
    demo_url: str | None = None,
    command: tuple[str, ...] = (),
) -> Plan:
    """Plan one session.

    Args:
        settings: See there.
        request: What the agent is asked.
        provider: Where; asked only for what it knows without side effects.
        terminal: Whether the session gets the user's terminal.
        pid: This process.
        demo_url: Address of the demo endpoint, if that is the model.
        command: Run this in place of the agent; it needs no credential.

    Raises:
        CredentialsError: The agent has none.
        ConfigError: A setting makes no sense.
    """
    agent = agents.get(settings.agent)
    program = tuple(shlex.split(settings.command)) or (agent.PROGRAM,)
    network = provider.network(settings, host.detect(settings))
    user = provider.user(settings)
    # Where the sandbox has no network, this machine's proxies are for what runs here.
    known = replace(network, proxies={}) if settings.network != "open" else network
    recipe = image.recipe(settings, agent, network, user)
    sandbox = specification(settings, user, persistent=settings.persistent, pid=pid)
    if sandbox.is_offline and sandbox.docker == "host":
        raise ConfigError(
            f"NDDT_NETWORK is {settings.network}, but the containers of NDDT_DOCKER_FORWARD=host "
            "have a network",
            "set NDDT_DOCKER_FORWARD=isolated, or NDDT_NETWORK=open",
        )
    store = conversations.store(settings, agent.NAME, agent.CONVERSATIONS)
    mounts.check(settings, sandbox, store.inside)
    git = git_links.find(settings)
    shown = {one.target: one for one in (*git.mounts, *sandbox.mounts)}  # the user's win
    if store.is_shown:
        inside = f"{sandbox.home}/{store.inside}"
        shown[inside] = Mount(store.directory, inside)
    sandbox = replace(sandbox, mounts=tuple(shown.values()))
    sandbox = replace(sandbox, covers=protected.covers(sandbox))
    configured = Provision()
    if not command and demo_url is None:
        settings, configured = _configured(settings, agent, sandbox.home)
    if command:
        theirs = env_forward.select(settings.env_vars, settings.environment)
        ours = env_forward.select(agent.CONFIGURATION, settings.environment)
    else:
        theirs, ours = agent_variables(settings, agent, demo_url)
    terminal_variables = env_forward.select(env_forward.TERMINAL, settings.environment)
    variables = {**known.session_variables(), **terminal_variables, **ours, **theirs}
    secret = frozenset(theirs) | frozenset(known.proxies)
    session = secrets.token_hex(6)
    proxies = {k: v for k, v in known.proxies.items() if k.isupper() and k != "NO_PROXY"}
    urls = {name: variables[name] for name in (agent.BASE_URL, *proxies) if name in variables}
    brings = configured + Provision(variables=variables, secret=secret) + this_machine(urls)
    if sandbox.is_offline:
        guard = offline.guard(may_have_routes=provider.IS_REMOTE, setting=settings.network)
        brings = Provision(before=(guard,)) + brings
    brings += Provision(shown=_shown_ports(settings)) + docker_inside.provision(sandbox, known)
    if not command:
        brings += conversations.bring(store, agent.recalls(request))
    return Plan(
        sandbox=sandbox,
        recipe=recipe,
        image=partial(provider.image_name, settings, recipe),
        version=getattr(settings, f"{agent.NAME}_version"),
        command=lambda told: command or agent.command(replace(request, told=told), program),
        session=session,
        brings=brings,
        conversations=store,
        git=git,
        before=":" if command else agent.before(request),
        after=":" if command else agent.after(request),
        terminal=terminal,
        is_agent=not command,
        timeout_s=settings.timeout_s,
        fills=(*provider.disks(settings), *_writable(sandbox)),
        disk_reserve=settings.disk_reserve_gib * free_space.GIB,
    )
