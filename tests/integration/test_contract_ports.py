"""Servers in the sandbox, reached from this machine by the ports that the user was told."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.integration.contract import (
    GONE_S,
    KEY,
    Caller,
    Terminal,
    end,
    ended,
    eventually,
)
from tests.own_ports import own_port
from tests.scripted_model import text, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.contract import Outside
    from tests.scripted_model import ScriptedModel

START = own_port(0)
SERVE = "cd /tmp; echo served >it; python3 -m http.server 3000 >/dev/null 2>&1"
"""Serves a file in the sandbox, until it is ended."""


@pytest.fixture
def here(nddt: Caller) -> Caller:
    """Somebody whose ports begin where no other tests have theirs."""
    return nddt.having(NDDT_PORT_RANGE_START=str(START))


@pytest.fixture
def kept_here(kept: Caller) -> Caller:
    """The same, with a sandbox that is kept."""
    return kept.having(NDDT_PORT_RANGE_START=str(START))


def fetched(port: int) -> str:
    """Give what a server says; nothing if there is none."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/it", timeout=5) as got:
        return str(got.read().decode())
    return ""


def listening(port: int) -> list[str]:
    """Give the addresses of this machine that a port is listened on."""
    done = subprocess.run(
        ("ss", "-Hltn", f"sport = :{port}"), check=True, capture_output=True, text=True
    )
    return [line.split()[3] for line in done.stdout.splitlines()]


@contextmanager
def taken(*ports: int, address: str = "127.0.0.1") -> Iterator[None]:
    """Have another program listen."""
    with ExitStack() as stack:
        for port in ports:
            other = stack.enter_context(socket.socket())
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((address, port))
            other.listen()
        yield


def mapped(caller: Caller, *words: str) -> str:
    """Run a command that prints its map."""
    done = caller("shell", *words, "--command", "echo $NDDT_PORT_MAP")
    assert done.code == 0, done.said
    return done.stdout.decode().strip()


def thief(directory: Path) -> None:
    """Make an `ssh` that is the other program, the first time that it hears of the port."""
    program = directory / "ssh"
    program.write_text(
        f"""#!{sys.executable}
import os, socket, sys, subprocess, time
mark = {str(directory / "taken")!r}
if any({str(START)!r} in word for word in sys.argv) and not os.path.exists(mark):
    open(mark, "w").close()
    if os.fork() == 0:
        os.setsid()
        other = socket.create_server(("127.0.0.1", {START}))
        os.closerange(0, 3)
        while os.path.exists(mark):
            time.sleep(0.1)
        os._exit(0)
    time.sleep(0.3)
os.execv("/usr/bin/ssh", sys.argv)
"""
    )
    program.chmod(0o755)


# -- one session ----------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", ["false", "true"])
def test_a_server_is_reached_while_the_session_lives(
    here: Caller, outside: Outside, persistent: str
) -> None:
    """On this machine's loopback alone; afterwards nobody listens."""
    caller = here.having(NDDT_PERSISTENT=persistent)

    with ended(caller.start("shell", "--ports", "8080,3000", "--command", SERVE)) as running:
        assert eventually(lambda: fetched(START + 1)) == "served\n"
        assert [f"127.0.0.1:{START + 1}"] == listening(START + 1)
        assert fetched(START) == ""
        running.terminate()
        end(running)

    assert eventually(lambda: not listening(START) + listening(START + 1), GONE_S)
    for name in outside.sandboxes():
        assert caller("cleanup", "--name", name, "--yes").code == 0


def test_the_agent_names_an_address_that_works(
    here: Caller, model: Callable[..., ScriptedModel], mine_name: str
) -> None:
    """The real one is told the addresses, starts a server by its Bash tool, and it is reached."""
    serve = {"command": SERVE, "run_in_background": True}
    # It waits for what it has in its background.
    stop = "until [ -e /tmp/seen ]; do sleep 0.2; done; pkill -f '[h]ttp.server'"
    wait = {"command": f"{stop}; echo $NDDT_PORT_MAP"}
    scripted = model(tool("Bash", serve), tool("Bash", wait), text(f"See http://127.0.0.1:{START}"))
    caller = here.having(ANTHROPIC_BASE_URL=scripted.url, ANTHROPIC_API_KEY=KEY)
    words = ("run", "--yolo", "--ports", "3000", "--prompt", "Serve it", "--name", mine_name)

    with ended(caller.start(*words, "--", "--append-system-prompt", "Be brief.")) as running:
        assert eventually(lambda: fetched(START), 60) == "served\n"
        done = here("shell", "--name", mine_name, "--command", "touch /tmp/seen")
        assert done.code == 0, done.said
        answer = end(running, 60)

    assert answer.code == 0, answer.said
    assert answer.lines[0] == f"See http://127.0.0.1:{START}"
    asked = scripted.conversation[0]
    system = json.dumps(asked.body["system"])
    assert f"port 3000 is http://127.0.0.1:{START}" in system
    assert "Be brief." in system
    assert f"3000:{START}" in json.dumps(scripted.conversation[2].body["messages"])


@pytest.mark.same_everywhere
def test_other_programs_ports_are_skipped(here: Caller) -> None:
    """Whatever address they listen on; a bound port that nobody listens on is theirs, too."""
    with taken(START), taken(START + 2, address="0.0.0.0"):  # noqa: S104
        assert f"3000:{START + 1},8080:{START + 3}" == mapped(here, "--ports", "3000,8080")


@pytest.mark.parametrize(
    ("words", "persistent"),
    [
        (("run", "--prompt"), "false"),
        (("shell", "--command"), "true"),
        pytest.param(("run", "--prompt"), "true", marks=pytest.mark.exhaustive),
        pytest.param(("shell", "--command"), "false", marks=pytest.mark.exhaustive),
    ],
)
def test_a_port_taken_at_the_last_moment_is_no_failure(
    here: Caller, outside: Outside, tmp_path: Path, persistent: str, words: tuple[str, str]
) -> None:
    """Another program takes it between our look and ssh's: the run begins with another one."""
    thief(tmp_path)
    caller = here.with_agent('echo "$NDDT_PORT_MAP"').having(
        PATH=f"{tmp_path}:{here.environ['PATH']}", ANTHROPIC_API_KEY=KEY, NDDT_PERSISTENT=persistent
    )

    done = caller(*words, "echo $NDDT_PORT_MAP", "--ports", "3000")

    assert (done.code, done.stdout) == (0, f"3000:{START + 1}\n".encode()), done.said
    assert (tmp_path / "taken").exists()
    (tmp_path / "taken").unlink()
    assert eventually(lambda: not listening(START) + listening(START + 1), GONE_S)
    for name in outside.sandboxes():
        assert caller("cleanup", "--name", name, "--yes").code == 0


@pytest.mark.same_everywhere
@pytest.mark.parametrize("persistent", ["false", "true"])
def test_nor_for_a_conversation(
    here: Caller, outside: Outside, tmp_path: Path, persistent: str
) -> None:
    """What the agent is told, and what is shown last, is what is open."""
    thief(tmp_path)
    caller = here.with_agent("echo I know $NDDT_PORT_MAP.; read -r x").having(
        PATH=f"{tmp_path}:{here.environ['PATH']}", ANTHROPIC_API_KEY=KEY, NDDT_PERSISTENT=persistent
    )

    with Terminal(caller, "run", "--ports", "3000") as terminal:
        assert terminal.shows(f"I know 3000:{START + 1}."), terminal.text
        assert terminal.shows(f"port 3000 is http://127.0.0.1:{START + 1}")
        assert [f"127.0.0.1:{START + 1}"] == listening(START + 1)
        terminal.type("\r")
        assert terminal.code() == 0, terminal.text
    (tmp_path / "taken").unlink()
    assert eventually(lambda: not listening(START) + listening(START + 1), GONE_S)
    for name in outside.sandboxes():
        assert caller("cleanup", "--name", name, "--yes").code == 0


@pytest.mark.same_everywhere
def test_the_plan_shows_the_ports(here: Caller) -> None:
    """Without choosing any."""
    done = here("run", "--dry", "--demo", "--prompt", "x", "--ports", "3000,8080")

    assert done.code == 0, done.said
    lines = [line for line in done.lines if line.startswith("port ")]
    where = f"at the first free port of 127.0.0.1 from {START} on"
    assert [line.split(maxsplit=1)[1] for line in lines] == [f"3000 {where}", f"8080 {where}"]


@pytest.mark.same_everywhere
@pytest.mark.parametrize(
    ("variables", "words", "message"),
    [
        ({"NDDT_PORT_RANGE_START": "65535"}, ("--ports", "1,2"), "no port of this machine from"),
        ({}, ("--ports", "70000"), "NDDT_PORTS is '70000'"),
        ({"NDDT_PORT_RANGE_START": "x"}, ("--ports", "1"), "NDDT_PORT_RANGE_START is 'x'"),
    ],
)
def test_what_cannot_be_is_said(
    here: Caller, variables: dict[str, str], words: tuple[str, ...], message: str
) -> None:
    """Before anything has been made."""
    done = here.having(**variables)("shell", *words, "--command", "true")

    assert done.code in {69, 78}
    assert message in done.said
    assert done.said.count("\n") == 1


# -- several sessions -----------------------------------------------------------------------


@pytest.mark.same_everywhere
def test_four_at_once_have_different_ports(here: Caller) -> None:
    """Each its own, whatever the others choose."""
    command = "echo $NDDT_PORT_MAP; sleep 1"
    words = ("shell", "--ports", "3000,8080", "--command", command)

    done = [end(one, 60) for one in [here.start(*words) for _ in range(4)]]

    assert [(one.code, one.said) for one in done] == [(0, "")] * 4
    found = re.findall(r":(\d+)", b"".join(one.stdout for one in done).decode())
    assert len(set(found)) == 8, found


def test_sessions_of_one_sandbox_have_their_own(kept_here: Caller) -> None:
    """One's end leaves the other's open."""
    with ended(kept_here.start("shell", "--ports", "3000", "--command", SERVE)) as running:
        assert eventually(lambda: fetched(START)) == "served\n"
        assert f"3000:{START + 1}" == mapped(kept_here, "--ports", "3000")
        assert not listening(START + 1)
        assert fetched(START) == "served\n"
        running.terminate()
        end(running)
    assert not listening(START)


def test_what_a_killed_client_leaves_open_the_next_one_closes(kept_here: Caller) -> None:
    """The kept connection has it until then."""
    with ended(kept_here.start("shell", "--ports", "3000", "--command", SERVE)) as running:
        assert eventually(lambda: fetched(START)) == "served\n"
        running.kill()
        running.wait()

    assert kept_here("ports").code == 0

    assert not listening(START)
    assert not list(kept_here.runtime.glob("p-*"))


def test_a_left_agent_finds_its_ports_again(kept_here: Caller) -> None:
    """They close when the terminal leaves, open where they were, and else it is said where."""
    agent = "echo I know $NDDT_PORT_MAP.; exec bash --norc"
    caller = kept_here.with_agent(agent).having(ANTHROPIC_API_KEY=KEY)

    with Terminal(caller, "run", "--ports", "3000") as terminal:
        assert terminal.shows(f"in the sandbox port 3000 is http://127.0.0.1:{START}")
        assert terminal.shows(f"I know 3000:{START}."), terminal.text
        terminal.type(f"({SERVE} &)\r")
        assert eventually(lambda: fetched(START)) == "served\n"
        terminal.type("\x1c")
        assert terminal.code() == 0, terminal.text
    assert not listening(START)

    for words in (("attach",), ("run", "--ports", "3000")):
        with Terminal(caller, *words) as terminal:
            assert terminal.shows(f"I know 3000:{START}."), terminal.text
            assert eventually(lambda: fetched(START)) == "served\n", terminal.text
            terminal.type("\x1c")
            assert terminal.code() == 0, terminal.text

    with taken(START), Terminal(caller, "attach") as terminal:
        assert terminal.shows(f"port {START} of this machine is in use"), terminal.text
        assert terminal.shows(f"I know 3000:{START}."), terminal.text
        assert eventually(lambda: fetched(START + 1)) == "served\n"
        terminal.type("\x1c")
        assert terminal.code() == 0, terminal.text
    assert not listening(START + 1)


# -- the task -------------------------------------------------------------------------------


def test_ports_are_shown_added_and_removed(kept_here: Caller, tmp_path: Path) -> None:
    """What is added stays while the connection does, and ends with `stop`."""
    name = kept_here.make_sandbox()
    url = f"http://127.0.0.1:{START}"
    browser = kept_here.having(BROWSER=f"sh -c 'echo %s >{tmp_path}/url'")
    caller = kept_here.having(NDDT_PORTS="")
    started = ("shell", "--command", f"setsid sh -c '{SERVE}' >/dev/null 2>&1 & sleep 1")
    assert caller(*started).code == 0

    assert [line.split() for line in caller("ports").lines] == [
        ["PORT", "URL", "LISTENS"],
        ["3000", "-", "python3"],
    ]
    for words in (("--add", "3000"), ("--add", "3000"), ("--open", "3000")):
        done = browser(kept_here.task("ports"), *words)
        assert (0, f"{url}\n", "") == (done.code, done.stdout.decode(), done.said)
    assert f"{url}\n" == (tmp_path / "url").read_text()
    assert fetched(START) == "served\n"
    assert [["3000", url, "python3"]] == [line.split() for line in caller("ports").lines[1:]]
    assert caller("ports", "--remove", "3000").stdout.decode() == f"{url}\n"
    assert not listening(START)
    assert caller("ports", "--add", "5173").code == 0
    assert [["3000", "-", "python3"], ["5173", url, "-"]] == [
        line.split() for line in caller("ports").lines[1:]
    ]
    assert caller("stop").stdout.decode() == f"{name}\n"
    assert not listening(START)


@pytest.mark.same_everywhere
def test_ports_that_cannot_be_shown_are_said(kept_here: Caller) -> None:
    """Without a sandbox, with a stopped one, with two wishes at once, with no such port."""
    missing = kept_here("ports")
    kept_here.make_sandbox()
    wrong = kept_here("ports", "--add", "70000")
    both = kept_here("ports", "--add", "1", "--remove", "2")
    closed = kept_here("ports", "--remove", "3000")
    no_browser = kept_here.having(BROWSER="false")("ports", "--open", "3000")
    with ended(kept_here.start("shell", "--ports", "8080", "--command", "sleep 100")) as running:
        assert eventually(lambda: listening(START + 1))
        theirs = kept_here("ports", "--remove", "8080")
        running.terminate()
        end(running)
    assert kept_here("stop").code == 0
    stopped = kept_here("ports")

    for done, code, message in (
        (missing, 69, "there is no sandbox"),
        (wrong, 64, "'70000' is no port — it is a port from 1 to 65535"),
        (both, 64, "exclude each other"),
        (closed, 64, "is not open — see: nddt ports"),
        (no_browser, 69, "there is no browser here"),
        (theirs, 64, "port 8080 is open for a session"),
        (stopped, 69, "does not run"),
    ):
        assert (code, 1) == (done.code, done.said.count("\n")), done.said
        assert message in done.said
