"""The agent that lets a sandbox list and sign, between a real gpg and a real gpg-agent."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.brings import gpg, gpg_agent
from scripts.brings.gpg_agent import FORBIDDEN, NO_AGENT, NO_KEY, OK
from scripts.machine import socket_server

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH = "SETHASH 8 " + "AB" * 32
PINENTRY = """\
#!/bin/sh
echo OK
while read -r word rest; do
  [ "$word" != SETDESC ] || printf '%s\\n' "$rest" >>{log}
  [ "$word" != GETPIN ] || echo D hidden
  echo OK
done
"""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with keys, and a sandbox that has their public halves."""

    home: Path

    def environ(self, which: str) -> dict[str, str]:
        """Be at home (`own`), or in the sandbox (`theirs`)."""
        return {"GNUPGHOME": str(self.home / which), "HOME": "/", "PATH": "/usr/bin:/bin"}

    def run(self, *argv: str | Path, which: str = "own", given: bytes = b"") -> bytes:
        """Run a program that must succeed."""
        done = self.tried(*argv, which=which, given=given)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def tried(
        self, *argv: str | Path, which: str = "theirs", given: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program."""
        return subprocess.run(
            argv, env=self.environ(which), check=False, capture_output=True, input=given
        )

    @property
    def listing(self) -> str:
        """The secret keys."""
        words = ("--batch", "--with-colons", "--with-keygrip", "--list-secret-keys")
        return self.run("gpg", *words).decode()

    @property
    def keygrips(self) -> dict[str, str]:
        """By what each key is for, after the name of whose it is."""
        found, who, what = {}, "", ""
        for fields in (line.split(":") for line in self.listing.splitlines()):
            if fields[0] in {"sec", "ssb"}:
                what = "".join(c for c in fields[11] if c.islower())
                who = chr(ord(who or "@") + 1) if fields[0] == "sec" else who
            if fields[0] == "grp":
                found[f"{who}-{what}"] = fields[9]
        return found

    @property
    def upstream(self) -> str:
        """The agent's extra socket."""
        return str(self.home / "own" / "S.gpg-agent.extra")


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """A, with keys to sign, to decrypt and to log in; and B, with one that has a passphrase."""
    made = Person(home=Path(tempfile.mkdtemp(prefix="n", dir="/tmp")))
    for name in ("own", "theirs"):
        (made.home / name).mkdir(mode=0o700)
    (made.home / "theirs" / "gpg.conf").write_text("no-autostart\n")
    place = made.home / "s"
    (made.home / "theirs" / "S.gpg-agent").write_text(f"%Assuan%\nsocket={place}\n")
    pinentry = made.home / "pinentry"
    pinentry.write_text(PINENTRY.format(log=made.home / "asked"))
    pinentry.chmod(0o700)
    (made.home / "own" / "gpg-agent.conf").write_text(f"pinentry-program {pinentry}\n")
    make = ("gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase")
    made.run(*make, "", "--quick-generate-key", "A <a@x.org>", "ed25519", "sign")
    key = made.listing.split("fpr:::::::::")[1].split(":")[0]
    made.run(*make, "", "--quick-add-key", key, "cv25519", "encr")
    made.run(*make, "", "--quick-add-key", key, "ed25519", "auth")
    made.run(*make, "hidden", "--quick-generate-key", "B <b@x.org>", "nistp256", "sign,cert")
    public = made.run("gpg", "--batch", "--armor", "--export")
    made.run("gpg", "--batch", "--quiet", "--import", which="theirs", given=public)
    yield made
    made.run("gpgconf", "--kill", "all")
    shutil.rmtree(made.home)


@pytest.fixture
def asked(person: Person) -> Iterator[Asked]:
    """Have the agent served with all keys that sign."""
    person.run("gpgconf", "--launch", "gpg-agent")
    path = person.home / "s"
    keys = {person.keygrips["A-sc"]: "Key A", person.keygrips["B-sc"]: "Key B + 1"}
    with gpg_agent.serve_gpg_agent(path, person.upstream, keys):
        yield Asked(str(path))


class Asked:
    """A client without manners."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, *lines: str | bytes) -> list[bytes]:
        """Say lines all at once, and read all answers but the greeting."""
        data = b"".join((one.encode() if isinstance(one, str) else one) + b"\n" for one in lines)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(self._path)
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as answers:
                return list(answers)[1:]


# -- what works -----------------------------------------------------------------------------


def test_gpg_and_git_sign(person: Person, asked: Asked, tmp_path: Path) -> None:
    """As ever, by their own programs, with a key that has a passphrase, too."""
    assert asked("NOP") == [OK]
    for who in ("a@x.org", "b@x.org"):
        words = ("gpg", "--batch", "--local-user", who, "--sign")
        signed = person.run(*words, which="theirs", given=b"text")
        assert person.run("gpg", "--batch", "--decrypt", given=signed) == b"text"

    git = ("git", "-C", tmp_path, "-c", "user.name=A", "-c", "user.email=a@x.org")
    person.run("git", "init", "-q", tmp_path)
    person.run(*git, "commit", "-q", "-S", "--allow-empty", "-m", "x", which="theirs")
    assert person.run(*git, "log", "--format=%G?") == b"G\n"


def test_it_lists_what_signs(person: Person, asked: Asked) -> None:
    """And nothing else: a key to decrypt is none that this agent has."""
    grips = person.keygrips
    assert asked(f"HAVEKEY {grips['A-e']} {grips['A-sc'].lower()}", f"HAVEKEY {grips['A-e']}") == [
        OK,
        NO_KEY,
    ]
    *listed, ok = asked("HAVEKEY --list=1000")
    assert (len(listed), ok) == (2, OK)
    shown = person.run("gpg", "--batch", "--list-secret-keys", "--with-colons", which="theirs")
    assert [line[:3] for line in shown.decode().splitlines() if line[:3] in {"sec", "ssb"}] == [
        *("sec", "ssb", "ssb", "sec"),
    ]


def test_the_user_reads_our_words_when_a_passphrase_is_asked_for(
    person: Person, asked: Asked
) -> None:
    """Not those of the sandbox, which could ask for another secret."""
    person.run("gpg-connect-agent", "RELOADAGENT", "/bye")  # it forgets passphrases
    (person.home / "asked").unlink(missing_ok=True)
    key = person.keygrips["B-sc"]

    answers = asked(f"SIGKEY {key}", "SETKEYDESC The+password+of+your+bank:", HASH, "PKSIGN")

    assert answers[-1] == OK
    assert answers[3].startswith(b"D (7:sig-val(5:ecdsa")
    assert (person.home / "asked").read_text().endswith("Key B %2B 1\n")
    assert "bank" not in (person.home / "asked").read_text()


# -- what does not --------------------------------------------------------------------------


def test_nothing_is_decrypted(person: Person, asked: Asked) -> None:
    """By gpg itself, or by hand with any of the keys, however it is chosen."""
    assert asked("NOP") == [OK]
    words = ("gpg", "--batch", "--trust-model", "always", "--encrypt", "--recipient", "a@x.org")
    hidden = person.run(*words, given=b"text")
    assert person.run("gpg", "--batch", "--decrypt", given=hidden) == b"text"

    done = person.tried("gpg", "--batch", "--decrypt", given=hidden)

    assert (done.returncode, done.stdout) == (2, b"")
    assert b"No secret key" in done.stderr
    for grip in person.keygrips.values():
        for choice in (f"SETKEY {grip}", f"SIGKEY {grip}"):
            answers = asked(choice, "PKDECRYPT", "D (7:enc-val(4:ecdh))", "END", "pkdecrypt")
            assert answers[1:] == [FORBIDDEN] * 4


@pytest.mark.parametrize("which", ["A-e", "A-a"])
def test_a_key_for_something_else_does_not_sign(person: Person, asked: Asked, which: str) -> None:
    """A login with a key of the agent's is a signature, too."""
    assert asked(f"SIGKEY {person.keygrips[which]}", HASH, "PKSIGN") == [
        NO_KEY,
        OK,
        gpg_agent.INCOMPLETE,
    ]


@pytest.mark.parametrize(
    "line",
    [
        *("EXPORT_KEY {grip}", "EXPORT_KEY --openpgp {grip}", "KEYWRAP_KEY --export"),
        *("KEYWRAP_KEY --import", "IMPORT_KEY", "GENKEY", "GENKEY --no-protection"),
        *("DELETE_KEY {grip}", "DELETE_KEY --force {grip}", "PASSWD {grip}"),
        *("PRESET_PASSPHRASE {grip} -1 00", "CLEAR_PASSPHRASE {grip}"),
        *("GET_PASSPHRASE x x x x", "GET_PASSPHRASE --data --no-ask {grip} X X X"),
        *("GET_CONFIRMATION Really", "KILLAGENT", "RELOADAGENT", "UPDATESTARTUPTTY"),
        *("SCD SERIALNO", "SCD PKDECRYPT", "SCD APDU 00", "LEARN --send", "PUTVAL a b"),
        *("KEYTOCARD {grip} a OPENPGP.1", "GETVAL a", "LISTTRUSTED", "MARKTRUSTED a P b"),
        *(
            "ISTRUSTED a",
            "KEYINFO --list",
            "KEYINFO --ssh-list",
            "KEYINFO {grip}",
            "KEYATTR {grip}",
        ),
        *("READKEY {grip}", "INPUT FD=0", "OUTPUT FD=1", "HELP", "GETEVENTCOUNTER", "AUTH"),
        *("GETINFO pid", "GETINFO socket_name", "GETINFO ssh_socket_name", "GETINFO version x"),
        *("GETINFO s2k_count", "GETINFO std_env_names", "GETINFO cmd_has_option PKSIGN x"),
        *("OPTION pinentry-mode=loopback", "OPTION putenv=LD_PRELOAD=x", "OPTION display=:0"),
        *("OPTION ttyname=/dev/tty", "OPTION allow-pinentry-notify", "OPTION lc-messages=C"),
        *("OPTION use-cache-for-signing", "OPTION agent-awareness=2 putenv=x"),
        *("PKSIGN --", "PKSIGN nonce", "PKSIGN --hash=x", "PKDECRYPT --kem", "SETKEY {grip}"),
        *("SETHASH --inquire", "SETHASH --hash=tls-md5sha1 {hash}", "SETHASH --hash=none 00"),
        *("SETHASH 8 {hash}00", "SETHASH 8 00", "SETHASH 1 " + "0" * 32, "SETHASH 0 {hash}"),
        *("SETHASH 8 {hash}X", "SETHASH 8 ", "SETHASH 99 {hash}", "SETHASH -8 {hash}"),
        *("SIGKEY", "SIGKEY {grip} {grip}", "SIGKEY &{grip}", "SIGKEY ../{grip}", "HAVEKEY"),
        *("HAVEKEY --list=-1", "HAVEKEY --info {grip}", "D x", "END", "CAN", "CANCEL", "OK", "X"),
        *("PKSIGN\r", "PKSIGN\0", " PKSIGN", "NOP\0PKDECRYPT", "PKDECRYPT\rNOP", "NOP\u2028X"),
    ],
)
def test_all_else_is_forbidden(person: Person, asked: Asked, line: str) -> None:
    """And the next line is as good as before; the keys are still there."""
    grip = person.keygrips["A-sc"]
    said = line.format(grip=grip, hash="AB" * 32)

    assert asked(f"SIGKEY {grip}", HASH, said, said.lower(), "PKSIGN")[2:4] == [FORBIDDEN] * 2


@given(st.lists(st.binary(max_size=60).filter(lambda one: b"\n" not in one), max_size=8))
def test_no_other_line_reaches_the_agent(lines: list[bytes]) -> None:
    """Here it would not even answer, which is told apart from a refusal."""
    asks = {b"GETINFO VERSION", b"PKSIGN"}
    said = [one for one in lines if one.upper() not in asks]
    conversation = gpg_agent._Conversation("/nowhere", {"AB" * 20: "x"})
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(one + b"\n" for one in said))
        file.seek(0)
        assert NO_AGENT not in list(conversation.answers(file))


def test_odd_lines(asked: Asked) -> None:
    """Comments and empty ones say nothing; one without an end, or too long, ends it all."""
    assert asked("# PKDECRYPT", "", "NOP", "bye", "NOP") == [OK, OK]
    assert asked("NOP", "X" * 1001, "NOP") == [OK]
    assert asked("#" + "X" * 1001, "NOP") == []
    assert asked("NOP", "X" * 1000) == [OK, FORBIDDEN]


def test_an_agent_that_asks_back_or_says_too_much(runtime: Path) -> None:
    """Gets nothing of the sandbox's for it, and is not listened to for ever."""
    heard: list[bytes] = []

    def ask_back(client: socket.socket) -> None:
        client.sendall(b"OK\n")
        with client.makefile("rb") as lines:
            for line in lines:
                heard.append(line)
                answer = {b"PKS": b"INQUIRE PASSPHRASE\n", b"GET": b"D x\n" * 100_000}
                client.sendall(answer.get(line[:3], b"S PROGRESS\nOK\n"))

    key = "AB" * 20
    with (
        socket_server.serve_clients(runtime / "u" / "s", lambda: ask_back, name="it"),
        gpg_agent.serve_gpg_agent(runtime / "a" / "s", str(runtime / "u" / "s"), {key: "x"}),
    ):
        ask = Asked(str(runtime / "a" / "s"))
        assert ask(f"SIGKEY {key}", HASH, "PKSIGN", "D secret", "END") == [
            *(OK, OK, OK),
            *(FORBIDDEN, FORBIDDEN),
        ]
        assert ask("GETINFO version") == [NO_AGENT]
    assert [line.split()[0] for line in heard if line != b"GETINFO version\n"] == [
        *(b"SIGKEY", b"SETKEYDESC", b"SETHASH", b"PKSIGN", b"CAN"),
    ]


def test_no_agent(runtime: Path) -> None:
    """Is an error that gpg understands."""
    with gpg_agent.serve_gpg_agent(runtime / "a" / "s", str(runtime / "nobody"), {}):
        assert Asked(str(runtime / "a" / "s"))("GETINFO version", "NOP") == [NO_AGENT, OK]


def test_only_the_named_keys(person: Person) -> None:
    """Sign; they are found by all that names one."""
    keys = gpg.secret_keys(person.listing)
    a, b = keys
    for name in ("a@x.org", "A@X.org", a.fingerprint, a.key_id, f"0x{a.key_id}"):
        assert gpg.named(keys, (name,)) == (a,)
    assert gpg.named(keys, (b.key_id, "a@x.org")) == keys
    assert gpg.named(keys, ()) == keys
    assert [sub.keygrip for one in keys for sub in one.signing] == [
        person.keygrips["A-sc"],
        person.keygrips["B-sc"],
    ]
