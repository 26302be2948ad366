"""The look from inside, in network namespaces that are as a provider may leave them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from scripts.network import offline

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="it makes network namespaces")

NOTHING = "ip link set lo up"
A_WAY_TO_NOWHERE = (
    f"{NOTHING}; ip link add nowhere type veth peer name else; ip link set nowhere up; "
    "ip link set else up; "
    "ip address add 198.51.100.2/24 dev nowhere; ip route add default via 198.51.100.1"
)
A_NAME_SERVER = (
    f"{A_WAY_TO_NOWHERE}; ip address add 198.51.100.53/24 dev nowhere; "
    "mount --bind $NDDT_RUN/resolv.conf /etc/resolv.conf; "
    "python3 $NDDT_RUN/server.py & sleep 1"
)
SERVER = """
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("198.51.100.53", 53))
while True:
    asked, peer = one.recvfrom(999)
    one.sendto(asked[:2] + b"\\x81\\x83" + asked[4:], peer)
"""
"""A server that knows no name, and says so."""


def succeeds(command: str, network: str, run: Path) -> bool:
    """Run a command where the network is like that."""
    (run / "resolv.conf").write_text("nameserver 198.51.100.53\n")
    (run / "server.py").write_text(SERVER)
    script = f'{network}\n{command}\ncode=$?\nkill $! 2>/dev/null\nexit "$code"'
    done = subprocess.run(
        ("unshare", "--net", "--mount", "sh", "-c", script),
        env={**os.environ, "NDDT_RUN": str(run)},
        check=False,
    )
    return done.returncode == 0


@pytest.mark.parametrize("may_have_routes", [False, True])
def test_loopback_alone(tmp_path: Path, may_have_routes: bool) -> None:  # noqa: FBT001
    """Is no network."""
    assert succeeds(offline.no_network_check(may_have_routes=may_have_routes), NOTHING, tmp_path)


def test_a_way_that_leads_nowhere(tmp_path: Path) -> None:
    """Is one too many where there should be none, and fine where all is dropped; seen once."""
    assert not succeeds(offline.no_network_check(may_have_routes=False), A_WAY_TO_NOWHERE, tmp_path)
    assert succeeds(offline.no_network_check(may_have_routes=True), A_WAY_TO_NOWHERE, tmp_path)
    assert (tmp_path / "blocked").exists()


def test_a_name_server_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a way out, even if it says that there is no such name."""
    monkeypatch.setattr(offline, "WINDOW_S", 1)

    assert not succeeds(offline.no_network_check(may_have_routes=True), A_NAME_SERVER, tmp_path)
    assert not (tmp_path / "blocked").exists()


GATEWAY = "198.51.100.1"
"""Nobody has this address, unless a test gives it."""
HOLES = {
    "a service of the gateway": f"python3 $NDDT_RUN/listen.py {GATEWAY} 8080 &",
    "a gateway that refuses": "true &",
    "the platform's daemon": "python3 $NDDT_RUN/listen.py 127.0.0.1 2280 &",
    "a name server of the gateway": f"sed -i s/198.51.100.53/{GATEWAY}/ $NDDT_RUN/server.py; "
    "python3 $NDDT_RUN/server.py &",
}
LISTEN = """
import socket, sys
one = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    one.accept()
"""


@pytest.mark.parametrize("hole", HOLES)
def test_what_a_block_leaves_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hole: str
) -> None:
    """Is a network, though nothing goes farther; the gateway is a machine."""
    monkeypatch.setattr(offline, "WINDOW_S", 1)
    (tmp_path / "listen.py").write_text(LISTEN)
    there = f"ip address add {GATEWAY}/32 dev lo; " if "gateway" in hole else ""

    network = f"{A_WAY_TO_NOWHERE}; {there}{HOLES[hole]} sleep 0.5"

    assert not succeeds(offline.no_network_check(may_have_routes=True), network, tmp_path)
    assert not (tmp_path / "blocked").exists()


def test_behind_our_own_wall(tmp_path: Path) -> None:
    """One look is enough, and it is not taken on trust."""
    inside = "export NDDT_APART=yes; python3() { false; }; "
    check = offline.no_network_check(may_have_routes=True)

    assert succeeds(f"{inside}{check}", NOTHING, tmp_path)
    assert not (tmp_path / "blocked").exists()
    assert not succeeds(f"{inside}{check}", A_WAY_TO_NOWHERE, tmp_path)


def test_a_session_that_is_ended(tmp_path: Path) -> None:
    """Says why, and leaves nothing."""
    guard = offline.guard(may_have_routes=False, setting="it's none")
    script = tmp_path / "one.sh"
    script.write_text(f"{guard}\necho ran\n")
    (tmp_path / "one.pid").write_text("1")
    (tmp_path / "one.d").mkdir()

    done = subprocess.run(
        ("unshare", "--net", "sh", "-c", f"{A_WAY_TO_NOWHERE}; exec sh {script}"),
        env={**os.environ, "NDDT_RUN": str(tmp_path), "NDDT_SESSION": str(tmp_path / "one.d")},
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (69, "")
    assert "though NDDT_NETWORK is it's none — make it anew" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["one.sh"]
