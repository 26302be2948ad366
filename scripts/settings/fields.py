"""The settings of nddt itself, and the frozen values of one command."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from scripts.settings import parsing
from scripts.settings.declaring import declared, fallback, variable
from scripts.settings.orders import Order, ladder, limit, never, reserve, shown, subset, switch
from scripts.settings.profiles import PROFILES, STANDARD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scripts.settings import allowlist
    from scripts.settings.orders import Usual
    from scripts.settings.parsing import Mount

T = TypeVar("T")


def _is_no_looser(value: str, own: str, usual: Usual) -> bool:
    """Tell whether no setting of a profile gives more than it does in the user's profile."""
    return all(
        item["order"].allows(fallback(item, value), fallback(item, own), usual)
        for item in declared(Settings)
        if item["variable"] in PROFILES[value] or item["variable"] in PROFILES[own]
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one command, each with the place it comes from."""

    profile: str = variable(
        "NDDT_PROFILE",
        parsing.choice(*PROFILES),
        STANDARD,
        "What sandboxes may do where it is not set one by one: open, standard, strict, or airgap; "
        "nddt config --security shows it.",
        order=Order(
            allows=_is_no_looser,
            says="A project's .env loosens it only after nddt trust.",
            why="each setting of the one is compared with that of the other",
        ),
    )
    provider: str = variable(
        "NDDT_PROVIDER",
        parsing.text,
        "",
        "Where sandboxes run: {names}.",
        order=never(
            "a cloud gets a copy of the directory by the user's account, this machine runs it"
        ),
    )
    agent: str = variable(
        "NDDT_AGENT",
        parsing.text,
        "",
        "Which agent runs: {names}.",
        order=never("another agent is another program, with keys of its own"),
    )
    command: str = variable(
        "NDDT_COMMAND",
        parsing.parse_command,
        "",
        "Program to run in the sandbox instead of the agent's own, with its first arguments.",
        order=never("it runs with the user's credentials"),
    )
    env_vars: tuple[str, ...] = variable(
        "NDDT_ENV_VARS",
        parsing.names,
        "GH_TOKEN",
        "Variables that reach the agent, separated by commas; AWS_* means all that begin so, a + "
        "at the beginning adds to the default, and empty means none.",
        order=never("where one key is left out, another is used: that of a login"),
        empty_is_none=True,
    )
    persistent: bool = variable(
        "NDDT_PERSISTENT",
        parsing.boolean,
        "false",
        "Keep one sandbox per directory and reuse it.",
        order=switch(more=True, why="what is kept can act after the run, and costs"),
    )
    name: str = variable(
        "NDDT_NAME",
        parsing.like(re.compile(rf"({parsing.NAME.pattern})?"), "2 to 63 letters, digits and _.-"),
        "",
        "Name of the sandbox; empty makes one up.",
        order=never("another sandbox has other work in it"),
    )
    workspace: str = variable(
        "NDDT_WORKSPACE",
        parsing.choice("", "mount", "sync", "none"),
        "",
        "How the current directory reaches /workspace: mount, sync (a copy) or none; empty means "
        "mount where sandboxes can show files of this machine, sync elsewhere.",
        order=ladder(
            *("sync", "", "mount"),
            apart="none",
            why="a copy lacks what is ignored, and comes back looked at; empty is one of both; all "
            "runs with none share conversations, notes and a kept sandbox",
        ),
    )
    readonly: bool = variable(
        "NDDT_WORKSPACE_READONLY",
        parsing.boolean,
        "false",
        "The sandbox cannot change the directory.",
        order=switch(more=False, why="to read is less than to write"),
    )
    mounts: tuple[Mount, ...] = variable(
        "NDDT_MOUNTS",
        parsing.mounts,
        "",
        "More directories to show, as HERE:IN_SANDBOX or HERE:IN_SANDBOX:ro, separated by commas.",
        order=shown(),
    )
    network: str = variable(
        "NDDT_NETWORK",
        parsing.choice("open", "allowlist", "none"),
        "open",
        "What the sandbox reaches: open means everything, allowlist only HTTP and HTTPS at hosts "
        "that are allowed, none nothing.",
        order=ladder("none", "allowlist", "open", why="each reaches what the one before does"),
    )
    allow_hosts: tuple[allowlist.Rule, ...] = variable(
        "NDDT_ALLOW_HOSTS",
        parsing.hosts,
        "",
        "More hosts that NDDT_NETWORK=allowlist allows, separated by commas: example.org, "
        "*.example.org, example.org:8443.",
        order=subset(why="each host is one more"),
    )
    ports: tuple[int, ...] = variable(
        "NDDT_PORTS",
        parsing.ports,
        "",
        "Ports of the sandbox to reach from this machine, separated by commas, such as 3000,8080.",
        order=subset(why="each opens a port of this machine, whose browser keeps cookies for it"),
    )
    port_range_start: int = variable(
        "NDDT_PORT_RANGE_START",
        parsing.port,
        "30000",
        "The first port of this machine that may lead to one of the sandbox's.",
        order=never("each is another place of this machine"),
    )
    ssh_forward: str = variable(
        "NDDT_SSH_FORWARD",
        parsing.choice("", "agent", "keys"),
        "",
        "SSH in the sandbox: agent lets it use this machine's agent, keys copies ~/.ssh; "
        "empty means neither.",
        order=never("an agent can have other keys than the files"),
    )
    ssh_keys: tuple[str, ...] = variable(
        "NDDT_SSH_KEYS",
        parsing.words,
        "",
        "Comments or SHA256:… fingerprints of the only keys that the sandbox may use, separated "
        "by commas; empty means all.",
        order=subset(empty_is="all", why="each key opens more"),
    )
    gpg_forward: bool = variable(
        "NDDT_GPG_FORWARD",
        parsing.boolean,
        "false",
        "Let the sandbox sign with this machine's GPG agent.",
        order=switch(more=True, why="a signature is the user's"),
    )
    gpg_keys: tuple[str, ...] = variable(
        "NDDT_GPG_KEYS",
        parsing.words,
        "",
        "Fingerprints, key ids or e-mail addresses of the only GPG keys that the sandbox may sign "
        "with, separated by commas; empty means all.",
        order=subset(empty_is="all", why="each key opens more"),
    )
    docker_forward: str = variable(
        "NDDT_DOCKER_FORWARD",
        parsing.choice("", "isolated", "host"),
        "",
        "Docker in the sandbox: isolated runs a daemon of its own there, host hands it this "
        "machine's engine; empty means neither.",
        order=ladder("", "isolated", "host", why="this machine's engine is all of this machine"),
    )
    permissions: str = variable(
        "NDDT_PERMISSIONS",
        parsing.choice("ask", "edit", "all"),
        "edit",
        "What the agent does without asking: edit files and run commands in the sandbox, all "
        "(--yolo), or only what its own rules allow (ask).",
        order=ladder("ask", "edit", "all", why="what was not asked was not looked at"),
    )
    git_config: bool = variable(
        "NDDT_GIT_CONFIG",
        parsing.boolean,
        "true",
        "Bring along name, email and other safe git settings.",
        order=switch(more=True, why="it is the user's name and address"),
    )
    model_access: str = variable(
        "NDDT_MODEL_ACCESS",
        parsing.choice("env", "tunnel"),
        "tunnel",
        "Where keys are: tunnel keeps them here and adds them to requests, env gives them to the "
        "sandbox. Where they cannot stay and nobody has chosen, they go in, and a line says so.",
        order=ladder("tunnel", "env", why="a key inside can be taken away"),
    )
    github_repos: tuple[str, ...] = variable(
        "NDDT_GITHUB_REPOS",
        parsing.repositories,
        "",
        "Repositories at GitHub, as OWNER/NAME, separated by commas, that a token which stays on "
        "this machine is used for; empty means the directory's own remotes.",
        order=subset(empty_is="another", why="the token is used for each"),
    )
    timeout_s: int = variable(
        "NDDT_TIMEOUT",
        parsing.count,
        "0",
        "Seconds after which a run is ended; 0 means never.",
        order=limit(why="it ends what runs wild"),
    )
    keep_connection_s: int = variable(
        "NDDT_KEEP_CONNECTION",
        parsing.count,
        "600",
        "Seconds that an unused connection to a persistent sandbox stays open.",
        order=limit(unset=1, why="the way in stays open for as long"),
    )
    cpus: int = variable(
        "NDDT_CPUS",
        parsing.optional_count,
        "",
        "CPUs of a sandbox; empty means {usual}.",
        order=limit(of="NDDT_CPUS", why="they are this machine's, or cost"),
    )
    memory_gib: int = variable(
        "NDDT_MEMORY",
        parsing.optional_count,
        "",
        "Memory of a sandbox in GiB; empty means {usual}.",
        order=limit(of="NDDT_MEMORY", why="it is this machine's, or costs"),
    )
    pids: int = variable(
        "NDDT_PIDS",
        parsing.count,
        "4096",
        "Processes and threads that a sandbox on this machine may have; 0 means no limit.",
        order=limit(why="they are this machine's"),
    )
    readonly_root: bool = variable(
        "NDDT_READONLY_ROOT",
        parsing.boolean,
        "false",
        "Let a sandbox on this machine change only /workspace, its home directory, /tmp and "
        "/var/tmp.",
        order=switch(more=False, why="what cannot be changed stays as it was built"),
    )
    sudo: bool = variable(
        "NDDT_SUDO",
        parsing.boolean,
        "false",
        "Let the sandbox's user be its root with sudo, to install packages.",
        order=switch(more=True, why="root inside is nearer to root outside"),
    )
    disk_reserve_gib: int = variable(
        "NDDT_DISK_RESERVE",
        parsing.count,
        "2",
        "GiB that sandboxes leave free on this machine's disks, else a session ends; 0 means none.",
        order=reserve(why="a full disk stops this machine"),
    )
    base_image: str = variable(
        "NDDT_BASE_IMAGE",
        parsing.text,
        "debian:trixie-slim",
        "Debian image that the sandbox builds on.",
        order=never("it runs with the user's credentials"),
    )
    node_version: str = variable(
        "NDDT_NODE_VERSION",
        parsing.like(parsing.VERSION, "a version such as 22 or 22.11.0"),
        "22",
        "Version of Node, such as 22 or 22.11.0.",
        order=never("an old one has known holes, and a new one may"),
    )
    ca_certs: str = variable(
        "NDDT_CA_CERTS",
        parsing.text,
        "",
        "File or directory of extra CA certificates (PEM); "
        "empty means /usr/local/share/ca-certificates.",
        order=never(
            "whoever has such a key reads what the sandbox sends; it is a file of the user's"
        ),
    )
    log_file: str = variable(
        "NDDT_LOG",
        parsing.log_file,
        "",
        "File that gets a line of JSON for each action; empty means "
        "~/.local/state/nddt/audit.log, /dev/null none.",
        order=never("it is a file of this machine, which is written to"),
    )
    env_file: str = variable(
        "NDDT_ENV_FILE",
        parsing.text,
        ".env",
        "The project's .env file, relative to the directory; empty means none.",
        order=never("a file cannot name another in its place", says="No .env file sets it."),
        empty_is_none=True,
    )

    own: tuple[object, ...] = field(repr=False)
    """Those of each agent and provider, each a value of its `SETTINGS`."""
    directory: Path
    """The caller's directory: what the sandbox shows as /workspace."""
    environment: Mapping[str, str] = field(repr=False)
    """Every variable of the environment and the .env files, for forwarding."""
    own_environment: Mapping[str, str] = field(repr=False)
    """The same without what only a project's .env file says that is not agreed to."""
    process_environment: Mapping[str, str] = field(repr=False)
    """The environment that our own programs (docker, ssh) run in."""
    owner: str
    """user@host: whose sandboxes are ours."""
    sources: Mapping[str, str]
    """Variable → where its value comes from."""

    def of(self, kind: type[T]) -> T:
        """Choose an agent's or a provider's own settings by their type."""
        return next(one for one in self.own if isinstance(one, kind))

    @property
    def options(self) -> tuple[str, ...]:
        """The settings that the command line says, by themselves or through a profile."""
        said = {"option"}
        if self.sources["NDDT_PROFILE"] == "option":
            said.add(f"profile {self.profile}")
        return tuple(name for name, source in self.sources.items() if source in said)

    def is_said(self, name: str) -> bool:
        """Tell whether anybody has said what a setting is, and not only its default."""
        return not self.sources[name].startswith("default")
