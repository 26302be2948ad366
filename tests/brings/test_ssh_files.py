"""What of ~/.ssh comes along, as the real ssh understands it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scripts.brings import ssh_files
from scripts.brings.ssh_files import PLACE

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
# Comments go
Include ~/.orbstack/ssh/config
IdentityAgent ~/agent.sock
Host forge *.forge.example
    HostName=forge.example
    Port 2222
    user "ada"
    IdentityFile ~/.ssh/work
    IdentityFile ~/.ssh/gone
    IdentitiesOnly yes
    ProxyCommand nc %h %p
    ControlPath ~/.ssh/%C
    LocalForward 8080 localhost:80
Match host secret exec "touch /tmp/x"
    HostName 10.0.0.1
Host inner
    ProxyJump forge
    HostKeyAlias inner-key
"""


def understood(config: str, host: str, file: Path) -> dict[str, str]:
    """Give the options of a host as ssh reads them."""
    file.write_text(config)
    done = subprocess.run(
        ("ssh", "-T", "-F", file, "-G", host),
        env={"NDDT_SESSION": "/s", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_hosts(tmp_path: Path) -> None:
    """Keep their address, port and user, and lose what is of this machine."""
    assert ssh_files.hosts(CONFIG) == (
        "Host forge *.forge.example\n  hostname forge.example\n  port 2222\n"
        '  user "ada"\nHost inner\n  proxyjump forge\n  hostkeyalias inner-key\n'
    )
    options = understood(ssh_files.hosts(CONFIG), "forge", tmp_path / "config")
    assert options["hostname"] == "forge.example"
    assert options["port"] == "2222"
    assert options["user"] == "ada"
    assert "proxycommand" not in options
    # What a Match says stays away, and the host after it is itself again.
    options = understood(ssh_files.hosts(CONFIG), "inner", tmp_path / "config")
    assert (options["hostname"], options["proxyjump"]) == ("inner", "forge")


def test_hosts_with_keys(tmp_path: Path) -> None:
    """Ask for the keys that come along, and for no others."""
    options = understood(ssh_files.hosts(CONFIG, ("work",)), "forge", tmp_path / "config")

    assert (options["identityfile"], options["identitiesonly"]) == (f"{PLACE}/work", "yes")
    assert "gone" not in ssh_files.hosts(CONFIG, ("work",))


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=st.text())
def test_any_text(config: str) -> None:
    """Gives lines of the known kinds only."""
    allowed = {"Host", *(f"  {word}" for word in ssh_files._KEPT)}
    for line in ssh_files.hosts(config).splitlines():
        assert line.rpartition(line.lstrip().partition(" ")[2])[0].rstrip() in allowed | {""}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A .ssh with two keys, and other things."""
    path = tmp_path / ".ssh"
    path.mkdir()
    for kind, name, comment in (
        ("ed25519", "a key", "ada at work"),
        ("ecdsa", "id_ecdsa", "home"),
    ):
        make = ("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", path / name)
        subprocess.run(make, check=True)
    (path / "authorized_keys").write_bytes((path / "id_ecdsa.pub").read_bytes())
    (path / "known_hosts").write_text("forge ssh-ed25519 AAAA\n")
    (path / "config").write_text("Host forge\n  IdentityFile ~/.ssh/id_ecdsa\n")
    (path / "certificate.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (path / "sockets").mkdir()
    os.mkfifo(path / "fifo")
    return path


def test_private_keys(directory: Path) -> None:
    """Are known by what they are; those that ssh offers unasked come first."""
    found = ssh_files.private_keys(directory)

    assert [(one.path.name, one.comment) for one in found] == [
        ("id_ecdsa", "home"),
        ("a key", "ada at work"),
    ]
    listing = subprocess.run(
        ("ssh-keygen", "-l", "-f", directory / "id_ecdsa.pub"), check=True, capture_output=True
    )
    assert found[0].fingerprint == listing.stdout.decode().split()[1]
    assert "PRIVATE" not in repr(found)
    assert not ssh_files.private_keys(directory / "nothing")


def test_a_key_without_its_public_half(directory: Path) -> None:
    """Has a fingerprint all the same."""
    (directory / "id_ecdsa.pub").unlink()
    assert ssh_files.private_keys(directory)[0].fingerprint.startswith("SHA256:")


def test_files(directory: Path) -> None:
    """Are the keys, their public halves, the hosts, and what is known of them."""
    keys = ssh_files.private_keys(directory)[:1]

    brings = ssh_files.bring_ssh_files(directory.parent, "ada", "/tmp/nddt/x-bin", keys)

    assert {path.removeprefix("session/ssh/") for path in brings.files} == {
        "config",
        "known_hosts",
        "id_ecdsa",
        "id_ecdsa.pub",
    }
    assert {file.mode for file in brings.files.values()} == {0o600}


def test_the_configuration(directory: Path) -> None:
    """Is one that ssh reads: with the keys, the known hosts, and the user of this machine."""
    keys = ssh_files.private_keys(directory)
    brings = ssh_files.bring_ssh_files(directory.parent, "ada", "/tmp/nddt/x-bin", keys)
    config = brings.files["session/ssh/config"].content.decode()

    options = understood(config, "elsewhere", directory.parent / "config")

    assert options["user"] == "ada"
    assert "/s/ssh/known_hosts" in options["userknownhostsfile"]
    assert options["identityfile"] == f"{PLACE}/a key"  # the last one
