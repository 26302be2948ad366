"""What nddt adds to docker and invoke by hand, measured side by side in one go."""

from __future__ import annotations

import json
import logging
import os
import resource
import statistics
import sys
import tempfile
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import naming, plan
from scripts.commands.common import Common
from scripts.contracts.agent import Request
from scripts.demo.messages_api import demo_reply
from scripts.demo.model_endpoint import Endpoint
from scripts.dev import proxy_speed
from scripts.dev.pairs import NDDT, ROOT, Pair, output
from scripts.errors import UnavailableError, UsageError
from scripts.machine import process, state
from scripts.run import collecting, images
from scripts.sandbox_places import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

log = logging.getLogger("nddt")

PROMPT = "Say hello"
ASK = (
    "sh -c 'sleep 0.4; curl --fail --silent --show-error --output /dev/null "
    '-H "content-type: application/json" -H "x-api-key: $ANTHROPIC_API_KEY" '
    '-d "{\\"messages\\": [{\\"role\\": \\"user\\", \\"content\\": \\"hello\\"}]}" '
    '"$ANTHROPIC_BASE_URL/v1/messages"\''
)
EMPTY_TASKS = "from invoke.tasks import task\n\n@task\ndef empty(c):\n    pass\n"


def bench(*, runs: str, as_json: bool, yes: bool) -> None:
    """Measure everything and print a table, or the same as a JSON array.

    Args:
        runs: Measurements of each command; the two of a pair take turns.
        as_json: Print JSON.
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
            proxy_speed.downloads(Path(directory), model),
            _cloud_runs(Path(directory)),
        ):
            with closing(kind) as pairs:
                for pair in pairs:
                    log.warning("measuring %s", pair.title)
                    rows.append(_measure(pair, int(runs)))
    print(json.dumps(rows, indent=2) if as_json else _table(rows))


@contextmanager
def _model() -> Iterator[Endpoint]:
    """Serve a model that a container reaches by hand, at the gateway of docker's network."""
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
    """Return a network's gateway: its own, else the first address, as the engine has it."""
    import ipaddress  # noqa: PLC0415

    found = [word for word in words if word[0].isdigit()]
    if found and "/" in found[0]:
        return str(next(ipaddress.ip_network(found[0]).hosts()))
    return found[0] if found else "no gateway"


def _listings(directory: Path) -> Generator[Pair, None, None]:
    """Measure invoke's own floor, and the launcher."""
    (directory / "tasks.py").write_text(EMPTY_TASKS)
    inv = (str(Path(sys.executable).parent / "inv"), "--search-root")
    listing, floor = (*inv, str(ROOT), "--list"), (*inv, str(directory), "--list")
    for title, ours, by_hand, limit in (
        ("inv --list, and with one empty task", listing, floor, "+15 ms"),
        ("./nddt --list, and inv --list", (NDDT, "--list"), listing, "+20 ms"),
    ):
        yield Pair(title=title, ours=ours, by_hand=by_hand, directory=directory, limit=limit)


def _runs(directory: Path, model: Endpoint, *, yes: bool) -> Generator[Pair, None, None]:
    """Measure the agent in a new sandbox, and in one that is there."""
    workspace = directory / "workspace"
    workspace.mkdir()
    work = Common(provider="docker", yes=yes, verbose=False).work()
    work = replace(work, settings=replace(work.settings, directory=workspace, persistent=False))
    made = plan.make(
        work.settings,
        Request(prompt=PROMPT, headless=True),
        provider=work.provider,
        terminal=False,
        pid=os.getpid(),
    )
    made = collecting.collect(work, made, demo_url=model.url)
    image = images.build_image(work, made)
    variables = [w for k, v in made.brings.variables.items() for w in ("--env", f"{k}={v}")]
    mount = ("--volume", f"{workspace}:{WORKSPACE}")
    run = (NDDT, "run", "--demo", "--prompt", PROMPT)
    yield Pair(
        title="an ephemeral run, and docker run --rm",
        ours=run,
        by_hand=("docker", "run", "--rm", "-i", "--init", *mount, *variables, image, *made.argv),
        directory=workspace,
        limit="1.35 x",
    )
    name = output(workspace, NDDT, "docker.create-sandbox").strip()
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
        output(workspace, NDDT, "cleanup", "--name", name, "--yes")


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
    inside = "NDDT_MODEL_ACCESS=env"
    with _model_here() as model, ExitStack() as left:
        known, create = (*model, f"NDDT_COMMAND={ASK}"), (NDDT, "docker.create-sandbox")

        def made(which: str, *settings: str) -> tuple[str, ...]:
            name = f"nddt-bench-{which}-{os.getpid()}"
            output(here, *known, *settings, *create, "--name", name)
            left.callback(output, here, NDDT, "cleanup", "--name", name, "--yes")
            return (NDDT, "run", "--persistent", "--name", name, "--prompt", PROMPT)

        plain, by_proxy = made("plain"), made("fenced", fenced)
        new = (NDDT, "run", "--prompt", PROMPT)
        for title, settings, run, without in (
            ("an ephemeral run, keys here", (keyless,), new, new),
            ("a second run, keys here", (keyless,), plain, plain),
            ("a second run by the proxy", (inside, fenced), by_proxy, plain),
            ("a second run by the proxy, keys here", (keyless, fenced), by_proxy, plain),
        ):
            yield Pair(
                title=f"{title}, and with neither",
                ours=(*known, *settings, *run),
                by_hand=(*known, inside, *without),
                directory=here,
                limit="+60 ms",
            )


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
        known |= {"ANTHROPIC_API_KEY": "none", "XDG_STATE_HOME": str(directory / "state")}
        environ = tuple(f"{name}={value}" for name, value in known.items())
        run = ("env", *environ, NDDT, "run", "--prompt", PROMPT)
        name = output(here, "env", *environ, NDDT, "daytona.create-sandbox").strip()
        output(here, *run)
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
        yield Pair(
            title="processor time of daytona.list, and of importing the SDK",
            ours=("env", *environ, NDDT, "daytona.list"),
            by_hand=(sys.executable, "-c", "from daytona import Daytona"),
            directory=here,
            limit="0.67 x",
            clock=lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]),
        )
        output(here, "env", *environ, NDDT, "daytona.cleanup", "--name", name, "--yes")


def _measure(pair: Pair, runs: int) -> dict[str, Any]:
    times_s: dict[str, list[float]] = {"ours": [], "by_hand": []}
    # The first of each warms the caches and is not counted.
    for turn in range(runs + 1):
        for which, argv in (("ours", pair.ours), ("by_hand", pair.by_hand)):
            began = pair.clock()
            output(pair.directory, *argv)
            if turn:
                times_s[which].append(pair.clock() - began)
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
