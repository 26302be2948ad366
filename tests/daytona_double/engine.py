"""The engine that stands in for the platform's machines, asked through its command line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

LABEL = "daytona-double"


class EngineError(Exception):
    """The engine refused; the text is the last line of what it said."""


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What an image says about the processes in it."""

    user: str
    workdir: str


def _docker() -> str:
    # Found before a sandbox's variables, which may name a PATH, join the environment.
    path = shutil.which("docker")
    if path is None:
        raise EngineError("docker is not installed")
    return path


async def start(
    *arguments: str, env: Mapping[str, str] | None = None, **streams: Any
) -> asyncio.subprocess.Process:
    """Start `docker` with these arguments.

    Args:
        arguments: What follows `docker`.
        env: Variables to add to the program's own environment.
        streams: stdin, stdout and stderr, as for a subprocess; nothing where not given.
    """
    return await asyncio.create_subprocess_exec(
        _docker(),
        *arguments,
        env={**os.environ, **(env or {})},
        limit=1 << 20,
        **{
            "stdin": asyncio.subprocess.DEVNULL,
            "stdout": asyncio.subprocess.DEVNULL,
            "stderr": asyncio.subprocess.DEVNULL,
            **streams,
        },
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
        stdin=asyncio.subprocess.DEVNULL if stdin is None else pipe,
        stdout=pipe,
        stderr=pipe,
    )
    output, errors = await process.communicate(stdin)
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise EngineError(lines[-1])
    return output


async def image_config(image: str) -> ImageConfig:
    """Look up an image on this machine.

    Raises:
        EngineError: There is no such image.
    """
    config = json.loads(await run("image", "inspect", "--format", "{{json .Config}}", image))
    return ImageConfig(user=config.get("User", ""), workdir=config.get("WorkingDir", ""))


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
    finally:
        if process.returncode is None and not process.stdout.at_eof():
            process.kill()
    if await process.wait():
        lines = last.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise EngineError(lines[-1])


async def container_address(container: str) -> str:
    """Give a running container's address on the engine's bridge; empty if it has none."""
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return (await run("inspect", "--format", template, container)).decode().strip()


async def containers(label: str) -> list[str]:
    """Give the ids of all containers of the doubles with this label."""
    found = await run("ps", "--all", "--quiet", "--filter", f"label={LABEL}={label}")
    return found.decode().split()
