"""The engine: which one it is, how it is asked, and what it shows of this machine."""

from __future__ import annotations

import logging
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scripts import naming
from scripts.errors import CannotCreateError, ConfigError, UnavailableError
from scripts.machine import foreign_json, process, search_path
from scripts.naming import said
from scripts.settings.parsing import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

ANSWER_S = 120
"""How long the engine may take for one short command."""
SOCKET = Path("/var/run/docker.sock")
RUNNING_S = 2
"""How long the engine may take to say which sandboxes run: only a warning depends on it."""
RUNNING_BYTES = 16 << 20
_RUNNING = (
    b"GET /containers/json?filters=%7B%22label%22%3A%5B%22nddt%22%5D%7D HTTP/1.0\r\n"
    b"Host: docker\r\n\r\n"
)
DESKTOP = Path("/host_mnt")
"""Where Docker Desktop's engine, in a virtual machine of its own, has this machine's files."""


def program() -> str:
    """Tell the client's name: `docker`, or `podman` where there is only that."""
    return (
        "podman"
        if not search_path.find_program("docker") and search_path.find_program("podman")
        else "docker"
    )


def pipe_environment(settings: Settings) -> Mapping[str, str]:
    """Name DOCKER_HOST if nothing says where the engine is and Podman's socket is all there is."""
    environ = settings.process_environment
    docker_here = program() == "docker" and SOCKET.exists()
    if environ.get("DOCKER_HOST") or context_name(environ) or docker_here:
        return {}
    from scripts.machine import engine  # noqa: PLC0415  (what a warm run does without)

    podman = engine.podman_socket(environ)
    return {"DOCKER_HOST": podman} if podman else {}


def environment(settings: Settings) -> dict[str, str]:
    """Build the environment in which the docker command runs."""
    return {**settings.process_environment, **pipe_environment(settings)}


def context_name(environ: Mapping[str, str]) -> str:
    """Tell the name of the chosen docker context, empty for the default one."""
    if environ.get("DOCKER_CONTEXT"):
        return environ["DOCKER_CONTEXT"].replace("default", "")
    home = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "/")) / ".docker")
    try:
        config = foreign_json.read_json(Path(home) / "config.json")
        return str(config.get("currentContext", "")).replace("default", "")
    except (OSError, ValueError, AttributeError):
        return ""


def endpoint(settings: Settings) -> str:
    """Return the engine's address, such as unix:///var/run/docker.sock or ssh://user@host."""
    environ = environment(settings)
    if environ.get("DOCKER_HOST"):
        return environ["DOCKER_HOST"]
    name = context_name(environ)
    if name:
        from docker.context import ContextAPI  # noqa: PLC0415  (only for a chosen context)

        context = ContextAPI.get_context(name)
        if context is None:
            raise ConfigError(f"there is no docker context {name!r}", "run: docker context ls")
        return str(context.Host)
    return f"unix://{SOCKET}"


def remote_host(settings: Settings) -> str:
    """Name the host of an engine on another machine, empty for one on this."""
    address = urlsplit(endpoint(settings))
    if address.scheme not in {"ssh", "tcp", "http", "https"}:
        return ""
    name = address.hostname or ""
    return "" if name in {"localhost", "127.0.0.1", "::1"} else name


def docker_command(settings: Settings, *words: str) -> process.Result:
    """Have the docker command do something."""
    return process.capture((program(), *words), env=environment(settings), timeout_s=ANSWER_S)


def shown_by_running(settings: Settings) -> Mapping[str, tuple[Mount, ...]]:
    """Look up what of this machine each running sandbox shows.

    Each start pays for it: 3 ms, where docker-py would take 100. An engine that is reached in
    another way than by a socket of this machine is not asked.
    """
    path = endpoint(settings).removeprefix("unix://")
    with suppress(OSError, ValueError, KeyError), socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(RUNNING_S)
        engine.connect(path)
        engine.sendall(_RUNNING)
        with engine.makefile("rb") as answer:  # HTTP/1.0: it ends with the connection
            body = answer.read(RUNNING_BYTES).partition(b"\r\n\r\n")[2]
        found = foreign_json.parse(body, what="the engine's answer", most=RUNNING_BYTES)
        named = [(one["Names"][0].lstrip("/"), one) for one in found]
        return {
            name: binds(one["Mounts"])
            for name, one in named
            if one["Labels"].get(naming.SANDBOX) == name
        }
    return {}


@contextmanager
def connected(settings: Settings) -> Iterator[Any]:
    """Connect docker-py to the engine that the docker command would use."""
    import docker  # noqa: PLC0415  (100 ms that only some tasks need)
    from docker.context import ContextAPI  # noqa: PLC0415
    from docker.errors import APIError, DockerException  # noqa: PLC0415

    environ = environment(settings)
    name = "" if environ.get("DOCKER_HOST") else context_name(environ)
    try:
        if environ.get("DOCKER_HOST"):
            client = docker.from_env(environment=environ, use_ssh_client=True)
        else:
            context = ContextAPI.get_context(name) if name else None
            tls = (context and context.TLSConfig) or False
            client = docker.DockerClient(endpoint(settings), tls=tls, use_ssh_client=True)
        try:
            yield client
        finally:
            client.close()
    except APIError as error:
        reason = str(error.explanation or error).splitlines()[0][:200]
        next_step = "see the engine's log"
        if "source path does not exist" in reason:  # what a stopped sandbox shows was removed
            next_step = f"make it again, or remove the sandbox: {said('docker.cleanup')}"
        raise CannotCreateError(f"the engine refused: {reason}", next_step) from error
    except DockerException as error:
        podman = "start its socket: systemctl --user start podman.socket"
        raise UnavailableError(
            f"the engine does not answer: {str(error).splitlines()[0][:200]}",
            f"run: {said('setup')}" if program() == "docker" else podman,
        ) from error


def binds(recorded: Iterable[Mapping[str, Any]]) -> tuple[Mount, ...]:
    """Read what of this machine a container shows from the engine's own record of it."""
    found = []
    for one in recorded:
        if one["Type"] == "bind":
            source = str(one["Source"])
            if not DESKTOP.exists():
                source = source.removeprefix(str(DESKTOP))
            found.append(Mount(Path(source), one["Destination"], readonly=not one["RW"]))
    return tuple(found)
