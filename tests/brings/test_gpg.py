"""What is found out about GPG on this machine."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.brings import gpg
from scripts.errors import ConfigError, UnavailableError
from scripts.run import background
from scripts.transport.forwards import Socket

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTING = """\
sec:u:255:22:F7B60485867F1589:1795626000:1858698000::u:::scESC:::+::ed25519:::0:
fpr:::::::::4335B471B04DE68354C337CEF7B60485867F1589:
grp:::::::::0F0F:
uid:u::::1795626000::AAAA::Ada \\x3a <ada@example.org>::::::::::0:
ssb:u:255:18:1111111111111111:1795626000::::::e:::+::cv25519::
fpr:::::::::AAAAAAAAAAAAAAAAAAAAAAAA1111111111111111:
grp:::::::::1F1F:
sec:u:255:22:2222222222222222:1795626000:::u:::scESC:::#::ed25519:::0:
fpr:::::::::BBBBBBBBBBBBBBBBBBBBBBBB2222222222222222:
grp:::::::::2F2F:
uid:u::::1795626000::AAAA::Bob <bob@example.org>::::::::::0:
ssb:e:255:22:3333333333333333:1795626000::::::s:::+::ed25519::
fpr:::::::::BBBBBBBBBBBBBBBBBBBBBBBB3333333333333333:
grp:::::::::3F3F:
ssb:u:255:22:4444444444444444:1795626000::::::s:::D2760001240103040006::ed25519::
fpr:::::::::BBBBBBBBBBBBBBBBBBBBBBBB4444444444444444:
grp:::::::::4F4F:
sec:r:255:22:5555555555555555:1795626000:::u:::sc:::+::ed25519:::0:
fpr:::::::::CCCCCCCCCCCCCCCCCCCCCCCC5555555555555555:
grp:::::::::5F5F:
"""


@pytest.fixture
def environ(runtime: Path) -> Iterator[dict[str, str]]:
    """A GPG of the test's own, without keys."""
    home = runtime / "gnupg"
    home.mkdir(mode=0o700)
    environ = {"GNUPGHOME": str(home), "HOME": str(runtime), "PATH": "/usr/bin:/bin"}
    yield environ
    subprocess.run(("gpgconf", "--kill", "all"), env=environ, check=True)


def test_secret_keys() -> None:
    """Are those that sign: good ones, whose secret part is here or on a card."""
    ada, bob = gpg.secret_keys(LISTING)
    assert str(ada) == "F7B60485867F1589 Ada : <ada@example.org>"
    assert ada.fingerprint == "4335B471B04DE68354C337CEF7B60485867F1589"
    assert [one.keygrip for one in ada.signing] == ["0F0F"]
    assert bob.fingerprint == "BBBBBBBBBBBBBBBBBBBBBBBB2222222222222222"
    assert [one.keygrip for one in bob.signing] == ["4F4F"]
    assert gpg.secret_keys("") == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ada@example.org", ["0F0F"]),
        ("4335B471B04DE68354C337CEF7B60485867F1589", ["0F0F"]),
        ("0xf7b60485867f1589", ["0F0F"]),
        ("2222222222222222", ["4F4F"]),
        ("4444444444444444", ["4F4F"]),
    ],
)
def test_a_name_means(name: str, expected: list[str]) -> None:
    """All of somebody's keys, or one."""
    (found,) = gpg.named(gpg.secret_keys(LISTING), (name,))
    assert [one.keygrip for one in found.signing] == expected


@pytest.mark.parametrize(
    "name", ["Ada", "nobody@example.org", "example.org", "867F1589", "3333333333333333", "0x", "<"]
)
def test_a_name_that_no_key_has(name: str) -> None:
    """Is an error that lists what there is."""
    with pytest.raises(ConfigError, match=f"NDDT_GPG_KEYS names '{name}', and gpg has") as caught:
        gpg.named(gpg.secret_keys(LISTING), ("ada@example.org", name))
    shown = "F7B60485867F1589 Ada : <ada@example.org>, 2222222222222222 Bob <bob@example.org>"
    assert caught.value.next_step == f"there is: {shown}"


def test_what_comes_along(environ: dict[str, str], runtime: Path) -> None:
    """The public half, and the way to what asks the agent, which is started."""
    make = ("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key")
    for name in ("Ada <ada@x.org>", "Bob <bob@x.org>"):
        subprocess.run(
            (*make, name, "ed25519", "sign"), env=environ, check=True, capture_output=True
        )
    subprocess.run(("gpgconf", "--kill", "all"), env=environ, check=True)

    brings = gpg.bring_gpg(environ, ("ada@x.org",), runtime / "a" / "s", "/tmp/nddt/x-gpg")

    assert brings.forwards == (Socket("/tmp/nddt/x-gpg", str(runtime / "a" / "s")),)
    files = b"".join(file.content for file in brings.files.values())
    assert b"BEGIN PGP PUBLIC KEY BLOCK" in files
    assert b"PRIVATE" not in files
    assert files.count(b":6:") == 1
    assert "Ada <ada@x.org>" in dict(brings.plan_lines)["gpg"]
    assert "Bob" not in str(brings)
    with background.running(brings.background_services), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(runtime / "a" / "s"))
        client.sendall(b"GETINFO version\nHAVEKEY --list\nBYE\n")
        answers = client.makefile("rb").readlines()
    assert answers[1].startswith(b"D 2.")
    assert len(answers) == 6  # a greeting, a version, one key, and that it was all


def test_no_secret_key(environ: dict[str, str]) -> None:
    """Is an error that says what to do."""
    with pytest.raises(ConfigError, match="gpg has no secret key") as caught:
        gpg.bring_gpg(environ, (), Path("/s"), "/x")
    assert "--quick-generate-key" in caught.value.next_step


def test_no_gpg(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    """Is an error that says what to do."""
    monkeypatch.setenv("PATH", str(runtime))
    with pytest.raises(UnavailableError, match="gpg is not installed here"):
        gpg.bring_gpg(environ, (), Path("/s"), "/x")


def test_gpg_that_fails(environ: dict[str, str]) -> None:
    """Is an error with gpg's own words."""
    elsewhere = {**environ, "GNUPGHOME": "/dev/null/gnupg"}
    with pytest.raises(UnavailableError, match=r"gpg does not answer: gpg: .*/dev/null/gnupg"):
        gpg.bring_gpg(elsewhere, (), Path("/s"), "/x")
