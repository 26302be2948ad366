"""Which sandboxes are shown, started, stopped and removed; the provider is a simple one."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.brings import ports
from scripts.contracts.sandbox import Identity, Sandbox
from scripts.errors import CannotCreateError, UnavailableError, UsageError
from scripts.machine import files, makers, state
from scripts.machine.makers import Maker
from scripts.run import housekeeping, keeper
from scripts.run import sandboxes as life
from scripts.run.work import Work
from scripts.workspace import change_records, protected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.contracts.provider import Provider
    from tests.conftest import Memory, Project

DEAD = 2**22 + 1
"""More than Linux ever gives to a process."""


@pytest.fixture
def memory(project: Project) -> Memory:
    """Give a provider without sandboxes."""
    return project.provider


@pytest.fixture
def work(project: Project, memory: Memory, runtime: Path) -> Work:
    """Give the work of a project's owner, who agrees to everything."""
    project.environ["XDG_RUNTIME_DIR"] = str(runtime)
    provider: Provider = memory
    return Work(provider=provider, settings=project.load_for_provider(), yes=True)


@pytest.fixture
def mine(work: Work) -> Sandbox:
    """Give a running persistent sandbox of this directory."""
    return Sandbox(
        name="mine",
        id="1",
        state="running",
        mode="persistent",
        image="nddt:claude-1.0.0-0",
        workspace=str(work.settings.directory),
        owner=work.settings.owner,
        created=int(time.time()) - 7200,
        pid=DEAD,
        fingerprint="",
    )


# -- durations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0s", 0), ("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)],
)
def test_seconds(text: str, expected: int) -> None:
    """In each unit."""
    assert housekeeping.seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7 d", "-7d", "1.5h", "7D", "7dd", "9999999s", "7d\n"]
)
def test_no_duration(text: str) -> None:
    """Is an error that says how to write one."""
    with pytest.raises(UsageError) as caught:
        housekeeping.seconds(text)

    assert caught.value.exit_code == 64
    assert "7d" in caught.value.next_step


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        *((0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86_399, "23h")),
        *((86_400, "1d"), (604_799, "6d"), (604_800, "1w"), (10**8, "165w"), (-5, "0s")),
    ],
)
def test_age(passed: int, expected: str) -> None:
    """Is in the largest whole unit; a clock that was set back is no reason for nonsense."""
    assert housekeeping.age(1_000_000_000, 1_000_000_000.5 + passed) == expected


@given(number=st.integers(1, 6), unit=st.sampled_from("smhdw"))
def test_age_of_a_duration(number: int, unit: str) -> None:
    """Is that duration."""
    assert housekeeping.age(0, housekeeping.seconds(f"{number}{unit}")) == f"{number}{unit}"


# -- lists ----------------------------------------------------------------------------------


def test_table(work: Work, memory: Memory, mine: Sandbox) -> None:
    """Has a column for each fact, and only the owner's rows."""
    other = replace(mine, name="theirs", owner="other@host")
    none = replace(mine, name="a-longer-name", state="stopped", workspace="", created=0)
    memory.found = [mine, other, none]

    lines = housekeeping.listing(work, all_owners=False, as_json=False).splitlines()

    assert [line.split()[:4] for line in lines][:2] == [
        ["NAME", "STATE", "MODE", "AGE"],
        ["mine", "running", "persistent", "2h"],
    ]
    assert lines[2].endswith("  -")
    assert len(lines) == 3
    assert (
        len(
            {
                line.index(word)
                for line, word in zip(lines, ("STATE", "running", "stopped"), strict=True)
            }
        )
        == 1
    )
    assert not any(line.endswith(" ") for line in lines)


def test_table_of_all_owners(work: Work, memory: Memory, mine: Sandbox) -> None:
    """Says whose each is."""
    memory.found = [mine, replace(mine, name="theirs", owner="other@host")]

    lines = housekeeping.listing(work, all_owners=True, as_json=False).splitlines()

    assert [line.split()[-1] for line in lines] == ["OWNER", mine.owner, "other@host"]


def test_empty_table(work: Work) -> None:
    """Is a line of titles."""
    assert housekeeping.listing(work, all_owners=False, as_json=False).startswith("NAME  STATE")


def test_json(work: Work, memory: Memory, mine: Sandbox) -> None:
    """Has the same rows with all facts."""
    memory.found = [mine, replace(mine, name="theirs", owner="other@host")]

    (found,) = json.loads(housekeeping.listing(work, all_owners=False, as_json=True))
    both = json.loads(housekeeping.listing(work, all_owners=True, as_json=True))

    assert found.pop("keeper") is None
    assert Sandbox(id=mine.id, **found) == mine
    assert [one["name"] for one in both] == ["mine", "theirs"]


def test_json_of_nothing(work: Work) -> None:
    """Is an empty array."""
    assert json.loads(housekeeping.listing(work, all_owners=False, as_json=True)) == []


# -- start and stop -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "expected"), [("running", ["stop mine"]), ("stopped", ["start mine"])]
)
def test_start_and_stop(
    work: Work, memory: Memory, mine: Sandbox, state: str, expected: list[str]
) -> None:
    """Do only what is left to do."""
    memory.found = [replace(mine, state=state)]

    assert housekeeping.start_and_tell(work, memory.found[0]) == "mine"
    assert housekeeping.stop_and_tell(work, memory.found[0]) == "mine"
    assert memory.done == expected


def test_nothing(work: Work) -> None:
    """Has no name: it is said how to make one."""
    with pytest.raises(UnavailableError, match="there is no sandbox mine") as caught:
        life.existing(work, "mine")
    assert "create-sandbox" in caught.value.next_step


def test_somebody_elses(work: Work, memory: Memory, mine: Sandbox) -> None:
    """Is neither started nor stopped."""
    memory.found = [replace(mine, owner="other@host")]

    with pytest.raises(CannotCreateError, match="belongs to a sandbox of other@host"):
        life.existing(work, "mine")


# -- names that have become another one's -----------------------------------------------------


@pytest.fixture
def other(work: Work, memory: Memory, mine: Sandbox) -> Iterator[Sandbox]:
    """Have another sandbox in place of `mine`, with its name, and with a keeper."""
    there = replace(mine, id="2")
    memory.found = [there]
    directory = state.sandbox_directory(work.environ, work.key("mine"))
    with files.lock(directory):
        life.note_identity(work, there)
    state.copy_directory(work.environ, work.key("mine")).mkdir(parents=True)
    ports.Opening(outside=1, inside=1, sandbox=work.key("mine"), pid=os.getpid()).note(work.environ)
    script = "import fcntl, time; fcntl.flock(0, 2); print(flush=True); time.sleep(60)"
    with (directory / keeper.NOTE).open("w") as note:
        words = (sys.executable, "-c", script)
        running = subprocess.Popen(words, stdin=note, stdout=subprocess.PIPE)
        note.write(f"{running.pid} mark\n")
    with running:
        assert running.stdout
        assert running.stdout.readline() == b"\n"
        yield there
        running.kill()


def ways(work: Work, mine: Sandbox) -> dict[str, Callable[[], object]]:
    """All that ends, removes or forgets a sandbox that was found, or made, before."""
    return {
        "stop": lambda: housekeeping.stop_and_tell(work, mine),
        "remove": lambda: life.remove_with_files(work, mine),
        "the end of a run": lambda: life.remove_passed(work, mine),
        "forget": lambda: life.forget(work, mine),
        "clean-up": lambda: housekeeping.clean_up(work, (mine,), images=False),
    }


@pytest.mark.parametrize("way", ["stop", "remove", "the end of a run", "forget", "clean-up"])
def test_a_name_that_has_become_another_ones(
    work: Work, memory: Memory, mine: Sandbox, other: Sandbox, way: str
) -> None:
    """Is no reason to end that one, nor its keeper, nor to forget what is known of it."""
    here, key = work.settings.directory, work.key("mine")
    (here / ".envrc").write_text("before")
    protected.begin(work.environ, here, (here,), key)
    (here / ".envrc").write_text("after")

    ways(work, mine)[way]()

    directory = state.sandbox_directory(work.environ, key)
    assert memory.found == [other]
    assert memory.done in ([], ["stop mine"])  # which the provider does by the id
    assert life.noted(directory, "mine") == Identity("mine", "2")
    assert keeper.find_keeper(directory)
    assert [one.outside for one in ports.of(work.environ, key)] == [1]
    assert state.copy_directory(work.environ, key).exists()
    assert change_records.recorded(work.environ, here) == ()
    protected.check_ended(work.environ, key)
    assert [one.path for one in change_records.recorded(work.environ, here)] == [".envrc"]


def test_a_sandbox_with_the_name_of_one_before(work: Work, other: Sandbox) -> None:
    """Takes over nothing of that: its ports, keeper and connection end."""
    directory = state.sandbox_directory(work.environ, work.key("mine"))
    (directory / "copied").touch()

    life.note_identity(work, other)
    assert (directory / "copied").exists()
    assert keeper.find_keeper(directory)
    life.note_identity(work, replace(other, id="3"))

    assert [one.name for one in directory.iterdir()] == ["id"]
    assert ports.of(work.environ, work.key("mine")) == ()


def test_what_is_still_there(work: Work, mine: Sandbox, other: Sandbox) -> None:
    """Is known by more than its name."""
    assert life.still_there(work, mine) is None
    assert life.still_there(work, None) is None
    assert life.still_there(work, Identity("mine", "2")) == other


# -- clean-up -------------------------------------------------------------------------------


@pytest.fixture
def sandboxes(project: Project, mine: Sandbox) -> dict[str, Sandbox]:
    """Give one of each kind."""
    makers.keep(project.environ)
    us = makers.of_process(project.environ, os.getpid())
    mine = replace(mine, maker=replace(us, process="0" * 16))
    ephemeral = replace(mine, mode="ephemeral")
    one_more = replace(us, installation="0" * 16, process="0" * 16)
    variants = {
        "running": mine,
        "stopped": replace(mine, state="stopped"),
        "broken": replace(mine, state="dead"),
        "made-by-us": replace(mine, pid=os.getpid(), maker=us),
        "old": replace(mine, created=0),
        "orphaned": ephemeral,
        "in-use": replace(ephemeral, pid=1, maker=makers.of_process(project.environ, 1)),
        "of-old": replace(ephemeral, maker=Maker()),
        "of-another": replace(ephemeral, maker=one_more),
        "of-another-with-our-pid": replace(ephemeral, pid=os.getpid(), maker=one_more),
        "kept-by-another": replace(mine, maker=one_more),
        "stopped-by-another": replace(mine, maker=one_more, state="stopped"),
        "elsewhere": replace(mine, workspace="/elsewhere", state="stopped"),
        "shares-nothing": replace(mine, workspace="", state="stopped"),
        "theirs": replace(mine, owner="other@host", state="stopped"),
        "theirs-orphaned": replace(ephemeral, owner="other@host"),
    }
    return {name: replace(one, name=name, id=name) for name, one in variants.items()}


OURS = ["running", "stopped", "broken", "made-by-us", "old", "orphaned", "in-use", "of-old"]
OURS += ["kept-by-another", "stopped-by-another"]
OF_HERE = ["running", "stopped", "broken", "made-by-us", "old", "orphaned"]


@pytest.mark.parametrize(
    ("everything", "older_than_s", "expected"),
    [
        pytest.param(False, 0, OF_HERE, id="default"),
        pytest.param(True, 0, [*OURS, "elsewhere", "shares-nothing"], id="all"),
        pytest.param(True, 86_400, ["old"], id="all-older-than"),
        pytest.param(False, 86_400, ["old"], id="older-than"),
        pytest.param(False, 3600, OF_HERE, id="hour"),
    ],
)
def test_chosen(
    work: Work,
    memory: Memory,
    sandboxes: dict[str, Sandbox],
    caplog: pytest.LogCaptureFixture,
    *,
    everything: bool,
    older_than_s: int,
    expected: list[str],
) -> None:
    """By default what is of here, but no run that goes on; never another owner's."""
    memory.found = list(sandboxes.values())

    found = housekeeping.chosen(work, everything=everything, name=None, older_than_s=older_than_s)

    assert [one.name for one in found] == expected
    told = [one.getMessage() for one in caplog.records]
    assert [one.partition(" ")[0] for one in told] == [
        name for name in ("of-another", "of-another-with-our-pid") if everything
    ]


def test_chosen_where_nothing_is_shared(
    project: Project, work: Work, memory: Memory, sandboxes: dict[str, Sandbox]
) -> None:
    """What shares nothing belongs here."""
    project.environ["NDDT_WORKSPACE"] = "none"
    memory.found = list(sandboxes.values())

    found = housekeeping.chosen(
        replace(work, settings=project.load_for_provider()),
        everything=False,
        name=None,
        older_than_s=0,
    )

    assert [one.name for one in found] == ["shares-nothing"]


@pytest.mark.parametrize("name", ["running", "in-use", "elsewhere"])
def test_chosen_by_name(
    work: Work, memory: Memory, sandboxes: dict[str, Sandbox], name: str
) -> None:
    """Whatever it does and wherever it is."""
    memory.found = list(sandboxes.values())

    found = housekeeping.chosen(work, everything=False, name=name, older_than_s=0)

    assert [one.name for one in found] == [name]


def test_somebody_elses_by_name(work: Work, memory: Memory, sandboxes: dict[str, Sandbox]) -> None:
    """Is refused."""
    memory.found = list(sandboxes.values())

    with pytest.raises(CannotCreateError, match="other@host"):
        housekeeping.chosen(work, everything=True, name="theirs", older_than_s=0)


def test_clean_up(work: Work, memory: Memory, sandboxes: dict[str, Sandbox], runtime: Path) -> None:
    """Removes what was chosen, with the files of its connection, and nothing else."""
    memory.found = list(sandboxes.values())
    (runtime / "nddt" / "s-memory-stopped").mkdir(parents=True, mode=0o700)
    (runtime / "nddt").chmod(0o700)

    removed = housekeeping.clean_up(work, (sandboxes["stopped"], sandboxes["old"]), images=False)

    assert removed == ("stopped", "old")
    assert {one.name for one in memory.found} == set(sandboxes) - {"stopped", "old"}
    assert list((runtime / "nddt").iterdir()) == []


def test_clean_up_of_images(work: Work, mine: Sandbox, memory: Memory) -> None:
    """Leaves the newest three."""
    memory.found = [mine]

    assert housekeeping.clean_up(work, (), images=True) == (f"nddt:old-{mine.owner}-3",)
    assert memory.found == [mine]


def test_clean_up_of_nothing(work: Work) -> None:
    """Needs no consent."""
    assert housekeeping.clean_up(replace(work, yes=False), (), images=False) == ()


def test_clean_up_without_consent(work: Work, mine: Sandbox, memory: Memory) -> None:
    """Removes nothing, and names what it would have removed."""
    memory.found = [mine]

    with pytest.raises(UsageError, match=r"Remove mine \(running\)\?") as caught:
        housekeeping.clean_up(replace(work, yes=False), (mine,), images=True)

    assert "--yes" in caught.value.next_step
    assert memory.found == [mine]


def test_this_name(project: Project, work: Work) -> None:
    """Is that of the settings, or is made up from the directory."""
    made_up = housekeeping.this_name(work)
    project.environ["NDDT_NAME"] = "chosen"

    assert made_up.startswith("nddt-project-")
    assert housekeeping.this_name(replace(work, settings=project.load_for_provider())) == "chosen"


def test_nobody_makes_up_an_identity() -> None:
    """It is read: from a provider's answer, or from the note of one."""
    outside = {
        (file.name, function.name)
        for file in Path(life.__file__).parents[1].rglob("*.py")
        if "providers" not in file.parts
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        and re.search(r"\b(Identity|Sandbox)\(", ast.unparse(function))
    }

    assert outside == {("sandboxes.py", "noted"), ("sandbox.py", "made")}
