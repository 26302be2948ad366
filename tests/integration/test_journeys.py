"""The way of a prompt and the way of a key through the rooms, as CONTRIBUTING draws them.

JOURNEYS=write draws them there: `./nddt test.journeys`.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from scripts.dev.rooms import LEVELS, room
from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import REPOSITORY
from tests.scripted_model import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.contract import Caller
    from tests.scripted_model import ScriptedModel

pytestmark = [ON_DOCKER, pytest.mark.same_everywhere]

PAGE = REPOSITORY / "CONTRIBUTING.md"
BEGIN, END = "<!-- drawn by ./nddt test.journeys -->\n", "<!-- drawn until here -->\n"
KEY = f"sk-ant-test-{os.urandom(16).hex()}"
"""Nobody else's, so that wherever it is found it comes from here."""
FIRST = "words/agent.run"
OPENED = {"words/agent", "commands/common", "commands/run"} | {
    f"run/{name}" for name in ("collecting", "passing_connections", "sessions", "workflow")
}
"""Modules of which is drawn what they call."""
LEFT_OUT = ("cli", "words", "settings", "machine", "scripts")
"""Rooms with small things that all use."""
LEVEL = {name: number for number, row in enumerate(LEVELS) for name in row}


@dataclass(frozen=True, kw_only=True)
class Journey:
    """What a run of an agent with a key was seen to do; see `tests/traced.py`."""

    calls: list[tuple[str, str]]
    holders: dict[str, str]


def short(name: str) -> str:
    """Leave out which file of an agent's or a provider's folder it is."""
    module, dot, function = name.partition(".")
    return "/".join(module.replace("/__init__", "").split("/")[:2]) + dot + function


def room_of(function: str) -> str:
    """Name the room of a function, as `run` of `run/workflow.run`."""
    return room(f"scripts.{function.partition('.')[0].replace('/', '.')}")


@pytest.fixture
def travel(
    nddt: Caller, model: Callable[..., ScriptedModel], tmp_path: Path
) -> Callable[[str], Journey]:
    """Ask the agent, with a key in the user's own file."""
    file = tmp_path / "config" / "nddt" / ".env"
    file.parent.mkdir(parents=True)
    file.write_text(f"ANTHROPIC_API_KEY={KEY}\n")

    def travelled(access: str) -> Journey:
        said, found = model(text("Hello!")), tmp_path / f"{access}.json"
        words = (sys.executable, "-I", str(REPOSITORY / "tests" / "traced.py"), str(found), KEY)
        caller = replace(nddt, launcher=(*nddt.launcher[:-1], *words)).having(
            ANTHROPIC_BASE_URL=said.url,
            NDDT_MODEL_ACCESS=access,
            XDG_CONFIG_HOME=str(tmp_path / "config"),
        )
        done = caller("run", "--prompt", "Say hello")
        assert (done.code, done.stdout) == (0, b"Hello!\n"), done.said
        assert said.conversation[0].headers["x-api-key"] == KEY
        seen = json.loads(found.read_text())
        return Journey(calls=[tuple(one) for one in seen["calls"]], holders=seen["holders"])

    return travelled


def drawn(journey: Journey) -> Iterator[str]:
    """Draw what is called, below who calls it, in the order of the first calls."""
    opened: set[str] = set()

    def below(function: str, indent: str) -> Iterator[str]:
        opened.add(function)
        closed: list[str] = []
        for caller, called in journey.calls:
            if caller != function or room_of(called) in LEFT_OUT:
                continue
            if called.partition(".")[0] not in OPENED or called in opened:
                closed.append(short(called))
                continue
            yield from row(closed, indent)
            closed.clear()
            yield f"{indent}{called}"
            yield from below(called, f"{indent}  ")
        yield from row(closed, indent)

    yield FIRST
    yield from below(FIRST, "  ")


def row(functions: list[str], indent: str) -> list[str]:
    """Write some beside each other."""
    return textwrap.wrap(
        ", ".join(functions),
        100,
        initial_indent=f"{indent}- ",
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )


def way(journey: Journey) -> str:
    """Write which modules have had the key, one after another; a door is as good as another."""
    modules = dict.fromkeys(
        "machine" if room_of(one) == "machine" else short(one) for one in journey.holders
    )
    return "\n".join(textwrap.wrap(" → ".join(modules), 100, subsequent_indent="  "))


def test_the_journeys_are_as_they_are_drawn(travel: Callable[[str], Journey]) -> None:
    """A run visits what stands below, and nothing below calls what stands above it.

    A key that stays here never comes to what is sent into a sandbox.
    """
    stays, enters = travel("tunnel"), travel("env")

    for journey in (stays, enters):
        upwards = [
            f"{caller} calls {called}"
            for caller, called in journey.calls
            if room_of(caller) != room_of(called)
            and LEVEL[room_of(caller)] <= LEVEL[room_of(called)]
        ]
        assert upwards == []
    assert {room_of(one) for one in stays.holders}.isdisjoint({"transport", "contracts"})
    drawing = (
        *("A prompt:\n\n```", *drawn(stays), "```\n"),
        *("A key that stays here:\n\n```", way(stays), "```\n"),
        *("A key that enters the sandbox, by `NDDT_MODEL_ACCESS=env`:\n\n```", way(enters)),
        "```\n",
    )
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    now, end, after = rest.partition(END)
    wanted = "\n".join(drawing)
    if os.environ.get("JOURNEYS") == "write":
        PAGE.write_text(f"{before}{begin}{wanted}{end}{after}", encoding="utf-8")
        return
    assert now == wanted, "it is drawn anew by ./nddt test.journeys"
