"""The file that leads the user's own ssh to every sandbox."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scripts.commands import guests
from scripts.errors import ConfigError
from scripts.machine import shown_places


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


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("ForwardAgent yes", "no"),
        ("ForwardX11 yes", "no"),
        ("ForwardX11Trusted yes", "no"),
        ("GSSAPIDelegateCredentials yes", "no"),
        ("PermitLocalCommand yes", "no"),
        ("Tunnel yes", "false"),
        ("AddKeysToAgent yes", "false"),
        ("IdentityAgent /tmp/agent", "none"),
        ("PKCS11Provider /tmp/library.so", None),
        ("CanonicalizeHostname always", "false"),
        ("SetEnv TOKEN=secret", "NDDT_GUEST=1"),
        ("RemoteCommand tmux", None),
        ("ProxyJump bastion", None),
    ],
)
def test_what_the_user_has_for_every_host_is_not_for_a_sandbox(
    tmp_path: Path, wish: str, expected: str | None
) -> None:
    """The file is read first, and hands over nothing; other hosts have what they had."""
    ours, file = tmp_path / "ours", tmp_path / "config"
    ours.write_text(guests.configuration(Path("/nddt"), tmp_path / "key"))
    file.write_text(f"{guests.include(ours)}\n\nHost *\n  {wish}\n")
    name = wish.split(maxsplit=1)[0].lower()

    for host in ("nddt-a-1", "mine.nddt"):
        assert seen(file, host).get(name) == expected
    assert seen(file, "example.org").get(name) not in {None, expected}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("RemoteForward 9000 localhost:22", "remoteforward 9000 [localhost]:22"),
        ("RemoteForward /tmp/a.sock /run/b.sock", "remoteforward /tmp/a.sock /run/b.sock"),
        ("LocalForward 5432 localhost:5432", "localforward 5432 [localhost]:5432"),
        ("DynamicForward 1080", "dynamicforward 1080"),
        ("SendEnv AWS_*", "sendenv AWS_*"),
        ("SendEnv *", "sendenv *"),
        ("SendEnv LANG LC_*", None),
        ("ControlMaster auto", None),
    ],
)
def test_what_no_option_takes_back_is_seen(
    tmp_path: Path, wish: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is for every host; what a person has for sandboxes alone is wanted."""
    ours, file = tmp_path / "ours", tmp_path / "config"
    ours.write_text(guests.configuration(Path("/nddt"), tmp_path / "key"))
    monkeypatch.setattr(guests, "_file_of_our_ssh", lambda: str(file))
    for hosts, seen_here in (("*", expected), ("nddt-*", None), ("* !nddt-* !*.nddt", None)):
        file.write_text(f"{guests.include(ours)}\n\nHost {hosts}\n  {wish}\n")
        if seen_here is None:
            guests._check_inherited("nddt-a")
            continue
        with pytest.raises(ConfigError, match="and so for a sandbox: ") as caught:
            guests._check_inherited("nddt-a")
        assert caught.value.message.endswith(f": {expected}")


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
    file = guests.write_configuration(environ, Path("/nddt"))
    key = (file.parent / "ssh_key").read_text()

    assert guests.write_configuration(environ, Path("/other")) == file
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

    assert [guests.install(line, {"HOME": str(tmp_path)}) for _ in range(2)] == [True, False]

    assert kept.read_text() == f'Include "{tmp_path}/x y"\n\nHost a\n  Port 1\n'
    assert kept.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / ".ssh" / "config").is_symlink()


@pytest.mark.parametrize("planted", ["config.nddt", "config.{pid}", ".config.nddt"])
def test_a_planted_link_is_not_followed(tmp_path: Path, planted: str) -> None:
    """Beside the file, where others could write: theirs stays, and so does what it leads to."""
    kept, shell = tmp_path / "dot", tmp_path / ".bashrc"
    kept.mkdir()
    (kept / "config").write_text("touch evil\n#")
    shell.write_text("mine")
    (kept / planted.format(pid=os.getpid())).symlink_to(shell)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").symlink_to(kept / "config")

    assert guests.install("Include x", {"HOME": str(tmp_path)})

    assert shell.read_text() == "mine"
    assert not (kept / "config").is_symlink()


@pytest.mark.parametrize(
    ("link", "target"),
    [(".ssh/config", "dot/ssh/config"), (".ssh", "dot/ssh"), (".ssh/config", "middle")],
)
def test_what_a_sandbox_could_choose_is_not_written(
    tmp_path: Path, runtime: Path, link: str, target: str
) -> None:
    """Where a link leads on the way through a directory that a sandbox was shown: it says so."""
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)}
    (tmp_path / "dot" / "ssh").mkdir(parents=True)
    (tmp_path / "dot" / "ssh" / "config").write_text("ProxyCommand evil")
    (tmp_path / "middle").symlink_to("dot/ssh/config")
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / target)
    shown_places.note_shown(environ, (tmp_path / "dot",))

    with pytest.raises(ConfigError, match=f"is reached through {tmp_path}/dot, which a sandbox"):
        guests.install("Include x", environ)

    assert (tmp_path / "dot" / "ssh" / "config").read_text() == "ProxyCommand evil"
    assert [one.name for one in (tmp_path / "dot" / "ssh").iterdir()] == ["config"]


def test_the_line_makes_the_file(tmp_path: Path) -> None:
    """Private, in a private directory."""
    assert guests.install(guests.include(tmp_path / "x"), {"HOME": str(tmp_path)})

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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ssh", "-F", "/a b", "nddt-a"), "/a b"),
        (("ssh", "-F/a", "nddt-a"), "/a"),
        (("ssh", "-vTF/a", "nddt-a"), "/a"),
        (("ssh", "-nF", "none", "nddt-a"), "none"),
        (("ssh", "-o", "Port=1", "nddt-a"), None),
    ],
)
def test_the_configuration_that_our_ssh_has(words: tuple[str, ...], expected: str | None) -> None:
    """However it was named, what it forwards to every host is looked for there."""
    assert guests.file_named([one.encode() for one in words]) == expected
