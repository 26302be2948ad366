"""Choosing ports of this machine: free ones, one's own, and none that killed processes left."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from scripts.brings import ports
from scripts.brings.ports import Opening
from scripts.errors import PortTakenError, UnavailableError
from scripts.transport.forwards import OpenPort, SamePort, check_ports, without_open_ports
from tests.own_ports import own_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = own_port(200)


@pytest.fixture
def environ(runtime: Path) -> dict[str, str]:
    """An environment with a runtime directory of its own."""
    return {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime)}


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    return ended.pid


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on, at all addresses."""
    with socket.create_server(("0.0.0.0", START + 1)) as server:  # noqa: S104
        yield server.getsockname()[1]


def files(runtime: Path) -> list[str]:
    """Name what is in the runtime directory."""
    return sorted(path.name for path in (runtime / "nddt").iterdir())


def test_ports_are_free_ones_in_order(environ: dict[str, str], runtime: Path, taken: int) -> None:
    """Each wanted one once; others may have them afterwards."""
    with ports.reserved(environ, "one", (3000, 8080, 3000), start=START) as found:
        assert [(one.inside, one.outside) for one in found] == [(3000, START), (8080, taken + 1)]
        assert files(runtime) == [f"p-{START}", f"p-{taken + 1}"]
        with ports.reserved(environ, "two", (3000,), start=START) as others:
            assert [one.outside for one in others] == [taken + 2]
        assert ports.of(environ, "one") == found
        assert ports.of(environ, "two") == ()

    assert files(runtime) == []


def test_a_bound_port_is_not_free() -> None:
    """Though nobody answers there."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", START))
        assert not ports.is_free(START)
    assert ports.is_free(START)


def test_usual_ports_are_kept_if_they_are_free(environ: dict[str, str], taken: int) -> None:
    """And those that ssh could not have are not tried again."""
    usual = {3000: START + 50, 8080: taken, 9000: START}

    with ports.reserved(environ, "one", usual, start=START, usual=usual, avoided={START}) as found:
        assert [one.outside for one in found] == [START + 50, taken + 1, taken + 2]


def test_what_another_terminal_has_open_is_not_opened_twice(environ: dict[str, str]) -> None:
    """An agent that two terminals show has each of its ports once."""
    with (
        ports.reserved(environ, "one", (3000,), start=START),
        ports.reserved(environ, "one", (3000,), start=START, usual={3000: START}) as again,
    ):
        assert again == ()


def test_killed_processes_leave_nothing(environ: dict[str, str], runtime: Path, dead: int) -> None:
    """Neither does a file that nobody can read."""
    with ports.reserved(environ, "one", (3000,), start=START):
        pass
    Opening(outside=START, inside=3000, sandbox="one", pid=dead).note(environ)
    (runtime / "nddt" / "p-x").write_text("?")

    assert ports.of(environ, "one") == ()
    assert files(runtime) == []


def test_a_lasting_one_stays(environ: dict[str, str], runtime: Path) -> None:
    """Until the sandbox is forgotten."""
    with ports.reserved(environ, "one", (3000,), start=START) as (one,):
        lasting = Opening(outside=one.outside, inside=3000, sandbox="one", pid=os.getppid())
        lasting.note(environ)

    assert ports.of(environ, "one") == (lasting,)
    ports.tidy(environ)
    assert files(runtime) == [f"p-{START}"]
    ports.forget(environ, "one")
    assert files(runtime) == []


def test_no_free_port(environ: dict[str, str]) -> None:
    """Is said, with a way out."""
    with (
        pytest.raises(UnavailableError, match="from 65535 on is free") as caught,
        ports.reserved(environ, "one", (1, 2), start=65535),
    ):
        pass
    assert "NDDT_PORT_RANGE_START" in caught.value.next_step


def test_a_session_without_ports_brings_nothing() -> None:
    """No variable, no words for the agent."""
    assert ports.bring_ports(()).system_prompt_lines == ()
    assert ports.bring_ports(()).variables == {}


def test_the_map_can_be_read_again() -> None:
    """What the variable says is what was opened."""
    openings = tuple(
        Opening(outside=outside, inside=inside, sandbox="one", pid=1)
        for inside, outside in ((3000, 30000), (8080, 30001))
    )
    brings = ports.bring_ports(openings)

    assert brings.variables == {"NDDT_PORT_MAP": "3000:30000,8080:30001"}
    assert ports.read_map(brings.variables["NDDT_PORT_MAP"]) == {3000: 30000, 8080: 30001}
    assert ports.read_map("") == {}
    assert brings.forwards == (OpenPort(30000, 3000), OpenPort(30001, 8080))
    assert "port 8080 is http://127.0.0.1:30001" in brings.system_prompt_lines[0]


@pytest.mark.parametrize(
    ("errors", "is_taken"),
    [
        ("bind [127.0.0.1]:3: Address already in use\ncannot listen to port: 3", True),
        ("mux_client_forward: forwarding request failed: Port forwarding failed", True),
        ("forwarding request failed: remote port forwarding failed for listen port 3", False),
        ("Connection closed", False),
    ],
)
def test_ssh_tells_that_a_port_is_taken(errors: str, is_taken: bool) -> None:  # noqa: FBT001
    """If there is one that it could have been asked for."""
    check_ports(errors, (SamePort("127.0.0.1", 3),))
    if is_taken:
        with pytest.raises(PortTakenError):
            check_ports(errors, (SamePort("127.0.0.1", 3), OpenPort(3, 4)))
    else:
        check_ports(errors, (OpenPort(3, 4),))


def test_a_table_has_what_is_open_and_what_listens() -> None:
    """A row for each port of the sandbox."""
    one = Opening(outside=30000, inside=3000, sandbox="one", pid=1)

    assert ports.table((one,), {3000: "node", 80: "nginx"})[1:] == [
        ("80", "-", "nginx"),
        ("3000", "http://127.0.0.1:30000", "node"),
    ]


def test_ports_that_were_lost_are_given_up() -> None:
    """What the agent itself needs stays."""
    need = SamePort("127.0.0.1", 4000)

    assert without_open_ports((need, OpenPort(30000, 3000))) == (need,)
