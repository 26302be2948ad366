"""A Docker container and a Daytona sandbox of one name: neither is taken for the other."""

from __future__ import annotations

import os
import pwd
import socket
from typing import TYPE_CHECKING

import pytest

from tests.daytona_double import DaytonaDouble, Row
from tests.integration.conftest import HOST
from tests.integration.contract import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.contract import Caller, Cloud, Done

PROVIDERS = ("docker", "daytona")


@pytest.fixture
def callers(cloud: Cloud, mine_name: str) -> Iterator[dict[str, Caller]]:
    """Somebody who has both, with a copy of the directory in each."""
    known = {"NDDT_NAME": mine_name, "NDDT_PERSISTENT": "true", "NDDT_WORKSPACE": "sync"}
    state = str(cloud.caller.directory.parent / f"state-{mine_name}")
    known["XDG_STATE_HOME"] = state
    made = {one: cloud.caller.having(**known, NDDT_PROVIDER=one) for one in PROVIDERS}
    yield made
    for one in made.values():
        assert one("cleanup", "--name", mine_name, "--yes").code == 0
    assert eventually(lambda: not list(cloud.caller.runtime.glob("s-*")), 5)


def shell(caller: Caller, command: str) -> Done:
    """Run a command, which has nothing to complain about."""
    done = caller("shell", "--command", command)
    assert done.code == 0, done.said
    return done


def test_one_name_at_two_providers(callers: dict[str, Caller]) -> None:
    """Each has its own connection, ports and copy."""
    here = callers["docker"].directory
    for one in PROVIDERS:
        shell(callers[one], f"echo {one} >/tmp/which; echo {one} >from-{one}")
    (here / "shared").write_text("here\n")
    opened = {}
    for one in PROVIDERS:
        done = shell(callers[one], "cat /tmp/which shared; cat from-*; echo more >>shared")
        assert done.lines == [one, "here", *("more",) * PROVIDERS.index(one), "daytona", "docker"]
        assert "both here and in the sandbox" not in done.said
        opened[one] = callers[one]("ports", "--add", "3000").lines
    assert opened["docker"] != opened["daytona"]
    for one in PROVIDERS:
        _, row = callers[one]("ports").lines
        assert row.split() == ["3000", *opened[one], "-"]
    assert (here / "shared").read_text() == "here\nmore\nmore\n"

    assert callers["docker"]("stop").code == 0
    assert shell(callers["daytona"], "cat /tmp/which").lines == ["daytona"]
    assert len(callers["daytona"]("ports").lines) == 2


def test_a_task_after_a_clean_up_of_many(cloud: Cloud, workspace: Path, tmp_path: Path) -> None:
    """Is about the caller's directory, whatever the threads that removed sandboxes did."""
    owner = f"{pwd.getpwuid(os.getuid()).pw_name}@"
    owner += HOST if os.getuid() == 0 else socket.gethostname()
    labels = {"nddt": "persistent", "nddt.created": "1", "nddt.owner": owner}
    with DaytonaDouble(minute_s=1.0) as double:
        double.add_sandboxes([Row(name=f"box-{i}", labels=labels) for i in range(24)])
        (workspace / "mark").touch()
        # The directory is shown here, and what nddt keeps is shown to no sandbox.
        caller = cloud.caller.having(
            **double.environ, NDDT_WORKSPACE="", XDG_STATE_HOME=str(tmp_path)
        )
        look = "cd /workspace; ls mark"

        done = caller("daytona.cleanup", "--all", "--yes", "docker.shell", "--command", look)

        assert (done.code, done.lines[-1]) == (0, "mark"), done.said
        assert len(done.lines) == 25
        assert not double.sandboxes()
