"""What is read of this machine's network configuration."""

from __future__ import annotations

import base64
import logging
import os
from typing import TYPE_CHECKING

import pytest

from scripts.errors import ConfigError
from scripts.machine import certificates
from scripts.settings import host

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

KEY = "-----BEGIN EC PRIVATE KEY-----\nMAAA\n-----END EC PRIVATE KEY-----\n"


def certificate(value: int = 1) -> str:
    """Make what has the form of one: a SEQUENCE of one INTEGER."""
    body = base64.b64encode(bytes((0x30, 3, 2, 1, value))).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


CERTIFICATE = certificate()


@pytest.fixture(autouse=True)
def system_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an empty directory in place of this machine's authorities."""
    directory = tmp_path / "ca-certificates"
    directory.mkdir()
    monkeypatch.setattr(host, "SYSTEM_CA_DIRECTORY", directory)
    return directory


# -- certificate authorities ----------------------------------------------------------------


def test_no_authorities(project: Project) -> None:
    """Then nothing is said about them inside."""
    found = host.detect(project.load())

    assert found.ca_certs == ""
    assert found.session_variables() == {}
    assert found.build_args()["CA_CERTS"] == ""


def test_authorities_of_the_system(project: Project, system_authorities: Path) -> None:
    """In subdirectories, too; in the same order each time."""
    (system_authorities / "company").mkdir()
    (system_authorities / "b.crt").write_text(certificate(2))
    (system_authorities / "company" / "a.crt").write_text(certificate(3))
    (system_authorities / "readme.txt").write_text("nothing")

    found = host.detect(project.load())

    assert found.ca_certs == certificate(2) + certificate(3)
    assert base64.b64decode(found.build_args()["CA_CERTS"]).decode() == found.ca_certs
    assert set(found.session_variables()) == {
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    }


@pytest.mark.parametrize("name", ["ca.crt", "ca.pem", "ca"])
def test_chosen_file(project: Project, name: str, system_authorities: Path) -> None:
    """Of any name, in place of the system's."""
    (system_authorities / "a.crt").write_text(certificate(3))
    (project.directory / name).write_text(CERTIFICATE.rstrip())
    project.environ["NDDT_CA_CERTS"] = str(project.directory / name)

    assert host.detect(project.load()).ca_certs == CERTIFICATE


def test_chosen_directory(project: Project) -> None:
    """With files of both kinds; they do not run into each other."""
    for name in ("a.crt", "b.pem"):
        (project.directory / name).write_text(CERTIFICATE.rstrip())
    project.environ["NDDT_CA_CERTS"] = str(project.directory)

    assert host.detect(project.load()).ca_certs == CERTIFICATE * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "NDDT_CA_CERTS names .*, which does not exist", id="missing"),
        pytest.param(b"", "holds no PEM certificate", id="empty"),
        pytest.param(KEY.encode(), "holds a private key", id="key"),
        pytest.param((CERTIFICATE + KEY).encode(), "holds a private key", id="key-beside-one"),
        pytest.param(
            CERTIFICATE.replace("MAMCAQE=", "bm90IGE=").encode(), "no PEM certificate", id="text"
        ),
        pytest.param(CERTIFICATE.replace("MAMCAQE=", "MAM=").encode(), "no PEM", id="cut-off"),
        pytest.param(
            CERTIFICATE.replace("MAMCAQE=", "a: secret").encode(), "no PEM", id="other-text-in-it"
        ),
        pytest.param(b"x" * (1 << 20) + CERTIFICATE.encode(), "too much of it", id="huge"),
        pytest.param(b"\x30\x82\xff", "is no PEM certificate", id="binary"),
        pytest.param(CERTIFICATE.encode() * 2000, "a build takes 90000", id="too-big"),
    ],
)
def test_chosen_file_that_cannot_be_used(
    project: Project, content: bytes | None, message: str
) -> None:
    """Is an error before anything is built."""
    file = project.directory / "ca.crt"
    if content is not None:
        file.write_bytes(content)
    project.environ["NDDT_CA_CERTS"] = str(file)

    with pytest.raises(ConfigError, match=message) as caught:
        host.detect(project.load())

    assert caught.value.exit_code == 78


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_file_is_not_read(project: Project, tmp_path: Path, kind: str) -> None:
    """A pipe would be waited for, a device has no end, a second link may be somebody else's."""
    place = tmp_path / "authorities"
    place.mkdir()
    project.environ["NDDT_CA_CERTS"] = str(place / "a.crt" if kind == "file" else place)
    (tmp_path / "real").write_text(CERTIFICATE)
    (tmp_path / "link").symlink_to("real")
    for make in (
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("/proc/self/environ"),
        lambda path: path.symlink_to("../link"),
    ):
        make(place / "a.crt")
        with pytest.raises(ConfigError, match=r"a\.crt is no PEM certificate"):
            host.detect(project.load())
        (place / "a.crt").unlink()

    (place / "a.crt").symlink_to("../real")
    assert host.detect(project.load()).ca_certs == CERTIFICATE


def test_a_directory_of_everything(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not walked to its end."""
    monkeypatch.setattr(certificates, "MOST_FILES", 3)
    project.environ["NDDT_CA_CERTS"] = "/usr"

    with pytest.raises(ConfigError, match="/usr has more than 3 files"):
        host.detect(project.load())


def test_file_that_is_no_text_is_named(project: Project, system_authorities: Path) -> None:
    """Among many, it must be found."""
    (system_authorities / "good.crt").write_text(CERTIFICATE)
    (system_authorities / "binary.crt").write_bytes(b"\x30\x82\xff")

    with pytest.raises(ConfigError, match=r"binary\.crt"):
        host.detect(project.load())


# -- proxies and mirrors --------------------------------------------------------------------


def test_proxies(project: Project) -> None:
    """Reach the session and the build, but are no argument that stays in the image."""
    project.environ["https_proxy"] = "http://user:password@proxy:3128"

    found = host.detect(project.load())

    assert found.session_variables()["HTTPS_PROXY"] == "http://user:password@proxy:3128"
    assert "password" not in str(found.build_args())
    assert "password" not in repr(found)


@pytest.mark.parametrize("name", ["NPM_CONFIG_REGISTRY", "npm_config_registry"])
def test_npm_registry_of_the_environment(project: Project, name: str) -> None:
    """As npm itself reads it."""
    (project.home / ".npmrc").write_text("registry=http://file/\n")
    project.environ[name] = "http://mirror/npm/"

    assert host.detect(project.load()).build_args()["NPM_REGISTRY"] == "http://mirror/npm/"


def test_npm_registry_of_the_file(project: Project) -> None:
    """Not that of one scope, and never a token."""
    text = "@a:registry=http://a/\n//b/:_authToken=secret\nregistry = http://b/\n"
    (project.home / ".npmrc").write_text(text)

    found = host.detect(project.load())

    assert found.npm_registry == "http://b/"
    assert "secret" not in repr(found)


def test_pip_index_of_the_environment(project: Project) -> None:
    """As pip itself reads it."""
    project.environ["PIP_INDEX_URL"] = "http://mirror/simple"

    assert host.detect(project.load()).build_args()["PIP_INDEX_URL"] == "http://mirror/simple"


@pytest.mark.parametrize("file", [".config/pip/pip.conf", ".pip/pip.conf"])
def test_pip_index_of_a_file(project: Project, file: str) -> None:
    """But not its further ones."""
    path = project.home / file
    path.parent.mkdir(parents=True)
    path.write_text("[global]\nextra-index-url = http://other\nindex-url = http://mirror/simple\n")

    assert host.detect(project.load()).pip_index_url == "http://mirror/simple"


@pytest.mark.parametrize("name", ["NPM_CONFIG_REGISTRY", "PIP_INDEX_URL"])
@pytest.mark.parametrize("login", ["user:secret", "secret"])
def test_mirror_with_a_password(
    project: Project, caplog: pytest.LogCaptureFixture, name: str, login: str
) -> None:
    """Is left out with a warning: an image's history would show it."""
    project.environ[name] = f"https://{login}@mirror/simple"

    found = host.detect(project.load())

    assert "secret" not in repr(found)
    assert "mirror" not in str(found.build_args())
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "holds a password" in warnings[0]
    assert "secret" not in warnings[0]


def test_mirror_that_is_no_url(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Is left out with a warning, too."""
    project.environ["PIP_INDEX_URL"] = "http://[mirror/simple"

    assert host.detect(project.load()).pip_index_url == ""
    assert "pip's configuration is not a URL" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deb http://mirror/debian trixie main\n", "http://mirror/debian"),
        (
            "deb [signed-by=/a.gpg] https://mirror/x/debian/ trixie main\n",
            "https://mirror/x/debian",
        ),
        ("# deb http://old/debian trixie\nURIs: http://new/debian\n", "http://new/debian"),
        ("deb http://mirror/debian-security trixie main\n", ""),
        ("deb http://mirror/ubuntu noble main\n", ""),
    ],
    ids=["list", "options", "deb822", "security", "ubuntu"],
)
def test_apt_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    """The first archive of Debian that is not commented out."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(text)
    monkeypatch.setattr(host, "Path", lambda _etc: tmp_path)

    assert host._apt_mirror() == expected


# -- addresses of this machine --------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:11434", ("127.0.0.1", 11434)),
        ("http://127.0.0.1:11434/v1?a=b#c", ("127.0.0.1", 11434)),
        ("http://127.8.9.10:1", ("127.8.9.10", 1)),
        ("http://localhost:4000/", ("localhost", 4000)),
        ("http://LOCALHOST", ("localhost", 80)),
        ("https://localhost", ("localhost", 443)),
        ("http://[::1]:8080", ("::1", 8080)),
        ("http://[::1]", ("::1", 80)),
        ("http://user:password@localhost:1234", ("localhost", 1234)),
        ("socks5://127.0.0.1:1080", ("127.0.0.1", 1080)),
        ("http://0.0.0.0:80", None),
        ("http://10.0.0.1:80", None),
        ("http://[2001:db8::1]:80", None),
        ("https://example.com", None),
        ("http://localhost.example.com", None),
        ("http://127.0.0.1.example.com", None),
        ("http://example.com/localhost", None),
        ("http://localhost@example.com", None),
    ],
)
def test_loopback_endpoint(url: str, expected: tuple[str, int] | None) -> None:
    """Only what means this machine has one."""
    assert host.loopback_endpoint(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "localhost:80", "127.0.0.1", "http://", "http://a:b", "http://a:70000", "http://[::1"],
)
def test_address_that_is_no_url(url: str) -> None:
    """Is an error that says how to write it."""
    with pytest.raises(ConfigError, match="is not a URL") as caught:
        host.loopback_endpoint(url)

    assert caught.value.exit_code == 78
    assert caught.value.next_step


def test_address_that_is_no_url_hides_its_password() -> None:
    """Messages end up in logs."""
    with pytest.raises(ConfigError) as caught:
        host.loopback_endpoint("http://user:secret@proxy:port")

    assert "secret" not in str(caught.value)
