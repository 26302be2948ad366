"""How fast the proxy of a session is."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts import naming
from scripts.dev.pairs import NDDT, Pair, output
from scripts.machine import pipes, process, state
from scripts.network import fence, proxy
from scripts.network.decisions import Decisions
from scripts.network.gate import Gate
from scripts.settings.allowlist import Allowlist, rule
from scripts.transport.forwards import SocketPort
from scripts.transport.ssh import Connection

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from scripts.demo.model_endpoint import Endpoint

DOWNLOAD = 200 << 20
"""Bytes that are fetched to see how fast that is."""


def downloads(directory: Path, model: Endpoint) -> Generator[Pair, None, None]:
    """Measure how fast the proxy is: it and a container's network fetch the same.

    The server is on this machine, which the proxy of a session refuses; here it does not.
    """
    here = directory / "download"
    here.mkdir()
    with (here / "data").open("wb") as file:
        file.truncate(DOWNLOAD)
    address = urlsplit(model.url).hostname or ""
    words = ("-I", "-u", "-m", "http.server", "0", "--bind", address, "--directory", str(here))
    server = process.spawn((sys.executable, *words), pipes=True)
    names = [f"nddt-bench-{setting}-{os.getpid()}" for setting in ("none", "open")]
    try:
        said = pipes.piped(server.stdout).readline().decode()
        port = said.partition(" port ")[2].partition(" ")[0]
        url = f"http://bench.test:{port}/data"
        gate = _open_gate(here, port, address)
        for name, setting in zip(names, ("none", "open"), strict=True):
            known = ("env", f"NDDT_NETWORK={setting}", "NDDT_WORKSPACE=none")
            output(here, *known, NDDT, "docker.create-sandbox", "--name", name)
            output(here, *known, NDDT, "shell", "--name", name, "--command", "true")
        key = naming.key("docker", names[0])
        connection = Connection(state.sandbox_directory(os.environ, key))  # noqa: TID251
        with fence.listening(here / "net", lambda: partial(proxy.serve, gate=gate)):
            connection.forward((SocketPort(fence.PORT, str(here / "net" / "proxy")),))
            fetch = ("curl", "--silent", "--fail", "--output", "/dev/null")
            way = ("--proxytunnel", "--proxy", f"http://127.0.0.1:{fence.PORT}", url)
            direct = ("--resolve", f"bench.test:{port}:{address}", url)
            yield Pair(
                title=f"{DOWNLOAD >> 20} MiB by the proxy, and by docker's network",
                ours=connection.session_argv("-T", "nddt", shlex.join((*fetch, *way))),
                by_hand=("docker", "exec", names[1], *fetch, *direct),
                directory=here,
                limit="4000 ms",
            )
    finally:
        server.terminate()
        server.wait()
        for name in names:
            output(here, NDDT, "cleanup", "--name", name, "--yes")


def _open_gate(here: Path, port: str, address: str) -> Gate:
    """Make one that lets the server of this measurement be reached."""
    return Gate(
        allowed=Allowlist((rule(f"bench.test:{port}"),), here / "none"),
        decisions=Decisions(here / "log"),
        look_up=lambda *_: (address,),
        is_public=lambda _: True,
    )
