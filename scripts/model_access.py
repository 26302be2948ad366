"""Keys that never enter: the sandbox has placeholders, and this machine puts the keys in.

The agent finds the model's API at a port of the sandbox, from where ssh leads to a reverse proxy
in our own process. That takes a placeholder for what it stands for, on requests for the model
alone. A placeholder is good at one session's proxy and nowhere else. GitHub: `github_access`.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import (
    agents,
    consent,
    github_access,
    host,
    inside,
    naming,
    plan,
    process,
    reverse_proxy,
    state,
)
from scripts.errors import ConfigError
from scripts.holdings import Gate, Holding, Place
from scripts.provisions import Provision
from scripts.reverse_proxy import SHORTEST_SECRET, Asked
from scripts.settings import user_directory
from scripts.ssh import Connection, SocketPort

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping

    from scripts.agents import Agent
    from scripts.plan import Plan
    from scripts.provisions import File
    from scripts.settings import Settings

_OTHER_DOCKER = "set NDDT_DOCKER_FORWARD=isolated"
_INSTEAD = "set NDDT_MODEL_ACCESS=env, which gives the sandbox the keys"


def kept_here(settings: Settings, made: Plan, *, is_conversation: bool) -> Plan:
    """Take the keys out of a plan, and let the session use them here.

    Args:
        settings: See there.
        made: See there.
        is_conversation: Whether that is the agent in tmux, which outlives the session and has
            the same placeholders at the same ports when the user comes back.

    Raises:
        ConfigError: They would be seen in the sandbox all the same, or go to whom a project
            names, or they are of a kind that cannot be kept here.
    """
    environ = settings.process_environment
    directory = state.sandbox_directory(environ, naming.key(settings.provider, made.sandbox.name))
    note = directory / state.PLACEHOLDER if is_conversation else None
    place = Place(
        directory=directory if note else state.made_up_directory(environ, made.session),
        name=inside.AGENT if note else made.session,
        secret=_secret(note),
    )
    holdings = (
        _model(settings, made, place),
        github_access.hold(settings, made.brings.variables, place),
    )
    held = tuple(one for one in holdings if one is not None)
    keys = {name: key for one in held for name, key in one.keys.items()}
    if not keys:
        return made
    _check_out_of_sight(settings, made, keys)
    way = reverse_proxy.outward(settings)
    brings = _without(
        made.brings, {key: place.placeholder(name) for name, key in keys.items()}, held
    )
    for one in held:
        brings += one.brings + Provision(
            variables={name: place.placeholder(name) for name in one.keys},
            secret=frozenset(one.keys),
            serving=(
                partial(
                    reverse_proxy.served,
                    one.path,
                    one.gate,
                    one.secrets,
                    way,
                    is_soon=one.is_soon,
                ),
            ),
        )
    if note:
        brings += Provision(serving=(partial(_noted, note, place.secret),))
    return replace(made, brings=brings)


def _model(settings: Settings, made: Plan, place: Place) -> Holding | None:
    """Hold the keys for the model, if there are any."""
    agent = agents.get(settings.agent)
    variables = made.brings.variables
    keys = {name: variables[name] for name in agent.KEYS if variables.get(name)}
    _check_kind(agent, variables, keys)
    if not keys:
        return None
    url = variables.get(agent.BASE_URL) or agent.API_URL
    port = place.port("model")
    ours = agent.variables(f"http://127.0.0.1:{port}")
    shown = f"{host.without_password(url)}, by this machine, which keeps {', '.join(keys)}"
    return Holding(
        keys=keys,
        secrets=tuple(keys.values()),
        path=place.directory / "model",
        is_soon=url.startswith("https:"),
        gate=Gate(
            route=partial(_route, url.rstrip("/"), agent.API),
            headers={
                _header(agent, name, place.placeholder(name)): _header(agent, name, key)[1]
                for name, key in keys.items()
            },
        ),
        brings=Provision(
            forwards=(SocketPort(port, str(place.directory / "model")),),
            variables={name: value for name, value in ours.items() if name not in agent.KEYS},
            shown=(("model", shown),),
        ),
        # The direct way to a model of this machine.
        replaces=plan.this_machine({agent.BASE_URL: url}),
    )


def _route(url: str, api: re.Pattern[str], asked: Asked) -> str | None:
    return f"{url}{asked.target}" if api.fullmatch(f"{asked.method} {asked.path}") else None


def _header(agent: Agent, name: str, value: str) -> tuple[str, str]:
    header, _, rest = agent.KEYS[name].format(value).partition(": ")
    return header, rest


def _secret(note: Path | None) -> str:
    """Give what the placeholders are made from: that of a conversation that may go on, or new."""
    with contextlib.suppress(OSError):
        if note is not None:
            return note.read_text(encoding="ascii")
    return secrets.token_hex(16)


def _without(
    brings: Provision, replaced: Mapping[str, str], held: tuple[Holding, ...]
) -> Provision:
    """Take the keys, wherever they stand, and what is replaced out of what comes along."""
    gone = sum((one.replaces for one in held), Provision())

    def text(value: str) -> str:
        for key, placeholder in replaced.items():
            value = value.replace(key, placeholder) if len(key) >= SHORTEST_SECRET else value
        return value

    def file(one: File) -> File:
        content = text(one.content.decode("utf-8", "surrogateescape"))
        return replace(one, content=content.encode("utf-8", "surrogateescape"))

    return replace(
        brings,
        forwards=tuple(one for one in brings.forwards if one not in gone.forwards),
        variables={name: text(value) for name, value in brings.variables.items()},
        files={path: file(one) for path, one in brings.files.items()},
        shown=tuple(one for one in brings.shown if one not in gone.shown),
    )


@contextlib.contextmanager
def _noted(note: Path, secret: str) -> Iterator[None]:
    """Have it for whoever comes back to an agent that goes on."""
    state.write(note, secret)
    try:
        yield
    finally:
        asked = Connection(note.parent).session_argv("-T", "nddt", inside.AGENT_RUNS)
        if process.capture(asked).code == 1:
            note.unlink(missing_ok=True)


# -- what would make it useless -------------------------------------------------------------


def _check_kind(agent: Agent, variables: Mapping[str, str], keys: Mapping[str, str]) -> None:
    """Refuse what is no header's value, and what signs requests instead."""
    for name in agent.CREDENTIALS:
        if name not in agent.KEYS and variables.get(name):
            raise ConfigError(f"the keys that {name} is about cannot stay here", _INSTEAD)
    for name, key in keys.items():
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ConfigError(f"{name} has characters that no key has", "correct it")


def _check_out_of_sight(settings: Settings, made: Plan, keys: Mapping[str, str]) -> None:
    """Refuse where the sandbox sees a file that holds a key."""
    workspace = made.sandbox.workspace
    shown = [one.source for one in made.sandbox.mounts]
    shown += [workspace] if workspace and not made.sandbox.is_synced else []
    if settings.docker_forward == "host":
        raise ConfigError("with this machine's engine the sandbox gets at every key", _OTHER_DOCKER)
    home = Path(settings.process_environment.get("HOME", "/"))
    for directory in shown:
        if consent.is_sensitive(directory, home):
            problem = f"the sandbox sees all of {directory}, with the keys in it"
            raise ConfigError(problem, "cd to a project, or set NDDT_WORKSPACE=none")
    own = user_directory(settings.process_environment) / ".env"
    for file in (settings.directory / settings.env_file, own):
        is_shown = any(file.resolve().is_relative_to(one.resolve()) for one in shown)
        if not (is_shown or (made.sandbox.is_synced and _is_tracked(settings, file))):
            continue
        with contextlib.suppress(OSError):  # there is none
            content = file.read_bytes()
            for name, key in keys.items():
                if key.encode() in content:
                    raise ConfigError(
                        f"{name} stands in {file}, which the sandbox sees",
                        "put it into ~/.config/nddt/.env or the environment",
                    )


def _is_tracked(settings: Settings, file: Path) -> bool:
    """Tell whether git has a file, which a copy of the directory has then, too."""
    words = ("git", "ls-files", "--error-unmatch", "--", str(file))
    environ = settings.process_environment
    return bool(process.find("git")) and (
        process.capture(words, env=environ, cwd=settings.directory).ok
    )
