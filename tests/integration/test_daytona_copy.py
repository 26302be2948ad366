"""A copy of the directory at Daytona, to which the connection breaks."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.integration.contract import end, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.contract import Caller, Cloud

MOMENTS = 3
"""How often a connection is cut in one action, each time later in it."""
LISTED = "find . -path ./.nddt -prune -o -type f -exec sha256sum {} +"
GROWN = "for i in $(seq 40); do head -c 250000 /dev/urandom >f$i; done"


@dataclass(frozen=True)
class Both:
    """A directory, and its copy in a container of the double's."""

    here: Path
    container: str

    def inside(self, command: str) -> str:
        """Do something to the copy."""
        words = ("docker", "exec", "-w", "/workspace", self.container, "sh", "-c", command)
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def make_many(self, caller: Caller) -> list[Path]:
        """Have many small files on both sides."""
        made = [self.here / f"g{number}" for number in range(1000)]
        for path in made:
            path.write_text(path.name)
        assert caller("push").code == 0
        return made

    def contents_there(self) -> dict[str, str]:
        """Give the copy's files: path → hash."""
        lines = [line.split("  ./", 1) for line in self.inside(LISTED).splitlines()]
        return {path: digest for digest, path in lines}

    def contents_here(self) -> dict[str, str]:
        """Give the directory's files."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.here.iterdir()
            if path.is_file()
        }


@pytest.fixture
def keeping(cloud: Cloud, tmp_path: Path) -> Caller:
    """Somebody with a copy in one sandbox for the directory."""
    known = {"NDDT_WORKSPACE": "", "NDDT_PERSISTENT": "true", "XDG_STATE_HOME": str(tmp_path)}
    return cloud.caller.having(**known)


def new_here(both: Both, caller: Caller) -> dict[str, str]:
    """Have new files to be sent."""
    del caller
    for number in range(40):
        (both.here / f"f{number}").write_bytes(os.urandom(250_000))
    return both.contents_here()


def removed_here(both: Both, caller: Caller) -> dict[str, str]:
    """Have files on both sides, of which those here are removed."""
    for path in both.make_many(caller):
        path.unlink()
    return both.contents_here()


def new_there(both: Both, caller: Caller) -> dict[str, str]:
    """Have new files to be brought."""
    del caller
    both.inside(GROWN)
    return both.contents_there()


def removed_there(both: Both, caller: Caller) -> dict[str, str]:
    """Have files on both sides, of which those there are removed."""
    both.make_many(caller)
    both.inside("rm g*")
    return both.contents_there()


@pytest.mark.parametrize(
    ("task", "prepare"),
    [
        ("push", new_here),
        ("pull", removed_there),
        pytest.param("push", removed_here, marks=pytest.mark.exhaustive),
        pytest.param("pull", new_there, marks=pytest.mark.exhaustive),
    ],
)
def test_an_exchange_survives_a_cut_connection(
    cloud: Cloud,
    keeping: Caller,
    task: str,
    prepare: Callable[[Both, Caller], dict[str, str]],
) -> None:
    """It connects again and completes; afterwards both sides are what one of them was."""
    name = keeping.make_sandbox()
    both = Both(keeping.directory, cloud.double.container_of(name))
    (both.here / "stays").write_text("stays")
    assert keeping("push").code == 0
    took, broke = 0.0, 0
    for moment in range(MOMENTS + 1):
        expected = prepare(both, keeping)
        running = keeping.start(task, "--yes", "--verbose")
        assert running.stderr
        for line in running.stderr:
            if b" answering /workspace" in line:  # now both sides are looked at
                break
        began = time.monotonic()
        if moment:
            time.sleep(took * (moment - 1) / MOMENTS)
            cloud.double.cut_connections()

        done = end(running)

        took = took or time.monotonic() - began
        broke += "connecting again" in done.said
        assert done.code == 0, done.said
        assert both.contents_here() == both.contents_there() == expected
    assert broke
    assert "stays" in both.contents_here()
    assert not list((both.here / ".nddt").glob("*"))


def test_work_behind_a_broken_network_is_fetched_later(cloud: Cloud, keeping: Caller) -> None:
    """Who does not want to wait is told how; then `pull` brings it, and the sandbox goes."""
    caller = keeping.having(NDDT_PERSISTENT="false")
    command = "echo precious >work; echo up; sleep 1000"
    running = caller.start("shell", "--command", command)
    assert running.stdout
    assert running.stdout.readline() == b"up\n"
    (name,) = cloud.ours()
    cloud.double.pause_gateway()
    cloud.double.cut_connections()
    running.send_signal(signal.SIGINT)

    done = end(running, 60)
    cloud.double.resume_gateway()

    # In the double's short minutes the sandbox may have become idle before.
    assert done.code in {74, 130}
    assert f"fetch it with: nddt pull --name {name}" in done.said
    assert not (caller.directory / "work").exists()
    pulled = caller("pull", "--name", name)
    assert pulled.code == 0, pulled.said
    assert (caller.directory / "work").read_text() == "precious\n"
    assert eventually(lambda: not cloud.ours())
