"""The user's own ssh, scp, sftp, rsync and git reach sandboxes by their names."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from tests.integration.contract import Caller, Done, end, ended, eventually, processes
from tests.own_ports import own_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.contract import Outside

PORT = own_port(100)


@dataclass(frozen=True, kw_only=True)
class Guest:
    """Somebody with the configuration that `ssh-config` has written."""

    caller: Caller
    config: str

    def start(self, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a program that reads the configuration."""
        program = Caller(
            provider=self.caller.provider,
            launcher=(*self.caller.launcher[:-1], words[0]),
            directory=self.caller.directory,
            environ=self.caller.environ,
        )
        return program.start(*words[1:], stdin=stdin)

    def __call__(self, *words: str, stdin: bytes | None = None) -> Done:
        """Run one."""
        with self.start(*words, stdin=subprocess.PIPE) as running:
            stdout, stderr = running.communicate(stdin or b"", 60)
        return Done(code=running.returncode, stdout=stdout, stderr=stderr)

    def ssh(self, *words: str, stdin: bytes | None = None, config: Path | None = None) -> Done:
        """Run ssh."""
        return self("ssh", "-F", str(config or self.config), *words, stdin=stdin)


def guest_of(caller: Caller) -> Guest:
    """Write the configuration."""
    done = caller("ssh-config")
    assert done.code == 0, done.said
    word, _, path = done.stdout.decode().strip().partition(" ")
    assert word == "Include"
    return Guest(caller=caller, config=path)


@pytest.fixture
def guest(kept: Caller, tmp_path: Path) -> Iterator[Guest]:
    """Somebody with a sandbox."""
    caller = kept.having(XDG_CONFIG_HOME=str(tmp_path / "config"))
    yield guest_of(caller)
    shutil.rmtree(tmp_path / "config")


def test_ssh_is_as_at_home(guest: Guest) -> None:
    """Environment, directory, arguments, stdin, exit codes and a terminal."""
    name = guest.caller.make_sandbox()
    theirs = guest.caller("shell", "--command", "echo $PATH").lines

    done = guest.ssh(name, "pwd; echo $PATH; echo $DISABLE_AUTOUPDATER; cat; exit 7", stdin=b"in\n")

    assert done.code == 7, done.said
    assert done.lines == ["/workspace", *theirs, "1", "in"]
    assert done.said == ""
    assert guest.ssh("-tt", f"{name}.nddt", "tty; kill -TERM $$").code != 0
    assert guest.ssh("-tt", f"{name}.{guest.caller.provider}", "tty").stdout.startswith(b"/dev/pts")
    assert guest.ssh("-T", name, stdin=b"echo $0 in $PWD\n").stdout == b"bash in /workspace\n"


def test_what_is_for_every_host_is_not_for_a_sandbox(guest: Guest, tmp_path: Path) -> None:
    """Neither an agent nor a display; what cannot be taken back is refused, but not -L or -R."""
    name = guest.caller.make_sandbox()
    file = tmp_path / "ssh"
    every = (
        "ForwardAgent yes\nForwardX11 yes\nForwardX11Trusted yes\nAddKeysToAgent yes\n"
        "RemoteCommand false\nProxyJump nowhere\nSetEnv LC_TOKEN=secret\nTunnel yes\n"
    )
    file.write_text(f"Include {guest.config}\nHost *\n{every}")
    socket = tmp_path / "agent"
    who = replace(guest, caller=guest.caller.having(SSH_AUTH_SOCK=str(socket), DISPLAY=":99"))
    look = "echo agent=$SSH_AUTH_SOCK display=$DISPLAY token=$LC_TOKEN; ls /tmp/ssh-*; :"
    with ended(subprocess.Popen(("ssh-agent", "-D", "-a", socket), stdout=subprocess.DEVNULL)):
        assert eventually(socket.exists)
        for more in ((), ("-A",), ("-R", "0:localhost:1")):
            done = who.ssh(*more, name, look, config=file)
            assert done.lines == ["agent= display= token="], done.said
        listed = who("ssh-add", "-l")
        assert listed.stdout == b"The agent has no identities.\n"
    file.write_text(f"{file.read_text()}RemoteForward 9000 localhost:22\n")

    done = who.ssh(name, "echo in", config=file)

    assert (done.code, done.stdout) == (255, b"")
    assert "so for a sandbox: remoteforward 9000 [localhost]:22 — put it below" in done.said


def test_nothing_of_a_sandbox_is_obeyed_by_a_terminal(guest: Guest) -> None:
    """Neither what its server says to the user's ssh, nor what is said about its end."""
    name = guest.caller.make_sandbox()
    hostile = r"\033]52;c;ZXZpbA==\007\033]0;title\007\033[2J\2332J\302\2332J\342\200\256bidi"
    evil = f"[ ! -t 2 ] && printf 'said {hostile}\\n' >&2; case $BASH_EXECUTION_STRING in "
    evil += "*nddt-sshd*|*nddt-cp*) exit 3;; esac"
    wrote = guest.caller("shell", "--command", f"echo {shlex.quote(evil)} >~/.bashrc")
    assert wrote.code == 0, wrote.said

    for done in (guest.ssh(name, "true"), guest.caller("cp", "sandbox:x", "x")):
        assert done.code != 0
        text = done.stderr.decode()
        assert not [c for c in text if not c.isprintable() and c not in "\r\n"], text


def test_a_warm_connection_asks_nobody(guest: Guest, outside: Outside) -> None:
    """The provider need not even answer."""
    name = guest.caller.make_sandbox()
    assert guest.ssh(name, "true").code == 0
    alone = Guest(caller=guest.caller.having(**outside.unreachable()), config=guest.config)

    done = alone.ssh(name, "echo warm")

    assert (done.code, done.stdout, done.said) == (0, b"warm\n", "")


def test_a_stopped_sandbox_is_started(guest: Guest, outside: Outside) -> None:
    """By the first that comes."""
    name = guest.caller.make_sandbox()
    assert guest.caller("stop").code == 0

    assert guest.ssh(name, "echo up").stdout == b"up\n"

    assert outside.sandboxes() == {name: "running"}


def test_a_running_one_of_somebodys_run_is_reached(
    nddt: Caller, mine_name: str, tmp_path: Path
) -> None:
    """By a name that does not begin as ours do; nothing of it stays when the run ends."""
    guest = guest_of(nddt.having(XDG_CONFIG_HOME=str(tmp_path)))
    name = mine_name.removeprefix("nddt-")
    words = ("shell", "--name", name, "--command", "echo up; sleep 100")

    with ended(nddt.start(*words)) as running:
        assert running.stdout
        assert running.stdout.readline() == b"up\n"
        assert guest.ssh(f"{name}.nddt", "echo reached").stdout == b"reached\n"
        running.terminate()
        end(running)


def test_several_at_once_with_ports(guest: Guest) -> None:
    """A port of its own for one of them, as ssh has it; nothing stays afterwards."""
    name = guest.caller.make_sandbox()
    serve = "cd /tmp && echo served >it && exec python3 -m http.server 3000"
    forward = f"{PORT}:localhost:3000"

    with ended(guest.start("ssh", "-F", guest.config, "-tt", "-L", forward, name, serve)):

        def answer() -> bytes:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/it", timeout=2) as got:
                    return bytes(got.read())
            except OSError:
                return b""

        assert eventually(answer) == b"served\n"
        many = [
            guest.start("ssh", "-F", guest.config, name, f"sleep 0.5; echo {i}") for i in range(6)
        ]
        assert [end(one, 60).stdout for one in many] == [f"{i}\n".encode() for i in range(6)]
    look = ("shell", "--command", "pgrep -fc '[h]ttp.server'; pgrep -fc 'sshd.*FORCE[D]'")
    assert eventually(lambda: guest.caller(*look).stdout.startswith(b"0\n"))


def test_scp_sftp_and_rsync(guest: Guest, tmp_path: Path) -> None:
    """Paths are relative to the workspace."""
    name = guest.caller.make_sandbox()
    (tmp_path / "a b").write_text("content")
    config = guest.config

    put = guest("scp", "-F", config, str(tmp_path / "a b"), f"{name}:")
    get = guest(
        "sftp", "-q", "-b", "-", "-F", config, name, stdin=f'get "a b" {tmp_path}/c\n'.encode()
    )
    sync = guest("rsync", "-a", "-e", f"ssh -F {config}", f"{tmp_path}/c", f"{name}:synced")

    assert (put.code, get.code, sync.code) == (0, 0, 0), (put.said, get.said, sync.said)
    assert (tmp_path / "c").read_text() == "content"
    look = guest.caller("shell", "--command", "cat 'a b' synced")
    assert look.stdout == b"contentcontent"


def test_git_clones_and_pushes(guest: Guest, tmp_path: Path) -> None:
    """A repository in the sandbox is a remote."""
    name = guest.caller.make_sandbox()
    make = "git init -q --bare /tmp/one.git"
    assert guest.caller("shell", "--command", make).code == 0
    caller = guest.caller.having(GIT_SSH_COMMAND=f"ssh -F {guest.config}")
    git = Guest(caller=caller, config=guest.config)
    clone = str(tmp_path / "clone")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")

    for words in (
        ("clone", "-q", f"{name}:/tmp/one.git", clone),
        ("-C", clone, *who, "commit", "-q", "--allow-empty", "-m", "first"),
        ("-C", clone, "push", "-q", "origin", "HEAD:main"),
    ):
        done = git("git", *words)
        assert done.code == 0, done.said
    log = guest.caller("shell", "--command", "git -C /tmp/one.git log --format=%s main")
    assert log.stdout == b"first\n"


def test_what_cannot_be_reached_is_said(guest: Guest, outside: Outside, tmp_path: Path) -> None:
    """On ssh's stderr, with what to do."""
    name = guest.caller.make_sandbox()
    none = guest.ssh("nddt-none", "true")
    (tmp_path / "config" / "nddt" / "ssh_key.pub").unlink()
    no_key = guest.ssh(name, "true")
    assert guest.caller("stop").code == 0
    away = Guest(caller=guest.caller.having(**outside.unreachable()), config=guest.config)
    unreachable = away.ssh(f"{name}.{guest.caller.provider}", "true")
    with outside.neighbour("nddt-neighbours"):
        theirs = guest.ssh("nddt-neighbours", "true")

    assert "nddt: there is no sandbox nddt-none — see: nddt list" in none.said
    assert "ssh_key.pub cannot be read — run: nddt ssh-config" in no_key.said
    assert f"there is no sandbox {name}" in unreachable.said
    assert "cannot be reached" in unreachable.said or "does not answer" in unreachable.said
    assert "belongs to a sandbox of somebody@else" in theirs.said
    assert {255} == {one.code for one in (none, no_key, unreachable, theirs)}


@pytest.mark.same_everywhere
def test_consent_is_needed_to_change_the_users_file(nddt: Caller, tmp_path: Path) -> None:
    """Without it the line is only printed."""
    caller = nddt.having(HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path / "config"))

    unasked = caller("ssh-config", "--install")
    assert unasked.code == 64
    assert "put it there yourself, or agree with --yes" in unasked.said
    assert not (tmp_path / ".ssh").exists()
    agreed = caller("ssh-config", "--install", "--yes")

    assert agreed.code == 0, agreed.said
    assert (tmp_path / ".ssh" / "config").read_bytes() == agreed.stdout
    assert not processes(nddt.runtime)
