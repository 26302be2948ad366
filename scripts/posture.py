"""What a sandbox could do with these settings, in lines for a person."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.settings import Settings

_NETWORK = {
    "open": "everything that this machine's network reaches, and the internet",
    "allowlist": "HTTP and HTTPS at allowed hosts, by a proxy on this machine; see: inv network",
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


def rows(settings: Settings) -> list[tuple[str, ...]]:
    """Give a table: what, how it stands, and which setting says so from where."""
    return [("WHAT", "POSTURE", "FROM"), *_rows(settings)]


def _rows(settings: Settings) -> Iterator[tuple[str, ...]]:
    def row(what: str, how: str, name: str) -> tuple[str, ...]:
        return what, how, f"{name} ({settings.sources[name]})"

    yield row("profile", settings.profile, "NDDT_PROFILE")
    yield row("network", _NETWORK[settings.network], "NDDT_NETWORK")
    yield row("keys", _KEYS[settings.model_access], "NDDT_MODEL_ACCESS")
    yield row("variables", ", ".join(settings.env_vars) or "none", "NDDT_ENV_VARS")
    yield row("directory", _directory(settings), "NDDT_WORKSPACE")
    yield row("more of yours", ", ".join(map(str, settings.mounts)) or "nothing", "NDDT_MOUNTS")
    yield row("SSH", _SSH[settings.ssh_forward], "NDDT_SSH_FORWARD")
    signs = "signs with this machine's agent" if settings.gpg_forward else "nothing"
    yield row("GPG", signs, "NDDT_GPG_FORWARD")
    yield row("Docker inside", _DOCKER[settings.docker_forward], "NDDT_DOCKER_FORWARD")
    yield "hooks and the like", "told of when a session has changed them", "always"
    if settings.provider == "docker":
        kept = "ten of root's, by sudo" if settings.sudo else "none"
        kept = "ten of root's, as you are root" if os.getuid() == 0 else kept
        yield row("capabilities", kept, "NDDT_SUDO")
        system = "read-only, but for home and /tmp" if settings.readonly_root else "writable"
        yield row("its system", system, "NDDT_READONLY_ROOT")
        reserve = settings.disk_reserve_gib
        disk = f"all but {reserve} GiB of what is free" if reserve else "no limit"
        yield row("disk", disk, "NDDT_DISK_RESERVE")
        yield row("processes", str(settings.pids or "no limit"), "NDDT_PIDS")
    memory = f"{settings.memory_gib} GiB" if settings.memory_gib else "the provider's default"
    yield row("memory", memory, "NDDT_MEMORY")
    limit = f"{settings.timeout_s} s" if settings.timeout_s else "no limit"
    yield row("time", limit, "NDDT_TIMEOUT")
    yield row("record", _log(settings), "NDDT_LOG")


def _log(settings: Settings) -> str:
    return "a line for each action" if settings.log_file != os.devnull else "none"


def _directory(settings: Settings) -> str:
    how = {"mount": "itself", "sync": "a copy", "none": "not shown"}[settings.workspace]
    if settings.workspace == "none":
        return how
    return f"{how}, to read" if settings.readonly else f"{how}, to read and to write"
