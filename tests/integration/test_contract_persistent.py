"""One sandbox per directory: kept, found again, and recovered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import KEY, Caller, end, processes

if TYPE_CHECKING:
    from tests.integration.contract import Outside


def commands(said: str) -> list[str]:
    """Pick the programs that --verbose shows."""
    return [line.split()[2] for line in said.splitlines() if line.startswith("nddt: + ")]


def test_the_second_run_only_opens_a_session(kept: Caller, outside: Outside) -> None:
    """A warm run asks the provider nothing: all that it starts is ssh, and git for its settings."""
    caller = kept.with_agent("cat ~/mark 2>/dev/null; echo kept >~/mark").having(
        ANTHROPIC_API_KEY=KEY
    )

    first = caller("run", "--prompt", "x")
    second = caller("run", "--verbose", "--prompt", "x")

    assert (first.code, first.stdout, first.stderr) == (0, b"", b"")
    assert (second.code, second.stdout) == (0, b"kept\n")
    assert {"git", "ssh"} == set(commands(second.said)), second.said
    assert list(outside.sandboxes().values()) == ["running"]


MANY = pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.exhaustive)])


@MANY
def test_first_runs_at_once_make_one_sandbox(kept: Caller, outside: Outside, count: int) -> None:
    """All at once in a directory without a sandbox; each has its own answer."""
    caller = kept.with_agent('echo "${!#}"').having(ANTHROPIC_API_KEY=KEY)
    started = [caller.start("run", "--prompt", f"number {i}") for i in range(count)]

    ended = [end(one, 60) for one in started]

    assert [(0, f"number {i}\n".encode(), b"") for i in range(count)] == [
        (one.code, one.stdout, one.stderr) for one in ended
    ]
    assert len(outside.sandboxes()) == 1


@MANY
def test_real_agents_share_a_sandbox(kept: Caller, outside: Outside, count: int) -> None:
    """Each demo has an endpoint of its own, whose port is free again afterwards."""
    kept.make_sandbox()
    started = [kept.start("run", "--demo", "--prompt", f"number {i}") for i in range(count)]

    ended = [end(one, 60) for one in started]

    assert [(one.code, one.said) for one in ended] == [(0, "")] * count
    for number, one in enumerate(ended):
        assert f"“number {number}”".encode() in one.stdout
    assert len(outside.sandboxes()) == 1
    listening = kept("shell", "--command", "ss -Hltn | grep -c 127.0.0.1:")
    assert listening.stdout == b"0\n"


def test_a_stopped_sandbox_is_started_with_its_files(kept: Caller, outside: Outside) -> None:
    """What is on its disk stays; the connection that was kept ends with `stop`."""
    name = kept.make_sandbox()
    assert kept("shell", "--command", "echo mark >~/mark").code == 0
    assert processes(kept.runtime)

    stopped = kept("stop")

    assert (0, f"{name}\n".encode()) == (stopped.code, stopped.stdout)
    assert not processes(kept.runtime)
    assert outside.sandboxes()[name] != "running"
    again = kept("shell", "--command", "cat ~/mark")
    assert (again.code, again.stdout, again.stderr) == (0, b"mark\n", b"")


def test_stop_and_start_are_tasks(kept: Caller, outside: Outside) -> None:
    """Both can be said twice, and print the name."""
    name = kept.make_sandbox()

    for task, running in (("stop", False), ("start", True)):
        for _ in range(2):
            done = kept(kept.task(task))
            assert (0, f"{name}\n", "") == (done.code, done.stdout.decode(), done.said)
            assert running == (outside.sandboxes()[name] == "running")


def test_a_sandbox_killed_behind_our_back_is_recovered(kept: Caller, outside: Outside) -> None:
    """Killed or removed by others: the next run starts it, or makes it anew."""
    name = kept.make_sandbox()
    assert kept("shell", "--command", "true").code == 0

    for harm in (outside.kill, outside.remove):
        harm(name)
        done = kept("shell", "--command", "echo well")
        assert (done.code, done.stdout, done.stderr) == (0, b"well\n", b"")
        assert {name: "running"} == outside.sandboxes()


def test_a_sandbox_killed_during_a_run_is_74(kept: Caller, outside: Outside) -> None:
    """The run ends, says that the connection broke, and the next one works."""
    name = kept.make_sandbox()
    running = kept.start("shell", "--command", "echo up; sleep 100")
    assert running.stdout
    assert running.stdout.readline() == b"up\n"

    outside.kill(name)
    done = end(running)

    assert done.code == 74
    assert re.search("connection to the sandbox broke|was stopped", done.said.splitlines()[-1])
    assert kept("shell", "--command", "echo well").stdout == b"well\n"


@ON_DOCKER
def test_an_out_of_date_sandbox_is_said_and_made_anew_after_a_yes(kept: Caller) -> None:
    """Without a yes it is used as it is, if it has less than is wanted; a yes makes it anew."""
    name = kept.make_sandbox()
    assert kept("shell", "--command", "echo mark >~/mark").code == 0
    changed = kept.having(NDDT_PIDS="0")

    look = ("shell", "--command", "cat ~/mark || echo no mark; touch new; ls -A")
    unasked = changed(*look)
    agreed = changed(*look, "--yes")

    assert (unasked.code, unasked.stdout) == (0, b"mark\nnew\n")
    assert len(unasked.said.splitlines()) == 1
    assert f"{name} is used as it is" in unasked.said
    assert "--yes" in unasked.said
    assert (agreed.code, agreed.stdout) == (0, b"no mark\nnew\n"), agreed.said
    assert [path.name for path in kept.directory.iterdir()] == ["new"]
