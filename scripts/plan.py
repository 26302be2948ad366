"""The plan: the sandbox that will be made and the session that will run; no side effects."""

from __future__ import annotations

import secrets
import shlex
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from scripts import agents, naming, plain_text
from scripts.brings import conversations, docker_inside
from scripts.contracts import image
from scripts.contracts.provisions import Provision
from scripts.contracts.sandbox import Specification
from scripts.contracts.session import Session
from scripts.errors import ConfigError
from scripts.machine import free_space, makers
from scripts.sandbox_places import ROOT, USER, WORKSPACE
from scripts.settings import host
from scripts.settings.parsing import Mount
from scripts.workspace import git_links, mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scripts.contracts.agent import Agent, Request
    from scripts.contracts.provider import Provider
    from scripts.settings.fields import Settings


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One session in one sandbox."""

    sandbox: Specification
    recipe: image.Recipe
    image: Callable[[str], str] = field(repr=False)
    """Names the image with a version of the agent; an empty one means the tools alone."""
    version: str
    """The agent's version as it was asked for: a number, or `latest` and the like."""
    agent: Agent
    request: Request
    """What the agent is asked."""
    program: tuple[str, ...]
    """The words that start the agent."""
    command: tuple[str, ...]
    """What runs in place of the agent; empty if that does."""
    session: Session
    network: host.Host
    """What the sandbox knows of this machine's network."""
    brings: Provision = field(default_factory=Provision)
    """What comes along from this machine; `run.collecting` collects it."""
    conversations: conversations.Store
    git: git_links.Links
    before: str
    """Shell text that prepares the sandbox."""
    after: str
    """Shell text that looks at what happened."""
    terminal: bool
    """Whether the session has the user's terminal."""
    timeout_s: int
    watched_disks: tuple[Path, ...]
    """A directory on each disk of this machine that the sandbox can write to."""
    disk_reserve: int
    """Bytes that are to stay free on each."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line."""
        lines = self.brings.system_prompt_lines
        request = replace(self.request, system_prompt_lines=lines)
        return self.command or self.agent.command(request, self.program)

    @property
    def is_agent(self) -> bool:
        """Whether it is the agent that runs, and not some command."""
        return not self.command

    @property
    def writable_directories(self) -> tuple[Path, ...]:
        """The directories of this machine that it may write to, but for its conversations."""
        want, store = self.sandbox, self.conversations.directory
        shown = () if want.workspace is None or want.is_readonly else (want.workspace,)
        known = {store, store.resolve()}
        more = (one.source for one in want.mounts if not one.readonly and one.source not in known)
        return tuple(dict.fromkeys((*shown, *more)))

    def bringing(self, more: Provision) -> Plan:
        """Bring more along."""
        return replace(self, brings=self.brings + more)

    def prepare(self) -> None:
        """Make the directories that nddt makes on this machine for the sandbox to show.

        Raises:
            ConfigError: That is not possible.
        """
        self.conversations.prepare()
        self.git.prepare()

    def describe(self) -> str:
        """Say all of it in lines for a person; secrets are masked."""
        return "\n".join(
            f"{title:<12} {plain_text.one_line(value)}" for title, value in self._lines()
        )

    def _lines(self) -> Iterator[tuple[str, str]]:
        mode = "persistent" if self.sandbox.persistent else "ephemeral"
        yield "sandbox", f"{self.sandbox.name} ({mode})"
        yield "image", self.image(self.version)
        yield "base", self.recipe.base
        shown = self.sandbox.workspace
        how = "read only" if self.sandbox.is_readonly else "read and write"
        how = f"copied, {how}" if self.sandbox.is_synced else how
        yield "workspace", f"{shown} at {WORKSPACE}, {how}" if shown else "none"
        for one in self.sandbox.mounts:
            how = "read only" if one.readonly else "read and write"
            yield "directory", f"{one.source} at {one.target}, {how}"
        if self.git.warning:
            yield "git", self.git.warning
        yield "user", self.sandbox.user
        if self.sandbox.docker:
            yield "docker", docker_inside.TITLES[self.sandbox.docker]
        yield from self.brings.plan_lines
        for name, value in sorted(self.brings.variables.items()):
            hidden = name in self.brings.secret
            yield "variable", f"{name}={'***' if hidden else host.without_password(value)}"
        yield "terminal", "yes" if self.terminal else "no"
        yield "time limit", f"{self.timeout_s} s" if self.timeout_s else "none"
        yield "command", shlex.join(self.argv)


def specification(
    settings: Settings, user: tuple[int, int], *, persistent: bool, pid: int
) -> Specification:
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
    return Specification(
        name=settings.name or made_up,
        persistent=persistent,
        workspace=workspace,
        is_synced=settings.workspace == "sync",
        is_readonly=settings.readonly,
        mounts=settings.mounts,
        named=settings.mounts,
        given=settings.options,
        docker=settings.docker_forward,
        user=ROOT if user[0] == 0 else USER,
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
            maker=makers.of_process(settings.process_environment, pid).labels,
        ),
    )


def _writable(sandbox: Specification) -> tuple[Path, ...]:
    """Return the directories of this machine that a sandbox can write to."""
    found = [one.source for one in sandbox.mounts if not one.readonly and one.source.is_dir()]
    if sandbox.workspace and not (sandbox.is_synced or sandbox.is_readonly):
        found.insert(0, sandbox.workspace)
    return tuple(found)


def _showing(
    settings: Settings, sandbox: Specification, agent: Agent
) -> tuple[Specification, git_links.Links, conversations.Store]:
    """Add to a sandbox what it shows beside the directory: what git needs, and conversations.

    Raises:
        ConfigError: It cannot show what the user names, or has a network all the same.
    """
    if sandbox.is_offline and sandbox.docker == "host":
        raise ConfigError(
            f"NDDT_NETWORK is {settings.network}, but the containers of NDDT_DOCKER_FORWARD=host "
            "have a network",
            "set NDDT_DOCKER_FORWARD=isolated, or NDDT_NETWORK=open",
        )
    store = conversations.store(settings, agent.NAME, agent.CONVERSATIONS)
    mounts.check_mounts(settings, sandbox, store.inside)
    git = git_links.find_git_links(settings)
    if not mounts.may_have(sandbox, git.mounts):
        git = git_links.not_shown(settings)
    sandbox = mounts.having(sandbox, git.mounts)
    kept = (Mount(store.directory, f"{sandbox.home}/{store.inside}"),) if store.is_shown else ()
    if not mounts.may_have(sandbox, kept):  # then they are copied
        store, kept = replace(store, is_shown=False), ()
    return mounts.having(sandbox, kept), git, store


def make(
    settings: Settings,
    request: Request,
    *,
    provider: Provider,
    terminal: bool,
    pid: int,
    command: tuple[str, ...] = (),
) -> Plan:
    """Plan one session.

    Args:
        settings: All of them.
        request: What the agent is asked.
        provider: Where; asked only for what it knows without side effects.
        terminal: Whether the session gets the user's terminal.
        pid: This process.
        command: Run this in place of the agent; it needs no credential.

    Raises:
        ConfigError: A setting makes no sense.
    """
    agent = agents.get(settings.agent)
    program = tuple(shlex.split(settings.command)) or (agent.PROGRAM,)
    network = provider.network(settings, host.detect(settings))
    user = provider.user(settings)
    # Where the sandbox has no network, this machine's proxies are for what runs here.
    known = replace(network, proxies={}) if settings.network != "open" else network
    recipe = image.recipe(settings, agent, network, user)
    bare = specification(settings, user, persistent=settings.persistent, pid=pid)
    sandbox, git, store = _showing(settings, bare, agent)
    session = Session(
        id=secrets.token_hex(6),
        sandbox=naming.key(settings.provider, sandbox.name),
        is_conversation=sandbox.persistent and not (request.headless or command),
        is_alone=not sandbox.persistent,
    )
    return Plan(
        sandbox=sandbox,
        recipe=recipe,
        image=partial(provider.image_name, settings, recipe),
        version=agent.version(settings),
        agent=agent,
        request=request,
        program=program,
        command=command,
        session=session,
        network=known,
        conversations=store,
        git=git,
        before=":" if command else agent.before(request),
        after=":" if command else agent.after(request),
        terminal=terminal,
        timeout_s=settings.timeout_s,
        watched_disks=(*provider.disks(settings), *_writable(sandbox)),
        disk_reserve=settings.disk_reserve_gib * free_space.GIB,
    )
