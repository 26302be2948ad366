"""Sockets of living programs below a directory: found, however they are called."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from contextlib import ExitStack, chdir
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.machine import live_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not live_sockets.TABLE.exists(), reason="it is Linux that tells")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="n", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def having() -> Iterator[ExitStack]:
    """What is open until the test ends."""
    with ExitStack() as stack:
        yield stack


def bound(having: ExitStack, path: Path | str, kind: int = socket.SOCK_STREAM) -> None:
    """Have a program that waits at a socket."""
    made = having.enter_context(socket.socket(socket.AF_UNIX, kind))
    made.bind(str(path))
    if kind != socket.SOCK_DGRAM:
        made.listen()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_what_listens(place: Path, having: ExitStack, kind: int) -> None:
    """In the directory, at any depth, and in no other."""
    deep = place / "shown" / "a b" / "c"
    deep.mkdir(parents=True)
    (place / "shown" / "a").mkdir()
    bound(having, deep / "socket", kind)

    assert live_sockets.within(place / "shown", {}) == [str(deep / "socket")]
    assert live_sockets.within(place, {}) == [str(deep / "socket")]
    assert live_sockets.within(place / "shown" / "a", {}) == []


def test_by_another_name(place: Path, having: ExitStack) -> None:
    """Through a link, and relative to the directory."""
    (place / "shown").mkdir()
    (place / "link").symlink_to("shown")
    bound(having, place / "link" / "one")
    with chdir(place / "shown"):
        bound(having, "./two")

    assert live_sockets.within(place / "shown", {}) == [
        str(place / "link" / "one"),
        str(place / "shown" / "two"),
    ]


def test_what_is_dead(place: Path) -> None:
    """A file that a program has left, or one with the name of a socket."""
    with ExitStack() as having:
        bound(having, place / "left")
        bound(having, place / "replaced")
        (place / "replaced").unlink()
        (place / "replaced").touch()
        assert live_sockets.within(place, {}) == [str(place / "left")]

    assert live_sockets.within(place, {}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSH_AUTH_SOCK", "{}"),
        ("TMUX", "{},1234,0"),
        ("DBUS_SESSION_BUS_ADDRESS", "unix:path={},guid=1;tcp:host=x"),
        ("DOCKER_HOST", "unix://{}"),
        ("ANYTHING", "{}"),
    ],
)
def test_what_a_variable_names(
    place: Path,
    having: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    """Also where no table tells, and once where one does."""
    bound(having, place / "s")
    environ = {name: value.format(place / "s"), "PATH": f"/bin:{place}"}

    known = live_sockets.within(place, environ)
    monkeypatch.setattr(live_sockets, "TABLE", place / "none")

    assert known == live_sockets.within(place, environ) == [f"{place}/s (${name})"]


def test_a_real_agent(place: Path) -> None:
    """As ssh's own, whose socket is a way to all that the user's keys open."""
    words = ("ssh-agent", "-D", "-a", str(place / "agent"))
    with subprocess.Popen(words, stdout=subprocess.PIPE) as agent:
        assert agent.stdout
        agent.stdout.readline()
        found = live_sockets.within(place, {})
        agent.terminate()

    assert found == [str(place / "agent")]
