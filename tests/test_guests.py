"""The file that leads the user's own ssh to every sandbox."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import guests


def seen(file: Path, host: str) -> dict[str, str]:
    """Ask ssh what it makes of the file for a host."""
    done = subprocess.run(
        ("ssh", "-G", "-F", str(file), host), check=False, capture_output=True, text=True
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_the_file_is_good_for_all_sandboxes_and_nobody_else(tmp_path: Path) -> None:
    """Wherever this program is; a name that could end its quotes is none of ours."""
    file = tmp_path / "config"
    launcher = tmp_path / "odd '%h $(x)" / "nddt"
    file.write_text(guests.configuration(launcher, tmp_path / "a %d key"))

    for host in ("nddt-a-1", "mine.nddt", "nddt-x.daytona"):
        assert "--pipe '%n'" in seen(file, host)["proxycommand"]
        assert seen(file, host)["user"] == "nddt"
    for host in ("example.org", "a-nddt-1", "nddt", "nddt-x'y", "nddt-x'y.nddt"):
        assert "proxycommand" not in seen(file, host), host


def test_the_pipe_is_started_as_it_was_written(tmp_path: Path) -> None:
    """Through the user's shell, with the name as one word."""
    launcher = tmp_path / "odd '%h $(touch evil)" / "nddt"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\n')
    launcher.chmod(0o755)
    file = tmp_path / "config"
    file.write_text(guests.configuration(launcher, tmp_path / "key"))

    subprocess.run(("ssh", "-F", file, "nddt-a.b_c"), check=False, capture_output=True)

    assert (tmp_path / "words").read_text() == "--pipe\nnddt-a.b_c\n"


def test_the_file_and_its_key_are_private_and_stay(tmp_path: Path) -> None:
    """A second time, the key is the same."""
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "c")}
    file = guests.write(environ, Path("/nddt"))
    key = (file.parent / "ssh_key").read_text()

    assert guests.write(environ, Path("/other")) == file
    assert (file.parent / "ssh_key").read_text() == key
    assert "/other --pipe" in file.read_text()
    for path in (file, file.parent / "ssh_key"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "ssh_config",
        "ssh_key",
        "ssh_key.pub",
    ]


def test_the_line_comes_first_and_once(tmp_path: Path) -> None:
    """Before what is there, through a link, with the file's mode."""
    kept = tmp_path / "dotfiles"
    kept.write_text("Host a\n  Port 1\n")
    kept.chmod(0o640)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").symlink_to(kept)
    line = guests.include(tmp_path / "x y")

    assert [guests.install(line, tmp_path) for _ in range(2)] == [True, False]

    assert kept.read_text() == f'Include "{tmp_path}/x y"\n\nHost a\n  Port 1\n'
    assert kept.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / ".ssh" / "config").is_symlink()


def test_the_line_makes_the_file(tmp_path: Path) -> None:
    """Private, in a private directory."""
    assert guests.install(guests.include(tmp_path / "x"), tmp_path)

    config = tmp_path / ".ssh" / "config"
    assert config.read_text() == f"Include {tmp_path}/x\n"
    assert [path.stat().st_mode & 0o777 for path in (config, config.parent)] == [0o600, 0o700]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("nddt-a", ("nddt-a", ("docker", "daytona"))),
        ("mine.nddt", ("mine", ("docker", "daytona"))),
        ("mine.daytona.nddt", ("mine", ("daytona",))),
        ("nddt-a.docker", ("nddt-a", ("docker",))),
    ],
)
def test_a_host_means_a_sandbox(host: str, expected: tuple[str, tuple[str, ...]]) -> None:
    """By its name, with a suffix for those that begin otherwise, or that two providers have."""
    assert guests.sandbox_of(host) == expected
