"""The shell text of the sandbox, run here by the real sh in a directory of its own."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scripts.transport import inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Done = subprocess.CompletedProcess[bytes]

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).map(lambda n: f"x_{n}")
AWKWARD = (
    "",
    "-n",
    "--",
    "--help",
    "a b",
    " ",
    "it's",
    '"',
    "\\",
    "\\n",
    "$HOME `id` $(id)",
    "a\nb\n",
    "\n",
    "\r\t\x1b\x7f",
    "*",
    "~",
    "!!",
    "%s",
    "grüße 日本 🎉",
    "'\"'\"'",
)


@dataclass(frozen=True)
class Sandbox:
    """A directory that stands for a sandbox's private one."""

    run: Path

    @property
    def environ(self) -> dict[str, str]:
        """What sshd gives a session: next to nothing."""
        return {"NDDT_RUN": str(self.run), "PATH": os.environ["PATH"]}

    def store(
        self,
        argv: Sequence[str],
        variables: Mapping[str, str] | None = None,
        *,
        before: str = ":",
        after: str = ":",
        directory: str = "/",
    ) -> None:
        """Store a script under the id `one`."""
        text = inside.script(
            argv, variables or {}, directory=directory, before=before, after=after
        ).encode("utf-8", "surrogateescape")
        (self.run / "one.sh").write_bytes(text)

    def sh(self, command: str, stdin: bytes = b"") -> Done:
        """Run a command to its end as sshd does."""
        return subprocess.run(
            ["sh", "-c", command],
            input=stdin,
            capture_output=True,
            check=False,
            env=self.environ,
            start_new_session=True,
            timeout=60,
        )

    @contextlib.contextmanager
    def background(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command as sshd does, and kill what is left of it in the end."""
        started = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environ,
            start_new_session=True,
        )
        try:
            with started:
                yield started
                if started.stdin:
                    started.stdin.close()
                started.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)

    def execute(self, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> Done:
        """Store a script and run it."""
        self.store(argv, variables)
        return self.sh(inside.run_stored("one"))

    @property
    def files(self) -> list[str]:
        """What is there now."""
        return sorted(path.name for path in self.run.iterdir())


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """Make one whose image sets a variable; each script must leave it as it was."""
    run = tmp_path_factory.mktemp("run it's $HOME")
    (run / "env").write_text("export OF_IMAGE='from the image'\nexport BOTH='image'\n")
    return Sandbox(run)


def received(sandbox: Sandbox, argv: Sequence[str]) -> list[str]:
    """Give the arguments that a program sees."""
    done = sandbox.execute(("printf", "%s\\0", "first", *argv))
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[1:-1]


# -- what the program gets ------------------------------------------------------------------


@given(argv=st.lists(texts, max_size=5))
@example(argv=list(AWKWARD))
@hypothesis_settings(max_examples=30)
def test_arguments_are_exact(sandbox: Sandbox, argv: list[str]) -> None:
    """Whatever they hold."""
    assert received(sandbox, argv) == argv


def test_many_and_long_arguments_are_exact(sandbox: Sandbox) -> None:
    """200 KB of them."""
    argv = ["x" * 100_000, "é'\n" * 12_500, *(str(number) for number in range(8_000))]

    assert sum(len(word.encode()) for word in argv) > 180_000
    assert received(sandbox, argv) == argv


def test_arguments_that_are_not_utf_8(sandbox: Sandbox) -> None:
    """Come as the bytes that they were."""
    assert received(sandbox, [os.fsdecode(b"\xff\xfe")]) == [os.fsdecode(b"\xff\xfe")]


def environment(sandbox: Sandbox, variables: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that a program sees."""
    done = sandbox.execute(("env", "-0"), variables)
    assert (done.returncode, done.stderr) == (0, b"")
    items = done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
    return dict(item.split("=", 1) for item in items)


@given(variables=st.dictionaries(names, texts, max_size=5))
@example(variables={f"x_{number}": text for number, text in enumerate(AWKWARD)})
@hypothesis_settings(max_examples=30)
def test_variables_are_exact(sandbox: Sandbox, variables: dict[str, str]) -> None:
    """Whatever they hold, and no others come with them."""
    without = environment(sandbox, {})

    assert environment(sandbox, variables) == without | variables


def test_variables_are_on_top_of_the_images(sandbox: Sandbox) -> None:
    """The session's own win."""
    found = environment(sandbox, {"BOTH": "session"})

    assert (found["OF_IMAGE"], found["BOTH"]) == ("from the image", "session")


@pytest.mark.parametrize("name", ["IFS", "code", "PATH", "PS1", "ENV", "HOME"])
def test_variables_that_mean_something_to_the_shell(sandbox: Sandbox, name: str) -> None:
    """Reach the program, and do not change its exit code."""
    value = os.environ["PATH"] if name == "PATH" else "12"
    sandbox.store(("sh", "-c", f'printf %s "${name}"; exit 12'), {name: value})
    done = sandbox.sh(inside.run_stored("one"))

    expected = " \t\n" if name == "IFS" else value  # sh sets it anew
    assert (done.returncode, done.stdout.decode(), done.stderr) == (12, expected, b"")


@pytest.mark.parametrize("directory", ["a b", "it's", "-n", "$HOME", "日本"])
def test_directory(sandbox: Sandbox, tmp_path: Path, directory: str) -> None:
    """Of any name."""
    (tmp_path / directory).mkdir()
    sandbox.store(("pwd",), directory=str(tmp_path / directory))

    assert sandbox.sh(inside.run_stored("one")).stdout.decode() == f"{tmp_path / directory}\n"


def test_stdin_and_stdout_are_the_programs(sandbox: Sandbox) -> None:
    """Byte by byte, to the end."""
    data = bytes(range(256)) * 4000
    sandbox.store(("cat",))

    assert sandbox.sh(inside.run_stored("one"), stdin=data).stdout == data


def test_stderr_is_the_programs(sandbox: Sandbox) -> None:
    """And there is no further descriptor."""
    done = sandbox.execute(("sh", "-c", "echo out; echo err >&2; ls /proc/self/fd | wc -l"))

    expected = b"4\n" if sys.platform == "linux" else b"0\n"  # with that of the listing itself
    assert (done.stdout, done.stderr.splitlines()[0]) == (b"out\n" + expected, b"err")


@pytest.mark.skipif(not shutil.which("tput"), reason="no tput")
@pytest.mark.parametrize(
    ("term", "expected"),
    [("xterm", "xterm"), ("of-somebody-else", "xterm-256color"), (None, "")],
)
def test_terminal_that_is_not_known(sandbox: Sandbox, term: str | None, expected: str) -> None:
    """Is taken for one that is."""
    variables = {} if term is None else {"TERM": term}

    assert environment(sandbox, variables).get("TERM", "") == expected


# -- how it ends ----------------------------------------------------------------------------


def test_exit_codes(sandbox: Sandbox) -> None:
    """Are those of the program, also where a shell gives a code a meaning of its own."""
    codes = [*range(4), *range(63, 79), *range(124, 145), 191, 192, 193, 254, 255]

    found = [sandbox.execute(("sh", "-c", f"exit {code}")).returncode for code in codes]

    assert found == codes


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "KILL", "TERM", "PIPE", "USR1", "SEGV"])
def test_each_signal(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    """Is 128 + n, and the shell does not comment on it."""
    sandbox.store(("sh", "-c", f"ulimit -c 0; kill -s {name} $$"), directory=str(tmp_path))
    done = sandbox.sh(inside.run_stored("one"))

    code = 128 + signal.Signals[f"SIG{name}"]
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_program_that_is_not_there(sandbox: Sandbox) -> None:
    """Is 127, as in a shell, with the shell's message."""
    done = sandbox.execute(("nddt-no-such-program",))

    assert done.returncode == 127
    assert b"nddt-no-such-program" in done.stderr


def test_directory_that_is_not_there(sandbox: Sandbox) -> None:
    """Ends it before anything runs."""
    sandbox.store(("echo", "ran"), directory="/nonexistent")
    done = sandbox.sh(inside.run_stored("one"))
    (sandbox.run / "one.pid").unlink(missing_ok=True)

    assert (done.returncode, done.stdout) == (69, b"")


def test_failed_start_leaves_nothing(sandbox: Sandbox) -> None:
    """Its process id may soon be somebody else's."""
    sandbox.store(("true",), directory="/nonexistent")
    sandbox.sh(inside.run_stored("one"))
    files = sandbox.files
    (sandbox.run / "one.pid").unlink(missing_ok=True)

    assert files == ["env"]


def test_script_removes_itself(sandbox: Sandbox) -> None:
    """Before the program starts; it may hold secrets."""
    sandbox.store(("ls", str(sandbox.run)), {"SECRET": "x"})
    done = sandbox.sh(inside.run_stored("one"))

    assert done.stdout.split() == [b"env", b"one.pid"]
    assert sandbox.files == ["env"]


def test_secrets_are_in_no_argument_list(sandbox: Sandbox) -> None:
    """Of any process of the session."""
    sandbox.store(
        ("sh", "-c", "ps axww -o args 2>/dev/null || cat /proc/[0-9]*/cmdline"), {"S": "x" * 40}
    )

    assert b"x" * 40 not in sandbox.sh(inside.run_stored("one")).stdout


def test_before_and_after(sandbox: Sandbox) -> None:
    """See the variables; the one after, how it ended."""
    sandbox.store(
        ("sh", "-c", "echo program; exit 3"),
        {"A": "a"},
        before='echo "before $A"; echo note >&2',
        after='echo "after $code" >&2; false',
    )
    done = sandbox.sh(inside.run_stored("one"))

    assert done.returncode == 3
    assert done.stdout == b"before a\nprogram\n"
    assert done.stderr == b"note\nafter 3\n"


@pytest.mark.parametrize(
    ("reaction", "code"), [("trap 'exit 5' INT", 5), (":", 130)], ids=["handled", "not-handled"]
)
def test_ctrl_c_is_for_the_program(sandbox: Sandbox, reaction: str, code: int) -> None:
    """The script lives on and reports how that ended."""
    program = f"{reaction}; echo ready; while :; do sleep 0.02; done"
    sandbox.store(("sh", "-c", program), after='echo "after $code"')

    with sandbox.background(inside.run_stored("one")) as started:
        assert started.stdout
        assert started.stdout.readline() == b"ready\n"
        os.killpg(started.pid, signal.SIGINT)
        assert started.stdout.read() == f"after {code}\n".encode()

    assert started.returncode == code
    assert sandbox.files == ["env"]


# -- storing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_store(sandbox: Sandbox, size: int) -> None:
    """Keeps the script, for its user alone, and says nothing."""
    text = b"\xff\0\n" * size
    done = sandbox.sh(inside.store("two"), stdin=text)
    file = sandbox.run / "two.sh"
    stored, mode = file.read_bytes(), file.stat().st_mode
    file.unlink()

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert stored == text
    assert mode & 0o777 == 0o600


# -- the lease ------------------------------------------------------------------------------


def hand_over(lease: subprocess.Popen[bytes], script: bytes) -> None:
    """Send a script as the client does."""
    assert lease.stdin
    assert lease.stdout
    lease.stdin.write(script)
    lease.stdin.flush()
    assert lease.stdout.readline() == b"ready\n"


def script_of(*argv: str) -> bytes:
    """Give the script of a program without variables."""
    return inside.script(argv, {}, directory="/").encode()


def has_ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the end of what a process prints: the last of its group holds on to it."""
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    return bool(ready) and process.stdout.read() == b""


def test_lease_stores_exactly_the_script(sandbox: Sandbox) -> None:
    """Bytes, not characters; what comes after is nothing."""
    script = script_of("printf", "%s", "é\0".replace("\0", "日") * 5000)

    with sandbox.background(inside.lease("one", len(script))) as lease:
        hand_over(lease, script)
        assert lease.stdin
        lease.stdin.write(b"more")
        lease.stdin.flush()
        stored = (sandbox.run / "one.sh").read_bytes()
        mode = (sandbox.run / "one.sh").stat().st_mode

    assert stored == script
    assert mode & 0o777 == 0o600
    assert sandbox.files == ["env"]


def test_lease_that_ends_after_its_session(sandbox: Sandbox) -> None:
    """Has nothing to do, and says how it ended."""
    script = script_of("sh", "-c", "exit 3")

    with sandbox.background(inside.lease("one", len(script))) as lease:
        hand_over(lease, script)
        done = sandbox.sh(inside.run_stored("one"))
        began = time.monotonic()
        stdout, stderr = lease.communicate(timeout=30)

    assert (done.returncode, done.stderr) == (3, b"")
    assert (lease.returncode, stdout, stderr) == (0, b"ended 3\ndone\n", b"")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("program", "code"),
    [
        pytest.param("sleep 60 & exit 3", b"3", id="in-the-background"),
        pytest.param("sleep 60 2>/dev/null & true", b"0", id="stdout-alone"),
        pytest.param("exec 9>/proc/$PPID/fd/1; sleep 60 & exit 3", b"3", id="of-the-script"),
        pytest.param("setsid sleep 60 & exit 3", b"3", id="in-a-session-of-its-own"),
        pytest.param("sleep 60 & kill -9 $PPID; kill -9 $$", b"137", id="the-script-is-killed"),
        pytest.param("exec 3>&- 9>&-; sleep 60 & exit 300", b"44", id="odd-code"),
    ],
)
def test_lease_tells_of_the_end(sandbox: Sandbox, program: str, code: bytes) -> None:
    """Also where something holds on to what its session prints."""
    script = script_of("sh", "-c", program)

    with sandbox.background(inside.lease("one", len(script))) as lease:
        hand_over(lease, script)
        with sandbox.background(inside.run_stored("one")) as session:
            assert lease.stdin
            assert lease.stdout
            assert lease.stdout.readline() == b"ended %s\n" % code
            session.wait(30)
            assert not has_ended(session, 0)
        lease.stdin.close()
        assert lease.stdout.read() == b"done\n"
        assert lease.wait(30) == 0

    assert sandbox.files == ["env"]


@pytest.mark.parametrize(
    ("program", "limit_s"),
    [
        pytest.param("echo up; sleep 60; true", 1.5, id="ends-at-sigterm"),
        pytest.param("trap '' TERM; echo up; sleep 60; true", 10, id="ignores-sigterm"),
        pytest.param("sleep 60 & echo up; wait", 1.5, id="with-a-child"),
        pytest.param("(trap '' TERM; sleep 60) & echo up; wait", 10, id="child-ignores-sigterm"),
    ],
)
def test_end_of_the_lease_ends_the_session(sandbox: Sandbox, program: str, limit_s: float) -> None:
    """With all of its process group."""
    script = script_of("sh", "-c", program)

    with sandbox.background(inside.lease("one", len(script))) as lease:
        hand_over(lease, script)
        with sandbox.background(inside.run_stored("one")) as session:
            assert session.stdout
            assert session.stdout.readline() == b"up\n"
            assert lease.stdin
            lease.stdin.close()
            assert has_ended(session, limit_s)
            session.wait(10)

    (sandbox.run / "one.pid").unlink(missing_ok=True)
    assert session.returncode != 0
    assert sandbox.files == ["env"]


def test_lease_that_ends_before_the_session_starts(sandbox: Sandbox) -> None:
    """Prevents it."""
    script = script_of("echo", "ran")

    with sandbox.background(inside.lease("one", len(script))) as lease:
        hand_over(lease, script)
    done = sandbox.sh(inside.run_stored("one"))
    (sandbox.run / "one.pid").unlink(missing_ok=True)

    assert done.returncode != 0
    assert done.stdout == b""


def test_lease_whose_client_dies_while_it_sends(sandbox: Sandbox) -> None:
    """Leaves no half of a script."""
    with sandbox.background(inside.lease("one", 1000)) as lease:
        assert lease.stdin
        lease.stdin.write(b"echo half")

    assert sandbox.files == ["env"]


@pytest.mark.parametrize("lives", [True, False], ids=["client-ended", "connection-broke"])
def test_durable_lease(sandbox: Sandbox, *, lives: bool) -> None:
    """Ends the session only if its server lives on: then it was the client that ended."""
    script = script_of("sh", "-c", "echo up; read line; echo end")
    lease = inside.lease("one", len(script), durable=True)
    server = f"exec 3<&0; sh -c {shlex.quote(lease)} <&3 3<&- & exec 3<&- <&-; wait; sleep 60"

    with sandbox.background(server) as started:
        hand_over(started, script)
        with sandbox.background(inside.run_stored("one")) as session:
            assert session.stdin
            assert session.stdout
            assert session.stdout.readline() == b"up\n"
            if not lives:
                os.kill(started.pid, signal.SIGKILL)
                started.wait(10)
            assert started.stdin
            assert started.stdout
            started.stdin.close()
            if lives:
                assert has_ended(session, 10)
                os.killpg(started.pid, signal.SIGKILL)
            else:
                assert started.stdout.read() == b"done\n"  # the lease is gone
                session.stdin.write(b"\n")
                session.stdin.flush()
                assert session.stdout.read() == b"end\n"

    (sandbox.run / "one.pid").unlink(missing_ok=True)
    assert (session.returncode == 0) is not lives
    assert sandbox.files == ["env"]


def test_lease_of_a_script_that_is_there(sandbox: Sandbox) -> None:
    """Takes nothing from its stdin, and the script stays as it is."""
    sandbox.store(("sh", "-c", "echo up; exec sleep 60"))

    with sandbox.background(inside.lease("one", None)) as lease:
        hand_over(lease, b"")
        with sandbox.background(inside.run_stored("one")) as session:
            assert session.stdout
            assert session.stdout.readline() == b"up\n"
            assert lease.stdin
            lease.stdin.close()
            assert has_ended(session, 10)

    (sandbox.run / "one.pid").unlink(missing_ok=True)
    assert sandbox.files == ["env"]


# -- the relay ------------------------------------------------------------------------------


def test_relay_takes_its_program_and_no_more(sandbox: Sandbox) -> None:
    """From stdin, whose rest is the session's; what it was called with is there, too."""
    program = "import os\ndef main(session): print(session, os.read(0, 100))  # ü\n".encode()

    done = sandbox.sh(inside.python("x", len(program), "it's $1"), stdin=program + b"rest")

    assert (done.returncode, done.stdout) == (0, b"it's $1 b'rest'\n")


def test_relay_whose_client_dies_while_it_sends(sandbox: Sandbox) -> None:
    """Runs no half of a program."""
    done = sandbox.sh(inside.python("x", 1000, "one"), stdin=b"print('ran')\n")

    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


# -- the server -----------------------------------------------------------------------------


class Server:
    """The text that serves a connection, with a program in the place of sshd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "nddt").mkdir()
        (directory / "nddt" / "host").write_text("host key")
        self._sshd = directory / "sshd"
        # Its name is that of the process.
        self._sshd.write_text('#!/bin/sh\nprintf "%s\\n" "$$" "$@" end\nread line\n')
        self._sshd.chmod(0o755)

    @contextlib.contextmanager
    def serve(self, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
        """Serve a connection; give its process and the server's arguments."""
        text = arguments[1].replace("/usr/sbin/sshd", str(self._sshd))
        text = text.replace("/dev/shm", str(self.directory))
        with subprocess.Popen(
            ["sh", arguments[0], text, *arguments[2:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "OF_IMAGE": "it's"},
        ) as started:
            assert started.stdin
            assert started.stdout
            lines = iter(lambda: started.stdout.readline().decode().rstrip("\n"), "end")  # type: ignore[union-attr]
            try:
                assert next(lines) == str(started.pid)
                yield started, list(lines)
            finally:
                started.stdin.close()


def test_server(tmp_path: Path) -> None:
    """Lets one key in, and keeps the image's environment for the sessions."""
    server = Server(tmp_path)
    with server.serve(*inside.server("ssh-ed25519 KEY")) as (_, words):
        (keys,) = (tmp_path / "nddt").glob("keys.*")
        environment = (tmp_path / "nddt" / "env").read_text()

        assert keys.read_text() == "ssh-ed25519 KEY\n"
        assert keys.stat().st_mode & 0o777 == 0o600
        assert f"AuthorizedKeysFile={keys}" in words
        assert f"SetEnv=NDDT_RUN={tmp_path}/nddt" in words
        assert not any("ClientAlive" in word for word in words)
        assert "OF_IMAGE" in environment
        assert sorted(path.name for path in (tmp_path / "nddt").iterdir()) == [
            "env",
            "host",
            keys.name,
        ]


def test_server_of_a_connection_that_may_be_dead(tmp_path: Path) -> None:
    """Asks whether it lives, and goes when there is a newer one of the same client."""
    server = Server(tmp_path)
    with (
        server.serve(*inside.server("key of another", silent_s=15)) as (other, _),
        server.serve(*inside.server("key", silent_s=15)) as (first, words),
        server.serve(*inside.server("key", silent_s=15)) as (second, _),
    ):
        assert "ClientAliveInterval=15" in words
        assert first.wait(10) == -signal.SIGTERM
        assert (other.poll(), second.poll()) == (None, None)


@pytest.mark.parametrize("pid", ["", "0", "1", "x", f"{2**22 + 1}", "$$"])
def test_server_ends_nothing_else(tmp_path: Path, pid: str) -> None:
    """A number that a reboot has left may be any process's."""
    server = Server(tmp_path)
    with server.serve(*inside.server("key", silent_s=15)):
        (served,) = (tmp_path / "nddt").glob("served.*")
    with subprocess.Popen(["sleep", "60"]) as foreign:
        served.write_text(pid.replace("$$", str(foreign.pid)))
        with server.serve(*inside.server("key", silent_s=15)) as (started, _):
            assert int(served.read_text()) == started.pid
            assert foreign.poll() is None
        foreign.kill()


# -- tmux -----------------------------------------------------------------------------------

needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux")


class Screen:
    """A terminal with a program in tmux on it."""

    def __init__(self, sandbox: Sandbox, command: str) -> None:
        self._ours, its = os.openpty()
        os.set_blocking(self._ours, False)
        environ = sandbox.environ | {
            "TERM": "xterm",
            "TMUX_TMPDIR": str(sandbox.run.parent),
            "LC_ALL": "C.UTF-8",
            "SHELL": shutil.which("bash") or "/bin/sh",  # as in the image
        }
        self.process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=its,
            stdout=its,
            stderr=its,
            env=environ,
            start_new_session=True,
        )
        os.close(its)
        self._shown = b""

    def see(self, text: bytes) -> None:
        """Wait until a text has been shown."""
        while text not in self._shown:
            assert select.select([self._ours], [], [], 30)[0], self._shown
            self._shown += os.read(self._ours, 65536)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def end(self) -> int:
        """Wait for the end, and give the exit code."""
        while self.process.poll() is None and select.select([self._ours], [], [], 30)[0]:
            with contextlib.suppress(OSError):
                os.read(self._ours, 65536)
        os.close(self._ours)
        return self.process.wait(30)


@pytest.fixture
def screens(tmp_path: Path) -> Iterator[Sandbox]:
    """Make a sandbox for programs in tmux, and end what runs there."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "env").write_text(f"export TMUX_TMPDIR={tmp_path}\n")
    yield Sandbox(run)
    for name in (inside.AGENT, "one"):
        subprocess.run(
            ["tmux", "-L", f"nddt-{name}", "kill-server"],
            env={"PATH": os.environ["PATH"], "TMUX_TMPDIR": str(tmp_path)},
            check=False,
            capture_output=True,
        )


@needs_tmux
@pytest.mark.parametrize("name", [inside.AGENT, "one"])
@pytest.mark.parametrize("code", [0, 7])
def test_program_in_tmux(screens: Sandbox, name: str, code: int) -> None:
    """Exits as it would outside, and leaves nothing but the configuration."""
    screens.store(("sh", "-c", f"tput cols >{screens.run}/cols; exit {code}"))

    assert Screen(screens, inside.start_in_tmux("one", name)).end() == code
    assert screens.files == sorted([f"{name}.conf", f"{name}.exit", "cols", "env"])


def agent_runs(sandbox: Sandbox) -> bool:
    """Ask whether an interactive agent runs."""
    command = f"export TMUX_TMPDIR={shlex.quote(str(sandbox.run.parent))}; {inside.AGENT_RUNS}"
    return sandbox.sh(command).returncode == 0


@needs_tmux
@pytest.mark.parametrize("keys", [b"\x1c", b"typed before\x1c", b"\x1b[A\x1b[B\x1c"])
def test_agent_left_running(screens: Sandbox, keys: bytes) -> None:
    r"""With Ctrl-\, whatever comes with it; later it is come back to, and its exit code is told."""
    screens.store(("sh", "-c", "echo it is up; read line; echo got $line; exit 7"))
    runs = [agent_runs(screens)]

    first = Screen(screens, inside.start_in_tmux("one", inside.AGENT))
    first.see(b"it is up")
    first.type(keys)
    code = first.end()
    runs.append(agent_runs(screens))
    second = Screen(screens, inside.start_in_tmux("two", inside.AGENT))
    second.see(b"it is up")
    second.type(b"x\r")

    assert (code, second.end()) == (0, 7)
    assert [*runs, agent_runs(screens)] == [False, True, False]


@needs_tmux
def test_only_an_agent_can_be_left_running(screens: Sandbox) -> None:
    r"""Elsewhere Ctrl-\ is the program's, as is a connection that broke."""
    program = "trap 'echo it was QUIT' QUIT; echo it is up; while ! read line; do :; done; exit 5"
    screens.store(("sh", "-c", program))

    first = Screen(screens, inside.start_in_tmux("one", "one"))
    first.see(b"it is up")
    first.type(b"\x1c")
    first.see(b"it was QUIT")
    os.killpg(first.process.pid, signal.SIGHUP)
    first.end()
    second = Screen(screens, inside.start_in_tmux("one", "one"))
    second.see(b"it was QUIT")
    second.type(b"\r")

    assert second.end() == 5
    assert not agent_runs(screens)


@needs_tmux
def test_program_that_ended_while_nobody_looked(screens: Sandbox) -> None:
    """Has left its exit code."""
    screens.store(("sh", "-c", f"echo it is up; read x <{screens.run}/go; exit 6"))
    os.mkfifo(screens.run / "go")
    first = Screen(screens, inside.start_in_tmux("one", "one"))
    first.see(b"it is up")
    os.killpg(first.process.pid, signal.SIGHUP)
    first.end()
    (screens.run / "go").write_text("\n")
    deadline = time.monotonic() + 30
    while not (screens.run / "one.exit").exists() and time.monotonic() < deadline:
        time.sleep(0.02)

    assert Screen(screens, inside.start_in_tmux("one", "one")).end() == 6


@contextlib.contextmanager
def attended(sandbox: Sandbox, *, is_new: bool, idle_s: int) -> Iterator[subprocess.Popen[bytes]]:
    """Be the keeper of an agent, for as long as stdin is open."""
    command = f"export TMUX_TMPDIR={shlex.quote(str(sandbox.run.parent))}; "
    started = subprocess.Popen(
        ["sh", "-c", command + inside.attend(is_new=is_new, idle_s=idle_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=sandbox.environ,
        start_new_session=True,
    )
    try:
        assert started.stdout
        assert started.stdout.readline() == b"ready\n"
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.communicate()


@needs_tmux
def test_an_agent_is_attended_to_its_end(screens: Sandbox) -> None:
    """From before it begins, whatever an earlier one has left; or until the keeper's own end."""
    (screens.run / "agent.exit").write_text("0\n")
    with attended(screens, is_new=True, idle_s=0) as keeper:
        screens.store(("sh", "-c", "echo it is up; read line"))
        screen = Screen(screens, inside.start_in_tmux("one", inside.AGENT))
        screen.see(b"it is up")
        assert keeper.stdin
        with attended(screens, is_new=False, idle_s=0) as other:
            assert other.stdin
            other.stdin.close()
            other.stdin = None
            assert other.wait(30) == 0
        assert keeper.poll() is None
        screen.type(b"\r")
        assert screen.end() == 0
        assert keeper.wait(30) == 0


@needs_tmux
def test_an_idle_agent_is_let_go(screens: Sandbox) -> None:
    """Not while a terminal is there, or something new is shown."""
    screens.store(("sh", "-c", "echo it is up; read line"))
    screen = Screen(screens, inside.start_in_tmux("one", inside.AGENT))
    screen.see(b"it is up")
    with attended(screens, is_new=False, idle_s=1) as keeper:
        with pytest.raises(subprocess.TimeoutExpired):
            keeper.wait(6)
        screen.type(b"\x1c")
        assert screen.end() == 0
        assert keeper.wait(30) == 0
    assert agent_runs(screens)
