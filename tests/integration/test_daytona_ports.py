"""Ports of a sandbox in the cloud: Daytona's own addresses, and connections that break."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.contract import Terminal, end, ended, eventually
from tests.integration.test_contract_ports import SERVE, START, fetched, listening, taken

if TYPE_CHECKING:
    from tests.integration.contract import Caller, Cloud


def test_a_preview_is_a_signed_address(cloud: Cloud) -> None:
    """For an hour, or as long as it is said."""
    caller = cloud.caller
    assert caller("daytona.create-sandbox").code == 0
    cloud.double.forget_requests()

    for words, seconds in (((), "3600"), (("--minutes", "1440"), "86400")):
        done = caller("daytona.preview", "--port", "3000", *words)
        assert (done.code, done.said) == (0, "")
        assert re.fullmatch(r"http://3000-\w+\.localhost:\d+\n", done.stdout.decode())
        asked = cloud.double.requests()[-1]
        assert asked.path.endswith("/ports/3000/signed-preview-url")
        assert asked.query["expiresInSeconds"] == (seconds,)


def test_what_has_no_preview_is_said(cloud: Cloud) -> None:
    """A port or a time that cannot be, and a sandbox that does not run."""
    missing = cloud.caller("daytona.preview", "--port", "3000")
    assert cloud.caller("daytona.create-sandbox").code == 0
    assert cloud.caller("daytona.stop").code == 0

    for done, code, message in (
        (missing, 69, "there is no sandbox"),
        (cloud.caller("daytona.preview"), 64, "it is not said which port"),
        (cloud.caller("daytona.preview", "--port", "x"), 64, "'x' is no port"),
        (
            cloud.caller("daytona.preview", "--port", "1", "--minutes", "1441"),
            64,
            "'1441' minutes are not possible",
        ),
        (cloud.caller("daytona.preview", "--port", "1"), 69, "does not run (stopped)"),
    ):
        assert (code, 1) == (done.code, done.said.count("\n")), done.said
        assert message in done.said


def having_ports(caller: Caller, persistent: str) -> Caller:
    """Open a port in each session."""
    more = {"NDDT_PORTS": "3000", "NDDT_PORT_RANGE_START": str(START)}
    return caller.having(NDDT_PERSISTENT=persistent, **more)


@pytest.mark.parametrize("persistent", ["false", "true"])
def test_a_port_comes_back_with_the_connection(cloud: Cloud, persistent: str) -> None:
    """If somebody has taken it meanwhile that is said, and the run goes on."""
    caller = having_ports(cloud.agent(f"{SERVE} & cat; echo end; kill %1"), persistent)
    with ended(caller.start("run", "--prompt", "x", stdin=-1)) as running:
        assert running.stdin
        assert eventually(lambda: fetched(START)) == "served\n"
        cloud.double.cut_connections()
        assert eventually(lambda: not listening(START))
        assert eventually(lambda: fetched(START)) == "served\n"
        cloud.double.pause_gateway()
        cloud.double.cut_connections()
        assert eventually(lambda: not listening(START))
        with taken(START):
            cloud.double.resume_gateway()
            running.stdin.write(b"input\n")
            running.stdin.close()
            running.stdin = None
            done = end(running, 60)

    assert (done.code, done.stdout) == (0, b"input\nend\n"), done.said
    assert f"lead no longer inside: {START}" in done.said


def test_a_conversations_port_is_given_up_when_it_is_taken(cloud: Cloud) -> None:
    """The agent, which would be lost with its sandbox, goes on."""
    caller = having_ports(cloud.agent(f"({SERVE} &); echo up; read -r x; echo got $x"), "false")

    with Terminal(caller, "run") as terminal:
        assert eventually(lambda: fetched(START), 40) == "served\n", terminal.text
        cloud.double.pause_gateway()
        cloud.double.cut_connections()
        assert eventually(lambda: not listening(START))
        with taken(START):
            cloud.double.resume_gateway()
            assert terminal.shows("lead no longer inside", 40), terminal.text
            assert terminal.shows("up"), terminal.text
            terminal.type("this\r")
            assert terminal.shows("got this"), terminal.text
            assert terminal.code() == 0, terminal.text
