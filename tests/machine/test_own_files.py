"""The user's own files that come along, beside somebody who writes where a link leads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from scripts.agents.claude import user_files
from scripts.brings import ssh_files
from scripts.errors import ConfigError
from scripts.machine import certificates
from scripts.machine.own_files import OwnFiles

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

SECRET = "of this machine alone"
KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n"


@pytest.fixture
def home(project: Project) -> Path:
    """A home with dotfiles, in which somebody else has worked, and with secrets."""
    home = project.home
    for name in (".claude/skills/own", ".ssh", "dotfiles/commands/more", "dotfiles/skill"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / ".ssh/id_x").write_text(SECRET)
    (home / ".claude/.credentials.json").write_text(SECRET)
    (home / ".claude/CLAUDE.md").symlink_to("../dotfiles/CLAUDE.md")
    (home / "dotfiles/CLAUDE.md").write_text("mine")
    (home / ".claude/commands").symlink_to(home / "dotfiles/commands")
    (home / "dotfiles/commands/more/a.md").write_text("mine")
    (home / ".claude/skills/there").symlink_to(home / "dotfiles/skill")
    (home / "dotfiles/skill/SKILL.md").write_text("mine")
    (home / ".claude/skills/own/SKILL.md").write_text("mine")
    return home


def brought(project: Project) -> dict[str, bytes]:
    """Read the configuration."""
    return {
        name.removeprefix(".claude/"): content
        for name, content in all_brought(project).items()
        if name.startswith(".claude/")
    }


def all_brought(project: Project) -> dict[str, bytes]:
    """Read the configuration, with what is made of its values."""
    found, _ = user_files.read_configuration(project.load(), "/home/nddt")
    return {name: file.content for name, file in found.files.items()}


def test_dotfiles_come_along(project: Project, home: Path) -> None:
    """By a link to a file, to a directory, and to one among others."""
    found = brought(project)

    assert set(found) == {
        *("CLAUDE.md", "commands/more/a.md", "skills/there/SKILL.md", "skills/own/SKILL.md"),
    }
    assert home.exists()


def _key(home: Path) -> None:
    (home / "dotfiles/commands/k.md").symlink_to(home / ".ssh/id_x")


def _login(home: Path) -> None:
    (home / "dotfiles/commands/c.md").symlink_to("../../.claude/.credentials.json")


def _environment(home: Path) -> None:
    (home / "dotfiles/commands/e.md").symlink_to("/proc/self/environ")


def _directory(home: Path) -> None:
    (home / "dotfiles/commands").rename(home / "dotfiles/old")
    (home / "dotfiles/commands").symlink_to(home / ".ssh")


def _directory_above(home: Path) -> None:
    (home / "dotfiles/skill/SKILL.md").unlink()
    (home / "dotfiles/skill/SKILL.md").symlink_to("/etc/passwd")


def _file(home: Path) -> None:
    (home / "dotfiles/CLAUDE.md").unlink()
    (home / "dotfiles/CLAUDE.md").symlink_to(home / ".ssh/id_x")


def _hard_link(home: Path) -> None:
    os.link(home / ".claude/.credentials.json", home / "dotfiles/commands/h.md")


def _setting(home: Path) -> None:
    text = '{"statusLine": {"type": "command", "command": "jq . ~/.claude/.credentials.json"}}'
    (home / ".claude/settings.json").write_text(text)


def _pipe(home: Path) -> None:
    os.mkfifo(home / "dotfiles/commands/p.md")


def _settings_file(home: Path) -> None:
    login = home / ".claude/.credentials.json"
    login.write_text(f'{{"claudeAiOauth": {{"refreshToken": "{SECRET}"}}}}')
    (home / "dotfiles/settings.json").symlink_to(login)
    (home / ".claude/settings.json").symlink_to(home / "dotfiles/settings.json")


def _state_file(home: Path) -> None:
    (home / ".tools.json").write_text(f'{{"mcpServers": {{"a": {{"type": "{SECRET}"}}}}}}')
    (home / "dotfiles/state.json").symlink_to(home / ".tools.json")
    (home / ".claude.json").symlink_to(home / "dotfiles/state.json")


@pytest.mark.parametrize(
    "attack",
    [
        _settings_file,
        _state_file,
        _key,
        _login,
        _environment,
        _directory,
        _directory_above,
        _file,
        _hard_link,
        _setting,
        _pipe,
    ],
)
def test_no_other_file_comes_along(
    project: Project,
    home: Path,
    attack: object,
) -> None:
    """Whatever is put where the user's own link leads, or the settings name."""
    assert callable(attack)
    attack(home)

    found = brought(project)

    assert SECRET.encode() not in b"".join(all_brought(project).values())
    assert b"root:" not in b"".join(found.values())
    assert b"HOME=" not in b"".join(found.values())
    assert "skills/own/SKILL.md" in found


def test_a_top_that_is_a_link(home: Path) -> None:
    """Is followed; then no link in it is, for it may be where others write."""
    (home / "dotfiles/top/commands").mkdir(parents=True)
    (home / "dotfiles/top/commands/a.md").write_text("mine")
    (home / "dotfiles/top/k.md").symlink_to(home / ".ssh/id_x")
    (home / ".other").symlink_to("dotfiles/top")
    own = OwnFiles(home / ".other", home)

    assert own.read("commands/a.md", 9)[0] == b"mine"
    with pytest.raises(OSError, match="no regular file"):
        own.read("k.md", 99)

    (home / "dotfiles/top").rename(home / "dotfiles/old")
    (home / "dotfiles/notes").mkdir()
    (home / "dotfiles/notes/README.md").write_text(SECRET)
    (home / "dotfiles/top").symlink_to("notes")
    with pytest.raises(OSError, match="Not a directory"):
        own.read("README.md", 99)
    with pytest.raises(OSError, match="Not a directory"):
        OwnFiles(home / ".other", home).read("README.md", 99)


def test_settings_by_a_link(project: Project, home: Path) -> None:
    """As dotfiles have it: by a link of the user's they come along."""
    (home / "dotfiles/settings.json").write_text('{"model": "mine"}')
    (home / ".claude/settings.json").symlink_to(home / "dotfiles/settings.json")

    assert b'{"model": "mine"}' in all_brought(project).values()


def test_ssh(home: Path) -> None:
    """`known_hosts` may be a link, and not to a key by a link of others."""
    (home / ".ssh/known_hosts").symlink_to(home / "dotfiles/known_hosts")
    (home / "dotfiles/known_hosts").write_text("a host")
    assert ssh_files._read(home / ".ssh/known_hosts") == b"a host"

    (home / "dotfiles/known_hosts").unlink()
    (home / "dotfiles/known_hosts").symlink_to(home / ".ssh/id_x")

    assert ssh_files._read(home / ".ssh/known_hosts") == b""


def test_certificates(tmp_path: Path) -> None:
    """Of what NDDT_CA_CERTS names, certificates alone go into an image."""
    certificate = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"
    (tmp_path / "a.pem").write_text(f"Subject: CN=a\n{certificate}-----BEGIN X509 CRL-----\n")
    (tmp_path / "c.txt").write_text(KEY)
    assert certificates.read_certificates(tmp_path, tmp_path, is_chosen=True) == certificate

    (tmp_path / "b.pem").write_text(KEY)
    with pytest.raises(ConfigError, match=r"b\.pem holds a private key"):
        certificates.read_certificates(tmp_path, tmp_path, is_chosen=True)
