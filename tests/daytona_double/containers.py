"""One sandbox's container: made, started, stopped, removed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from tests.daytona_double import daemon, engine
from tests.daytona_double.builds import background_command
from tests.daytona_double.options import ORGANIZATION

if TYPE_CHECKING:
    from tests.daytona_double.options import Options
    from tests.daytona_double.rows import Sandbox

# As near as can be to the platform's `--privileged`, which takes an engine with all capabilities.
_NAMESPACES = ("--security-opt=seccomp=unconfined",)
_PRIVILEGED = (
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
)
_DEVICES = tuple(name for name in ("/dev/fuse", "/dev/net/tun") if Path(name).exists())
# A machine without udev leaves them to root.
_CLOSED = tuple(name for name in _DEVICES if not Path(name).stat().st_mode & 0o002)
# Where no directory is set, the platform's daemon works in the user's home.
_IN_HOME = 'cd "${HOME:-/}" && exec "$@"'


async def create(row: Sandbox, options: Options) -> None:
    """Make and start the container, with the image's own user and directory.

    Raises:
        EngineError: The engine refused.
    """
    row.workdir = await engine.image_workdir(row.image)
    env = {**row.env, **_own_variables(row)}
    # Only names are arguments: the values would show in the list of processes.
    names = [word for name in env for word in ("--env", name)]
    network: tuple[str, ...] = ()
    if row.network_block_all and not options.block_s:
        network = ("--network", await engine.blocked_network(options.run_id))
    privileged = (*_PRIVILEGED, *(_NAMESPACES if options.allows_namespaces else ()))
    made = await engine.run(
        "run", "--detach", *network, "--label", f"{engine.LABEL}={options.label}",
        "--label", f"{engine.RUN_LABEL}={options.run_id}",
        "--label", f"{engine.LABEL}-sandbox={row.id}", *names,
        *privileged, *(f"--device={name}" for name in _DEVICES),
        "--entrypoint", "sh", row.image, *daemon.COMMAND,
        env=env,
    )  # fmt: skip
    row.container = made.decode().strip()
    await _open_devices(row)
    await _run_entrypoint(row)


async def block_later(row: Sandbox, options: Options) -> None:
    """Block the network of a running container."""
    await asyncio.sleep(options.block_s)
    with contextlib.suppress(engine.EngineError):  # it is gone
        blocked = await engine.blocked_network(options.run_id)
        await engine.run("network", "connect", blocked, str(row.container))
        await engine.run("network", "disconnect", "bridge", str(row.container))


def _own_variables(row: Sandbox) -> dict[str, str]:
    return {
        "DAYTONA_SANDBOX_ID": row.id,
        "DAYTONA_SANDBOX_SNAPSHOT": row.snapshot or row.image,
        "DAYTONA_SANDBOX_USER": row.user,
        "DAYTONA_ORGANIZATION_ID": ORGANIZATION,
        "DAYTONA_REGION_ID": row.target,
    }


async def start(row: Sandbox) -> None:
    """Start the container again; its disk is as it was, its processes are gone."""
    if row.container:
        await engine.run("start", row.container)
        await _open_devices(row)
        await _run_entrypoint(row)


async def stop(row: Sandbox) -> None:
    """Stop the container at once."""
    if row.container:
        await engine.run("stop", "-t", "0", row.container)


async def remove(row: Sandbox) -> None:
    """Remove the container."""
    if row.container:
        await engine.run("rm", "--force", "--volumes", row.container)


async def _open_devices(row: Sandbox) -> None:
    """Let every user have the devices, as a platform's machine does."""
    if _CLOSED and row.container:
        await engine.run("exec", "--user=0", row.container, "chmod", "666", *_CLOSED)


async def _run_entrypoint(row: Sandbox) -> None:
    command = background_command(row.entrypoint)
    if command and row.container:
        options = ("--detach",)
        await engine.run(*exec_arguments(row, "/bin/sh", "-c", command, options=options))


def exec_arguments(
    row: Sandbox, *command: str, options: tuple[str, ...] = (), cwd: str | None = None
) -> tuple[str, ...]:
    """Give the engine's arguments to run a command as the platform's daemon does.

    Args:
        row: The sandbox.
        command: What to run.
        options: Further options of `docker exec`.
        cwd: Where it runs; None for the image's directory, or else the user's home.
    """
    assert row.container is not None
    where = ("--workdir", cwd) if cwd else ()
    if not cwd and not row.workdir:
        command = ("/bin/sh", "-c", _IN_HOME, "sh", *command)
    return ("exec", "--interactive", *options, *where, row.container, *command)
