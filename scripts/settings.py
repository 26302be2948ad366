"""Settings: options, environment and .env files → one frozen `Settings`.

The only reader of the environment. Order: option, process environment, the project's .env
(`NDDT_ENV_FILE`), `~/.config/nddt/.env`, default. A .env file is data: nothing of it
enters this process's environment, and `${NAME}` in it means a name of the same file only.
A project may be somebody else's, so its .env does not choose the account (`DAYTONA_…`).
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

from scripts import allowlist
from scripts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger("nddt")

REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9_-]*/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,62}")
SNAPSHOT = re.compile(r"([\w.:-]+(/[\w.:-]+)*)?", re.ASCII)
VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,2}")
AGENT_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+|latest|stable|next")


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
    secret: bool = False,
) -> Any:  # noqa: ANN401  (as dataclasses.field)
    """Declare a setting.

    Args:
        name: Its variable.
        parse: Reads what is written.
        default: As it would be written.
        text: Its explanation, a sentence.
        own: Only the user's own environment and file can set it, not a project's.
        secret: It is shown to nobody.
    """
    metadata = {"variable": name, "parse": parse, "default": default, "text": text}
    return field(metadata={**metadata, "own": own, "secret": secret}, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one command, each with the place it comes from."""

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
        "Program to run in the sandbox instead of the agent's own, with its first arguments.",
    )
    env_vars: tuple[str, ...] = _variable(
        "NDDT_ENV_VARS",
        _names,
        "ANTHROPIC_API_KEY,ANTHROPIC_AUTH_TOKEN,CLAUDE_CODE_OAUTH_TOKEN,GH_TOKEN",
        "Variables that reach the agent, separated by commas; AWS_* means all that begin so.",
    )
    persistent: bool = _variable(
        "NDDT_PERSISTENT", _boolean, "false", "Keep one sandbox per directory and reuse it."
    )
    name: str = _variable(
        "NDDT_NAME",
        _like(re.compile(rf"({NAME.pattern})?"), "2 to 63 letters, digits and _.-"),
        "",
        "Name of the sandbox; empty makes one up.",
    )
    workspace: str = _variable(
        "NDDT_WORKSPACE",
        _choice("", "mount", "sync", "none"),
        "",
        "How the current directory reaches /workspace: mount, sync (a copy) or none; empty means "
        "mount with Docker on this machine, sync elsewhere.",
    )
    readonly: bool = _variable(
        "NDDT_WORKSPACE_READONLY", _boolean, "false", "The sandbox cannot change the directory."
    )
    mounts: tuple[Mount, ...] = _variable(
        "NDDT_MOUNTS",
        _mounts,
        "",
        "More directories to show, as HERE:IN_SANDBOX or HERE:IN_SANDBOX:ro, separated by commas; "
        "a project's .env file cannot set this.",
        own=True,
    )
    network: str = _variable(
        "NDDT_NETWORK",
        _choice("open", "allowlist", "none"),
        "open",
        "What the sandbox reaches: open means everything, allowlist only HTTP and HTTPS at hosts "
        "that are allowed, none nothing. A project's .env file cannot set this.",
        own=True,
    )
    allow_hosts: tuple[allowlist.Rule, ...] = _variable(
        "NDDT_ALLOW_HOSTS",
        _hosts,
        "",
        "More hosts that NDDT_NETWORK=allowlist allows, separated by commas: example.org, "
        "*.example.org, example.org:8443. A project's .env file cannot set this.",
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
        "The first port of this machine that may lead to one of the sandbox's.",
    )
    ssh_forward: str = _variable(
        "NDDT_SSH_FORWARD",
        _choice("", "agent", "keys"),
        "",
        "SSH in the sandbox: agent lets it use this machine's agent, keys copies ~/.ssh; "
        "empty means neither. A project's .env file cannot set this.",
        own=True,
    )
    ssh_keys: tuple[str, ...] = _variable(
        "NDDT_SSH_KEYS",
        _words,
        "",
        "Comments or SHA256:… fingerprints of the only keys that the sandbox may use, separated "
        "by commas; empty means all. A project's .env file cannot set this.",
        own=True,
    )
    gpg_forward: bool = _variable(
        "NDDT_GPG_FORWARD",
        _boolean,
        "false",
        "Let the sandbox sign with this machine's GPG agent; a project's .env file cannot set "
        "this.",
        own=True,
    )
    docker_forward: str = _variable(
        "NDDT_DOCKER_FORWARD",
        _choice("", "isolated", "host"),
        "",
        "Docker in the sandbox: isolated runs a daemon of its own there, host hands it this "
        "machine's engine; empty means neither. A project's .env file cannot set this.",
        own=True,
    )
    git_config: bool = _variable(
        "NDDT_GIT_CONFIG", _boolean, "true", "Bring along name, email and other safe git settings."
    )
    claude_config: bool = _variable(
        "NDDT_CLAUDE_CONFIG",
        _boolean,
        "true",
        "Bring along a copy of Claude Code's configuration and, without another credential, its "
        "login.",
    )
    model_access: str = _variable(
        "NDDT_MODEL_ACCESS",
        _choice("env", "tunnel"),
        "env",
        "Where keys are: env gives them to the sandbox, tunnel keeps them on this machine, which "
        "adds them to requests. A project's .env file cannot set this.",
        own=True,
    )
    github_repos: tuple[str, ...] = _variable(
        "NDDT_GITHUB_REPOS",
        _repositories,
        "",
        "Repositories at GitHub, as OWNER/NAME, separated by commas, that a token which stays on "
        "this machine is used for; empty means the directory's own remotes. A project's .env file "
        "cannot set this.",
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
        "A project's .env file cannot set this.",
        own=True,
    )
    readonly_root: bool = _variable(
        "NDDT_READONLY_ROOT",
        _boolean,
        "false",
        "Let a sandbox of Docker's change only /workspace, its home directory, /tmp and /var/tmp; "
        "a project's .env file cannot set this.",
        own=True,
    )
    disk_gib: int = _variable(
        "NDDT_DISK",
        _optional_count,
        "",
        "Disk of a Daytona sandbox in GiB; empty means 8. Docker sets no limit.",
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
        "Ready-made Daytona snapshot to use in place of one that nddt builds.",
    )
    daytona_api_key: str = _variable(
        "DAYTONA_API_KEY",
        _text,
        "",
        "Key of your Daytona account; a project's .env file cannot set this.",
        own=True,
        secret=True,
    )
    daytona_api_url: str = _variable(
        "DAYTONA_API_URL",
        _url,
        "https://app.daytona.io/api",
        "Address of Daytona's API; a project's .env file cannot set this.",
        own=True,
    )
    daytona_region: str = _variable(
        "DAYTONA_REGION",
        _text,
        "",
        "Daytona region, such as us or eu; empty means your organization's default. "
        "A project's .env file cannot set this.",
        own=True,
    )
    daytona_organization: str = _variable(
        "DAYTONA_ORGANIZATION_ID",
        _text,
        "",
        "Daytona organization that the key must belong to; empty means any. "
        "A project's .env file cannot set this.",
        own=True,
    )
    base_image: str = _variable(
        "NDDT_BASE_IMAGE", _text, "debian:trixie-slim", "Debian image that the sandbox builds on."
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
        "empty means /usr/local/share/ca-certificates.",
    )
    env_file: str = _variable(
        "NDDT_ENV_FILE", _text, ".env", "The project's .env file, relative to the directory."
    )

    directory: Path
    """The caller's directory: what the sandbox shows as /workspace."""
    environment: Mapping[str, str] = field(repr=False)
    """Every variable of the environment and the .env files, for forwarding."""
    own_environment: Mapping[str, str] = field(repr=False)
    """The same without what only a project's .env file says."""
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
    is_project: bool = False

    def source(self, name: str) -> str:
        return f"{self.title}, line {self.lines[name]}" if name in self.lines else self.title


def read_env_file(path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Read a .env file: values and line numbers by name; both empty if there is none.

    Raises:
        ConfigError: It is not readable, or a line is not `NAME=value`.
    """
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8") as stream:
            # Imported only where there is a file.
            from dotenv.parser import parse_stream  # noqa: PLC0415
            from dotenv.variables import parse_variables  # noqa: PLC0415

            bindings = list(parse_stream(stream))
    except (FileNotFoundError, NotADirectoryError):
        return {}, {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "correct or remove it") from error
    for binding in bindings:
        text = binding.original.string
        line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        if binding.error:
            raise ConfigError(f"{path}, line {line}: this is not NAME=value", "correct that line")
        if binding.key and binding.value is not None:
            atoms = parse_variables(binding.value)
            values[binding.key] = "".join(atom.resolve(values) for atom in atoms)
            lines[binding.key] = line
    return values, lines


def user_directory(environ: Mapping[str, str]) -> Path:
    """Give the directory of the user's own configuration; it need not exist."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")  # noqa: PTH118
    return Path(home) / "nddt"


def _layers(directory: Path, environ: Mapping[str, str]) -> tuple[_Layer, ...]:
    user_file = user_directory(environ) / ".env"
    layers = [_Layer("environment", environ, {})]
    chosen = environ.get("NDDT_ENV_FILE")
    project_file = directory / (chosen or ".env")
    if chosen and not os.path.isfile(project_file):  # noqa: PTH113  (False without permission)
        raise ConfigError(f"NDDT_ENV_FILE names {project_file}, which is no file", "correct it")
    files = (
        _Layer(str(path), *read_env_file(path), is_project=path != user_file)
        for path in (project_file, user_file)
    )
    return (*layers, *(layer for layer in files if layer.values))


def _report_unused(layers: tuple[_Layer, ...]) -> None:
    """Warn of variables that look like settings and have no effect."""
    known = {item["variable"]: item["own"] for item in declared()}
    for layer in layers:
        for name in layer.values:
            if layer.is_project and known.get(name):
                hint = "put it into ~/.config/nddt/.env or the environment"
                log.warning("%s (%s) is not used — %s", name, layer.source(name), hint)
            if name.startswith("NDDT_") and name not in known:
                import difflib  # noqa: PLC0415  (only for mistakes)

                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else "inv config lists the known ones"
                log.warning("%s (%s) is not a setting — %s", name, layer.source(name), hint)


def _able(item: Mapping[str, Any], layers: tuple[_Layer, ...]) -> tuple[_Layer, ...]:
    """Give the sources that may set a variable."""
    if item["variable"] == "NDDT_ENV_FILE":  # a file cannot name another in its place
        return layers[:1]
    return tuple(one for one in layers if not (item["own"] and one.is_project))


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
    _report_unused(layers)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for item in declared():
        name = item["variable"]
        option = options.get(item["field"])
        if option is not None and option is not False:
            raw, source = str(option), "option"
        else:
            layer = next((one for one in _able(item, layers) if one.values.get(name)), None)
            raw = layer.values[name] if layer else item["default"]
            source = layer.source(name) if layer else "default"
        try:
            values[item["field"]] = item["parse"](raw.strip())
        except ValueError as error:
            shown = "not allowed" if item["secret"] else repr(raw)
            raise ConfigError(f"{name} is {shown} ({source})", f"allowed: {error}") from error
        sources[name] = source
    return Settings(
        **values,
        directory=directory,
        environment=_merged(layers),
        own_environment=_merged(tuple(one for one in layers if not one.is_project)),
        process_environment=MappingProxyType(dict(environ)),
        owner=f"{_user_name()}@{socket.gethostname()}",
        sources=MappingProxyType(sources),
    )


def _merged(layers: tuple[_Layer, ...]) -> Mapping[str, str]:
    """Give the variables of all layers, each with its nearest value."""
    values = {name: value for layer in reversed(layers) for name, value in layer.values.items()}
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
    try:
        directory = Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("the current directory no longer exists", "cd to another one") from error
    return load(directory, os.environ, options)
