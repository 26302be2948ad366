"""Read the settings of a command: options, environment and .env files → one frozen `Settings`.

Order: option, process environment, the project's .env
(`NDDT_ENV_FILE`), `~/.config/nddt/.env`, default. Nothing of a .env file enters this process's
environment. A project may be somebody else's: until the user has agreed to the exact content of
its .env (`trust.py`), no value in it gives a sandbox more than the user does (`orders.py`), and
some variables do not count (`withheld.py`).
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scripts.configuration import consented, environment, trust
from scripts.configuration import declared as all_settings
from scripts.configuration.declared import declared
from scripts.configuration.layers import Layer, Value, Values
from scripts.errors import ConfigError
from scripts.naming import said
from scripts.settings import env_file
from scripts.settings.declaring import fallback
from scripts.settings.profiles import PROFILES, STANDARD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.configuration.consented import Written
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")


def _read(item: Mapping[str, Any], raw: str, source: str) -> Any:  # noqa: ANN401  (the setting's)
    """Read what is written.

    Raises:
        ConfigError: It is not allowed.
    """
    try:
        return item["parse"](raw.strip())
    except ValueError as error:
        shown = "not allowed" if item["secret"] else repr(raw)
        problem = f"{item['variable']} is {shown} ({source})"
        raise ConfigError(problem, f"allowed: {error}") from error


def _unset(item: Mapping[str, Any], profile: str) -> Value:
    source = f"profile {profile}" if item["variable"] in PROFILES[profile] else "default"
    return Value(fallback(item, profile), source, "unset")


def _users_own(options: Mapping[str, str | bool | None], layers: tuple[Layer, ...]) -> Values:
    """Read each setting as the user has it: without files that are not agreed to.

    Raises:
        ConfigError: A value is not allowed.
    """
    found: Values = {}
    for item in declared():
        name = item["variable"]
        option = options.get(item["field"])
        layer = next((one for one in layers if one.may_set(name) and one.says(item)), None)
        if option is not None and option is not False:
            found[name] = Value(_read(item, str(option), "option"), "option", "now")
        elif layer:
            source, rank = layer.source(name), "file" if layer.lines else "now"
            found[name] = Value(_read(item, layer.values[name], source), source, rank)
        else:
            profile = found["NDDT_PROFILE"].value if found else STANDARD
            found[name] = _unset(item, profile)
    return _for_agent(found)


def _for_agent(found: Values) -> Values:
    """Let the agent have its own keys alone, where nobody says what it gets, or only what more."""
    known = found["NDDT_ENV_VARS"]
    keys = all_settings.forwarded(found["NDDT_AGENT"].value)
    if known.rank == "unset":
        return {**found, "NDDT_ENV_VARS": replace(known, value=keys)}
    if known.value[:1] == ("+",):
        both = tuple(dict.fromkeys((*keys, *known.value[1:])))
        return {**found, "NDDT_ENV_VARS": replace(known, value=both)}
    return found


def _with_projects(own: Values, layer: Layer) -> Values:
    """Let a project's file that is not agreed to take away from what the user has.

    Raises:
        ConfigError: A value that could count is not allowed.
    """
    found = dict(own)
    usual = consented.usual(own)
    for item in declared():  # the first one is the profile
        name, order = item["variable"], item["order"]
        profile = found["NDDT_PROFILE"]
        if own[name].rank == "unset" and profile != own["NDDT_PROFILE"]:
            found[name] = _unset(item, profile.value)
        raw = layer.values.get(name)
        if raw and order.is_comparable and own[name].rank != "now":
            source = layer.source(name)
            value = _read(item, raw, source)
            if order.allows(value, own[name].value, usual):
                found[name] = Value(value, source, "file")
    return _for_agent(found)


def has_no_project_file(environ: Mapping[str, str]) -> bool:
    """Tell whether NDDT_ENV_FILE says that no file of the project's is to be read."""
    return environ.get("NDDT_ENV_FILE") in {"", os.devnull}


def project_file(directory: Path, environ: Mapping[str, str]) -> Path:
    """Name the path of a project's .env file; the default one need not exist.

    Raises:
        ConfigError: NDDT_ENV_FILE names something else than a file.
    """
    chosen = environ.get("NDDT_ENV_FILE")
    path = directory / (chosen or ".env")
    if chosen and not os.path.isfile(path):  # noqa: PTH113  (False without permission)
        raise ConfigError(f"NDDT_ENV_FILE names {path}, which is no file", "correct it")
    return path


def _layers(directory: Path, environ: Mapping[str, str]) -> tuple[Layer, ...]:
    layers = [Layer("environment", environ, {})]
    users = env_file.user_directory(environ) / ".env"
    projects = () if has_no_project_file(environ) else (project_file(directory, environ),)
    for path in dict.fromkeys((*projects, users)):
        found = env_file.read_env_file(path)
        if not found:
            continue
        if path == users and found.doubts():
            log.warning("%s %s — it decides what a sandbox gets", path, found.doubts())
        values, lines = found.parse()
        is_ours = path == users or trust.is_agreed(environ, found)
        layers.append(Layer(str(path), values, lines, None if is_ours else found))
    return tuple(layers)


def _report_unknown(layers: tuple[Layer, ...]) -> None:
    """Warn of variables that look like settings and are none."""
    known = {item["variable"] for item in declared()}
    for layer in layers:
        for name in layer.values:
            if name.startswith("NDDT_") and name not in known:
                import difflib  # noqa: PLC0415  (only for mistakes)

                near = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f"did you mean {near[0]}?" if near else f"{said('config')} lists the known ones"
                )
                log.warning("%s (%s) is not a setting — %s", name, layer.source(name), hint)


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
    agreed = tuple(one for one in layers if not one.project)
    project = next((one for one in layers if one.project), None)
    own = _users_own(options, agreed)
    found = _with_projects(own, project) if project else own
    loaded = all_settings.build_settings(
        {name: one.value for name, one in found.items()},
        directory=directory,
        environment=_merged(layers),
        own_environment=_merged(agreed),
        process_environment=_frozen(environ),
        owner=f"{_user_name()}@{socket.gethostname()}",
        sources=MappingProxyType({name: one.source for name, one in found.items()}),
    )
    if project:
        consented.report_ignored(project, own, loaded)
    return loaded


def _frozen(environ: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(environ))


def _merged(layers: tuple[Layer, ...]) -> Mapping[str, str]:
    """Read the variables of all layers, each with its nearest value."""
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
    here = _here()
    loaded = load(here, environment.clean(here), options)
    shown = [one.source for one in loaded.mounts if not one.readonly]
    if not shown:
        return loaded
    return replace(loaded, process_environment=_frozen(environment.clean(here, shown)))


def project_file_here() -> tuple[Path, Mapping[str, str]]:
    """Name the path of the caller's directory's .env file, and the environment.

    Raises:
        ConfigError: As `project_file`, or the current directory is gone.
    """
    environ = environ_here()
    return project_file(_here(), environ), environ


def environ_here() -> Mapping[str, str]:
    """Read the environment, for what needs no settings.

    Raises:
        ConfigError: The current directory is gone.
    """
    return environment.clean(_here())


@cache
def _here() -> Path:
    """Look up the caller's directory, once: all tasks of a command are about the same one."""
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("the current directory no longer exists", "cd to another one") from error


def written(environ: Mapping[str, str], file: env_file.EnvFile) -> list[Written]:
    """List what consent to a file is about, beside what the user's own file says.

    Raises:
        ConfigError: A value of the user's own is not allowed, or a .env file is not readable.
    """
    path = env_file.user_directory(environ) / ".env"
    users = env_file.read_env_file(path) if path != file.path else None
    layers = (Layer(str(path), *users.parse()),) if users else ()
    return list(consented.written(Layer(str(file.path), *file.parse()), _users_own({}, layers)))
