"""A sandbox that is wanted, one that exists, and the pipe into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scripts import naming, sandbox_places
from scripts.contracts.grants import Grants
from scripts.machine import makers, state
from scripts.machine.makers import Maker
from scripts.sandbox_places import WORKSPACE
from scripts.settings.parsing import Mount

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Specification:
    """The sandbox that a plan wants."""

    name: str
    persistent: bool
    workspace: Path | None
    """Directory of this machine that is /workspace; None shares nothing."""
    is_synced: bool = False
    """Whether /workspace is a copy of it, instead of the directory itself."""
    is_readonly: bool = False
    mounts: tuple[Mount, ...] = ()
    """More directories that it shows."""
    named: tuple[Mount, ...] = ()
    """Those of them that the user names."""
    given: tuple[str, ...] = ()
    """Settings that are options of this command, by themselves or through a profile."""
    docker: str = ""
    """Whose Docker it has: `isolated` means its own, `host` the engine's, empty none."""
    user: str
    labels: Mapping[str, str]
    cpus: int = 0
    """0 means the provider's default."""
    memory_gib: int = 0
    """0 means the provider's default."""
    is_offline: bool = False
    """Whether the provider gives it no network."""
    pids: int = 0
    """How many processes and threads it may have at a time; 0 means no limit."""
    has_sudo: bool = False
    """Whether its user, who is not root, may become it; that it can is its image's."""
    has_readonly_root: bool = False
    """Whether only its home directory, /workspace and what is temporary can be changed."""

    @property
    def home(self) -> str:
        """The home directory of its user, as in the Dockerfile."""
        return sandbox_places.home(self.user)

    @property
    def binds(self) -> tuple[Mount, ...]:
        """All of this machine that it shows itself, and no copy of it."""
        if self.workspace is None or self.is_synced:
            return self.mounts
        return (Mount(self.workspace, WORKSPACE, readonly=self.is_readonly), *self.mounts)

    @property
    def grants(self) -> Grants:
        """All that it is given and a setting could take away."""
        return Grants(
            directory=str(self.workspace or ""),
            is_copy=self.is_synced,
            is_readonly=self.is_readonly,
            mounts=tuple((str(one.source), one.target, one.readonly) for one in self.named),
            docker=self.docker,
            has_root=self.user == "root" or self.has_sudo,
            has_network=not self.is_offline,
            has_writable_system=not self.has_readonly_root,
            pids=self.pids,
            memory_gib=self.memory_gib,
            cpus=self.cpus,
            given=self.given,
        )

    def exceeded_by(self, there: Grants) -> tuple[str, ...]:
        """Name the settings that allow less than what a sandbox has."""
        return tuple(there.beyond(self.grants))

    def fingerprint(self, image: str) -> str:
        """Hash what a sandbox is made from: another hash, another sandbox."""
        limits = (self.cpus, self.memory_gib, self.pids, self.has_readonly_root)
        size = map(str, limits)
        shows = (str(self.workspace), str(self.is_synced), str(self.is_readonly))
        made = (str(self.mounts), self.docker, self.user, *size)
        more = (("offline", self.is_offline), ("sudo", self.has_sudo))
        return naming.digest((image, *shows, *made, *(name for name, has in more if has)), 16)


@dataclass(frozen=True, kw_only=True)
class Link:
    """What a pipe into a sandbox is made for: one connection."""

    directory: Path
    """Private directory of this machine, for files that the pipe's command needs."""
    server: tuple[str, ...]
    """Arguments of the `sh` in the sandbox."""

    @property
    def id_file(self) -> Path:
        """File with the id of the sandbox that it leads to; one that is to be made writes it."""
        return self.directory / state.ID


@dataclass(frozen=True)
class Identity:
    """One sandbox, and no other that has or gets its name.

    What is ended, removed or forgotten is told by this; it comes from what a provider has said
    of a sandbox that it found or made, never from a name alone.
    """

    name: str
    id: str
    """The provider's own, which no other sandbox ever has."""


@dataclass(frozen=True, kw_only=True)
class Sandbox(Identity):
    """A sandbox that exists."""

    state: str
    """`running`, `stopped`, or the provider's own word for anything else."""
    mode: str
    """`ephemeral` or `persistent`."""
    image: str
    workspace: str
    owner: str
    created: int
    """Seconds since 1970."""
    pid: int
    """The process that made it, on its owner's machine."""
    maker: Maker = field(default_factory=Maker)
    """Which process of which machine that is."""
    fingerprint: str
    """What it was made from; another one means that it is out of date."""
    is_synced: bool = False
    """Whether its /workspace is a copy, in which there may be work that is nowhere else."""
    is_offline: bool = False
    """Whether it was made without a network."""
    grants: Grants | None = field(default=None, repr=False)
    """What it was made with; None if it does not tell."""
    handle: object = field(default=None, repr=False, compare=False)
    """The provider's own object, of no meaning to others."""


def made(want: Specification, image: str, made_id: str) -> Sandbox:
    """Describe the sandbox that has just been made from a specification."""
    return Sandbox(
        name=want.name,
        id=made_id,
        state="running",
        mode=want.labels[naming.LABEL],
        image=image,
        workspace=want.labels[f"{naming.LABEL}.workspace"],
        owner=want.labels[f"{naming.LABEL}.owner"],
        created=int(want.labels[f"{naming.LABEL}.created"]),
        pid=int(want.labels[f"{naming.LABEL}.pid"]),
        maker=makers.of_labels(want.labels),
        fingerprint=want.fingerprint(image),
        is_synced=want.is_synced,
        is_offline=want.is_offline,
        grants=want.grants,
    )
