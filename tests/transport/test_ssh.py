"""The transport's files and command lines, checked by the real ssh where it has a say."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from scripts.errors import DataError, TransportLostError
from scripts.machine import process, state
from scripts.transport import ssh
from scripts.transport.forwards import Forward, SamePort
from scripts.transport.lease import Lease
from scripts.transport.ssh import Connection

ODD_NAMES = ["a b", "it's", "grüße", "a#b", "a,b;c&d", "$x", "~", "-F", "a%b", 'a"b', "a${HOME}b"]


@pytest.fixture
def connection(runtime: Path) -> Connection:
    """Give the files of a connection, none of which exist yet."""
    return Connection(runtime)


def understood(connection: Connection) -> dict[str, str]:
    """Give the options as ssh itself reads them."""
    done = subprocess.run(
        ["ssh", "-F", str(connection.config), "-G", "nddt"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


# -- command lines --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (SamePort("127.0.0.1", 3128), "127.0.0.1:3128:127.0.0.1:3128"),
        (SamePort("localhost", 80), "localhost:80:localhost:80"),
        (SamePort("::1", 8080), "[::1]:8080:[::1]:8080"),
    ],
)
def test_forward(forward: Forward, expected: str) -> None:
    """Leads from the sandbox's loopback to ours."""
    assert forward.arguments == ("-R", expected)


def test_command_lines(connection: Connection) -> None:
    """Of a master, and of a session that never connects by itself."""
    file = str(connection.config)
    alone = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false")

    assert connection.master_argv("-N") == ("ssh", "-F", file, "-o", "ControlMaster=yes", "-N")
    assert connection.session_argv("nddt", "a b") == ("ssh", "-F", file, *alone, "nddt", "a b")


def test_session_without_a_master_fails(connection: Connection) -> None:
    """At once, with ssh's own code."""
    connection.write(("true",), "nddt", {})

    assert process.capture(connection.session_argv("-T", "nddt", "true")).code == 255


# -- files ----------------------------------------------------------------------------------


def test_config_as_ssh_reads_it(connection: Connection) -> None:
    """Only our key counts, and no agent, no known hosts and no password of the user's."""
    connection.write(("docker", "exec"), "nddt", {})

    found = understood(connection)

    assert {name: found[name] for name in ("user", "hostname", "identityagent")} == {
        "user": "nddt",
        "hostname": "nddt",
        "identityagent": "none",
    }
    assert found["identitiesonly"] == "yes"
    assert found["preferredauthentications"] == "publickey"
    assert found["userknownhostsfile"] == "/dev/null"
    assert found["exitonforwardfailure"] == "yes"
    assert found["controlpath"] == str(connection.control)
    assert found["identityfile"] == str(connection.directory / "key")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_runtime_directory_with_odd_characters(runtime: Path, name: str) -> None:
    """Works, or is not used."""
    (runtime / name).mkdir()

    with state.own_directory({"XDG_RUNTIME_DIR": str(runtime / name)}) as directory:
        connection = Connection(directory)
        connection.write(("true",), "nddt", {})

        found = understood(connection)

        assert found["controlpath"] == str(connection.control)
        assert Path(found["identityfile"]).parent == directory
        assert connection.public_key().startswith("ssh-ed25519 ")
        assert _pipe_runs(connection)


def _pipe_runs(connection: Connection) -> bool:
    """Let ssh run its ProxyCommand, which here leaves a file."""
    made = connection.directory / "made"
    connection.write(("touch", str(made)), "nddt", {})
    done = process.capture(connection.master_argv("-T", "nddt", "true"))
    return made.exists() and done.code == 255


@pytest.mark.parametrize("word", ["", "a b", "it's", "%h %%", "$HOME", "\n", "日本", "\udcff"])
def test_pipe_gets_its_arguments_and_environment(connection: Connection, word: str) -> None:
    """Unchanged by ssh and the shell."""
    connection.write(("sh", "-c", 'printf "%s|%s" "$A" "$1"', "sh", word), "nddt", {"A": word})

    done = subprocess.run(
        ["sh", str(connection.directory / "pipe")], capture_output=True, check=True
    )

    assert done.stdout == os.fsencode(f"{word}|{word}")


def test_pipe_hands_over_its_process(connection: Connection) -> None:
    """No shell stays between ssh and the provider's command."""
    connection.write(("sh", "-c", "echo $PPID"), "nddt", {})
    started = process.spawn(("sh", str(connection.directory / "pipe")), pipes=True)
    stdout, _ = started.communicate()

    assert int(stdout) == os.getpid()


def test_key_is_made_once(connection: Connection) -> None:
    """And is the user's alone."""
    key = connection.public_key()

    assert key == connection.public_key()
    assert key.split()[0] == "ssh-ed25519"
    assert (connection.directory / "key").stat().st_mode & 0o777 == 0o600


def test_half_of_a_key_is_made_anew(connection: Connection) -> None:
    """Something has ended us in between."""
    (connection.directory / "key").write_text("half")

    assert connection.public_key().startswith("ssh-ed25519 ")


def test_key_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    """Is an error of ours with the reason."""
    with pytest.raises(TransportLostError, match="no key could be made: "):
        Connection(tmp_path / "gone").public_key()


# -- is it open? ----------------------------------------------------------------------------


def test_missing_socket_is_not_open(connection: Connection) -> None:
    """And there is nothing to close."""
    assert not connection.is_open()
    connection.close()


def test_dead_socket_is_not_open(connection: Connection) -> None:
    """Its master was killed."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(connection.control))
        listener.listen()

    assert connection.control.exists()
    assert not connection.is_open()


def test_live_socket_is_open(connection: Connection) -> None:
    """Somebody listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(connection.control))
        listener.listen()

        assert connection.is_open()


def test_file_or_path_too_long_is_not_open(connection: Connection, tmp_path: Path) -> None:
    """Neither can be a socket."""
    connection.control.write_text("")
    long = tmp_path / ("x" * 200)
    long.mkdir()

    assert not connection.is_open()
    assert not Connection(long).is_open()


@pytest.mark.parametrize("length", [20, 24])
def test_longest_socket_path(runtime: Path, length: int) -> None:
    """Fits: ssh makes it under a longer name first, and Linux takes 107 bytes."""
    directory = runtime / ("x" * (length - len(str(runtime)) - 1))
    directory.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(directory)}
    found = [state.sandbox_directory(environ, f"{'x' * 62}{end}") for end in "ab"]

    assert len(set(found)) == 2
    assert len(f"{Connection(found[0]).control}.0123456789abcdef") <= 107


# -- pipes that do not lead anywhere --------------------------------------------------------

BROKEN = ("sh", "-c", "echo 'engine: no such container' >&2; exit 1")


def test_lease_without_a_sandbox(connection: Connection) -> None:
    """Ends with what the pipe's command says about it."""
    connection.public_key()
    connection.write(BROKEN, "nddt", {})
    lease = Lease(connection, "one", "true\n", [SamePort("127.0.0.1", 1)], master=True)

    with pytest.raises(TransportLostError, match="the sandbox was not reached") as caught:
        lease.hand_over()

    assert "engine: no such container" in caught.value.detail
    assert caught.value.exit_code == 74
    assert lease.ends_within(0)
    lease.close()


def test_big_script_to_a_sandbox_that_is_not_there(connection: Connection) -> None:
    """Is the same, though nobody reads it."""
    connection.public_key()
    connection.write(BROKEN, "nddt", {})
    lease = Lease(connection, "one", "x" * 1_000_000, master=True)

    with pytest.raises(TransportLostError):
        lease.hand_over()


def test_master_without_a_sandbox(connection: Connection) -> None:
    """Says the same, and leaves no socket."""
    connection.public_key()
    connection.write(BROKEN, "nddt", {}, kept=True)

    with pytest.raises(TransportLostError, match="cannot be reached") as caught:
        connection.keep_open(1)

    assert "engine: no such container" in caught.value.detail
    assert not connection.is_open()


def test_nothing_is_quoted_for_the_users_own_shell(connection: Connection) -> None:
    """Ssh hands its ProxyCommand to that, and it may be fish."""
    connection.write(("true",), "nddt", {})
    line = next(x for x in connection.config.read_text().splitlines() if "ProxyCommand" in x)

    assert shlex.split(line)[1:] == ["sh", str(connection.directory / "pipe")]
    assert shutil.which("sh")


@pytest.mark.parametrize("value", ["a\n  ProxyCommand evil", "a\rb", "a\0b", "a\x7fb", "\t"])
def test_no_value_is_another_line_of_the_configuration(value: str) -> None:
    """Whoever has chosen it."""
    with pytest.raises(DataError, match="ssh's User cannot be"):
        ssh.section("nddt", {"Port": "1", "User": value})
    assert ssh.section("a b", {"User": "x y"}) == "Host a b\n  User x y\n"
