"""Daytona: how often it is asked, what goes wrong, and what is never left behind."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.daytona_double import FAULTS, DaytonaDouble, Fault, Row, fault
from tests.integration.contract import (
    Cloud,
    Done,
    Terminal,
    end,
    ended,
    eventually,
)
from tests.integration.test_contract_terminal import say

RUN = ("run", "--prompt", "x")
LIFECYCLE = (
    "Creating Daytona sandbox: ",
    "Building custom Daytona sandbox with Claude Code installed...",
    "This will take a few minutes on first build...",
    "Sandbox is ready!",
    "Creating Daytona API client...",
    "Connecting via SSH...",
)


def counted(double: DaytonaDouble) -> list[str]:
    """Give the requests but for polls: `POST /sandbox`."""
    return [one.line for one in double.requests() if not one.is_poll]


def status_lines(done: Done) -> list[str]:
    """Pick what is neither a command nor the build's log."""
    starts = ("nddt: Creating", "nddt: Building", "nddt: This", "nddt: Sandbox", "nddt: Conn")
    lines = [line for line in done.said.splitlines() if line.startswith(starts)]
    return [re.sub(r"^nddt: |nddt-\d{8}-\d{6}-\d+$", "", line) for line in lines]


# -- runs -----------------------------------------------------------------------------------


def test_the_first_run_builds_and_the_second_does_not(cloud: Cloud) -> None:
    """The lines are the document's; the answer is alone on stdout; nothing is left."""
    run = ("run", "--demo", "--verbose", "--prompt", "Say hello")
    with DaytonaDouble(minute_s=1.0) as double:
        new = cloud.caller.having(**double.environ)

        first = new(*run, within_s=500)
        double.forget_requests()
        second = new(*run)

        for done in (first, second):
            assert done.code == 0, done.said
            assert "“Say hello”" in done.stdout.decode()
        assert status_lines(first) == list(LIFECYCLE)
        built = {"Building custom Daytona sandbox with Claude Code installed...", LIFECYCLE[2]}
        assert status_lines(second) == [line for line in LIFECYCLE if line not in built]
        requests = counted(double)
        assert len(requests) <= 6, requests
        assert not [one for one in requests if "snapshots" in one or "object-storage" in one]
        assert eventually(lambda: not double.sandboxes())


def test_a_warm_run_asks_nothing(cloud: Cloud) -> None:
    """No request with a kept connection or a valid token, two with nothing."""
    caller = cloud.agent("echo answer").having(NDDT_PERSISTENT="true")
    run = ("run", "--prompt", "x")
    first = caller(*run)
    assert (first.code, first.stdout, first.said) == (0, b"answer\n", "")
    directory = caller.runtime / "s-daytona-nddt-workspace"

    def again() -> list[str]:
        cloud.double.forget_requests()
        done = caller(*run)
        assert (done.code, done.stdout, done.said) == (0, b"answer\n", "")
        return counted(cloud.double)

    kept = again()
    (directory / "s").unlink()
    with_token = again()
    (directory / "s").unlink()
    (directory / "access").unlink()
    with_nothing = again()

    assert (kept, with_token) == ([], [])
    assert len(with_nothing) <= 2, with_nothing


def test_an_answer_survives_cut_connections(cloud: Cloud) -> None:
    """Five cuts during one long answer: complete, in order, with the agent's code."""
    script = "for i in $(seq 1 4000); do echo line $i; sleep 0.002; done; echo end >&2; exit 7"
    running = cloud.agent(script).start("run", "--prompt", "x")
    assert running.stdout
    head = b""
    while head.count(b"\n") < 20:  # not by lines: what that reads ahead, `end` would not see
        head += os.read(running.stdout.fileno(), 1)
    for _ in range(5):
        time.sleep(0.8)  # the moment does not matter, only that it is during the answer
        cloud.double.cut_connections()

    done = end(running, 60)

    expected = "".join(f"line {i}\n" for i in range(1, 4001)).encode()
    assert (done.code, done.said) == (7, "end\n")
    assert expected == head + done.stdout
    assert not cloud.ours()


@pytest.mark.parametrize("persistent", ["false", "true"])
def test_a_conversation_survives_a_cut_connection(cloud: Cloud, persistent: str) -> None:
    """The agent's screen comes back, and it still listens."""
    caller = cloud.caller.having(NDDT_PERSISTENT=persistent)

    with Terminal(caller, "run", "--demo") as terminal:
        assert terminal.shows("auto mode on"), terminal.text
        say(terminal, "Remember this")
        assert terminal.shows("your prompt arrived as “Remember this”"), terminal.text
        terminal.forget()
        cloud.double.cut_connections()
        assert terminal.shows("your prompt arrived as “Remember this”"), terminal.text
        say(terminal, "Are you there")
        assert terminal.shows("your prompt arrived as “Are you there”"), terminal.text
        say(terminal, "/exit")
        assert terminal.code() == 0, terminal.text
        assert terminal.before == terminal.attributes


@pytest.mark.parametrize("name", ["persistent", "ephemeral"])
def test_stdin_survives_cut_connections(cloud: Cloud, name: str) -> None:
    """What is piped in arrives once, in order."""
    data = os.urandom(3_000_000)
    caller = cloud.agent("cat; exit 3").having(NDDT_PERSISTENT=str(name == "persistent").lower())
    cloud.double.fail(fault("ssh drop", times=1))

    done = caller("run", stdin=data)

    assert (done.code, done.stdout) == (3, data), done.said


def test_a_stopped_sandbox_ends_its_run_with_74(cloud: Cloud) -> None:
    """The run says what has happened."""
    caller = cloud.agent("echo up; sleep 100").having(NDDT_PERSISTENT="true")
    running = caller.start("run", "--prompt", "x")
    assert running.stdout
    assert running.stdout.readline() == b"up\n"

    cloud.double.stop_behind_back("nddt-workspace")
    cloud.double.cut_connections()
    done = end(running)

    assert done.code == 74
    assert "was stopped" in done.said.splitlines()[-1]
    again = cloud.agent("echo well").having(NDDT_PERSISTENT="true")("run", "--prompt", "x")
    assert (again.code, again.stdout) == (0, b"well\n"), again.said


def test_a_token_that_has_expired_is_replaced(cloud: Cloud) -> None:
    """What the gateway does not let in any more is asked for anew, once."""
    caller = cloud.agent("echo answer").having(NDDT_PERSISTENT="true")
    assert caller("run", "--prompt", "x").code == 0
    (caller.runtime / "s-daytona-nddt-workspace" / "s").unlink()
    cloud.double.expire_tokens("nddt-workspace")
    cloud.double.forget_requests()

    done = caller("run", "--verbose", "--prompt", "x")

    assert (done.code, done.stdout) == (0, b"answer\n"), done.said
    assert "Using existing Daytona sandbox: nddt-workspace" in done.said
    assert len(counted(cloud.double)) == 2


def test_a_projects_files_do_not_choose_the_account(cloud: Cloud) -> None:
    """Neither by nddt nor by the SDK are they read for that."""
    hostile = "DAYTONA_API_KEY=evil\nDAYTONA_API_URL=http://127.0.0.1:9/api\nDAYTONA_TARGET=mars\n"
    for name in (".env", ".env.local"):
        (cloud.caller.directory / name).write_text(hostile, encoding="utf-8")

    done = cloud.agent("echo answer")("run", "--prompt", "x")

    assert (done.code, done.stdout) == (0, b"answer\n"), done.said
    assert all("mars" not in str(one.json) for one in cloud.double.requests())


# -- snapshots ------------------------------------------------------------------------------


def test_snapshots_that_are_not_usable(cloud: Cloud) -> None:
    """A failed one is removed and built again, an unused one activated, an unknown one refused."""
    name = cloud.caller("daytona.build-image").lines[0]
    for state, code, word in (
        ("build_failed", 0, "had failed"),
        ("inactive", 0, ""),
        ("hibernating", 69, "does not know"),
    ):
        with DaytonaDouble(minute_s=1.0) as double:
            image = cloud.double.snapshots()[name].image
            double.add_snapshot(name, state, image=image)

            done = cloud.caller.having(**double.environ)("daytona.build-image", within_s=200)

            assert code == done.code, done.said
            assert word in done.said
            assert code or double.snapshots()[name].state == "active"


@pytest.mark.parametrize(
    "state", ["building", "inactive", pytest.param("build_failed", marks=pytest.mark.exhaustive)]
)
def test_a_run_meets_a_snapshot_that_is_not_usable(cloud: Cloud, state: str) -> None:
    """Somebody else builds it, nobody has used it for long, or it has to be built again."""
    name = cloud.caller("daytona.build-image").lines[0]
    with DaytonaDouble(minute_s=1.0) as double:
        double.add_snapshot(name, state, image=cloud.double.snapshots()[name].image)
        with ended(cloud.agent("echo answer").having(**double.environ).start(*RUN)) as running:
            if state == "building":
                assert eventually(
                    lambda: any("snapshots" in one.line for one in double.requests()), 60
                )
                double.set_state(name, "active")
            done = end(running, 200)

        assert (done.code, done.stdout) == (0, b"answer\n"), done.said
        assert "POST /sandbox" in counted(double)


def test_the_latest_version_without_npm_here(cloud: Cloud, tmp_path: Path) -> None:
    """A sandbox that has npm is asked, and is gone afterwards; the answer is remembered."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for place in cloud.caller.environ["PATH"].split(":"):
        for program in Path(place).glob("*"):
            if program.name not in {"node", "npm", "npx"}:
                with suppress(FileExistsError):
                    (programs / program.name).symlink_to(program)
    known = cloud.caller("daytona.build-image").lines
    caller = cloud.caller.having(PATH=str(programs), XDG_CACHE_HOME=str(programs.parent))

    with DaytonaDouble(minute_s=1.0) as double:
        new = caller.having(**double.environ)
        first = new("daytona.build-image", within_s=400)
        double.forget_requests()
        second = new("daytona.build-image")

        assert (first.code, first.lines) == (0, known), first.said
        assert (second.code, second.lines) == (0, known), second.said
        assert not [one for one in counted(double) if one.startswith("POST")]
        assert eventually(lambda: not double.sandboxes())


def test_a_snapshot_of_ones_own(cloud: Cloud) -> None:
    """NDDT_DAYTONA_SNAPSHOT is used as it is; one that is not there, or failed, is a bad setting.

    Nddt did not make it, and does not remove it.
    """
    name = cloud.caller("daytona.build-image").lines[0]
    caller = cloud.agent("echo answer")

    done = caller.having(NDDT_DAYTONA_SNAPSHOT=name)("run", "--prompt", "x")
    missing = caller.having(NDDT_DAYTONA_SNAPSHOT="nothing")("run", "--prompt", "x")
    with DaytonaDouble(minute_s=1.0) as double:
        double.add_snapshot("mine", "build_failed")
        there = caller.having(**double.environ, NDDT_DAYTONA_SNAPSHOT="mine")
        failed = there("run", "--prompt", "x")
        assert list(double.snapshots()) == ["mine"]

    assert (done.code, done.stdout) == (0, b"answer\n"), done.said
    assert missing.code == 78, missing.said
    assert "NDDT_DAYTONA_SNAPSHOT" in missing.said
    assert (failed.code, len(failed.said.splitlines())) == (78, 1), failed.said
    assert "snapshot mine has failed: " in failed.said


def test_old_snapshots_are_pruned(cloud: Cloud) -> None:
    """All of nddt's but the newest three, and none that is in use or somebody else's."""
    with DaytonaDouble(minute_s=1.0) as double:
        for number in range(6):
            double.add_snapshot(f"nddt-claude-2.1.{number}-0123456789")
        double.add_snapshot("theirs")

        done = cloud.caller.having(**double.environ)("cleanup", "--images", "--yes")

        assert (done.code, len(done.lines)) == (0, 3), done.said
        assert set(done.lines) | set(double.snapshots()) >= {"theirs"}
        assert len(double.snapshots()) == 4


# -- faults ---------------------------------------------------------------------------------


HANGING = {"hang", "accept then hang"}
"""Each of these takes as long as a call may take; they are tried once, below."""
REQUESTS = 5
"""A run's: create, look, open, delete, look."""


def check_fault(cloud: Cloud, name: str, place: int) -> None:
    """Have a fault at one request of a run, and look at what has become of it."""
    cloud.double.forget_requests()
    cloud.double.fail(fault(name, at=place))
    done = cloud.agent("echo answer")("run", "--prompt", "x", within_s=90)
    cloud.double.heal()

    assert "Traceback" not in done.said
    assert "<html" not in done.said.lower()
    if done.code == 0:
        assert done.stdout == b"answer\n"
    else:
        assert done.code in {69, 73, 74, 75, 77, 78}, (place, done.said)
        assert done.said.splitlines()[-1].startswith("nddt: ")
    for left in cloud.ours():
        assert left in done.said, (place, name)
        assert cloud.caller("cleanup", "--name", left, "--yes").code == 0


TRIED = sorted(set(FAULTS) - HANGING - {"build failed"})
ALIKE = {
    *("403 scope", "403 suspended", "409 change", "409 modified", "429 suffixed", "400 memory"),
    *("400 disk", "400 snapshots", "400 runners", "400 start", "503", "504 html", "toolbox 400"),
    *("state inactive", "state unknown", "accept then drop", "401", "404", "ssh host key"),
}
"""Each of these is answered as another fault is, or has a test of its own below."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.exhaustive if one in ALIKE else ()) for one in TRIED],
)
def test_a_fault_at_any_request(clouds: list[Cloud], name: str) -> None:
    """The run succeeds, or ends with one line and a code; nothing is left unsaid.

    Of each two faults that are alike, one is tried at the odd requests and one at the others.
    """
    free = SimpleQueue[Cloud]()
    for one in clouds:
        free.put(one)

    def check(place: int) -> None:
        cloud = free.get()
        try:
            check_fault(cloud, name, place)
        finally:
            free.put(cloud)

    with ThreadPoolExecutor(len(clouds)) as pool:
        list(pool.map(check, range(1 + TRIED.index(name) % 2, REQUESTS + 1, 2)))


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_nothing_outlives_its_auto_stop(clouds: list[Cloud], step: int) -> None:
    """Clients are killed, each at another moment between its start and its answer."""

    def kill(number: int) -> None:
        running = clouds[number % len(clouds)].agent("sleep 2").start("run", "--prompt", "x")
        time.sleep(0.05 + 0.1 * number)  # the moment is what is tried here
        running.kill()
        end(running)

    with ThreadPoolExecutor(len(clouds)) as pool:
        list(pool.map(kill, range(step - 1, 30, step)))

    for one in clouds:
        one.double.options.minute_s = 0.05  # fifteen of the platform's minutes pass in a second
    try:
        assert eventually(lambda: not [name for one in clouds for name in one.ours()], 40)
    finally:
        for one in clouds:
            one.double.options.minute_s = 1.0


def test_a_server_that_does_not_answer(clouds: list[Cloud]) -> None:
    """A call that hangs ends at its deadline; what it may have made is found or named."""
    with ThreadPoolExecutor(len(clouds)) as pool:
        list(pool.map(check_fault, clouds, ("accept then hang", "hang", "hang"), (3, 3, 4)))


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("401", 77, "DAYTONA_API_KEY (from: environment)"),
        ("403 scope", 77, "write:sandboxes"),
        ("400 cpu", 75, "Total CPU limit exceeded"),
        pytest.param("403 suspended", 69, "suspended", marks=pytest.mark.exhaustive),
        pytest.param("429 suffixed", 75, "too many requests", marks=pytest.mark.exhaustive),
        ("500", 69, "500"),
    ],
)
def test_a_fault_that_stays(cloud: Cloud, name: str, code: int, words: str) -> None:
    """One line with the next step."""
    cloud.double.fail(fault(name, at="POST /sandbox", times=None))

    done = cloud.agent("echo never")("run", "--prompt", "x", within_s=240)

    assert (done.code, done.stdout) == (code, b""), done.said
    (line,) = done.said.splitlines()
    assert words in line
    assert " — " in line


@pytest.mark.parametrize(
    "label",
    [
        *("", "process", "owner"),
        *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ("pid", "installation")),
    ],
)
def test_a_sandbox_of_somebody_else_stays(cloud: Cloud, mine_name: str, label: str) -> None:
    """If a creation is interrupted, what has its name by then goes only if it was made by that."""
    caller = cloud.agent("echo never").having(NDDT_NAME=mine_name)
    cloud.double.fail(fault("hang", at="POST /sandbox"))
    with ended(caller.start(*RUN)) as running:
        asked = eventually(
            lambda: [one.json for one in cloud.double.requests() if one.line == "POST /sandbox"]
        )
        labels = asked[0]["labels"]
        theirs = {**labels, f"nddt.{label}": "1"} if label else labels
        cloud.double.add_sandboxes([Row(name=mine_name, labels=theirs)])
        running.send_signal(signal.SIGINT)
        done = end(running)

    left = cloud.ours()
    if label:
        cloud.double.remove_behind_back(mine_name)
    assert (done.code, done.stdout) == (130, b""), done.said
    assert left == ([mine_name] if label else [])


@pytest.mark.parametrize("answer", ["read", "lost"])
def test_an_interrupted_wait(cloud: Cloud, answer: str) -> None:
    """A sandbox that does not start goes with the run, whatever became of the answer to it."""
    if answer == "lost":
        cloud.double.fail(fault("accept then drop", at="POST /sandbox"))
    waits = Fault(kind="state", match="GET /sandbox/*", message="creating", times=None)
    cloud.double.fail(waits)
    with ended(cloud.agent("echo never").start(*RUN)) as running:
        assert eventually(lambda: any(one.is_poll for one in cloud.double.requests()))
        running.send_signal(signal.SIGINT)
        done = end(running)

    left = cloud.ours()  # after fifteen minutes of the double's, it would go by itself
    assert (done.code, done.stdout, left) == (130, b"", []), done.said


def test_a_key_that_is_missing(cloud: Cloud) -> None:
    """77, and where a key is made."""
    caller = cloud.agent("echo never").having(DAYTONA_API_KEY="")

    done = caller("run", "--prompt", "x")

    assert (done.code, len(done.said.splitlines())) == (77, 1), done.said
    assert "DAYTONA_API_KEY is not set" in done.said


def test_a_changed_host_key_is_not_accepted(cloud: Cloud) -> None:
    """74 at once, and what to do if it is meant so."""
    caller = cloud.agent("echo answer")
    assert caller("run", "--prompt", "x").code == 0
    cloud.double.change_host_key()

    done = caller("run", "--prompt", "x")

    assert done.code == 74, done.said
    assert "another key than before" in done.said.splitlines()[-1]


# -- clean-up -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [30, pytest.param(250, marks=pytest.mark.exhaustive)])
def test_a_clean_up_of_many(cloud: Cloud, count: int) -> None:
    """Of the sandboxes of three owners exactly ours go; what cannot go is said."""
    with DaytonaDouble(minute_s=1.0) as double:
        caller = cloud.caller.having(**double.environ)
        made = caller("daytona.create-sandbox", within_s=200)
        assert made.code == 0, made.said
        owner = double.sandboxes()["nddt-workspace"].labels["nddt.owner"]
        known = {"nddt": "persistent", "nddt.created": "1"}
        owners = (owner, "one@elsewhere", "two@elsewhere")
        rows = [
            Row(name=f"box-{i}", labels={**known, "nddt.owner": owners[i % 3]})
            for i in range(count)
        ]
        ours = {**known, "nddt.owner": owner}
        stuck = Row(name="stuck", labels=ours, is_stuck=True)
        gone = Row(name="DESTROYED_box_1", labels=ours, desired_state="destroyed")
        double.add_sandboxes([*rows, stuck, gone])

        done = caller("cleanup", "--all", "--yes", within_s=240)

        mine = {row.name for row in rows if row.labels["nddt.owner"] == owner} | {"nddt-workspace"}
        assert (done.code, set(done.lines)) == (75, mine), done.said
        assert "stuck: " in done.said
        assert "1 of " in done.said.splitlines()[-1]
        assert set(double.sandboxes()) == {row.name for row in (*rows, stuck, gone)} - mine
