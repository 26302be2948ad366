"""A sandbox without a network at a platform whose own block has holes: the wall is nddt's."""

from __future__ import annotations

import shlex
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from scripts.transport.wall import OUTSIDE
from tests.daytona_double import Row
from tests.integration.contract import KEY, Terminal, end, ended, eventually
from tests.integration.test_contract_guests import guest_of
from tests.integration.test_contract_network import attacked, listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.contract import Caller, Cloud

NETWORK = "readlink /proc/self/ns/net"
BESIDE = """
import socket
kept = []
for name in ("\\0beside", "/tmp/beside", "/var/tmp/beside", "/dev/shm/beside"):
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind(name)
    kept[-1].listen()
print("up", flush=True)
socket.socket().accept() if 0 else __import__("signal").pause()
"""
STEERING = r"""
cd ~
says='echo ran-$(readlink /proc/self/ns/net) >>/workspace/ran'
for file in .bashrc .profile .bash_profile .bash_login .zshenv .zshrc .bash_env .ssh/rc; do
    mkdir -p .ssh; echo "$says" >$file
done
echo BASH_ENV=$HOME/.bash_env >.ssh/environment
echo "ENV=$HOME/.bash_env; export ENV BASH_ENV=$ENV; $says" >>/dev/shm/nddt/env
mkdir -p bin .local/bin /workspace/bin
for name in sh bash sshd nsenter bwrap readlink flock setsid cat mkdir; do
    for place in bin .local/bin /workspace /workspace/bin; do
        printf '#!/bin/sh\n%s\nexec /usr/bin/%s "$@"\n' "$says" $name >$place/$name
        chmod +x $place/$name
    done
done
mkdir -p .nddt-outside /dev/shm/nddt
for place in .nddt-outside /dev/shm/nddt /tmp /tmp/nddt; do
    echo "1 $(readlink /proc/1/ns/net)" >$place/holder
    echo 1 >$place/served.1
done
echo "$says" >/workspace/sitecustomize.py
"""
"""Leaves whatever could have the next connection run something outside, or go there."""


@pytest.fixture
def fenced(cloud: Cloud) -> Caller:
    """Somebody who keeps a sandbox that has no network."""
    return cloud.caller.having(NDDT_NETWORK="none", NDDT_PERSISTENT="true")


@pytest.fixture
def dials(cloud: Cloud) -> Iterator[Cloud]:
    """The platform, whose dials are turned back in the end."""
    before = vars(cloud.double.options).copy()
    yield cloud
    vars(cloud.double.options).update(before)


def outside(cloud: Cloud, name: str, *command: str, user: str = "") -> str:
    """Run a command in a sandbox as the platform's daemon does, outside of the wall."""
    words = ("--user", user) if user else ()
    done = subprocess.run(
        ("docker", "exec", *words, cloud.double.container_of(name), *command),
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def disconnected(caller: Caller, cloud: Cloud) -> None:
    """Lose the kept connection, so that the next command makes one."""
    cloud.double.cut_connections()
    assert eventually(lambda: not list(caller.runtime.glob("s-*/s")))


@contextmanager
def beside(cloud: Cloud, name: str) -> Iterator[None]:
    """Have sockets outside of the wall."""
    container = cloud.double.container_of(name)
    words = ("docker", "exec", container, "python3", "-c", BESIDE)
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stdout.readline() == b"up\n"
        try:
            yield
        finally:
            running.kill()


def test_nothing_is_reached_that_the_platform_leaves_open(cloud: Cloud, fenced: Caller) -> None:
    """The gateway, the daemon and sockets beside are, from outside of the wall."""
    name = fenced.make_sandbox()
    with listening("0.0.0.0") as (port, came), beside(cloud, name):  # noqa: S104
        reach = (
            f"import socket; gateway = '{gateway(cloud, name)}'\n"
            f"for one in ((gateway, {port}), ('127.0.0.1', 2280)):\n"
            "    socket.create_connection(one, 3)\n"
            "socket.socket(socket.AF_UNIX).connect('\\0beside')\nprint('all')"
        )
        assert outside(cloud, name, "python3", "-c", reach) == "all"
        assert eventually(lambda: len(came) == 1)
        sockets = ("@beside", "/tmp/beside", "/var/tmp/beside", "/dev/shm/beside")

        found = attacked(fenced, f"{gateway(cloud, name)}:{port}", *sockets)

        assert found == []
        assert len(came) == 1


def test_only_sockets_that_a_namespace_holds(fenced: Caller) -> None:
    """Can be made: no other kind, also not past the filter, and not by a program of outside's."""
    kinds = (
        "import ctypes, socket\nmade = set()\n"
        "for family in range(64):\n"
        "    for kind in (1, 2, 3, 5):\n"
        "        try:\n            made.add(socket.socket(family, kind).family)\n"
        "        except OSError:\n            pass\n"
        "print(sorted(map(int, made)))\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.syscall(425, 1, bytes(256)), ctypes.get_errno())"
    )
    filters = "cat /proc/[0-9]*/status | grep ^Seccomp: | sort -u"

    done = fenced("shell", "--command", f"python3 -c {shlex.quote(kinds)}; {filters}")

    assert done.lines == ["[1, 2, 10, 16]", "-1 38", "Seccomp:\t2"], done.said


def gateway(cloud: Cloud, name: str) -> str:
    """Give the address of the machine as a sandbox has it."""
    return outside(cloud, name, "sh", "-c", "ip route | sed -n 's/^default via //p'").split()[0]


def test_all_ways_in_lead_behind_one_wall(cloud: Cloud, fenced: Caller) -> None:
    """Later connections, an agent in its terminal, own ssh, copies, and after a stop its home."""
    agent = fenced.having(ANTHROPIC_API_KEY=KEY).with_agent(
        f"{NETWORK}; cat </dev/tcp/127.0.0.1/8123; sleep 60"
    )
    serve = (
        "import socket; one = socket.create_server(('127.0.0.1', 8123))\n"
        "while True: one.accept()[0].send(b'hello ')"
    )
    (fenced.directory / "file").write_text("copied")
    first = fenced("shell", "--command", f'{NETWORK}; setsid -f python3 -c "{serve}" >&- 2>&-')
    assert first.code == 0, first.said
    name = next(iter(cloud.double.sandboxes()))
    assert outside(cloud, name, *NETWORK.split()) not in first.lines

    disconnected(fenced, cloud)
    second = fenced("shell", "--command", f"{NETWORK}; head -c5 </dev/tcp/127.0.0.1/8123")
    with Terminal(agent, "run") as terminal:
        assert terminal.shows(f"{first.lines[0]} hello"), terminal.text
        terminal.type("\x1c")
        assert terminal.code() == 0
    own = guest_of(fenced).ssh(name, NETWORK)
    copied = fenced("cp", "file", "sandbox:/tmp/file")
    third = fenced.having(NDDT_NETWORK="open")(
        "shell", "--name", name, "--command", f"{NETWORK}; cat /tmp/file; echo kept >~/note"
    )
    stopped = fenced("daytona.stop")
    fourth = fenced("shell", "--command", "cat ~/note; ip -o link | grep -vc ' lo: '")

    assert second.lines == [first.lines[0], "hello"]
    assert own.lines == first.lines
    assert copied.code == 0, copied.said
    assert third.lines == [first.lines[0], "copied"], third.said
    assert stopped.code == 0
    assert fourth.lines == ["kept", "0"], fourth.said
    assert outside(cloud, name, "sh", "-c", "ls ~/note /tmp/file 2>/dev/null") == ""


def test_a_run_survives_its_connection(cloud: Cloud) -> None:
    """The new one comes to where the program runs."""
    script = f"{NETWORK}; until [ -e /tmp/go ]; do sleep 0.1; done; {NETWORK}; echo end"
    caller = cloud.agent(script).having(NDDT_NETWORK="none")
    with ended(caller.start("run", "--prompt", "x")) as running:
        assert running.stdout
        first = running.stdout.readline().decode()
        name = next(iter(cloud.double.sandboxes()))
        cloud.double.cut_connections()
        outside(cloud, name, "touch", f"/home/nddt/{OUTSIDE}/tmp/go")
        done = end(running)

    assert done.code == 0, done.said
    assert done.lines == [first.strip(), "end"]


def test_the_home_of_outside_comes_along(cloud: Cloud, fenced: Caller) -> None:
    """Once, but for what is the platform's; and what is no file is not opened."""
    name = fenced.make_sandbox()
    there = "mkdir -p ~/.daytona; mkfifo ~/.daytona/one ~/two; echo here >~/three"
    outside(cloud, name, "sh", "-c", there)

    done = fenced("shell", "--command", "cd; cat three; ls -d .daytona two .profile; rm three")
    outside(cloud, name, "sh", "-c", "echo later >~/four")
    disconnected(fenced, cloud)
    again = fenced("shell", "--command", "ls ~")

    assert done.lines == ["here", ".profile", "two"], done.said
    assert again.lines == ["two"], again.said


def test_nothing_inside_steers_what_is_outside(cloud: Cloud, fenced: Caller) -> None:
    """Files that shells read, programs in the PATH, and process ids; nor does killing all."""
    assert fenced("shell", "--command", STEERING).code == 0
    name = next(iter(cloud.double.sandboxes()))
    others = outside(cloud, name, "sh", "-c", "ls ~; ps -eo args | grep -c bwrap")

    killed = fenced("shell", "--command", "kill -9 -1")
    disconnected(fenced, cloud)
    after = fenced("shell", "--command", f"{NETWORK}; ip -o link | grep -vc ' lo: '; kill -9 1; :")

    assert killed.code != 0
    assert after.lines[1:] == ["0"], after.said
    assert after.lines[0] != outside(cloud, name, *NETWORK.split())
    ran = outside(cloud, name, "cat", "/workspace/ran")  # what sessions of inside have read
    assert "ran-net:" in ran
    assert outside(cloud, name, *NETWORK.split()) not in ran
    assert outside(cloud, name, "sh", "-c", "ls ~; ps -eo args | grep -c bwrap") == others


def test_a_wall_that_cannot_be_made_again(cloud: Cloud, fenced: Caller) -> None:
    """Is no reason to go without: what has run inside may be why."""
    assert fenced("shell", "--command", "true").code == 0
    name = next(iter(cloud.double.sandboxes()))
    hide = "chmod 0 /usr/bin/bwrap; kill -9 $(sed 's/ .*//' /home/nddt/.nddt-outside/holder)"
    outside(cloud, name, "sh", "-c", hide, user="0")
    disconnected(fenced, cloud)

    done = fenced("shell", "--command", "echo ran")

    assert (done.code, done.stdout) == (69, b""), done.said
    assert "the sandbox cannot be kept from the network any more" in done.said
    assert "nddt daytona.stop, then try again" in done.said


@pytest.mark.parametrize(
    "persistent", ["false", pytest.param("true", marks=pytest.mark.exhaustive)]
)
def test_where_no_namespace_can_be_made(dials: Cloud, persistent: str) -> None:
    """The platform's block is looked at, and its holes are seen before anything runs."""
    dials.double.options.allows_namespaces = False
    caller = dials.caller.having(NDDT_NETWORK="none", NDDT_PERSISTENT=persistent)

    done = caller("shell", "--command", "echo ran")

    assert (done.code, done.stdout) == (69, b""), done.said
    assert "the sandbox has a network, though NDDT_NETWORK is none" in done.said
    assert "nddt: it reaches" in done.said
    assert "the platform's own port 2280" in done.said


@pytest.mark.parametrize("allows", [True, False], ids=["disobeys", "forbids"])
def test_neither_an_accounts_tier_nor_the_platforms_block_is_needed(
    dials: Cloud, *, allows: bool
) -> None:
    """An account that may not ask for a block, and a platform that takes the wish and does not."""
    dials.double.options.allows_blocks = allows
    dials.double.options.block_s = float("inf")
    with listening("0.0.0.0") as (port, came):  # noqa: S104
        found = attacked(dials.caller.having(NDDT_NETWORK="none"), f"172.17.0.1:{port}")

    assert (found, came) == ([], [])


def test_an_old_sandbox_is_made_anew(cloud: Cloud, fenced: Caller) -> None:
    """One that was made when the platform's block alone was trusted."""
    name = fenced.make_sandbox()
    labels = dict(cloud.double.sandboxes()[name].labels)
    assert fenced("cleanup", "--name", name, "--yes").code == 0
    assert eventually(lambda: not cloud.double.sandboxes())
    del labels["nddt.apart"]
    cloud.double.add_sandboxes([Row(name=name, labels=labels, state="started")])

    refused = fenced("shell", "--command", "echo ran")
    cloud.double.remove_behind_back(name)

    assert (refused.code, refused.stdout) == (69, b"")
    assert "allowed now: NDDT_NETWORK (environment) — --yes makes it anew" in refused.said


def test_there_is_no_preview(fenced: Caller) -> None:
    """Daytona comes by the network that is not there."""
    name = fenced.make_sandbox()

    done = fenced("daytona.preview", "--name", name, "--port", "3000")

    assert done.code == 69
    assert "has no network, so Daytona cannot show its ports" in done.said
