"""Sessions that outlive their connection: the real client and the real relay, without SSH.

In the place of ssh and sshd is a small program that joins the client to a shell as they do.
It can be killed, as a connection breaks.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import pytest

from scripts.errors import EndedBySignalError, TimeLimitError, TransportLostError
from scripts.machine import signals
from scripts.transport import durable, inside
from scripts.transport.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
SOON_S = 30
"""A wait for what happens at once, on a machine that does much else."""
MIB = 1 << 20
CHUNK = 1 << 16

CLIENT = """
import os, signal, sys, time, types
from contextlib import nullcontext
from pathlib import Path
from scripts.transport import durable
from scripts.machine import signals
from scripts.errors import EndedBySignalError, NddtError
from scripts.transport.line import Line

root, name, timeout_s = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
server = [sys.executable, "-ESc", (root / "server.py").read_text(), str(root)]
retakes = root / "retakes"

def retake(errors, attempt):
    with retakes.open("a") as file:
        file.write(f"{attempt}\\n")
    while (root / "hold").exists():
        time.sleep(0.01)

line = Line(
    sandbox="double",
    connection=types.SimpleNamespace(
        direct_argv=lambda *words: (*server, *words), cancelling=lambda forwards: nullcontext()
    ),
    is_kept=False,
    stays=False,
    is_durable=True,
    retake=retake,
)
script = (root / "script").read_text()
try:
    with signals.raised(), signals.limited(timeout_s):
        code = durable.Session(name, script, None).attend(line, ())
except EndedBySignalError as error:
    code = error.exit_code
except BrokenPipeError:
    code = 141
except NddtError as error:
    (root / "error").write_text(f"{type(error).__name__}: {error.message}")
    code = error.exit_code
os._exit(code)
"""
"""Attends to one session as `nddt run` does, with its stdin, stdout and stderr."""

SERVER = """
import os, signal, subprocess, sys, threading

root, *_, command = sys.argv[1:]
mode = ""
if os.path.exists(root + "/mode"):
    mode = open(root + "/mode").read()
    os.unlink(root + "/mode")
if mode == "refuse":
    os._exit(255)
child = subprocess.Popen(
    ["sh", "-c", command],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
    env={"NDDT_RUN": root + "/run", "PATH": os.environ["PATH"], "BOTH": "sshd"},
)
with open(root + "/servers", "a") as file:
    file.write(f"{os.getpid()} {child.pid}\\n")
closed = []
moves = threading.Event()
moves.set()
signal.signal(signal.SIGUSR1, lambda *_: moves.clear())

def close(descriptor):
    os.close(descriptor)
    closed.append(descriptor)
    if len(closed) == 2:  # nothing is left of the channel: ssh ends, and with it the connection
        os._exit(255)

def copy_in():
    try:
        while data := os.read(0, 65536):
            while moves.wait() and data:
                data = data[os.write(child.stdin.fileno(), data):]
    except OSError:
        pass
    close(child.stdin.fileno())

def copy_out():
    while data := os.read(child.stdout.fileno(), 65536):
        if mode == "cut":
            os._exit(255)
        try:
            while data:
                data = data[os.write(1, data):]
        except OSError:  # the client is gone, and ssh tells sshd that nobody listens any more
            return close(child.stdout.fileno())

threading.Thread(target=copy_in, daemon=True).start()
out = threading.Thread(target=copy_out, daemon=True)
out.start()
code = child.wait()
out.join()
os._exit(code if code >= 0 else 255)
"""
"""Joins its stdin and stdout to a command's as ssh and sshd do together.

The connection breaks when this is killed, and stands still after SIGUSR1.
"""


INIT = """
import ctypes, os, subprocess, sys

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
client = subprocess.Popen(sys.argv[2:], start_new_session=True)
with open(sys.argv[1] + "/client.new", "w") as file:
    file.write(str(client.pid))
os.rename(file.name, sys.argv[1] + "/client")
nothing = os.open(os.devnull, os.O_RDWR)
for ours in (0, 1, 2):
    os.dup2(nothing, ours)
try:
    while True:
        pid, status = os.wait()
        if pid == client.pid:
            with open(sys.argv[1] + "/code.new", "w") as file:
                file.write(str(os.waitstatus_to_exitcode(status)))
            os.rename(file.name, sys.argv[1] + "/code")
except ChildProcessError:
    pass
"""
"""Starts the client and reaps what ends, as process 1 of a sandbox does; not each one is quick."""


class Client:
    """A client that runs."""

    def __init__(self, root: Path, argv: tuple[str, ...], stdin: int, stdout: int) -> None:
        self._root = root
        self.init = subprocess.Popen(
            [sys.executable, "-ESc", INIT, str(root), *argv],
            cwd=ROOT,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={"PATH": f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}"},
        )
        self.stdin, self.stdout, self.stderr = (
            self.init.stdin,
            self.init.stdout,
            self.init.stderr,
        )
        wait_for((root / "client").exists)
        self.pid = int((root / "client").read_text())

    def wait(self) -> int:
        """Wait for its end, and give its exit code."""
        wait_for((self._root / "code").exists)
        return int((self._root / "code").read_text())

    def close(self) -> None:
        """End it, and close our ends of its pipes."""
        if not (self._root / "code").exists():
            os.kill(self.pid, signal.SIGKILL)
        for stream in filter(None, (self.stdin, self.stdout, self.stderr)):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def wait_for(what: Callable[[], object], timeout_s: float = SOON_S) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.02)


@dataclass(frozen=True)
class Double:
    """A sandbox that is a directory of this machine."""

    root: Path
    processes_of: Callable[[Path], list[int]]
    clients: list[Client] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The sandbox's private directory."""
        return self.root / "run"

    def begin(
        self,
        *argv: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        timeout_s: int = 0,
        before: str = ":",
        after: str = ":",
    ) -> Client:
        """Start a client with a program that notes its start."""
        before = f"echo x >>{self.root}/starts; {before}"
        text = inside.script(argv, {}, directory="/", before=before, after=after)
        (self.root / "script").write_text(text)
        client = (sys.executable, "-c", CLIENT, str(self.root), "one", str(timeout_s))
        started = Client(self.root, client, stdin, stdout)
        self.clients.append(started)
        return started

    def execute(
        self, *argv: str, data: bytes | None = None, before: str = ":", after: str = ":"
    ) -> tuple[int, bytes, bytes]:
        """Run a program to its end: exit code, stdout, stderr."""
        stdin = subprocess.DEVNULL if data is None else subprocess.PIPE
        started = self.begin(*argv, stdin=stdin, before=before, after=after)
        if data is not None:
            Writer(started.stdin, data)
        streams = Reader(started.stdout), Reader(started.stderr)
        return started.wait(), streams[0].end(), streams[1].end()

    @property
    def error(self) -> str:
        """What the client has said when it gave up."""
        return (self.root / "error").read_text()

    @property
    def starts(self) -> int:
        """How often the program has been started."""
        file = self.root / "starts"
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def servers(self) -> list[tuple[int, int]]:
        """The process ids of each connection so far: its server and its connector."""
        file = self.root / "servers"
        lines = file.read_text().splitlines() if file.exists() else []
        found = [tuple(map(int, line.split())) for line in lines]
        return [(server, connector) for server, connector in found]

    @property
    def keeper(self) -> int:
        """The process that keeps the session."""
        wait_for(lambda: (self.run / "one.pid").exists() and (self.run / "one.pid").read_text())
        program = (self.run / "one.pid").read_text()
        stat = Path("/proc", program, "stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])

    def cut(self, how: Literal["server", "connector"]) -> None:
        """Break the newest connection, and wait for the next one."""
        count = len(self.servers)
        server, connector = self.servers[-1]
        if how == "server":
            os.kill(server, signal.SIGKILL)
        else:
            os.killpg(connector, signal.SIGKILL)
        wait_for(lambda: len(self.servers) > count)

    def forget(self) -> None:
        """End a session that nobody comes back to."""
        os.kill(self.keeper, signal.SIGKILL)
        os.killpg(int((self.run / "one.pid").read_text()), signal.SIGKILL)
        for path in self.run.glob("one.*"):
            path.unlink()

    def is_clean(self) -> bool:
        """Tell whether nothing is left of a session."""
        return not self.processes_of(self.run) and [path.name for path in self.run.iterdir()] == [
            "env"
        ]


@pytest.fixture
def double(runtime: Path, processes_of: Callable[[Path], list[int]]) -> Iterator[Double]:
    """Make one; in the end nothing must be left in it: no process, no socket, no file."""
    made = Double(runtime, processes_of)
    made.run.mkdir()
    (made.run / "env").write_text("")
    (made.root / "server.py").write_text(SERVER)
    yield made
    try:
        wait_for(made.is_clean, 10)
    finally:
        for client in made.clients:
            client.close()
        for pid in made.processes_of(made.run):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for client in made.clients:
            client.init.wait(SOON_S)


def python(text: str) -> tuple[str, ...]:
    """Give the command of a program in Python."""
    return ("python3", "-ESc", f"import os, sys, time, signal\n{text}")


def randoms(size: int, seed: int = 0) -> bytes:
    """Give bytes of all kinds."""
    return random.Random(seed).randbytes(size)  # noqa: S311  (not for secrets)


class Reader:
    """Reads a stream all the time, but for the times that it is told not to."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream
        self._stream = os.dup(stream.fileno())  # whoever closes theirs does not ask us
        self.found = bytearray()
        self.reads = threading.Event()
        self.reads.set()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while data := os.read(self._stream, CHUNK):
            self.found += data
            self.reads.wait()
        os.close(self._stream)

    def wait_for(self, size: int) -> None:
        """Wait until so many bytes have been read."""
        wait_for(lambda: len(self.found) >= size)

    def end(self) -> bytes:
        """Wait for the stream's end, and give all of it."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return bytes(self.found)


class Writer:
    """Writes to a stream, and closes it, without being waited for."""

    def __init__(self, stream: IO[bytes] | None, data: bytes) -> None:
        assert stream
        self._stream, self._data = stream, data
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        with contextlib.suppress(BrokenPipeError), self._stream:
            self._stream.write(self._data)


# -- how it ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(("exit 0", 0), ("exit 3", 3), ("exit 255", 255)),
        *(("kill -TERM $$", 143), ("kill -KILL $$", 137)),
    ],
)
def test_exit_code(double: Double, text: str, code: int) -> None:
    """Is the program's, also where ssh has a meaning of its own for it."""
    assert double.execute("sh", "-c", text) == (code, b"", b"")
    assert (double.starts, len(double.servers)) == (1, 1)


def test_script_that_a_signal_ends(double: Double) -> None:
    """Is 128 + n, too."""
    assert double.execute("true", before="kill -TERM $$")[0] == 143


def test_script_knows_its_files(double: Double) -> None:
    """What comes after the program looks at them, from another directory."""
    after = '[ -e "${0%.sh}.pid" ] && echo its pid; [ ! -e "$0" ] && echo no script'

    assert double.execute("true", after=after) == (0, b"its pid\nno script\n", b"")


def test_environment_and_umask(double: Double) -> None:
    """Are those of any session; Python adds LC_CTYPE where there is no locale."""
    before = (
        "umask; export -p | grep -v -e LC_CTYPE -e PWD -e NDDT_ -e PATH; ls -l /proc/$$/fd | "
        "grep -c 'socket:'; (ulimit -S -n; trap)"
    )
    plain = subprocess.run(
        ["sh", "-c", before],
        env={"NDDT_RUN": "", "PATH": os.environ["PATH"], "BOTH": "sshd"},
        capture_output=True,
        check=True,
    )

    assert double.execute("true", before=before) == (0, plain.stdout, b"")


# -- what comes out -------------------------------------------------------------------------


def test_output_is_exact(double: Double) -> None:
    """5 MB on each of two streams that are never mixed up."""
    data = [randoms(5_000_000, seed) for seed in (1, 2)]
    for number, one in enumerate(data):
        (double.root / f"data{number}").write_bytes(one)

    code, *found = double.execute(
        "sh", "-c", f"cat {double.root}/data0 & cat {double.root}/data1 >&2; wait; exit 3"
    )

    assert (code, found == data) == (3, True)


def test_last_words(double: Double) -> None:
    """A pipe full of them, after which the program ends at once."""
    text = "import fcntl; fcntl.fcntl(1, 1031, 1 << 20); os.write(1, b'x' * (1 << 20)); os._exit(4)"

    code, stdout, _ = double.execute(*python(text))

    assert (code, len(stdout)) == (4, MIB)


@pytest.mark.parametrize("how", ["server", "connector"])
def test_broken_connection_while_it_prints(
    double: Double, how: Literal["server", "connector"]
) -> None:
    """Loses nothing and repeats nothing, five times."""
    data = randoms(16 * MIB)
    (double.root / "data").write_bytes(data)
    text = f"f = open('{double.root}/data', 'rb')\nwhile d := f.read(1 << 18): "
    text += "os.write(1 + (f.tell() > 6 << 20), d); time.sleep(0.03)\nsys.exit(3)"
    started = double.begin(*python(text))
    found = Reader(started.stdout), Reader(started.stderr)
    for number in range(1, 6):
        wait_for(lambda size=2 * MIB * number: sum(len(one.found) for one in found) >= size)  # type: ignore[misc]
        double.cut(how)

    assert b"".join(one.end() for one in found) == data
    assert (started.wait(), double.starts, len(double.servers)) == (3, 1, 6)


def test_connection_that_breaks_at_the_very_end(double: Double) -> None:
    """Takes the exit code with it; it is told again."""
    started = double.begin("sh", "-c", f"echo up; read x <{double.root}/go; echo end; exit 3")
    os.mkfifo(double.root / "go")
    assert started.stdout
    assert started.stdout.readline() == b"up\n"
    (double.root / "hold").touch()
    os.kill(double.servers[-1][0], signal.SIGKILL)
    wait_for((double.root / "retakes").exists)
    program = Path("/proc", (double.run / "one.pid").read_text())
    (double.root / "go").write_text("\n")
    wait_for(lambda: not program.exists())
    (double.root / "hold").unlink()

    assert (started.stdout.read(), started.wait(), double.starts) == (b"end\n", 3, 1)


@pytest.mark.parametrize("mode", ["refuse", "cut"])
def test_first_connection_that_breaks(double: Double, mode: str) -> None:
    """Before we have heard anything of it; the program may run already, and does so once."""
    (double.root / "mode").write_text(mode)

    assert double.execute("sh", "-c", "cat; exit 3", data=b"in") == (3, b"in", b"")
    assert double.starts == 1


def test_slow_reader(double: Double) -> None:
    """Slows the program down, and costs no memory in the sandbox."""
    started = double.begin("head", "-c", "200000000", "/dev/zero")
    status = Path("/proc", str(double.keeper), "status")
    reader = Reader(started.stdout)
    reader.wait_for(MIB)
    reader.reads.clear()
    connected = _most_resident_mib(status)
    reader.reads.set()
    (double.root / "hold").touch()
    os.kill(double.servers[-1][0], signal.SIGKILL)
    wait_for((double.root / "retakes").exists)
    size = len(reader.found)
    alone = _most_resident_mib(status)
    (double.root / "hold").unlink()

    assert (len(reader.end()), started.wait()) == (200_000_000, 0)
    assert size < 100_000_000
    assert connected < 40
    assert 64 < alone < 150


def _most_resident_mib(status: Path) -> int:
    found = [_resident_mib(status)]
    while len(found) < 5 or found[-1] > found[-5]:
        time.sleep(0.05)
        found.append(_resident_mib(status))
    return max(found)


def _resident_mib(status: Path) -> int:
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) // 1024


def test_reader_that_goes_away(double: Double) -> None:
    """As that of a pipe into head; the program is ended."""
    ours, theirs = os.pipe()
    started = double.begin("sh", "-c", "echo up; while echo y; do :; done", stdout=theirs)
    os.close(theirs)
    assert os.read(ours, 3) == b"up\n"
    os.close(ours)

    assert started.wait() == 141


def test_endless_stdout_leaves_room_for_stderr(double: Double) -> None:
    """What is said there must not wait for the end."""
    started = double.begin("sh", "-c", "echo up >&2; yes & sleep 0.3; echo news >&2; wait")
    assert started.stderr
    Reader(started.stdout)

    assert (started.stderr.readline(), started.stderr.readline()) == (b"up\n", b"news\n")
    os.kill(started.pid, signal.SIGTERM)
    assert started.wait() == 143


# -- what goes in ---------------------------------------------------------------------------


def test_stdin_is_exact(double: Double) -> None:
    """3 MB of all bytes, there and back, to its end."""
    data = b"\0\0" + randoms(3_000_000) + b"\0"

    code, stdout, stderr = double.execute("cat", data=data)

    assert (code, stdout == data, stderr) == (0, True, b"")


def test_end_of_stdin(double: Double) -> None:
    """Reaches the program while its output is still to come."""
    text = "while read line; do echo got $line; done; echo end; echo more"

    assert double.execute("sh", "-c", text, data=b"a\nb\n") == (
        0,
        b"got a\ngot b\nend\nmore\n",
        b"",
    )


def test_no_stdin(double: Double) -> None:
    """Is the end of it."""
    assert double.execute("sh", "-c", "wc -c") == (0, b"0\n", b"")


def test_answer_before_the_end_of_stdin(double: Double) -> None:
    """As in a talk."""
    started = double.begin("sh", "-c", "while read x; do echo got $x; done", stdin=subprocess.PIPE)
    assert started.stdin
    assert started.stdout
    for word in (b"a", b"b"):
        started.stdin.write(word + b"\n")
        started.stdin.flush()
        assert started.stdout.readline() == b"got " + word + b"\n"
    started.stdin.close()

    assert started.wait() == 0


@pytest.mark.parametrize("text", ["exit 3", "exec <&-; sleep 0.2; exit 3"])
@pytest.mark.parametrize("size", [0, 5_000_000])
def test_stdin_that_nobody_reads(double: Double, text: str, size: int) -> None:
    """And that does not end: neither is waited for."""
    ours, theirs = os.pipe()
    started = double.begin("sh", "-c", text, stdin=ours)
    os.close(ours)
    with open(theirs, "wb", buffering=0) as stream:  # noqa: PTH123  (a descriptor)
        writing = threading.Thread(target=_write, args=(stream, bytes(size)))
        writing.start()

        assert started.wait() == 3
        writing.join(SOON_S)
        assert not writing.is_alive()


def _write(stream: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        stream.write(data)


@pytest.mark.parametrize("how", ["server", "connector"])
def test_broken_connection_while_it_reads(
    double: Double, how: Literal["server", "connector"]
) -> None:
    """Loses nothing and repeats nothing on the way in and on the way back, five times."""
    data = randoms(10 * MIB)
    text = "while d := os.read(0, 1 << 16):\n time.sleep(0.002)\n while d: d = d[os.write(1, d):]"
    started = double.begin(*python(text + "\nsys.exit(3)"), stdin=subprocess.PIPE)
    Writer(started.stdin, data)
    reader = Reader(started.stdout)
    for number in range(1, 6):
        reader.wait_for(number * MIB)
        double.cut(how)

    assert reader.end() == data
    assert (started.wait(), double.starts, len(double.servers)) == (3, 1, 6)


# -- the end of others ----------------------------------------------------------------------

SILENT = ("sh", "-c", "echo up; exec sleep 60")
PRINTING = ("sh", "-c", "echo up; while echo line; do sleep 0.01; done")
FLOODING = ("sh", "-c", "echo up; exec yes")
DEAF = ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
READING = ("sh", "-c", "echo up; exec cat >/dev/null")
each_program = pytest.mark.parametrize(
    "argv",
    [
        pytest.param(SILENT, id="silent"),
        pytest.param(PRINTING, id="printing"),
        pytest.param(FLOODING, id="flooding"),
        pytest.param(DEAF, id="deaf-to-sigterm"),
        pytest.param(READING, id="reading"),
    ],
)


def is_gone(pid: int) -> Callable[[], bool]:
    """Give the question whether a process has ended."""
    return lambda: not Path("/proc", str(pid)).exists()


@each_program
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_client_that_ends(double: Double, argv: tuple[str, ...], signum: signal.Signals) -> None:
    """Ends the program, over a connection that is sound."""
    started = double.begin(*argv, stdin=subprocess.PIPE)
    assert started.stdout
    assert started.stdout.readline() == b"up\n"
    program = int((double.run / "one.pid").read_text())
    Reader(started.stdout)
    os.kill(started.pid, signum)

    wait_for(is_gone(program))
    assert started.wait() == (-9 if signum == signal.SIGKILL else 143)
    assert double.starts == 1


class Interrupted(threading.Condition):
    """A lock that is taken as a signal comes: Python handles it before anybody lets go."""

    def __enter__(self) -> bool:
        took = super().__enter__()
        if threading.current_thread() is threading.main_thread():
            os.kill(os.getpid(), signal.SIGTERM)
        return took


@pytest.mark.parametrize("way", ["channel", "stdin arrives", "stdin pauses"])
def test_a_signal_as_a_lock_is_taken(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Ends us, and the lock is free: else nothing could be sent to the program any more."""
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Condition", Interrupted)
        stdin = durable.Stdin(None)
    channel = Channel(("cat",))
    request.addfinalizer(channel.close)
    monkeypatch.setattr(channel._changed, "__class__", Interrupted)
    steps: dict[str, tuple[Callable[[], None], threading.Condition]] = {
        "channel": (lambda: channel.send(b"x"), channel._changed),
        "stdin arrives": (lambda: stdin.arrived(0), stdin._changed),
        "stdin pauses": (stdin.pause, stdin._changed),
    }
    step, lock = steps[way]

    with signals.raised(), pytest.raises(EndedBySignalError):
        step()

    free = threading.Event()

    def take() -> None:
        with lock:
            free.set()

    threading.Thread(target=take, daemon=True).start()
    assert free.wait(5)
    monkeypatch.undo()


def test_client_and_connection_that_end_together(double: Double) -> None:
    """As when a machine is switched off: the program waits for a client."""
    started = double.begin(*SILENT)
    assert started.stdout
    assert started.stdout.readline() == b"up\n"
    program = int((double.run / "one.pid").read_text())
    os.kill(started.pid, signal.SIGSTOP)
    os.kill(double.servers[-1][0], signal.SIGKILL)
    connector = double.servers[-1][1]
    os.kill(started.pid, signal.SIGKILL)
    wait_for(is_gone(connector))

    assert not is_gone(program)()
    double.forget()


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("sleep 60 &", id="silent"),
        pytest.param("while sleep 0.1; do echo more; done &", id="printing"),
        pytest.param("sleep 0.2 && yes &", id="flooding"),
        pytest.param("(trap '' TERM; sleep 60) &", id="deaf-to-sigterm"),
        pytest.param("sleep 60 >/dev/null 2>&1 &", id="without-our-pipes"),
    ],
)
def test_process_that_the_program_leaves(double: Double, left: str) -> None:
    """Does not keep us, and is ended."""
    started = double.begin("sh", "-c", f"{left} echo $!; exit 3")
    assert started.stdout
    background = int(started.stdout.readline())
    Reader(started.stdout)

    assert started.wait() == 3
    wait_for(is_gone(background))


@each_program
def test_time_limit(double: Double, argv: tuple[str, ...]) -> None:
    """Ends the program, whatever it does."""
    started = double.begin(*argv, stdin=subprocess.PIPE, timeout_s=1)
    assert started.stdout
    assert started.stdout.readline() == b"up\n"
    program = int((double.run / "one.pid").read_text())
    Reader(started.stdout)

    assert started.wait() == TimeLimitError.exit_code
    assert double.error == "TimeLimitError: the time limit of 1 s is over"
    wait_for(is_gone(program))


def test_time_limit_with_stdin_that_nobody_reads(double: Double) -> None:
    """What is under way must not keep the end from being asked for."""
    started = double.begin(*SILENT, stdin=subprocess.PIPE, timeout_s=1)
    Writer(started.stdin, bytes(5_000_000))

    assert started.wait() == TimeLimitError.exit_code


def test_time_limit_while_the_connection_stands_still(double: Double) -> None:
    """The limit counts, though the program cannot be asked to end."""
    # Long enough for a machine with other work to have begun by then.
    started = double.begin(*READING, stdin=subprocess.PIPE, timeout_s=6)
    assert started.stdout
    assert started.stdout.readline() == b"up\n"
    os.kill(double.servers[-1][0], signal.SIGUSR1)
    Writer(started.stdin, bytes(5_000_000))
    try:
        assert started.wait() == TimeLimitError.exit_code
    finally:
        double.forget()


@pytest.mark.parametrize("files_stay", [True, False])
def test_keeper_that_is_gone(double: Double, *, files_stay: bool) -> None:
    """As after a restart of the sandbox: there is nothing to come back to."""
    started = double.begin(*SILENT)
    assert started.stdout
    assert started.stdout.readline() == b"up\n"
    keeper, program = double.keeper, int((double.run / "one.pid").read_text())
    (double.root / "hold").touch()
    os.kill(double.servers[-1][0], signal.SIGKILL)
    wait_for((double.root / "retakes").exists)
    os.kill(keeper, signal.SIGKILL)
    os.killpg(program, signal.SIGKILL)
    if not files_stay:
        for path in double.run.glob("one.*"):
            path.unlink()
    (double.root / "hold").unlink()

    assert started.wait() == TransportLostError.exit_code
    assert double.error.startswith("DeadLineError: ")
    assert double.starts == 1
    for path in double.run.glob("one.*"):
        path.unlink()


def test_sandbox_without_a_place_for_the_session(double: Double) -> None:
    """Is an error at once."""
    double.run.rename(double.root / "elsewhere")
    code, _, _ = double.execute("true")
    (double.root / "elsewhere").rename(double.run)

    assert code == TransportLostError.exit_code
    assert double.error == "TransportLostError: the session could not be started"


# -- another program in the relay's place -----------------------------------------------------

VICTIM = """
import re, sys, types
from contextlib import nullcontext
from pathlib import Path
from scripts.transport import channel, durable, ssh
from scripts.errors import NddtError
from scripts.transport.line import Line

ssh.CONNECT_S, durable.FIRST_PATIENCE_S = float(sys.argv[2]), 1.0
channel.END_S = durable.END_S = 0.3
line = Line(
    sandbox="double",
    connection=types.SimpleNamespace(
        direct_argv=lambda *words: (sys.executable, "-c", sys.argv[1]),
        cancelling=lambda forwards: nullcontext(),
    ),
    is_kept=False,
    stays=False,
    is_durable=True,
    retake=lambda errors, attempt: None,
)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
try:
    code = durable.Session("one", "true", None).attend(line, ())
except NddtError as error:
    code = error.exit_code
    print(error, file=sys.stderr)
print((peak() - before) // 1024, file=sys.stderr)
sys.exit(code)
"""
SPEAK = """
import os, select, struct, sys, time
def frame(kind, data=b""):
    return struct.pack(">BI", kind, len(data)) + data
HELLO, STDOUT, STDERR, TOOK, EXIT, GONE = range(16, 22)
hello = frame(HELLO, bytes(8))
def say(*all):
    for one in all:
        sys.stdout.buffer.write(one)
    sys.stdout.flush()
def wait_until_full():
    into, end = os.open("/proc/self/fd/0", os.O_WRONLY), time.monotonic() + 60
    while select.select([], [into], [], 0)[1] and time.monotonic() < end:
        time.sleep(0.01)
    os.close(into)
try:
    {}
    time.sleep(60)
except BrokenPipeError:
    pass
"""
HOSTILE = {
    "zeros": "while True: say(bytes(65536))",
    "text": "while True: say(b'yes\\n' * 16384)",
    "text-after-hello": "say(hello, b'yes\\n' * 16384)",
    "a-frame-of-4-GiB": "say(hello, b'\\x11\\xff\\xff\\xff\\xff', bytes(1 << 27))",
    "a-kind-of-our-own": "say(hello, frame(0, b'x'))",
    "no-count": "say(frame(HELLO))",
    "half-a-count": "say(hello, frame(TOOK, b'x'))",
    "a-huge-count": "say(frame(HELLO, b'\\xff' * 8))",
    "more-taken-than-sent": "say(hello, frame(TOOK, struct.pack('>Q', 1)))",
    "a-code-of-256": "say(hello, frame(EXIT, struct.pack('>i', 256)))",
    "a-code-below-0": "say(hello, frame(EXIT, struct.pack('>i', -1)))",
    "half-a-code": "say(hello, frame(EXIT, b'x'))",
}
SILENT_RELAYS = {
    "nothing": ("pass", 74),
    "half-a-frame": ("say(hello[:7])", 74),
    "errors-without-end": (
        "sys.stderr.write('x' * 70_000_000)\n    say(hello, frame(EXIT, bytes(4)))",
        0,
    ),
    "much-that-is-well": (
        "say(hello, *[frame(STDOUT, bytes(65536))] * 3000, frame(EXIT, bytes(4)))",
        0,
    ),
    "gone": ("say(frame(GONE))", 74),
}


def victim(speech: str, data: bytes = b"") -> tuple[int, list[str], int]:
    """Have a session with this in the place of the relay: code, what is said, MiB more memory."""
    connect_s = "30" if "EXIT" in speech else "1"
    client = (sys.executable, "-c", VICTIM, SPEAK.format(speech), connect_s)
    done = subprocess.run(
        client, input=data, capture_output=True, check=False, cwd=ROOT, timeout=90
    )
    *said, growth = done.stderr.decode().splitlines()
    return done.returncode, said, int(growth)


@pytest.mark.parametrize("speech", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_no_relay_sends(speech: str) -> None:
    """Ends the session, with one line and no more memory than it needs."""
    code, said, growth = victim(speech)

    assert (code, len(said)) == (65, 1), said
    assert said[0].startswith("nddt: the sandbox sends what no session of ours does — ")
    assert growth < 64


@pytest.mark.parametrize(("speech", "code"), SILENT_RELAYS.values(), ids=SILENT_RELAYS.keys())
def test_a_relay_that_says_little_or_much(speech: str, code: int) -> None:
    """Is waited for so long, and heard for ever."""
    found, said, growth = victim(speech)

    assert (found, len(said)) == (code, 1 if code else 0), said
    assert growth < 64


FULL = {
    "a-count": "say(frame(TOOK, bytes(8)), *[frame(STDOUT, bytes(65536))] * 30)",
    "much-output": "say(*[frame(STDOUT, bytes(65536))] * 90)",
    "nothing": "pass",
}


@pytest.mark.parametrize("speech", FULL.values(), ids=FULL.keys())
def test_what_takes_no_stdin_is_heard(speech: str) -> None:
    """Such as a connection whose other end has died: what is to be sent must not wait for it."""
    speech = f"say(hello); wait_until_full(); {speech}; say(frame(EXIT, bytes(4)))"

    code, said, _ = victim(speech, bytes(5_000_000))

    assert (code, said) == (0, [])
