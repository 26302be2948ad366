"""Sockets at which sandboxes are served: several processes at one place, and nobody else does."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from scripts.machine import socket_server
from tests.integration.contract import eventually

ROOT = Path(__file__).parents[2]
PROCESS = """
import sys
from pathlib import Path
from scripts.machine import socket_server
word = sys.argv[2].encode()
begin = lambda: lambda one: one.sendall(word)
with socket_server.serve_clients(Path(sys.argv[1]), begin, name="it"):
    print("up", flush=True)
    sys.stdin.read()
"""


def started(path: Path, word: str) -> subprocess.Popen[bytes]:
    """Have another process serve a place."""
    process = subprocess.Popen(
        (sys.executable, "-c", PROCESS, str(path), word),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == b"up\n"
    return process


def ended(process: subprocess.Popen[bytes], *, killed: bool) -> None:
    """End it."""
    if killed:
        process.kill()
    process.communicate(timeout=30)


def heard(path: Path) -> bytes:
    """Connect, and return the word; nothing if nobody is there."""
    try:
        with closing(socket_server.connected(str(path))) as client:
            return client.recv(9)
    except OSError:
        return b""


@pytest.mark.parametrize("killed", [False, True])
def test_whoever_goes_takes_nothing_away(runtime: Path, *, killed: bool) -> None:
    """Neither the first nor the last that came, and killed ones leave nothing to the others."""
    path = runtime / "a" / "agent"
    one, two, three = (started(path, word) for word in ("one", "two", "three"))
    try:
        assert heard(path) == b"three"
        ended(one, killed=killed)
        assert heard(path) == b"three"
        ended(three, killed=killed)
        assert eventually(lambda: heard(path) == b"two")
    finally:
        for process in (one, two, three):
            ended(process, killed=False)
    assert heard(path) == b""
    assert not path.parent.exists()


def test_the_next_one_comes_after_one_that_was_killed(runtime: Path) -> None:
    """Its socket is still there, and leads nowhere."""
    path = runtime / "a" / "agent"
    ended(started(path, "one"), killed=True)
    assert heard(path) == b""

    ended(two := started(path, "two"), killed=False)

    assert two.returncode == 0
    assert not path.parent.exists()


def test_a_client_that_stays_is_let_go(runtime: Path) -> None:
    """With the block."""

    def serve(client: socket.socket) -> None:
        client.sendall(b"x")
        client.recv(1)

    path = runtime / "a" / "agent"
    with socket_server.serve_clients(path, lambda: serve, name="it"):
        client = socket_server.connected(str(path))
        client.settimeout(30)
        assert client.recv(1) == b"x"
    with client:
        assert client.recv(1) == b""


def test_what_is_costly_waits_for_a_client(runtime: Path) -> None:
    """Nothing is prepared in vain."""
    begun: list[bool] = []

    def begin() -> socket_server.Serve:
        begun.append(True)
        return lambda one: one.sendall(b"x")

    with socket_server.serve_clients(runtime / "a" / "s", begin, name="it"):
        pass
    assert not begun
    with socket_server.serve_clients(runtime / "a" / "s", begin, name="it"):
        assert heard(runtime / "a" / "s") == b"x"
    assert begun == [True]


def test_what_cannot_begin_keeps_nobody_waiting(runtime: Path) -> None:
    """Its clients hear at once that nobody is there."""

    def begin() -> socket_server.Serve:
        raise ValueError("no such certificate")

    path = runtime / "a" / "s"
    with (
        socket_server.serve_clients(path, begin, name="it"),
        socket_server.connected(str(path)) as client,
    ):
        client.settimeout(30)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_there_is_one_server_of_each_kind() -> None:
    """Whoever listens, or reads requests of HTTP, does it here; `relay.py` is a sandbox's."""
    listening, speaking = set(), set()
    for file in (ROOT / "scripts").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        name = str(file.relative_to(ROOT / "scripts"))
        if re.search(r"\.listen\(|create_server\(|socketserver", text):
            listening.add(name)
        if "h11.SERVER" in text:
            speaking.add(name)

    # The demo's model is Python's own server.
    assert listening == {
        *("machine/socket_server.py", "transport/relay.py", "demo/model_endpoint.py"),
    }
    assert speaking == {"machine/http_server.py"}


def test_it_is_a_socket_of_the_user_alone(runtime: Path) -> None:
    """Its directory is a private one."""
    path = runtime / "a" / "agent"
    with socket_server.serve_clients(path, lambda: lambda _: None, name="it"):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(path))
