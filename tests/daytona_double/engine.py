"""The engine that stands in for the platform's machines, asked through its command line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

LABEL = "daytona-double"
RUN_LABEL = "daytona-double-run"
_NOTHING = asyncio.subprocess.DEVNULL


class EngineError(Exception):
    """The engine refused; the text is the last line of what it said."""


def _docker() -> str:
    # Found before a sandbox's variables, which may name a PATH, join the environment.
    path = shutil.which("docker")
    if path is None:
        raise EngineError("docker is not installed")
    return path


async def start(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: int = _NOTHING,
    stdout: int = _NOTHING,
    stderr: int = _NOTHING,
) -> asyncio.subprocess.Process:
    """Start `docker` with these arguments, in a session of its own.

    Args:
        arguments: What follows `docker`.
        env: Variables to add to the program's own environment.
        stdin: As for a subprocess, and so on.
        stdout: The same.
        stderr: The same.
    """
    return await asyncio.create_subprocess_exec(
        _docker(),
        *arguments,
        env={**os.environ, **(env or {})},
        limit=1 << 20,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        # Ctrl-C in a terminal is for the double alone, which then tidies up.
        start_new_session=True,
    )


async def run(
    *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None
) -> bytes:
    """Run `docker` to its end and give its standard output.

    Raises:
        EngineError: It did not end with 0.
    """
    pipe = asyncio.subprocess.PIPE
    process = await start(
        *arguments,
        env=env,
        stdin=_NOTHING if stdin is None else pipe,
        stdout=pipe,
        stderr=pipe,
    )
    ending = asyncio.ensure_future(process.communicate(stdin))
    try:
        output, errors = await asyncio.shield(ending)
    except asyncio.CancelledError:
        # What the engine has begun it finishes; only then is it known what to tidy up.
        await ending
        raise
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise EngineError(lines[-1])
    return output


async def end(process: asyncio.subprocess.Process) -> None:
    """Wait for a process whose output has been read; end it if nobody waits any more."""
    try:
        await process.wait()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise


async def image_workdir(image: str) -> str:
    """Give the directory that an image on this machine sets; empty if it sets none.

    Raises:
        EngineError: There is no such image here.
    """
    found = await run("image", "inspect", "--format", "{{.Config.WorkingDir}}", image)
    return found.decode().strip()


async def build(dockerfile: str, tag: str) -> AsyncIterator[bytes]:
    """Build an image without a context, and give what the builder prints as it comes.

    Raises:
        EngineError: The build failed.
    """
    process = await start(
        "build", "--force-rm", "--tag", tag, "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(dockerfile.encode())
    process.stdin.close()
    last = b""
    try:
        while chunk := await process.stdout.read(65536):
            last = chunk
            yield chunk
    except (asyncio.CancelledError, GeneratorExit):
        process.kill()
        raise
    finally:
        await end(process)
    if process.returncode:
        lines = last.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise EngineError(lines[-1])


async def container_address(container: str) -> str:
    """Give a running container's address on the engine's bridge; empty if it has none."""
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return (await run("inspect", "--format", template, container)).decode().strip()


async def blocked_network(run_id: str) -> str:
    """Give the name of a network in which nothing is forwarded; it is made if missing.

    As on the platform, that leaves the gateway's own address open: the machine itself.
    """
    name = f"{LABEL}-{run_id}"
    with contextlib.suppress(EngineError):  # it is there
        await run("network", "create", "--internal", "--label", f"{RUN_LABEL}={run_id}", name)
    return name


async def remove_containers(run_id: str) -> None:
    """Remove all containers that have this value of the run label, and their network."""
    mine = ("--filter", f"label={RUN_LABEL}={run_id}")
    found = await run("ps", "--all", "--quiet", *mine)
    if found:
        await run("rm", "--force", "--volumes", *found.decode().split())
    found = await run("network", "ls", "--quiet", *mine)
    if found:
        await run("network", "rm", *found.decode().split())
