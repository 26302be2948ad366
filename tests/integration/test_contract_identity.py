"""Who the user is, in the sandbox: SSH and GPG keys to use but not to have, git's settings."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import NETWORK_FILES
from tests.integration.contract import Caller, Terminal, end, ended, eventually
from tests.scripted_model import text, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.integration.contract import Daytona
    from tests.scripted_model import ScriptedModel

LEFT = (
    'ls -A /tmp/nddt; ls -d /dev/shm/nddt/*.d | grep -v "^$NDDT_SESSION$"; '
    "ls -A ~/.ssh 2>/dev/null; ls -A ~ | grep -E 'gnupg|git'; :"
)
"""Shell text that prints what a session has left in a sandbox, but for its own."""
SERVE = (
    'd=$(mktemp -d); echo {host} | base64 -d >"$d/host"; echo {public} >"$d/auth"; '
    'chmod 600 "$d"/*; /usr/sbin/sshd -f /dev/null -h "$d/host" -p 2222 -E "$d/log" '
    '-o ListenAddress=127.0.0.1 -o AuthorizedKeysFile="$d/auth" -o StrictModes=no '
    '-o UsePAM=no -o PidFile="$d/pid" -o Subsystem="sftp internal-sftp"; '
    'git init -q -b main "$d/repo"; git -C "$d/repo" commit -q --allow-empty -m first; '
)
"""Shell text that serves a repository with an SSH server of its own, on port 2222."""
CLONE = (
    'cd "$d"; git clone -q "$(id -un)@forge:$d/repo" copy && git -C copy log --format=%s; '
    'echo sent >file; scp -q file "$(id -un)@forge:$d/by-scp" && cat by-scp; '
    'rsync -e ssh file "$(id -un)@forge:$d/by-rsync" && cat by-rsync; '
    'kill "$(cat "$d/pid")"; cat "$d/log" | grep -i refused; cd /; rm -rf "$d"'
)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with a home, keys and an SSH agent."""

    home: Path
    environ: Mapping[str, str]
    host_key: str
    """The private key of the server that `forge` is, in base64."""

    def run(self, *argv: str | Path, given: str = "") -> str:
        """Run a program as this person."""
        done = subprocess.run(
            argv, env=self.environ, check=True, capture_output=True, text=True, input=given
        )
        return done.stdout

    def public(self, name: str) -> str:
        """Give the public half of a key."""
        return (self.home / ".ssh" / f"{name}.pub").read_text(encoding="utf-8").strip()

    def git(self, name: str, value: str) -> None:
        """Have a setting of git's."""
        self.run("git", "config", "--global", "--add", name, value)

    def serves(self, key: str) -> str:
        """Give the shell text of a server that lets one key in."""
        return SERVE.format(host=self.host_key, public=shlex.quote(self.public(key)))


@pytest.fixture
def person(base: Path) -> Iterator[Person]:
    """Ada, whose agent has the keys `work` and `home`, and who knows the host `forge`."""
    home = Path(tempfile.mkdtemp(prefix="n", dir="/tmp"))
    for name in NETWORK_FILES:
        link, original = home / name, base / "home" / name
        link.parent.mkdir(exist_ok=True)
        if original.exists():
            link.symlink_to(original.resolve())
    ssh = home / ".ssh"
    ssh.mkdir(mode=0o700)
    for name in ("work", "home", "host"):
        make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", ssh / name)
        subprocess.run(make, check=True)
    public = (ssh / "host.pub").read_text().split()
    (ssh / "known_hosts").write_text(f"[127.0.0.1]:2222 {public[0]} {public[1]}\n")
    subprocess.run(
        ("ssh-keygen", "-q", "-H", "-f", ssh / "known_hosts"), check=True, capture_output=True
    )
    (ssh / "config").write_text(
        "Host forge\n  HostName 127.0.0.1\n  Port 2222\n  ProxyCommand false\n"
        "  IdentityFile ~/.ssh/nothing\n  ControlPath ~/.ssh/c\n  IdentityAgent none\n"
    )
    host_key = base64.b64encode((ssh / "host").read_bytes()).decode()
    for path in ssh.glob("host*"):
        path.unlink()
    agent = home / "agent"
    environ = {
        **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
        "HOME": str(home),
        "SSH_AUTH_SOCK": str(agent),
        "GNUPGHOME": str(home / ".gnupg"),
    }
    with subprocess.Popen(
        ("ssh-agent", "-D", "-a", agent), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        assert eventually(agent.exists)
        made = Person(home=home, environ=environ, host_key=host_key)
        made.run("ssh-add", "-q", ssh / "work", ssh / "home")
        made.git("user.name", "Ada Örn")
        made.git("user.email", "ada@example.org")
        yield made
        running.terminate()
    subprocess.run(("gpgconf", "--kill", "all"), env=environ, check=False)
    shutil.rmtree(home)


def of(caller: Caller, person: Person, **settings: str) -> Caller:
    """Be this person, with these settings."""
    return caller.having(**{**person.environ, **settings})


# -- SSH ------------------------------------------------------------------------------------


def test_the_agent_is_used_by_git_scp_and_rsync(nddt: Caller, person: Person) -> None:
    """Hosts are known under their names, no question is asked, and no private key is inside."""
    caller = of(nddt, person, NDDT_SSH_FORWARD="agent")
    look = "; grep -rls 'PRIVATE KEY' ~ /dev/shm/nddt/*.d /workspace"

    done = caller("shell", "--command", person.serves("work") + CLONE + look)

    assert (done.stdout, done.said) == (b"first\nsent\nsent\n", "")


def test_the_agent_is_the_agents_too(
    nddt: Caller, person: Person, model: Callable[..., ScriptedModel]
) -> None:
    """The real agent's shell has the same programs and the same agent."""
    scripted = model(tool("Bash", {"command": "ssh-add -l; command -v ssh", "description": "x"}),
                     text("done"))  # fmt: skip
    caller = of(nddt, person, NDDT_SSH_FORWARD="agent", ANTHROPIC_BASE_URL=scripted.url)

    done = caller("run", "--yolo", "--prompt", "x")

    assert (done.code, done.stdout, done.stderr) == (0, b"done\n", b"")
    seen = str(scripted.conversation[-1].body)
    assert "work (ED25519)" in seen
    assert "-bin/ssh" in seen


def test_the_sandbox_only_lists_and_signs(nddt: Caller, person: Person) -> None:
    """It cannot remove, add or lock keys; only its user can reach the agent."""
    caller = of(nddt, person, NDDT_SSH_FORWARD="agent")
    before = person.run("ssh-add", "-l")
    try_all = (
        "ssh-add -D; ssh-keygen -q -t ed25519 -N '' -f ~/k; ssh-add ~/k; "
        "stat -c %a $SSH_AUTH_SOCK; stat -c %a /tmp/nddt; ssh-add -l"
    )

    done = caller("shell", "--command", try_all)

    assert done.stdout.decode() == f"600\n700\n{before}"
    assert done.said.splitlines()[0] == "Failed to remove all identities."
    assert person.run("ssh-add", "-l") == before


@pytest.mark.parametrize("by", ["comment", "fingerprint"])
def test_only_named_keys_are_there(nddt: Caller, person: Person, by: str) -> None:
    """Another one is neither listed nor signs, though the sandbox knows its public half."""
    name = {"comment": "home", "fingerprint": person.run("ssh-add", "-l").split()[5]}[by]
    caller = of(nddt, person, NDDT_SSH_FORWARD="agent", NDDT_SSH_KEYS=name)
    sign = "echo x | ssh-keygen -q -Y sign -n x -U -f"
    both = (
        f"ssh-add -l | cut -d' ' -f3; cd; echo {shlex.quote(person.public('work'))} >work.pub; "
        f"echo {shlex.quote(person.public('home'))} >home.pub; "
        f"{sign} work.pub >/dev/null || echo no; {sign} home.pub >/dev/null && echo yes"
    )

    done = caller("shell", "--command", both)

    assert done.lines == ["home", "no", "yes"], done.said


@pytest.mark.same_everywhere
def test_a_name_that_no_key_has(nddt: Caller, person: Person) -> None:
    """Is an error that lists the keys, in both ways; nothing is started."""
    for way, where in (("agent", "the SSH agent"), ("keys", str(person.home / ".ssh"))):
        caller = of(nddt, person, NDDT_SSH_FORWARD=way, NDDT_SSH_KEYS="work,nobody")
        done = caller("shell", "--command", "true")
        assert done.code == 78
        assert f"NDDT_SSH_KEYS names 'nobody', which {where} does not have" in done.said
        assert person.run("ssh-add", "-l").split()[1] in done.said
        assert len(done.said.splitlines()) == 1


@pytest.mark.same_everywhere
def test_no_agent_and_no_keys(nddt: Caller, person: Person) -> None:
    """Are errors that say what to do."""
    caller = of(nddt, person, NDDT_SSH_FORWARD="agent", SSH_AUTH_SOCK="")
    done = caller("shell", "--command", "true")
    assert (done.code, done.stdout) == (69, b"")
    assert "there is no SSH agent here" in done.said
    assert "ssh-add" in done.said
    done = caller.having(SSH_AUTH_SOCK="/nowhere")("shell", "--command", "true")
    assert (done.code, done.stdout) == (69, b"")
    assert "the SSH agent at /nowhere does not answer" in done.said
    shutil.rmtree(person.home / ".ssh")
    done = caller.having(NDDT_SSH_FORWARD="keys")("shell", "--command", "true")
    assert (done.code, done.stdout) == (78, b"")
    assert "has no private key" in done.said


@pytest.mark.same_everywhere
def test_an_agent_without_keys_is_worth_a_word(nddt: Caller, person: Person) -> None:
    """Keys that come later are there at once."""
    person.run("ssh-add", "-q", "-D")
    caller = of(nddt, person, NDDT_SSH_FORWARD="agent")
    with ended(caller.start("shell", "--command", "echo up; sleep 2; ssh-add -l")) as running:
        assert running.stdout
        assert running.stdout.readline() == b"up\n"
        person.run("ssh-add", "-q", person.home / ".ssh" / "home")
        stdout, stderr = running.communicate(timeout=30)
    assert b"home (ED25519)" in stdout
    assert stderr.decode() == "nddt: the SSH agent has no key yet — add one: ssh-add\n"


def test_copied_keys_leave_nothing(kept: Caller, person: Person) -> None:
    """They are in memory, used by git, scp and rsync, and gone with the session."""
    caller = of(kept, person, NDDT_SSH_FORWARD="keys", NDDT_SSH_KEYS="work", SSH_AUTH_SOCK="")
    caller.make_sandbox()
    look = (
        '; find / -xdev -type f -user "$(id -u)" -size -9k '
        "-exec grep -ls 'OPENSSH PRIVATE KEY' {} + 2>/dev/null"
        '; df --output=fstype "$NDDT_SESSION" | tail -1; ls "$NDDT_SESSION/ssh"'
    )

    done = caller("shell", "--command", person.serves("work") + CLONE + look)
    after = caller.having(NDDT_SSH_FORWARD="")("shell", "--command", LEFT)

    warning = "nddt: the sandbox gets a copy of these private keys: work\n"
    assert done.said == warning
    assert done.lines == [
        *("first", "sent", "sent", "tmpfs"),
        *("config", "known_hosts", "work", "work.pub"),
    ]
    assert (after.stdout, after.said) == (b"", "")


def test_nothing_is_left_of_a_killed_session(kept: Caller, person: Person) -> None:
    """Neither the way to the agent nor anything else, and the next session has its own."""
    kept.make_sandbox()
    caller = of(kept, person, NDDT_SSH_FORWARD="agent").with_agent("echo started; sleep 100")
    caller = caller.having(ANTHROPIC_API_KEY="sk-ant-x")
    running = caller.start("run", "--prompt", "x")
    assert running.stdout
    assert running.stdout.readline() == b"started\n"
    assert b"-ssh" in kept("shell", "--command", LEFT).stdout

    running.kill()
    end(running)

    assert eventually(lambda: kept("shell", "--command", LEFT).stdout == b"", 40)
    again = caller("shell", "--command", "ssh-add -l")
    assert b"work (ED25519)" in again.stdout
    assert kept("shell", "--command", LEFT).stdout == b""


def test_a_conversation_finds_the_agent_again(kept: Caller, person: Person) -> None:
    r"""After Ctrl-\ it is out of reach; with `attach` it is at the same place as before."""
    loop = 'while read -r w; do [ "$w" = end ] && exit 5; ssh-add -l 2>&1; echo "did $w"; done'
    gpg_key(person)
    caller = of(kept, person, NDDT_SSH_FORWARD="agent", NDDT_GPG_FORWARD="true")
    caller = caller.having(ANTHROPIC_API_KEY="sk-ant-x").with_agent(f"echo ready; {loop}")
    ask_gpg = "socat - UNIX-CONNECT:/tmp/nddt/agent-gpg,shut-none </dev/null | head -c 2"
    with Terminal(caller, "run") as terminal:
        assert terminal.shows("ready"), terminal.text
        terminal.type("one\r")
        assert terminal.shows("work (ED25519)"), terminal.text
        assert kept("shell", "--command", ask_gpg).stdout == b"OK"
        terminal.type("\x1c")
        assert terminal.code() == 0
    gone = kept("shell", "--command", "SSH_AUTH_SOCK=/tmp/nddt/agent-ssh ssh-add -l")
    assert gone.code != 0, gone
    assert kept("shell", "--command", ask_gpg).stdout == b""
    for word in ("two", "end"):
        with Terminal(caller, "attach") as terminal:
            assert terminal.shows("did"), terminal.text
            terminal.forget()
            terminal.type(f"{word}\r")
            if word == "end":
                assert terminal.code() == 5, terminal.text
            else:
                assert terminal.shows("home (ED25519)"), terminal.text
                terminal.process.kill()
    assert kept("shell", "--command", LEFT).stdout == b""
    # The connection still knows the way that the sandbox has removed.
    with Terminal(caller, "run") as terminal:
        assert terminal.shows("ready"), terminal.text
        terminal.type("three\r")
        assert terminal.shows("work (ED25519)"), terminal.text
        terminal.type("end\r")
        assert terminal.code() == 5, terminal.text


@pytest.mark.parametrize("outside", ["daytona"], indirect=True)
@pytest.mark.parametrize("persistent", ["false", "true"])
def test_the_agent_survives_a_cut_connection(
    nddt: Caller, outside: Daytona, person: Person, persistent: str
) -> None:
    """It is at the same place over the new connection."""
    caller = of(nddt, person, NDDT_SSH_FORWARD="agent", NDDT_PERSISTENT=persistent)
    caller = caller.having(ANTHROPIC_API_KEY="sk-ant-x")
    script = (
        "ssh-add -l | tail -1; sleep 4; for i in 1 2 3 4 5; do ssh-add -l && exit; sleep 1; done"
    )
    with ended(caller.with_agent(script).start("run", "--prompt", "x")) as running:
        assert running.stdout
        assert b"home (ED25519)" in running.stdout.readline()
        outside.double.cut_connections()
        stdout, _ = running.communicate(timeout=60)
    assert b"work (ED25519)" in stdout
    if persistent == "true":
        (name,) = outside.sandboxes()
        assert nddt("cleanup", "--name", name, "--yes").code == 0


# -- GPG ------------------------------------------------------------------------------------


def gpg_key(person: Person) -> str:
    """Make a key without a passphrase, and give its fingerprint."""
    (person.home / ".gnupg").mkdir(mode=0o700)
    who = "Ada Örn <ada@example.org>"
    make = ("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", who)
    person.run(*make, "ed25519", "sign")
    listing = person.run("gpg", "--batch", "--with-colons", "--list-secret-keys")
    return listing.split("fpr:::::::::")[1].split(":")[0]


def test_a_signature_of_the_sandbox_verifies_here(
    kept: Caller, person: Person, tmp_path: Path
) -> None:
    """The agent here signs; the secret key is not inside, and nothing stays there."""
    key = gpg_key(person)
    person.git("user.signingkey", key)
    person.git("commit.gpgsign", "true")
    caller = of(kept, person, NDDT_GPG_FORWARD="true")
    caller.make_sandbox()
    sign = (
        "cd ~; git init -q r; git -C r commit -q --allow-empty -m signed; "
        "git -C r bundle create -q - HEAD | base64 -w0; rm -rf r; echo; "
        "gpg --batch --armor --export-secret-keys 2>/dev/null | wc -c; "
        'find / -xdev -name "private-keys*" -user "$(id -u)" 2>/dev/null; '
        'find "$GNUPGHOME" -name "private-keys*"; pgrep -c gpg-agent; ls -A ~ | grep gnupg'
    )

    done = caller("shell", "--command", sign)

    assert (done.lines[1:], done.said) == (["0", "0"], "")
    (tmp_path / "b").write_bytes(base64.b64decode(done.lines[0]))
    person.run("git", "clone", "-q", tmp_path / "b", tmp_path / "r")
    shown = person.run("git", "-C", tmp_path / "r", "log", "-1", "--format=%G? %GF %an %ae")
    assert shown == f"G {key} Ada Örn ada@example.org\n"
    assert kept("shell", "--command", LEFT).stdout == b""


def test_the_gpg_agent_only_signs_and_with_named_keys(nddt: Caller, person: Person) -> None:
    """What is encrypted to the user stays so, asked by gpg or by hand; another key is not there."""
    key = gpg_key(person)
    make = ("gpg", "--batch", "--quiet", "--passphrase", "")
    person.run(*make, "--quick-add-key", key, "cv25519", "encr")
    person.run(*make, "--quick-generate-key", "Home <home@example.org>", "ed25519", "sign")
    hide = ("gpg", "--batch", "--armor", "--trust-model", "always", "-e", "-r", key)
    hidden = person.run(*hide, given="text\n")
    assert person.run("gpg", "--batch", "--quiet", "-d", given=hidden) == "text\n"
    listing = person.run("gpg", "--batch", "--with-colons", "--with-keygrip", "-K")
    grips = [line.split(":")[9] for line in listing.splitlines() if line.startswith("grp")]
    said = "".join(f"SETKEY {one}\nSIGKEY {one}\nPKDECRYPT\n" for one in grips)
    caller = of(nddt, person, NDDT_GPG_FORWARD="true", NDDT_GPG_KEYS="ada@example.org")
    attack = (
        f"echo {shlex.quote(hidden)} | gpg --batch --quiet -d 2>/dev/null; echo $?; "
        f"echo {shlex.quote(said + 'EXPORT_KEY ' + grips[0])} | "
        "socat -t 20 - UNIX-CONNECT:$(echo /tmp/nddt/*-gpg) | cut -d' ' -f1,3-4; "
        "for one in ada home; do "
        "echo x | gpg --batch -u $one@example.org --sign 2>/dev/null | wc -c; done"
    )

    done = caller("shell", "--command", attack)

    no, none = "ERR Forbidden <nddt>", "ERR No secret"
    assert done.lines[:-1] == [
        *("2", "OK to meet"),
        *(no, "OK", no, no, none, no, no, none, no, no),
        done.lines[-2],
    ], done
    assert (int(done.lines[-2]) > 100, done.lines[-1]) == (True, "0")


@pytest.mark.same_everywhere
def test_gpg_without_a_key(nddt: Caller, person: Person) -> None:
    """Is an error that says what to do."""
    (person.home / ".gnupg").mkdir(mode=0o700)
    done = of(nddt, person, NDDT_GPG_FORWARD="true")("shell", "--command", "true")
    assert (done.code, done.stdout) == (78, b"")
    assert "gpg has no secret key" in done.said


# -- git ------------------------------------------------------------------------------------


def test_git_is_the_users(nddt: Caller, person: Person) -> None:
    """Name, email and aliases come along; programs and files of this machine do not."""
    person.git("alias.st", "status --short")
    person.git("alias.evil", "!touch /tmp/evil")
    for name, value in (
        ("credential.helper", "store"),
        ("core.hooksPath", "/nowhere/hooks"),
        ("core.editor", "code --wait"),
        ("url.ssh://git@github.com/.insteadOf", "https://github.com/"),
        ("commit.gpgSign", "true"),
    ):
        person.git(name, value)
    ignore = person.home / ".config/git/ignore"
    ignore.parent.mkdir(parents=True, exist_ok=True)
    ignore.write_text("*.swp\n")
    look = (
        "cd ~; git init -q r; cd r; touch x x.swp; git st; git commit -q --allow-empty -m x; "
        "git log --format='%an %ae'; git config --global user.email other@example.org; "
        "git commit -q --allow-empty -m y; git log -1 --format='%an %ae'; git config --list"
    )

    done = of(nddt, person)("shell", "--command", look)
    without = of(nddt, person, NDDT_GIT_CONFIG="false")("shell", "--command", "git config --list")

    assert (done.code, done.said) == (0, "")
    expected = ["?? x", "Ada Örn ada@example.org", "Ada Örn other@example.org"]
    assert done.lines[:3] == expected
    for name in ("credential", "hookspath", "insteadof", "evil", "editor", "gpgsign"):
        assert name not in done.stdout.decode().lower()
    assert b"Ada" not in without.stdout


@pytest.mark.same_everywhere
def test_a_directory_of_somebody_else_is_no_problem(nddt: Caller, person: Person) -> None:
    """Git does not call a repository dubious in the sandbox."""
    own = "mkdir ~/r; git init -q ~/r; "
    own += 'if [ "$(id -u)" = 0 ]; then chown 12345 ~/r; fi; git -C ~/r status --short; echo $?'
    done = of(nddt, person)("shell", "--command", own)
    assert (done.stdout, done.said) == (b"0\n", "")


@pytest.mark.parametrize("way", ["agent", "keys"])
def test_commits_are_signed_with_an_ssh_key(
    nddt: Caller, person: Person, way: str, tmp_path: Path
) -> None:
    """The key is given as a file of this machine, which is not in the sandbox."""
    person.git("gpg.format", "ssh")
    person.git("user.signingkey", "~/.ssh/work.pub")
    person.git("commit.gpgsign", "true")
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ada@example.org {person.public('work')}\n")
    person.git("gpg.ssh.allowedSignersFile", str(allowed))
    sign = (
        "cd ~; git init -q r; cd r; git commit -q --allow-empty -m x; git bundle create -q - HEAD"
    )

    done = of(nddt, person, NDDT_SSH_FORWARD=way)("shell", "--command", sign)

    assert done.code == 0, done.said
    (tmp_path / "b").write_bytes(done.stdout)
    person.run("git", "clone", "-q", tmp_path / "b", tmp_path / "r")
    shown = person.run("git", "-C", tmp_path / "r", "log", "-1", "--format=%G? %GS")
    assert shown == "G ada@example.org\n"


@pytest.mark.parametrize("name", ["GH_TOKEN", "GITHUB_TOKEN"])
def test_a_token_is_for_git_too(kept: Caller, person: Person, name: str) -> None:
    """Git asks for no password at github.com, and the token is in no file."""
    secret = "gho_0123456789abcdefghijklmnop"
    caller = of(kept, person, NDDT_ENV_VARS=name, NDDT_MODEL_ACCESS="env", **{name: secret})
    caller.make_sandbox()
    ask = (
        "export GIT_TERMINAL_PROMPT=0; "
        "echo url=https://github.com/a/b.git | git credential fill; "
        "printf 'url=https://x:y@github.com\\n' | git credential approve; "
        "echo url=https://example.org/ | git credential fill; "
        "gh auth status 2>&1 | grep -o 'github.com' | head -1; "
        "grep -rls gho_ ~ /tmp /dev/shm /workspace"
    )

    done = caller("shell", "--command", ask)

    assert f"username=x-access-token\npassword={secret}\n" in done.stdout.decode()
    assert done.stdout.count(secret.encode()) == 1
    assert done.lines[-1] == "github.com", done.lines


@pytest.mark.same_everywhere
def test_the_plan_says_what_comes_along(nddt: Caller, person: Person) -> None:
    """Before anything happens."""
    caller = of(nddt, person, NDDT_SSH_FORWARD="agent", NDDT_SSH_KEYS="work")
    gpg_key(person)

    done = caller.having(NDDT_GPG_FORWARD="true")("run", "--dry", "--demo", "--prompt", "x")

    lines = done.stdout.decode()
    assert "ssh          keys of this machine's agent: SHA256:" in lines
    assert "gpg          signs by this machine's agent with " in lines
    assert "git          Ada Örn ada@example.org" in lines
