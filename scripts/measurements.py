"""What nddt adds to docker and invoke by hand, measured side by side in one go."""

from __future__ import annotations

import json
import logging
import os
import shlex
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scripts import agents, commands, lifecycle, naming, plan, process, state
from scripts.errors import UnavailableError, UsageError
from scripts.messages_api import demo_reply
from scripts.model_endpoint import Endpoint
from scripts.ssh import Connection

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

log = logging.getLogger("nddt")

ROOT = Path(__file__).parent.parent
NDDT = str(ROOT / "nddt")
PROMPT = "Say hello"
ASK = (
    "sh -c 'sleep 0.4; curl --fail --silent --show-error --output /dev/null "
    '-H "content-type: application/json" -H "x-api-key: $ANTHROPIC_API_KEY" '
    '-d "{\\"messages\\": [{\\"role\\": \\"user\\", \\"content\\": \\"hello\\"}]}" '
    '"$ANTHROPIC_BASE_URL/v1/messages"\''
)
DOWNLOAD = 200 << 20
"""Bytes that are fetched to see how fast that is."""
EMPTY_TASKS = "from invoke.tasks import task\n\n@task\ndef empty(c):\n    pass\n"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two commands that do the same, ours and the one by hand."""

    title: str
    ours: tuple[str, ...]
    by_hand: tuple[str, ...]
    directory: Path
    limit: str
    """What is promised of the medians: a ratio such as `1.35 x`, or a sum such as `+15 ms`."""


def bench(*, runs: str, as_json: bool, yes: bool) -> None:
    """Measure everything and print a table, or the same as a JSON array.

    Args:
        runs: Measurements of each command; the two of a pair take turns.
        as_json: See above.
        yes: Questions of a first run are agreed to.

    Raises:
        UsageError: `runs` is no number.
        UnavailableError: A measured command failed, or the engine is on another machine.
    """
    if not runs.isdecimal() or int(runs) < 1:
        raise UsageError(f"--runs is {runs!r}", "give a whole number, 1 or more")
    rows = []
    with tempfile.TemporaryDirectory(prefix="nddt-bench-") as directory, _model() as model:
        for kind in (
            _listings(Path(directory)),
            _runs(Path(directory), model, yes=yes),
            _guarded_runs(Path(directory)),
            _downloads(Path(directory), model),
            _cloud_runs(Path(directory)),
        ):
            with closing(kind) as pairs:
                for pair in pairs:
                    log.warning("measuring %s", pair.title)
                    rows.append(_measure(pair, int(runs)))
    print(json.dumps(rows, indent=2) if as_json else _table(rows))


@contextmanager
def _model() -> Iterator[Endpoint]:
    """Give a model that a container reaches by hand, at the gateway of docker's network."""
    form = "{{with index .IPAM.Config 0}}{{.Gateway}} {{.Subnet}}{{end}}"
    found = process.capture(("docker", "network", "inspect", "bridge", "--format", form))
    try:
        endpoint = Endpoint(demo_reply, (_gateway(found.stdout.split()), 0))
    except OSError as error:
        raise UnavailableError(
            f"docker's network has no address on this machine: {found.last_line}",
            "measure where the engine runs",
        ) from error
    with endpoint:
        endpoint.start()
        yield endpoint


def _gateway(words: list[str]) -> str:
    """Give a network's gateway: its own, else the first address, as the engine has it."""
    import ipaddress  # noqa: PLC0415

    found = [word for word in words if word[0].isdigit()]
    if found and "/" in found[0]:
        return str(next(ipaddress.ip_network(found[0]).hosts()))
    return found[0] if found else "no gateway"


def _listings(directory: Path) -> Generator[Pair, None, None]:
    """Measure invoke's own floor, and the launcher."""
    (directory / "tasks.py").write_text(EMPTY_TASKS)
    inv = (str(Path(sys.executable).parent / "inv"), "--search-root")
    ours, floor = (*inv, str(ROOT), "--list"), (*inv, str(directory), "--list")
    yield Pair(
        title="inv --list, and with one empty task",
        ours=ours,
        by_hand=floor,
        directory=directory,
        limit="+15 ms",
    )
    yield Pair(
        title="./nddt --list, and inv --list",
        ours=(NDDT, "--list"),
        by_hand=ours,
        directory=directory,
        limit="+20 ms",
    )


def _runs(directory: Path, model: Endpoint, *, yes: bool) -> Generator[Pair, None, None]:
    """Measure the agent in a new sandbox, and in one that is there."""
    workspace = directory / "workspace"
    workspace.mkdir()
    work = commands.Common(provider="docker", yes=yes, verbose=False).work()
    settings = replace(work.settings, directory=workspace, persistent=False)
    made = plan.make(
        settings,
        agents.Request(prompt=PROMPT, headless=True),
        provider=work.provider,
        terminal=False,
        pid=os.getpid(),
        demo_url=model.url,
    )
    image = lifecycle.build_image(replace(work, settings=settings), made)
    variables = [w for k, v in made.brings.variables.items() for w in ("--env", f"{k}={v}")]
    mount = ("--volume", f"{workspace}:/workspace")
    run = (NDDT, "run", "--demo", "--prompt", PROMPT)
    yield Pair(
        title="an ephemeral run, and docker run --rm",
        ours=run,
        by_hand=("docker", "run", "--rm", "-i", "--init", *mount, *variables, image, *made.argv),
        directory=workspace,
        limit="1.35 x",
    )
    name = _output(workspace, NDDT, "docker.create-sandbox").strip()
    try:
        with _model_here() as known:
            yield Pair(
                title="a second persistent run, and docker exec",
                ours=(*known, NDDT, "run", "--persistent", "--prompt", PROMPT),
                by_hand=("docker", "exec", "-i", *variables, name, *made.argv),
                directory=workspace,
                limit="1.2 x",
            )
    finally:
        _output(workspace, NDDT, "cleanup", "--name", name, "--yes")


@contextmanager
def _model_here() -> Iterator[tuple[str, ...]]:
    """Have a model at the loopback of this machine; gives the words before a command that uses it.

    Its address would not count if it stood in a directory's .env.
    """
    with Endpoint(demo_reply) as local:
        local.start()
        yield ("env", f"ANTHROPIC_BASE_URL={local.url}", "ANTHROPIC_API_KEY=of-the-bench")


def _guarded_runs(directory: Path) -> Generator[Pair, None, None]:
    """Measure what keys that stay here, and a network by the proxy, cost a second run.

    The agent is one that starts for 400 ms, as the real one at least does, and asks the model
    once: the real one's own time varies by more than what is looked for.
    """
    here = directory / "guarded"
    here.mkdir()
    fenced, keyless = "NDDT_NETWORK=allowlist", "NDDT_MODEL_ACCESS=tunnel"
    with _model_here() as model, ExitStack() as left:
        known, create = (*model, f"NDDT_COMMAND={ASK}"), (NDDT, "docker.create-sandbox")

        def made(which: str, *settings: str) -> tuple[str, ...]:
            name = f"nddt-bench-{which}-{os.getpid()}"
            _output(here, *known, *settings, *create, "--name", name)
            left.callback(_output, here, NDDT, "cleanup", "--name", name, "--yes")
            return (NDDT, "run", "--persistent", "--name", name, "--prompt", PROMPT)

        plain, by_proxy = made("plain"), made("fenced", fenced)
        for title, settings, run in (
            ("with --keyless", (keyless,), plain),
            ("by the proxy", (fenced,), by_proxy),
            ("with --keyless, by the proxy", (keyless, fenced), by_proxy),
        ):
            yield Pair(
                title=f"a second run {title}, and without",
                ours=(*known, *settings, *run),
                by_hand=(*known, *plain),
                directory=here,
                limit="+60 ms",
            )


def _downloads(directory: Path, model: Endpoint) -> Generator[Pair, None, None]:
    """Measure how fast the proxy is: it and a container's network fetch the same.

    The server is on this machine, which the proxy of a session refuses; here it does not.
    """
    from scripts import network, proxy  # noqa: PLC0415  (only for this)
    from scripts.allowlist import Allowlist, rule  # noqa: PLC0415
    from scripts.decisions import Decisions  # noqa: PLC0415
    from scripts.ssh import SocketPort  # noqa: PLC0415

    here = directory / "download"
    here.mkdir()
    with (here / "data").open("wb") as file:
        file.truncate(DOWNLOAD)
    address = urlsplit(model.url).hostname or ""
    words = ("-u", "-m", "http.server", "0", "--bind", address, "--directory", str(here))
    server = process.spawn((sys.executable, *words), pipes=True)
    names = [f"nddt-bench-{setting}-{os.getpid()}" for setting in ("none", "open")]
    try:
        said = process.piped(server.stdout).readline().decode()
        port = said.partition(" port ")[2].partition(" ")[0]
        url = f"http://bench.test:{port}/data"
        gate = proxy.Gate(
            allowed=Allowlist((rule(f"bench.test:{port}"),), here / "none"),
            decisions=Decisions(here / "log"),
            look_up=lambda *_: (address,),
            is_public=lambda _: True,
        )
        for name, setting in zip(names, ("none", "open"), strict=True):
            known = ("env", f"NDDT_NETWORK={setting}", "NDDT_WORKSPACE=none")
            _output(here, *known, NDDT, "docker.create-sandbox", "--name", name)
            _output(here, *known, NDDT, "shell", "--name", name, "--command", "true")
        key = naming.key("docker", names[0])
        connection = Connection(state.sandbox_directory(os.environ, key))  # noqa: TID251
        with network.listening(here / "net", partial(proxy.accept, gate=gate)):
            connection.forward((SocketPort(network.PORT, str(here / "net" / "proxy")),))
            fetch = ("curl", "--silent", "--fail", "--output", "/dev/null")
            way = ("--proxytunnel", "--proxy", f"http://127.0.0.1:{network.PORT}", url)
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
            _output(here, NDDT, "cleanup", "--name", name, "--yes")


def _cloud_runs(directory: Path) -> Generator[Pair, None, None]:
    """Measure when an agent starts at Daytona, whose API takes 100 ms for each answer.

    The agent is `true`, so a whole run is measured, which is a little more than its start.
    """
    from tests.daytona_double import DaytonaDouble  # noqa: PLC0415  (a tool of development)

    here = directory / "cloud"
    here.mkdir()
    inv = (str(Path(sys.executable).parent / "inv"), "--search-root", str(directory), "--list")
    with DaytonaDouble(latency_s=0.1, label="bench") as double:
        known = {**double.environ, "NDDT_PERSISTENT": "true", "NDDT_COMMAND": "true"}
        known |= {"ANTHROPIC_API_KEY": "none", "XDG_STATE_HOME": str(here)}
        environ = tuple(f"{name}={value}" for name, value in known.items())
        run = ("env", *environ, NDDT, "run", "--prompt", PROMPT)
        name = _output(here, "env", *environ, NDDT, "daytona.create-sandbox").strip()
        _output(here, *run)
        files = state.sandbox_directory(os.environ, naming.key("daytona", name))  # noqa: TID251  (a child's, too)
        end = f"ssh -F {files}/config -O exit nddt 2>/dev/null"
        forget = f"{end}; rm -f {files}/access {files}/fingerprint"
        for title, first, limit in (
            ("kept connection", ":", "+200 ms"),
            ("valid token", end, "+600 ms"),
            ("nothing cached", forget, "+1600 ms"),
        ):
            yield Pair(
                title=f"daytona, {title}, and invoke's floor",
                ours=("sh", "-c", f'{first}; exec "$@"', "sh", *run),
                by_hand=inv,
                directory=here,
                limit=limit,
            )
        _output(here, "env", *environ, NDDT, "daytona.cleanup", "--name", name, "--yes")


def _output(directory: Path, *argv: str) -> str:
    done = process.capture(argv, cwd=directory)
    if not done.ok:
        raise UnavailableError(f"{argv[0]} {argv[1]} failed: {done.last_line}", "see --verbose")
    return done.stdout


def _measure(pair: Pair, runs: int) -> dict[str, Any]:
    times_s: dict[str, list[float]] = {"ours": [], "by_hand": []}
    # The first of each warms the caches and is not counted.
    for turn in range(runs + 1):
        for which, argv in (("ours", pair.ours), ("by_hand", pair.by_hand)):
            began = time.perf_counter()
            _output(pair.directory, *argv)
            if turn:
                times_s[which].append(time.perf_counter() - began)
    # Of each turn, since a machine's speed changes within a minute, for both of a pair alike.
    turns = list(zip(times_s["ours"], times_s["by_hand"], strict=True))
    return {
        "title": pair.title,
        "ours_ms": round(statistics.median(times_s["ours"]) * 1000, 1),
        "by_hand_ms": round(statistics.median(times_s["by_hand"]) * 1000, 1),
        "ratio": round(statistics.median(ours / by_hand for ours, by_hand in turns), 3),
        "added_ms": round(statistics.median(ours - by_hand for ours, by_hand in turns) * 1000, 1),
        "limit": pair.limit,
        "runs": runs,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    head = f"{'medians':<56} {'ours':>8} {'by hand':>8} {'ratio':>6} {'added':>8}  limit"
    lines = [
        f"{row['title']:<56} {row['ours_ms']:>5.0f} ms {row['by_hand_ms']:>5.0f} ms "
        f"{row['ratio']:>6.2f} {row['added_ms']:>5.0f} ms  {row['limit']}"
        for row in rows
    ]
    return "\n".join((head, *lines))
