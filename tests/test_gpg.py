"""What is found out about GPG on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts import gpg
from scripts.errors import ConfigError, UnavailableError
from scripts.ssh import Socket

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTING = """\
sec:u:255:22:F7B60485867F1589:1795626000:1858698000::u:::scESC:::+::ed25519:::0:
fpr:::::::::4335B471B04DE68354C337CEF7B60485867F1589:
grp:::::::::0F0F:
uid:u::::1795626000::AAAA::Ada <ada@example.org>::::::::::0:
ssb:u:255:18:1111111111111111:1795626000::::::e:::+::cv25519::
fpr:::::::::AAAAAAAAAAAAAAAAAAAAAAAA1111111111111111:
sec:u:255:22:2222222222222222:1795626000:::u:::scESC:::#::ed25519:::0:
fpr:::::::::BBBBBBBBBBBBBBBBBBBBBBBB2222222222222222:
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
    """Are the primary ones, also those whose secret part is elsewhere."""
    assert gpg.secret_keys(LISTING) == (
        "4335B471B04DE68354C337CEF7B60485867F1589",
        "BBBBBBBBBBBBBBBBBBBBBBBB2222222222222222",
    )
    assert gpg.secret_keys("") == ()


def test_what_comes_along(environ: dict[str, str]) -> None:
    """The public half, and the way to the agent, which is started."""
    make = ("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "Ada")
    subprocess.run((*make, "ed25519", "sign"), env=environ, check=True, capture_output=True)
    subprocess.run(("gpgconf", "--kill", "all"), env=environ, check=True)

    brings = gpg.provision(environ, "/tmp/nddt/x-gpg")

    (socket,) = brings.forwards
    assert isinstance(socket, Socket)
    assert socket.inside == "/tmp/nddt/x-gpg"
    assert Path(socket.outside).is_socket()
    assert "extra" in socket.outside
    files = b"".join(file.content for file in brings.files.values())
    assert b"BEGIN PGP PUBLIC KEY BLOCK" in files
    assert b"PRIVATE" not in files


def test_no_secret_key(environ: dict[str, str]) -> None:
    """Is an error that says what to do."""
    with pytest.raises(ConfigError, match="gpg has no secret key") as caught:
        gpg.provision(environ, "/x")
    assert "--quick-generate-key" in caught.value.next_step


def test_no_gpg(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    """Is an error that says what to do."""
    monkeypatch.setenv("PATH", str(runtime))
    with pytest.raises(UnavailableError, match="gpg is not installed here"):
        gpg.provision(environ, "/x")


def test_gpg_that_fails(environ: dict[str, str]) -> None:
    """Is an error with gpg's own words."""
    elsewhere = {**environ, "GNUPGHOME": "/dev/null/gnupg"}
    with pytest.raises(UnavailableError, match=r"gpg does not answer: gpg: .*/dev/null/gnupg"):
        gpg.provision(elsewhere, "/x")
