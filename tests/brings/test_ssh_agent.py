"""The agent that lets a sandbox list and sign, in front of a real ssh-agent."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.brings import ssh_agent
from scripts.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def upstream(runtime: Path) -> Iterator[str]:
    """A real agent with the keys `work` and `home`."""
    path = runtime / "up"
    with subprocess.Popen(
        ("ssh-agent", "-D", "-a", path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as agent:
        try:
            deadline = time.monotonic() + 20
            while asked(str(path), "-l").returncode == 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            for kind, name in (("ed25519", "work"), ("ecdsa", "home")):
                file = runtime / name
                make = ("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", file)
                subprocess.run(make, check=True)
                assert asked(str(path), "-q", str(file)).returncode == 0
            yield str(path)
        finally:
            agent.terminate()


def asked(path: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ssh-add."""
    return subprocess.run(
        ("ssh-add", *words),
        env={**os.environ, "SSH_AUTH_SOCK": path},
        check=False,
        capture_output=True,
        text=True,
    )


def signed(path: str, key: Path) -> int:
    """Sign with a key that only the agent has, and give the exit code."""
    words = ("ssh-keygen", "-Y", "sign", "-n", "test", "-U", "-f", f"{key}.pub")
    return subprocess.run(
        words,
        env={**os.environ, "SSH_AUTH_SOCK": path},
        input=b"text",
        check=False,
        capture_output=True,
    ).returncode


def raw(path: str, data: bytes) -> bytes:
    """Say something to an agent, and give all of its answers."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answers = b""
        while more := client.recv(65536):
            answers += more
    return answers


def test_everything_but_listing_and_signing_is_refused(upstream: str, runtime: Path) -> None:
    """Keys can be used, not added, removed or locked; the real agent is as before."""
    path = runtime / "a" / "s"
    before = asked(upstream, "-l").stdout

    with ssh_agent.serve_ssh_agent(path, upstream, None):
        assert asked(str(path), "-l").stdout == before
        assert signed(str(path), runtime / "work") == 0
        assert asked(str(path), "-D").returncode != 0
        assert asked(str(path), "-d", str(runtime / "work")).returncode != 0
        assert asked(str(path), "-q", str(runtime / "home")).returncode != 0
        assert path.parent.stat().st_mode & 0o777 == 0o700

    assert asked(upstream, "-l").stdout == before
    assert before.count("\n") == 2
    assert not path.parent.exists()


def test_only_the_allowed_keys_are_there(upstream: str, runtime: Path) -> None:
    """Another one is neither listed nor does it sign, though its blob is known."""
    path = runtime / "s"
    chosen = ssh_agent.named(ssh_agent.keys(upstream), ("work",), "the agent")

    with ssh_agent.serve_ssh_agent(path, upstream, frozenset(one.blob for one in chosen)):
        listed = asked(str(path), "-l").stdout
        assert [line.split()[2] for line in listed.splitlines()] == ["work"]
        assert signed(str(path), runtime / "work") == 0
        assert signed(str(path), runtime / "home") != 0
    assert signed(upstream, runtime / "home") == 0


def test_names(upstream: str) -> None:
    """Are comments or fingerprints as ssh-add prints them; without any, all keys are meant."""
    keys = ssh_agent.keys(upstream)
    prints = [line.split()[1] for line in asked(upstream, "-l").stdout.splitlines()]

    assert [one.fingerprint for one in keys] == prints
    assert ssh_agent.named(keys, (), "x") == keys
    assert ssh_agent.named(keys, (prints[1], "work"), "x") == keys
    with pytest.raises(ConfigError, match=r"'nobody', which the agent does not have") as caught:
        ssh_agent.named(keys, ("work", "nobody"), "the agent")
    assert caught.value.next_step == f"there is: {prints[0]} work, {prints[1]} home"
    with pytest.raises(ConfigError) as caught:
        ssh_agent.named((), ("work",), "the agent")
    assert caught.value.next_step == "there is: no key at all"


def test_no_agent(runtime: Path) -> None:
    """Is an error that says what to do."""
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        ssh_agent.keys(str(runtime / "nobody"))
    assert "ssh-add" in caught.value.next_step
    # The one for the sandbox lists nothing, since there is nobody to ask.
    with (
        ssh_agent.serve_ssh_agent(runtime / "a" / "s", str(runtime / "nobody"), None),
        pytest.raises(UnavailableError, match="it lists no keys"),
    ):
        ssh_agent.keys(str(runtime / "a" / "s"))


def test_a_second_one_takes_the_place_of_the_first(upstream: str, runtime: Path) -> None:
    """What the first one tidies up later is not the second one's."""
    path = runtime / "a" / "s"
    with ssh_agent.serve_ssh_agent(path, upstream, None):
        second = ssh_agent.serve_ssh_agent(path, upstream, frozenset())
        second.__enter__()
    assert asked(str(path), "-l").stdout == "The agent has no identities.\n"
    second.__exit__(None, None, None)
    assert not path.exists()


@pytest.mark.parametrize(
    "message", [b"", b"\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x09\x0b"], ids=repr
)
def test_nonsense_ends_the_connection(upstream: str, runtime: Path, message: bytes) -> None:
    """And nothing else: the next client is served."""
    path = runtime / "s"
    with ssh_agent.serve_ssh_agent(path, upstream, None):
        assert raw(str(path), message) == b""
        assert len(ssh_agent.keys(str(path))) == 2


def test_each_other_kind_of_message_is_refused(upstream: str, runtime: Path) -> None:
    """Also those that no ssh-add sends: extensions, binding to a session, cards, locks."""
    path = runtime / "s"
    before = asked(upstream, "-l").stdout
    bind = struct.pack(">I", 24) + b"session-bind@openssh.com" + bytes(13)
    kinds = [one for one in range(256) if one not in {ssh_agent.LIST, ssh_agent.SIGN}]
    said = [bytes([kind]) + more for kind in kinds for more in (b"", bytes(40), bind)]

    with ssh_agent.serve_ssh_agent(path, upstream, None):
        answers = raw(str(path), b"".join(struct.pack(">I", len(one)) + one for one in said))

    assert answers == b"\0\0\0\1\5" * len(said)
    assert asked(upstream, "-l").stdout == before


def test_a_key_for_some_hosts_alone_does_not_sign(upstream: str, runtime: Path) -> None:
    """Nobody can check from a sandbox which host that is; see ssh-add(1), -h."""
    public = (runtime / "work.pub").read_text().split()
    hosts = runtime / "hosts"
    hosts.write_text(f"forge {public[0]} {public[1]}\n")
    assert asked(upstream, "-q", "-d", str(runtime / "work")).returncode == 0
    add = asked(upstream, "-q", "-H", str(hosts), "-h", "forge", str(runtime / "work"))
    assert add.returncode == 0, add.stderr

    with ssh_agent.serve_ssh_agent(runtime / "s", upstream, None):
        assert signed(str(runtime / "s"), runtime / "home") == 0
        assert signed(str(runtime / "s"), runtime / "work") != 0


@given(st.binary(min_size=1, max_size=200).filter(lambda body: body != b"\x0b"))
def test_any_other_message_is_refused(body: bytes) -> None:
    """Without a word to the real agent, which here would not even answer."""
    assert ssh_agent._answer(body, "/nowhere", None) == b"\x05"


@given(st.lists(st.tuples(st.binary(max_size=40), st.text(max_size=20))))
def test_lists(found: list[tuple[bytes, str]]) -> None:
    """Are read as they are written."""
    keys = [ssh_agent.Key(blob, comment) for blob, comment in found]
    assert list(ssh_agent._parsed(ssh_agent._listed(keys))) == keys


@given(st.binary(max_size=60))
def test_a_bad_list_is_an_error(data: bytes) -> None:
    """Of the kind that is expected."""
    with contextlib.suppress(ValueError, struct.error):
        list(ssh_agent._parsed(b"\x0c" + data))
