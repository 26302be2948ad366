"""Settings: options, environment and .env files → one frozen `Settings`.

The only reader of the environment. Order: option, process environment, the project's .env
(`NDDT_ENV_FILE`), `~/.config/nddt/.env`, default. Nothing of a .env file enters this process's
environment. A project may be somebody else's: what widens what a sandbox gets or reaches counts
in its .env only once the user has agreed to its exact content (`trust.py`).
"""

from __future__ import annotations

import logging
import os
import pwd
import re
import shlex
import socket
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scripts import allowlist, env_file, env_forward, trust
from scripts.errors import ConfigError
from scripts.profiles import PROFILES, STANDARD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger("nddt")

REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9_-]*/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,62}")
SNAPSHOT = re.compile(r"([\w.:-]+(/[\w.:-]+)*)?", re.ASCII)
VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,2}")
AGENT_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+|latest|stable|next")

MODEL_URL = "ANTHROPIC_BASE_URL"
"""Where the agent's key is sent to, or a port of this machine that the sandbox reaches."""
WITHHELD = (
    *("ANTHROPIC_*BASE_URL", "GH_HOST", "DAYTONA_*", "DOCKER_*"),
    *("PATH", "LD_*", "*_PROXY", "*_proxy"),
)
"""Variables that no sandbox gets from a project's .env file, unless that is agreed to."""


def _text(value: str) -> str:
    return value


def _boolean(value: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if value.lower() not in words:
        raise ValueError("true or false")
    return words[value.lower()]


def _count(value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value):
        raise ValueError("a whole number, 0 or more")
    return int(value)


def _optional_count(value: str) -> int:
    if value in {"", "0"}:
        return 0
    return _count(value)


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", value):
        raise ValueError("an address such as https://host/api")
    return value.rstrip("/")


def _hosts(value: str) -> tuple[allowlist.Rule, ...]:
    return tuple(dict.fromkeys(map(allowlist.rule, _words(value))))


def _command(value: str) -> str:
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError("a program and its arguments, quoted as in a shell") from error
    return value


def _names(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\*?", name) for name in names):
        raise ValueError("names of variables separated by commas; a * at a name's end is allowed")
    return names


def _words(value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _repositories(value: str) -> tuple[str, ...]:
    names = _words(value)
    if not all(re.fullmatch(REPOSITORY, name) for name in names):
        raise ValueError("OWNER/NAME, separated by commas")
    return names


def port(value: str) -> int:
    """Read the number of a port; a ValueError says what is allowed."""
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 0 < int(value) < 65536:
        raise ValueError("a port from 1 to 65535")
    return int(value)


def _ports(value: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(port(word) for word in _words(value)))
    except ValueError as error:
        raise ValueError("ports from 1 to 65535, separated by commas") from error


@dataclass(frozen=True)
class Mount:
    """A directory of this machine that a sandbox shows."""

    source: Path
    target: str
    readonly: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.target}{':ro' if self.readonly else ''}"


def _mount(word: str) -> Mount:
    match = re.fullmatch(r"([^:]+):(/[^:]*)(:ro|:rw)?", word)
    if not match or ".." in match[2].split("/"):
        raise ValueError("HERE:/IN/SANDBOX or HERE:/IN/SANDBOX:ro, separated by commas")
    target = "/" + "/".join(part for part in match[2].split("/") if part not in {"", "."})
    if target in {"/", "/workspace"}:
        raise ValueError("a place in the sandbox other than / and /workspace")
    try:
        source = Path(match[1]).expanduser().absolute()
        # After a link, `..` means one thing to a kernel and another to an engine.
        source = source.resolve() if ".." in source.parts else source
    except RuntimeError as error:  # ~NAME, and nobody has that name; a loop of links
        raise ValueError("directories that exist") from error
    return Mount(source, target, readonly=match[3] == ":ro")


def _mounts(value: str) -> tuple[Mount, ...]:
    found = tuple(_mount(word) for word in _words(value))
    if len({one.target for one in found}) < len(found):
        raise ValueError("each place in the sandbox once")
    return found


def _log_file(value: str) -> str:
    path = os.path.expanduser(value)  # noqa: PTH111  (what has no home stays as it is)
    # Relative to the directory it would be where the sandbox can change it.
    if path and not path.startswith("/"):
        raise ValueError("a path that begins with / or ~/")
    return path


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(" or ".join(allowed))
        return value

    return parse


def _like(pattern: re.Pattern[str], description: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(description)
        return value

    return parse


def _variable(
    name: str,
    parse: Callable[[str], Any],
    default: str,
    text: str,
    *,
    own: bool = False,
    narrow: tuple[object, ...] = (),
    secret: bool = False,
) -> Any:  # noqa: ANN401  (as dataclasses.field)
    """Declare a setting.

    Args:
        name: Its variable.
        parse: Reads what is written.
        default: As it would be written.
        text: Its explanation, a sentence.
        own: A project's file can set it only once the user has agreed to that file.
        narrow: Values that any file can set all the same, since they take something away.
        secret: It is shown to nobody.
    """
    metadata = {"variable": name, "parse": parse, "default": default, "text": text}
    metadata |= {"own": own, "narrow": narrow, "secret": secret}
    return field(metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one command, each with the place it comes from."""

    profile: str = _variable(
        "NDDT_PROFILE",
        _choice(*PROFILES),
        STANDARD,
        "What sandboxes may do where it is not set one by one: open, standard, strict, or airgap; "
        "inv config --security shows it. A project's .env sets strict and airgap; others only "
        "after inv trust.",
        own=True,
        narrow=("strict", "airgap"),
    )
    provider: str = _variable(
        "NDDT_PROVIDER",
        _choice("docker", "daytona"),
        "docker",
        "Where sandboxes run: docker, or daytona.",
    )
    agent: str = _variable("NDDT_AGENT", _choice("claude"), "claude", "Which agent runs: claude.")
    command: str = _variable(
        "NDDT_COMMAND",
        _command,
        "",
        "Program to run in the sandbox instead of the agent's own, with its first arguments. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    env_vars: tuple[str, ...] = _variable(
        "NDDT_ENV_VARS",
        _names,
        "ANTHROPIC_API_KEY,ANTHROPIC_AUTH_TOKEN,CLAUDE_CODE_OAUTH_TOKEN,GH_TOKEN",
        "Variables that reach the agent, separated by commas; AWS_* means all that begin so. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    persistent: bool = _variable(
        "NDDT_PERSISTENT", _boolean, "false", "Keep one sandbox per directory and reuse it."
    )
    name: str = _variable(
        "NDDT_NAME",
        _like(re.compile(rf"({NAME.pattern})?"), "2 to 63 letters, digits and _.-"),
        "",
        "Name of the sandbox; empty makes one up. A project's .env sets it only after inv trust.",
        own=True,
    )
    workspace: str = _variable(
        "NDDT_WORKSPACE",
        _choice("", "mount", "sync", "none"),
        "",
        "How the current directory reaches /workspace: mount, sync (a copy) or none; empty means "
        "mount with Docker on this machine, sync elsewhere.",
    )
    readonly: bool = _variable(
        "NDDT_WORKSPACE_READONLY",
        _boolean,
        "false",
        "The sandbox cannot change the directory. A project's .env sets false only after inv "
        "trust.",
        own=True,
        narrow=(True,),
    )
    mounts: tuple[Mount, ...] = _variable(
        "NDDT_MOUNTS",
        _mounts,
        "",
        "More directories to show, as HERE:IN_SANDBOX or HERE:IN_SANDBOX:ro, separated by commas. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    network: str = _variable(
        "NDDT_NETWORK",
        _choice("open", "allowlist", "none"),
        "open",
        "What the sandbox reaches: open means everything, allowlist only HTTP and HTTPS at hosts "
        "that are allowed, none nothing. A project's .env sets others than none only after inv "
        "trust.",
        own=True,
        narrow=("none",),
    )
    allow_hosts: tuple[allowlist.Rule, ...] = _variable(
        "NDDT_ALLOW_HOSTS",
        _hosts,
        "",
        "More hosts that NDDT_NETWORK=allowlist allows, separated by commas: example.org, "
        "*.example.org, example.org:8443. A project's .env sets it only after inv trust.",
        own=True,
    )
    ports: tuple[int, ...] = _variable(
        "NDDT_PORTS",
        _ports,
        "",
        "Ports of the sandbox to reach from this machine, separated by commas, such as 3000,8080.",
    )
    port_range_start: int = _variable(
        "NDDT_PORT_RANGE_START",
        port,
        "30000",
        "The first port of this machine that may lead to one of the sandbox's. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    ssh_forward: str = _variable(
        "NDDT_SSH_FORWARD",
        _choice("", "agent", "keys"),
        "",
        "SSH in the sandbox: agent lets it use this machine's agent, keys copies ~/.ssh; "
        "empty means neither. A project's .env sets it only after inv trust.",
        own=True,
    )
    ssh_keys: tuple[str, ...] = _variable(
        "NDDT_SSH_KEYS",
        _words,
        "",
        "Comments or SHA256:… fingerprints of the only keys that the sandbox may use, separated "
        "by commas; empty means all. A project's .env sets it only after inv trust.",
        own=True,
    )
    gpg_forward: bool = _variable(
        "NDDT_GPG_FORWARD",
        _boolean,
        "false",
        "Let the sandbox sign with this machine's GPG agent. "
        "A project's .env sets true only after inv trust.",
        own=True,
        narrow=(False,),
    )
    docker_forward: str = _variable(
        "NDDT_DOCKER_FORWARD",
        _choice("", "isolated", "host"),
        "",
        "Docker in the sandbox: isolated runs a daemon of its own there, host hands it this "
        "machine's engine; empty means neither. A project's .env sets it only after inv trust.",
        own=True,
    )
    git_config: bool = _variable(
        "NDDT_GIT_CONFIG",
        _boolean,
        "true",
        "Bring along name, email and other safe git settings. "
        "A project's .env sets true only after inv trust.",
        own=True,
        narrow=(False,),
    )
    claude_config: bool = _variable(
        "NDDT_CLAUDE_CONFIG",
        _boolean,
        "true",
        "Bring along a copy of Claude Code's configuration and, without another credential, its "
        "login. A project's .env sets true only after inv trust.",
        own=True,
        narrow=(False,),
    )
    model_access: str = _variable(
        "NDDT_MODEL_ACCESS",
        _choice("env", "tunnel"),
        "env",
        "Where keys are: env gives them to the sandbox, tunnel keeps them on this machine, which "
        "adds them to requests. A project's .env sets env only after inv trust.",
        own=True,
        narrow=("tunnel",),
    )
    github_repos: tuple[str, ...] = _variable(
        "NDDT_GITHUB_REPOS",
        _repositories,
        "",
        "Repositories at GitHub, as OWNER/NAME, separated by commas, that a token which stays on "
        "this machine is used for; empty means the directory's own remotes. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    timeout_s: int = _variable(
        "NDDT_TIMEOUT", _count, "0", "Seconds after which a run is ended; 0 means never."
    )
    keep_connection_s: int = _variable(
        "NDDT_KEEP_CONNECTION",
        _count,
        "600",
        "Seconds that an unused connection to a persistent sandbox stays open.",
    )
    cpus: int = _variable(
        "NDDT_CPUS",
        _optional_count,
        "",
        "CPUs of a sandbox; empty means no limit with Docker, 2 with Daytona.",
    )
    memory_gib: int = _variable(
        "NDDT_MEMORY",
        _optional_count,
        "",
        "Memory of a sandbox in GiB; empty means no limit with Docker, 4 with Daytona.",
    )
    pids: int = _variable(
        "NDDT_PIDS",
        _count,
        "4096",
        "Processes and threads that a sandbox of Docker's may have at a time; 0 means no limit. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    readonly_root: bool = _variable(
        "NDDT_READONLY_ROOT",
        _boolean,
        "false",
        "Let a sandbox of Docker's change only /workspace, its home directory, /tmp and /var/tmp. "
        "A project's .env sets false only after inv trust.",
        own=True,
        narrow=(True,),
    )
    sudo: bool = _variable(
        "NDDT_SUDO",
        _boolean,
        "false",
        "Let the sandbox's user be its root with sudo, to install packages. "
        "A project's .env sets true only after inv trust.",
        own=True,
        narrow=(False,),
    )
    disk_reserve_gib: int = _variable(
        "NDDT_DISK_RESERVE",
        _count,
        "2",
        "GiB that sandboxes of Docker's leave of this machine's disks: a session is ended when "
        "less is free; 0 means no limit. A project's .env sets it only after inv trust.",
        own=True,
    )
    disk_gib: int = _variable(
        "NDDT_DISK",
        _optional_count,
        "",
        "Disk of a Daytona sandbox in GiB; empty means 8.",
    )
    idle_minutes: int = _variable(
        "NDDT_IDLE_MINUTES",
        _count,
        "60",
        "Minutes after which Daytona stops an unused persistent sandbox; 0 means never.",
    )
    delete_after_hours: int = _variable(
        "NDDT_DELETE_AFTER_HOURS",
        _count,
        "168",
        "Hours after which Daytona deletes a stopped persistent sandbox; 0 means never.",
    )
    daytona_snapshot: str = _variable(
        "NDDT_DAYTONA_SNAPSHOT",
        _like(SNAPSHOT, "the name of a snapshot"),
        "",
        "Ready-made Daytona snapshot to use in place of one that nddt builds. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    daytona_api_key: str = _variable(
        "DAYTONA_API_KEY",
        _text,
        "",
        "Key of your Daytona account. A project's .env sets it only after inv trust.",
        own=True,
        secret=True,
    )
    daytona_api_url: str = _variable(
        "DAYTONA_API_URL",
        _url,
        "https://app.daytona.io/api",
        "Address of Daytona's API. A project's .env sets it only after inv trust.",
        own=True,
    )
    daytona_region: str = _variable(
        "DAYTONA_REGION",
        _text,
        "",
        "Daytona region, such as us or eu; empty means your organization's default. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    daytona_organization: str = _variable(
        "DAYTONA_ORGANIZATION_ID",
        _text,
        "",
        "Daytona organization that the key must belong to; empty means any. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    base_image: str = _variable(
        "NDDT_BASE_IMAGE",
        _text,
        "debian:trixie-slim",
        "Debian image that the sandbox builds on. A project's .env sets it only after inv trust.",
        own=True,
    )
    node_version: str = _variable(
        "NDDT_NODE_VERSION",
        _like(VERSION, "a version such as 22 or 22.11.0"),
        "22",
        "Version of Node, such as 22 or 22.11.0.",
    )
    claude_version: str = _variable(
        "NDDT_CLAUDE_VERSION",
        _like(AGENT_VERSION, "latest, stable, next or a version such as 2.1.330"),
        "latest",
        "Claude Code: latest, stable and next are looked up once a day; a version never is.",
    )
    ca_certs: str = _variable(
        "NDDT_CA_CERTS",
        _text,
        "",
        "File or directory of extra CA certificates (PEM); "
        "empty means /usr/local/share/ca-certificates. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    log_file: str = _variable(
        "NDDT_LOG",
        _log_file,
        "",
        "File that gets a line of JSON for each action; empty means "
        "~/.local/state/nddt/audit.log, /dev/null none. "
        "A project's .env sets it only after inv trust.",
        own=True,
    )
    env_file: str = _variable(
        "NDDT_ENV_FILE", _text, ".env", "The project's .env file, relative to the directory."
    )

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


def declared() -> tuple[Mapping[str, Any], ...]:
    """List the settings: `field`, and what `_variable` was told of each."""
    return tuple({"field": f.name, **f.metadata} for f in fields(Settings) if f.metadata)


@dataclass(frozen=True)
class _Layer:
    """One source of values: `lines` is empty for the environment."""

    title: str
    values: Mapping[str, str] = field(repr=False)
    lines: Mapping[str, int]
    project: env_file.EnvFile | None = None
    """A project's file to which the user has not agreed, as it is."""

    def source(self, name: str) -> str:
        return f"{self.title}, line {self.lines[name]}" if name in self.lines else self.title

    def may_set(self, item: Mapping[str, Any]) -> bool:
        """Tell whether it has a say in a setting."""
        name = item["variable"]
        if name == "NDDT_ENV_FILE":  # a file cannot name another in its place
            return not self.lines
        return not (self.project and _widens(item, self.values.get(name, "")))

    @property
    def forwarded(self) -> Mapping[str, str]:
        """What a sandbox may get of it."""
        if not self.project:
            return self.values
        return {k: v for k, v in self.values.items() if not env_forward.matches(k, WITHHELD)}


def _widens(item: Mapping[str, Any], value: str) -> bool:
    """Tell whether a value is one that needs the user's consent."""
    try:
        return item["own"] and item["parse"](value.strip()) not in item["narrow"]
    except ValueError:
        return True


def widening(values: Mapping[str, str]) -> tuple[str, ...]:
    """Give the names in a .env file whose values count only with the user's consent."""
    own = {item["variable"]: item for item in declared() if item["own"]}
    return tuple(
        name
        for name, value in values.items()
        if value
        and (_widens(own[name], value) if name in own else env_forward.matches(name, WITHHELD))
    )


def user_directory(environ: Mapping[str, str]) -> Path:
    """Give the directory of the user's own configuration; it need not exist."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")  # noqa: PTH118
    return Path(home) / "nddt"


def project_file(directory: Path, environ: Mapping[str, str]) -> Path:
    """Give the path of a project's .env file; the default one need not exist.

    Raises:
        ConfigError: NDDT_ENV_FILE names something else than a file.
    """
    chosen = environ.get("NDDT_ENV_FILE")
    path = directory / (chosen or ".env")
    if chosen and not os.path.isfile(path):  # noqa: PTH113  (False without permission)
        raise ConfigError(f"NDDT_ENV_FILE names {path}, which is no file", "correct it")
    return path


def _layers(directory: Path, environ: Mapping[str, str]) -> tuple[_Layer, ...]:
    layers = [_Layer("environment", environ, {})]
    users = user_directory(environ) / ".env"
    for path in dict.fromkeys((project_file(directory, environ), users)):
        found = env_file.read(path)
        if not found:
            continue
        if path == users and found.doubts():
            log.warning("%s %s — it decides what a sandbox gets", path, found.doubts())
        values, lines = found.parse()
        is_ours = path == users or trust.is_agreed(environ, found)
        layers.append(_Layer(str(path), values, lines, None if is_ours else found))
    return tuple(layers)


def _report_unknown(layers: tuple[_Layer, ...]) -> None:
    """Warn of variables that look like settings and are none."""
    known = {item["variable"] for item in declared()}
    for layer in layers:
        for name in layer.values:
            if name.startswith("NDDT_") and name not in known:
                import difflib  # noqa: PLC0415  (only for mistakes)

                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else "inv config lists the known ones"
                log.warning("%s (%s) is not a setting — %s", name, layer.source(name), hint)


def _ignored(layer: _Layer, loaded: Settings) -> tuple[str, ...]:
    """Give the names in a project's file that would count, and change something, with consent."""
    settings = {item["variable"]: item for item in declared()}
    forwarded = env_forward.select((*loaded.env_vars, MODEL_URL), layer.values)

    def would_count(name: str) -> bool:
        value = layer.values[name]
        if name not in settings:
            return name in forwarded and name not in loaded.process_environment
        try:
            differs = settings[name]["parse"](value.strip()) != getattr(
                loaded, settings[name]["field"]
            )
        except ValueError:
            differs = True
        return differs and loaded.sources[name] not in {"option", "environment"}

    return tuple(name for name in widening(layer.values) if would_count(name))


def _report_ignored(layers: tuple[_Layer, ...], loaded: Settings) -> None:
    """Warn, in one line, of what a project's file would change and does not."""
    for layer in layers:
        names = _ignored(layer, loaded) if layer.project else ()
        if layer.project and names:
            shown = ", ".join(f"{name} (line {layer.lines[name]})" for name in names)
            standing = trust.standing(loaded.process_environment, layer.project)
            hint = "look at it and agree: inv trust"
            log.warning("%s %s, so not used: %s — %s", layer.title, standing, shown, hint)


def load(
    directory: Path, environ: Mapping[str, str], options: Mapping[str, str | bool | None]
) -> Settings:
    """Put the settings of one command together.

    Args:
        directory: The caller's directory.
        environ: The process environment.
        options: Field name → value as typed; None and False mean "not given".

    Raises:
        ConfigError: A value is not allowed, or a .env file is not readable.
    """
    layers = _layers(directory, environ)
    _report_unknown(layers)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for item in declared():
        name = item["variable"]
        option = options.get(item["field"])
        if option is not None and option is not False:
            raw, source = str(option), "option"
        else:
            layer = next(
                (one for one in layers if one.values.get(name) and one.may_set(item)), None
            )
            profile = PROFILES.get(values.get("profile", STANDARD), {})
            raw = layer.values[name] if layer else profile.get(name, item["default"])
            source = layer.source(name) if layer else "default"
            if not layer and name in profile:
                source = f"profile {values['profile']}"
        try:
            values[item["field"]] = item["parse"](raw.strip())
        except ValueError as error:
            shown = "not allowed" if item["secret"] else repr(raw)
            raise ConfigError(f"{name} is {shown} ({source})", f"allowed: {error}") from error
        sources[name] = source
    loaded = Settings(
        **values,
        directory=directory,
        environment=_merged(layers),
        own_environment=_merged(tuple(one for one in layers if not one.project)),
        process_environment=MappingProxyType(dict(environ)),
        owner=f"{_user_name()}@{socket.gethostname()}",
        sources=MappingProxyType(sources),
    )
    _report_ignored(layers, loaded)
    return loaded


def _merged(layers: tuple[_Layer, ...]) -> Mapping[str, str]:
    """Give the variables of all layers, each with its nearest value."""
    values = {name: value for layer in reversed(layers) for name, value in layer.forwarded.items()}
    return MappingProxyType(values)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def from_here(**options: str | bool | None) -> Settings:
    """Load the settings for the caller's directory and environment.

    Raises:
        ConfigError: As `load`, or the current directory is gone.
    """
    return load(_here(), os.environ, options)


def project_file_here() -> tuple[Path, Mapping[str, str]]:
    """Give the path of the caller's directory's .env file, and the environment.

    Raises:
        ConfigError: As `project_file`, or the current directory is gone.
    """
    return project_file(_here(), os.environ), os.environ


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("the current directory no longer exists", "cd to another one") from error
