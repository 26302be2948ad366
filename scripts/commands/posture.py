"""What a sandbox could do with these settings, in lines for a person."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scripts import agents, providers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripts.settings.fields import Settings

_NETWORK = {
    "open": "everything that this machine's network reaches, and the internet",
    "allowlist": "HTTP and HTTPS at allowed hosts, by a proxy on this machine; see: nddt network",
    "none": "nothing but the model",
}
_KEYS = {
    "env": "in the agent's environment",
    "tunnel": "on this machine, which adds them to requests for the model and for GitHub",
}
_SSH = {
    "": "nothing",
    "agent": "uses this machine's agent, to list and sign",
    "keys": "has copies of private keys, in memory",
}
_DOCKER = {
    "": "none",
    "isolated": "a daemon of its own, without filters of system calls",
    "host": "this machine's engine: there is no sandbox any more",
}


def rows(settings: Settings, excess: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Build a table: what, how it stands, and which setting says so from where.

    Args:
        settings: What is allowed.
        excess: Settings that allow less than what the directory's kept sandbox has.
    """
    found = [("WHAT", "POSTURE", "FROM"), *_rows(settings)]
    if excess:
        how = "the one that is there has more; it is not for a run until --yes makes it anew"
        found.append(("kept sandbox", how, ", ".join(excess)))
    return found


def _rows(settings: Settings) -> Iterator[tuple[str, ...]]:
    def row(what: str, how: str, name: str) -> tuple[str, ...]:
        return what, how, f"{name} ({settings.sources[name]})"

    yield row("profile", settings.profile, "NDDT_PROFILE")
    yield row("network", _NETWORK[settings.network], "NDDT_NETWORK")
    yield row("keys", _keys(settings), "NDDT_MODEL_ACCESS")
    yield row("variables", ", ".join(settings.env_vars) or "none", "NDDT_ENV_VARS")
    yield row("directory", _directory(settings), "NDDT_WORKSPACE")
    yield row("more of yours", ", ".join(map(str, settings.mounts)) or "nothing", "NDDT_MOUNTS")
    yield row("SSH", _SSH[settings.ssh_forward], "NDDT_SSH_FORWARD")
    signs = "signs with this machine's agent" if settings.gpg_forward else "nothing"
    yield row("GPG", signs, "NDDT_GPG_FORWARD")
    yield row("Docker inside", _DOCKER[settings.docker_forward], "NDDT_DOCKER_FORWARD")
    yield "hooks and the like", "told of when a session has changed them", "always"
    for what, how, name in providers.get(settings.provider).posture(settings):
        yield row(what, how, name)
    memory = f"{settings.memory_gib} GiB" if settings.memory_gib else "the provider's default"
    yield row("memory", memory, "NDDT_MEMORY")
    limit = f"{settings.timeout_s} s" if settings.timeout_s else "no limit"
    yield row("time", limit, "NDDT_TIMEOUT")
    yield row("record", _log(settings), "NDDT_LOG")


def _keys(settings: Settings) -> str:
    """Say where keys are, also where the default cannot keep them here."""
    agent, is_default = (
        agents.get(settings.agent),
        settings.sources["NDDT_MODEL_ACCESS"] == "default",
    )
    others = [one for one in agent.CREDENTIALS if one not in agent.KEYS]
    since = [one for one in others if settings.environment.get(one)]
    since += ["NDDT_COMMAND"] if settings.command else []
    if settings.model_access == "tunnel" and is_default and since:
        return f"the model's in its environment, since {since[0]} is set; GitHub's on this machine"
    return _KEYS[settings.model_access]


def _log(settings: Settings) -> str:
    return "a line for each action" if settings.log_file != os.devnull else "none"


def _directory(settings: Settings) -> str:
    how = {"mount": "itself", "sync": "a copy", "none": "not shown"}[settings.workspace]
    if settings.workspace == "none":
        return how
    return f"{how}, to read" if settings.readonly else f"{how}, to read and to write"
