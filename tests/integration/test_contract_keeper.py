"""Keepers: an agent that goes on has its key by a process of this machine that goes on, too."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.contract import Caller, Terminal, eventually, keeper_of
from tests.integration.test_contract_keyless import ASK, KEY, keyless

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.contract import Daytona, Outside

AGAIN = f"trap '' HUP; echo looping; while ! [ -e /tmp/end ]; do {ASK} >&/dev/null; sleep 0.2; done"
"""An agent that asks the model again and again, until it is to end."""


@contextmanager
def model() -> Iterator[tuple[str, list[str]]]:
    """Have a model that answers anything, and what keys it has been asked with."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append(self.headers["x-api-key"])
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def is_gone(pid: int) -> bool:
    """Wait until a process has ended."""
    return eventually(lambda: not Path(f"/proc/{pid}").exists(), 30)


def asks_again(asked: list[str]) -> bool:
    """Wait until the model is asked once more than before."""
    before = len(asked)
    return eventually(lambda: len(asked) > before + 1)


@contextmanager
def left_running(caller: Caller) -> Iterator[int]:
    """Leave an agent, and give its keeper, which is gone at the block's end in any case."""
    with Terminal(caller, "run") as terminal:
        assert terminal.shows("looping"), terminal.text
        terminal.type("\x1c")
        assert terminal.code() == 0, terminal.text
    pid = keeper_of(caller)
    assert pid
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_an_agent_that_goes_on_has_its_key(kept: Caller) -> None:
    """Without any client; its keeper is seen, gives nothing away, and ends with the agent."""
    with model() as (url, asked):
        caller = keyless(kept, url).with_agent(AGAIN)
        with left_running(caller) as pid:
            assert asks_again(asked)
            assert set(asked) == {KEY}
            for name in ("environ", "cmdline"):
                assert KEY.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
            children = f"/proc/{pid}/task/{pid}/children"
            for child in Path(children).read_text().split():
                assert KEY.encode() not in Path(f"/proc/{child}/environ").read_bytes()
            files = [one for one in kept.runtime.rglob("*") if one.is_file()]
            assert [one for one in files if KEY.encode() in one.read_bytes()] == []
            assert f" {pid} " in kept(kept.task("list")).stdout.decode()

            assert kept("shell", "--command", "touch /tmp/end").code == 0
            assert is_gone(pid)
        assert not list(kept.runtime.glob("s-*/placeholder"))
        assert keeper_of(caller) is None


def test_a_lost_terminal_leaves_the_keeper(kept: Caller) -> None:
    """Who comes back finds the same one, also without a key; the agent's end is its end."""
    with model() as (url, asked):
        caller = keyless(kept, url).with_agent(AGAIN)
        with Terminal(caller, "run") as terminal:
            assert terminal.shows("looping"), terminal.text
            terminal.hang_up()
            assert terminal.code() is not None
        assert asks_again(asked)
        pid = keeper_of(caller)
        assert pid
        with Terminal(kept, "attach") as terminal:
            assert terminal.shows("looping"), terminal.text
            assert keeper_of(caller) == pid
            assert kept("shell", "--command", "touch /tmp/end").code == 0
            assert terminal.code() == 0, terminal.text
        assert is_gone(pid)


@pytest.mark.parametrize("how", ["stop", "cleanup", "kill"])
def test_a_keeper_ends_with_the_sandbox(kept: Caller, outside: Outside, how: str) -> None:
    """However that ends."""
    with model() as (url, _):
        caller = keyless(kept, url).with_agent(AGAIN)
        with left_running(caller) as pid:
            (name,) = outside.sandboxes()
            if how == "kill":
                outside.kill(name)
            else:
                words = ("--name", name, "--yes") if how == "cleanup" else ()
                assert kept(kept.task(how), *words).code == 0
            assert is_gone(pid)


def test_a_killed_keeper_is_replaced(kept: Caller) -> None:
    """By who comes back: the agent has the same placeholder at the same port."""
    with model() as (url, asked):
        caller = keyless(kept, url).with_agent(AGAIN)
        with left_running(caller) as pid:
            os.kill(pid, signal.SIGKILL)
            assert is_gone(pid)
            assert keeper_of(caller) is None
        with Terminal(caller, "attach") as terminal:
            assert terminal.shows("looping"), terminal.text
            assert asks_again(asked)
            pid = keeper_of(caller) or 0
            assert pid
            terminal.type("\x1c")
            assert terminal.code() == 0, terminal.text
        renewed = caller.having(ANTHROPIC_API_KEY=f"{KEY}-renewed")
        with Terminal(renewed, "attach") as terminal:
            assert terminal.shows("looping"), terminal.text
            assert is_gone(pid)
            assert eventually(lambda: asked[-1].endswith("-renewed"))
            assert kept("shell", "--command", "touch /tmp/end").code == 0
            assert terminal.code() == 0, terminal.text


def test_who_is_refused_ends_no_keeper(kept: Caller) -> None:
    """With another key, of a sandbox that has more than is allowed to them."""
    with model() as (url, asked):
        caller = keyless(kept, url).with_agent(AGAIN)
        with left_running(caller) as pid:
            refused = caller.having(ANTHROPIC_API_KEY=f"{KEY}-renewed", NDDT_MEMORY="1")
            with Terminal(refused, "attach") as terminal:
                assert terminal.code() == 69, terminal.text
            assert keeper_of(caller) == pid
            assert asks_again(asked)
            assert set(asked) == {KEY}


def test_one_conversation_after_another(kept: Caller) -> None:
    """Each has a keeper, also if it begins as soon as the last one has ended."""
    with model() as (url, _):
        caller = keyless(kept, url).with_agent(f"{ASK}; exit 3")
        for _ in range(3):
            with Terminal(caller, "run") as terminal:
                assert terminal.code() == 3, terminal.text
                assert "200" in terminal.text
        assert eventually(lambda: keeper_of(caller) is None)


@pytest.mark.parametrize("outside", ["daytona"], indirect=True)
def test_a_cut_connection_is_made_again(kept: Caller, outside: Daytona) -> None:
    """And the agent has its key once more."""
    with model() as (url, asked):
        caller = keyless(kept, url).with_agent(AGAIN)
        with left_running(caller) as pid:
            outside.double.cut_connections()
            assert asks_again(asked)
            assert keeper_of(caller) == pid
            assert kept("shell", "--command", "touch /tmp/end").code == 0
            assert is_gone(pid)


def test_nobody_can_look_into_it(kept: Caller) -> None:
    """Not even a program of the same user: it has no image of its memory, nor its files."""
    with model() as (url, _):
        caller = keyless(kept, url).with_agent(AGAIN)
        with left_running(caller) as pid:
            status = Path(f"/proc/{pid}/limits").read_text()
            assert [line.split()[4] for line in status.splitlines() if "core" in line] == ["0"]
            stranger = (
                "setpriv",
                "--reuid",
                str(os.getuid()),
                "--bounding-set",
                "-all",
                "--inh-caps",
                "-all",
            )
            look = ("cat", f"/proc/{pid}/environ")
            done = subprocess.run((*stranger, *look), check=False, capture_output=True)
            assert done.returncode == 1, done.stdout
