"""Keys that never enter: the sandbox has placeholders, and this machine puts the keys in.

The agent finds the model's API at a port of the sandbox, from where ssh leads to a reverse proxy
in our own process. That takes a placeholder for what it stands for, on requests for the model
alone. A placeholder is good at one session's proxy and nowhere else. GitHub: `github_access`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts import agents, naming
from scripts.contracts.provisions import Provision, kept
from scripts.errors import ConfigError
from scripts.keyless import github_access, outward, reverse_proxy
from scripts.keyless.kept_keys import Fresh, Gate, Holding, KeptKeys, Place
from scripts.machine import files, git_places, state
from scripts.machine.bind_sources import is_around
from scripts.settings import env_file, host
from scripts.settings.env_file import user_directory
from scripts.transport.forwards import SocketPort

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator, Mapping

    from scripts.contracts.agent import Agent
    from scripts.contracts.sandbox import Specification
    from scripts.contracts.session import Session
    from scripts.keyless.reverse_proxy import Asked
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

VARIABLES_OF_OTHERS = (
    *(".envrc", ".env.local", ".mcp.json"),
    *(".claude/settings.json", ".claude/settings.local.json"),
)
"""Files of a directory in which direnv, frameworks and agents look for variables."""

_OTHER_DOCKER = "set NDDT_DOCKER_FORWARD=isolated"
_INSTEAD = "NDDT_MODEL_ACCESS=env gives them to the sandbox without a word"


@dataclass(frozen=True, kw_only=True)
class Exposed:
    """A session and its sandbox: where its keys could be seen."""

    variables: Mapping[str, str] = field(repr=False)
    """What it would have in its environment, with the keys."""
    session: Session
    sandbox: Specification
    is_agent: bool
    """Whether it is the agent that runs, and not some command."""
    is_copied: Callable[[Path], bool] = field(repr=False)
    """Tells whether a copy of the directory has a file."""


def kept_here(settings: Settings, made: Exposed) -> KeptKeys:
    """Decide which keys of a session stay here, and let it use them from inside.

    Where that is only the default, what stands in the way is said, and no reason to do nothing.

    Args:
        settings: All of them.
        made: The session. A conversation has the same placeholders at the same
            ports each time that the user comes back to it.

    Raises:
        ConfigError: It was asked for, but the keys would be seen in the sandbox all the same, or
            are of a kind that cannot be kept here.
    """
    environ = settings.process_environment
    directory = made.session.directory(environ)
    note = directory / state.PLACEHOLDER if made.session.is_conversation else None
    place = Place(directory=directory, name=made.session.name, secret=_secret(note))
    try:
        obstacle = _obstacle(settings, made)
        if obstacle:
            _say(settings, obstacle, "the keys for the model enter the sandbox: ")
        holdings = (
            None if obstacle else _model(settings, made, place),
            github_access.hold(settings, made.variables, place),
        )
        held = tuple(one for one in holdings if one is not None)
        keys = {name: key for one in held for name, key in one.keys.items()}
        if not keys:
            return KeptKeys()
        way = outward.outward(settings)
    except outward.NoWayError as error:
        _say(settings, error, "the keys enter the sandbox: ")
        return KeptKeys()
    for problem in _in_sight(settings, made, keys):
        _say(settings, problem)
    placeholders = {name: place.placeholder(name) for name in keys}
    brings = Provision(variables=placeholders, secret=frozenset(keys))
    for one in held:
        brings += one.brings + _served(one, place, note, way)
    return KeptKeys(keys=keys, placeholders=placeholders, brings=brings)


def _served(one: Holding, place: Place, note: Path | None, way: outward.Outward) -> Provision:
    """Have the proxy of a holding: for the session, or, with a note, for a conversation."""
    serve = partial(
        reverse_proxy.serve_reverse_proxy,
        one.path,
        one.gate,
        one.secrets,
        way,
        warm_up_tls=one.warm_up_tls,
    )
    if note is None:
        return Provision(forwards=one.forwards, background_services=(serve,))
    fixed = (key for name, key in one.keys.items() if name not in one.fresh)
    mark = naming.digest((place.secret, *fixed), 16)
    return kept(one.forwards, serve, mark) + kept((), partial(_noted, note, place.secret))


def _model(settings: Settings, made: Exposed, place: Place) -> Holding | None:
    """Hold the keys for the model, if there are any."""
    agent = agents.get(settings.agent)
    keys = _keys(settings, made)
    if not keys:
        return None
    url = made.variables.get(agent.BASE_URL) or agent.API_URL
    port = place.port("model")
    ours = agent.variables(f"http://127.0.0.1:{port}", stands_for=url)
    shown = f"{host.without_password(url)}, by this machine, which keeps {', '.join(keys)}"
    renewed = {name: agent.renewed(settings, name, key) for name, key in keys.items()}
    fresh = {name: read for name, read in renewed.items() if read is not None}
    return Holding(
        keys=keys,
        secrets=tuple(keys.values()),
        path=place.directory / "model",
        warm_up_tls=url.startswith("https:"),
        gate=Gate(
            route=partial(_route, url.rstrip("/"), agent.API),
            headers={
                _header(agent, name, place.placeholder(name)): Fresh(
                    form=_header(agent, name, "{}")[1], read=fresh[name]
                )
                if name in fresh
                else _header(agent, name, key)[1]
                for name, key in keys.items()
            },
        ),
        fresh=frozenset(fresh),
        forwards=(SocketPort(port, str(place.directory / "model")),),
        brings=Provision(
            variables={name: value for name, value in ours.items() if name not in agent.KEYS},
            plan_lines=(("model", shown),),
        ),
    )


def _keys(settings: Settings, made: Exposed) -> Mapping[str, str]:
    """Return the keys for the model, by their variables.

    What a model of this machine has in place of one is none, unless it was asked for that even
    such a model is reached by the proxy alone.
    """
    agent, variables = agents.get(settings.agent), made.variables
    none = {} if is_asked_for(settings) else agent.variables(variables.get(agent.BASE_URL))
    return {
        name: variables[name]
        for name in agent.KEYS
        if variables.get(name) and variables[name] != none.get(name)
    }


def _route(url: str, api: re.Pattern[str], asked: Asked) -> tuple[str, str] | None:
    parts = urlsplit(url)
    is_model = api.fullmatch(f"{asked.method} {asked.path}")
    return (f"{parts.scheme}://{parts.netloc}", parts.path + asked.target) if is_model else None


def _header(agent: Agent, name: str, value: str) -> tuple[str, str]:
    header, _, rest = agent.KEYS[name].format(value).partition(": ")
    return header, rest


def _secret(note: Path | None) -> str:
    """Return what the placeholders are made from: that of a conversation that may go on, or new."""
    with contextlib.suppress(OSError):
        if note is not None:
            return note.read_text(encoding="ascii")
    return secrets.token_hex(16)


@contextlib.contextmanager
def _noted(note: Path, secret: str) -> Iterator[None]:
    """Have it for whoever comes back to an agent that goes on; its keeper removes it."""
    files.write(note, secret)
    yield


# -- what would make it useless -------------------------------------------------------------


def is_asked_for(settings: Settings) -> bool:
    """Tell whether somebody has said where keys are to be, and not only the default."""
    return settings.sources["NDDT_MODEL_ACCESS"] != "default"


def _say(settings: Settings, problem: ConfigError, what: str = "") -> None:
    """Refuse what was asked for, and say what the default cannot do.

    Raises:
        ConfigError: The problem.
    """
    if is_asked_for(settings):
        raise problem
    log.warning("%s%s — %s", what, problem.message, problem.next_step)


def _obstacle(settings: Settings, made: Exposed) -> ConfigError | None:
    """Tell what keeps keys for the model from staying here."""
    agent, keys = agents.get(settings.agent), _keys(settings, made)
    for name in agent.CREDENTIALS:
        if name not in agent.KEYS and made.variables.get(name):
            return ConfigError(f"the keys that {name} is about cannot stay here", _INSTEAD)
    for name, key in keys.items():
        if not (key.isascii() and key.isprintable() and " " not in key):
            return ConfigError(f"{name} has characters that no key has", "correct it")
    if keys and made.is_agent and settings.command and not is_asked_for(settings):
        problem = "the program of NDDT_COMMAND may know no other way to it"
        return ConfigError(problem, f"if it heeds {agent.BASE_URL}, add --keyless")
    return None


def _where_keys_may_be(settings: Settings) -> Iterator[tuple[Path, bytes]]:
    """Read nddt's own files, and those of the directory in which others look for variables."""
    for file in (
        settings.directory / settings.env_file,
        user_directory(settings.process_environment) / ".env",
    ):
        found = env_file.read_env_file(file)
        yield file, found.content if found else b""
    for name in VARIABLES_OF_OTHERS:
        file = settings.directory / name
        yield file, git_places.read_plain_file(os.path.realpath(file), env_file.MOST_BYTES) or b""


def _in_sight(settings: Settings, made: Exposed, keys: Mapping[str, str]) -> Iterator[ConfigError]:
    """Tell which keys the sandbox sees in a file all the same.

    What is asked about anyway, the engine and the home directory, is no news by default.
    """
    workspace = made.sandbox.workspace
    shown = [one.source for one in made.sandbox.mounts]
    shown += [workspace] if workspace and not made.sandbox.is_synced else []
    is_strict = is_asked_for(settings)
    if is_strict and settings.docker_forward == "host":
        yield ConfigError("with this machine's engine the sandbox gets at every key", _OTHER_DOCKER)
    home = Path(settings.process_environment.get("HOME", "/"))
    for directory in shown:
        if is_strict and is_around(directory, home):
            problem = f"the sandbox sees all of {directory}, with the keys in it"
            yield ConfigError(problem, "cd to a project, or set NDDT_WORKSPACE=none")
    for file, content in _where_keys_may_be(settings):
        names = [name for name, key in keys.items() if key.encode() in content]
        is_shown = any(file.resolve().is_relative_to(one.resolve()) for one in shown)
        if names and (is_shown or (made.sandbox.is_synced and made.is_copied(file))):
            yield ConfigError(
                f"{', '.join(names)} stands in {file}, which the sandbox sees",
                "put it into ~/.config/nddt/.env or the environment",
            )
