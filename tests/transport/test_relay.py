"""The relay: its frames, the output that it keeps, and whom it serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scripts.transport import frames, inside, relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = inside.bundle(relay, relay.SENT, packed=False)
SOON_S = 30
some_frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)))

# -- frames ---------------------------------------------------------------------------------


@given(sent=some_frames, data=st.data())
def test_frames(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Come out as they went in, wherever the stream is cut."""
    stream = b"".join(frames.frame(kind, payload) for kind, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    taken = frames.Frames()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += taken.feed(stream[start:end])

    assert found == sent


@given(sent=some_frames, kind=st.integers(0, 255), payload=st.binary(max_size=20))
def test_frame_that_is_not_complete(
    sent: list[tuple[int, bytes]], kind: int, payload: bytes
) -> None:
    """Waits for its last byte."""
    stream = b"".join(frames.frame(*one) for one in sent)
    last = frames.frame(kind, payload)
    taken = frames.Frames()

    assert taken.feed(stream + last[:-1]) == sent
    assert taken.feed(b"") == []
    assert taken.feed(last[-1:]) == [(kind, payload)]


def test_kinds_of_frames() -> None:
    """Are different ones, each way's its own."""
    ours = (
        frames.OPEN,
        frames.STDIN,
        frames.STDIN_END,
        frames.GOT,
        frames.END,
        frames.BYE,
        frames.DIED,
    )
    theirs = (frames.HELLO, frames.STDOUT, frames.STDERR, frames.TOOK, frames.EXIT, frames.GONE)

    assert len({*ours, *theirs}) == len(ours) + len(theirs)
    assert frames.STDERR == frames.STDOUT + 1  # the client relies on it


# -- output ---------------------------------------------------------------------------------


class Reception(RuleBasedStateMachine):
    """An output and a client that gets it over connections that break."""

    @initialize()
    def begin(self) -> None:
        """Start with nothing printed."""
        self.output = frames.Output(frames.STDOUT, 1)
        self.printed = b""
        self.got = b""
        self.sent_frames: list[bytes] = []
        self.stale: list[int] = [0]

    @precondition(lambda self: not self.output.ended)
    @rule(data=st.one_of(st.binary(min_size=1, max_size=50), st.just(bytes(frames.CHUNK + 7))))
    def add(self, data: bytes) -> None:
        """The program prints."""
        self.output.add(data)
        self.printed += data

    @rule()
    def end(self) -> None:
        """The program prints no more."""
        self.output.add(b"")

    @rule()
    def send(self) -> None:
        """Something goes on its way."""
        data = self.output.next_frame()
        assert len(data) <= frames.HEAD.size + frames.CHUNK
        if data:
            self.sent_frames.append(data)

    @precondition(lambda self: self.sent_frames)
    @rule()
    def arrive(self) -> None:
        """The client gets it."""
        ((kind, payload),) = frames.Frames().feed(self.sent_frames.pop(0))
        assert kind == frames.STDOUT
        self.got += payload
        self.stale.append(len(self.got))

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """The client says what it has, or had."""
        self.output.got(data.draw(st.sampled_from(self.stale)))

    @rule()
    def reconnect(self) -> None:
        """What was on its way is lost."""
        self.sent_frames.clear()
        self.output.resume(len(self.got))

    @invariant()
    def nothing_is_lost_or_changed(self) -> None:
        """What has arrived is the beginning of what was printed; the rest is kept."""
        assert self.printed.startswith(self.got)
        assert len(self.printed) - len(self.got) <= self.output.held <= len(self.printed)

    @invariant()
    def it_is_sent_once_all_is(self) -> None:
        """Only then may the exit code follow."""
        way = sum(len(data) - frames.HEAD.size for data in self.sent_frames)
        all_is = len(self.got) + way == len(self.printed)
        assert self.output.is_sent == (self.output.ended and all_is)

    def teardown(self) -> None:
        """After one last connection the client has it all."""
        if not hasattr(self, "output"):
            return
        self.reconnect()
        while data := self.output.next_frame():
            self.got += data[frames.HEAD.size :]
        self.output.got(len(self.got))

        assert self.got == self.printed
        assert self.output.held == 0


Reception.TestCase.settings = hypothesis_settings(max_examples=60, deadline=None)
TestReception = Reception.TestCase


# -- sessions -------------------------------------------------------------------------------


class Connection:
    """A connection to a session's relay, as the client has one."""

    def __init__(self, run: Path, source: bytes = SOURCE) -> None:
        python = Path(sys.base_prefix) / "bin"
        self.process = subprocess.Popen(
            ["sh", "-c", inside.python("relay", len(source), "one")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"NDDT_RUN": str(run), "PATH": f"{python}:{os.environ['PATH']}"},
            start_new_session=True,
        )
        assert self.process.stdin
        self._stdin = self.process.stdin
        self._stdin.write(source)
        self._stdin.flush()
        self._frames = frames.Frames()
        self._received: list[tuple[int, bytes]] = []

    def say(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame."""
        self._stdin.write(frames.frame(kind, payload))
        self._stdin.flush()

    def open(
        self, script: str = "", *, got: int = 0, patience_s: int = 60, again: bool = False
    ) -> None:
        """Ask for a session."""
        self.say(frames.OPEN, frames.OPENING.pack(got, 0, patience_s, again) + script.encode())

    def next(self) -> tuple[int, bytes] | None:
        """Give the next frame; None at the end."""
        assert self.process.stdout
        while not self._received:
            data = os.read(self.process.stdout.fileno(), frames.CHUNK)
            if not data:
                return None
            self._received += self._frames.feed(data)
        return self._received.pop(0)

    def until(self, kind: int) -> tuple[bytes, bytes]:
        """Give what is printed until a frame of this kind arrives, and that one's payload."""
        printed = b""
        while found := self.next():
            if found[0] == kind:
                return printed, found[1]
            printed += found[1] if found[0] == frames.STDOUT else b""
        raise AssertionError("the connection has ended")

    def close(self) -> None:
        """Break it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                if stream:
                    stream.close()


@contextmanager
def connected(run: Path, source: bytes = SOURCE) -> Iterator[Connection]:
    """Have a connection for a while."""
    connection = Connection(run, source)
    try:
        yield connection
    finally:
        connection.close()


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + SOON_S
    while not what():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.02)


@pytest.fixture
def run(runtime: Path, processes_of: Callable[[Path], list[int]]) -> Iterator[Path]:
    """Make a sandbox's private directory; no process and no file must be left of it."""
    yield runtime
    try:
        wait_for(lambda: not processes_of(runtime) and not [*runtime.glob("one.*")])
    finally:
        for pid in processes_of(runtime):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_session(run: Path) -> None:
    """From its opening to the exit code; the relay ends when the client says goodbye."""
    with connected(run) as client:
        client.open("cat; echo end; exit 3")
        assert client.until(frames.HELLO) == (b"", frames.COUNT.pack(0))
        assert (run / "one.pid").exists()
        assert (run / "one.sh").stat().st_mode & 0o777 == 0o600
        client.say(frames.STDIN, b"in\n")
        assert client.next() == (frames.TOOK, frames.COUNT.pack(3))
        client.say(frames.STDIN_END)
        assert client.until(frames.EXIT) == (b"in\nend\n", frames.CODE.pack(3))
        client.say(frames.BYE)

        assert client.next() is None
        assert client.process.wait(SOON_S) == 0


def test_session_that_is_not_there(run: Path) -> None:
    """Is not started a second time."""
    with connected(run) as client:
        client.open(f"touch {run}/started", again=True)

        assert client.next() == (frames.GONE, b"")
        assert client.next() is None
    assert list(run.iterdir()) == []


def test_client_that_dies_while_it_opens(run: Path) -> None:
    """Has no session."""
    with connected(run) as client:
        assert client.process.stdin
        client.process.stdin.write(frames.frame(frames.OPEN, bytes(1000))[:-1])
        client.process.stdin.close()

        assert client.next() is None
        assert client.process.wait(SOON_S) == 1
    assert list(run.iterdir()) == []


def test_new_connection_takes_the_place_of_the_old(run: Path) -> None:
    """It gets all that the old one is not known to have, and then the old one ends."""
    with connected(run) as old, connected(run) as new:
        old.open("echo one; read x; echo $x; read x; echo $x")
        assert old.until(frames.STDOUT) == (b"", b"one\n")
        old.say(frames.STDIN, b"two\n")
        assert old.until(frames.STDOUT) == (b"", b"two\n")
        new.open(got=4, again=True)

        assert old.next() is None
        assert new.until(frames.HELLO) == (b"", frames.COUNT.pack(4))
        new.say(frames.STDIN, b"three\n")
        assert new.until(frames.EXIT) == (b"two\nthree\n", frames.CODE.pack(0))
        new.say(frames.BYE)
        assert new.next() is None


HESITANT = b"""
import time
_at_once = _connect
def _connect(path):
    found = _at_once(path)
    time.sleep(0.2)
    return found
"""


def test_connections_that_open_at_once(run: Path) -> None:
    """Start the session once: a first connection may break behind what it has said."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(run, SOURCE + HESITANT)) for _ in range(3)]
        for client in clients:
            client.open(f"echo x >>{run}/starts; read x; echo end")
        assert any(client.next() for client in clients)
        last = stack.enter_context(connected(run))
        last.open(again=True)
        last.until(frames.HELLO)
        last.say(frames.STDIN, b"\n")
        assert last.until(frames.EXIT)[0] == b"end\n"
        last.say(frames.BYE)
        assert last.next() is None

    assert (run / "starts").read_text() == "x\n"


@pytest.mark.parametrize("text", ["exec sleep 60", "trap '' TERM; while :; do sleep 0.1; done"])
def test_client_that_stays_away_for_too_long(run: Path, text: str) -> None:
    """Finds nothing any more, and the program has ended."""
    with connected(run) as client:
        client.open(f"echo $$; {text}", patience_s=1)
        program = int(client.until(frames.STDOUT)[1])
    wait_for(lambda: not Path("/proc", str(program)).exists())
    wait_for(lambda: not (run / "one.sock").exists())

    with connected(run) as client:
        client.open(again=True)
        assert client.next() == (frames.GONE, b"")


def test_last_wish_of_a_client_that_does_not_read(run: Path) -> None:
    """Is heard, though there is output on its way that nobody takes."""
    with connected(run) as client:
        client.open("echo $$; exec yes")
        program = int(client.until(frames.STDOUT)[1].split()[0])
        assert client.process.stdout
        client.process.stdout.close()
        time.sleep(0.2)
        with suppress(BrokenPipeError):
            client.say(frames.DIED)

        wait_for(lambda: not Path("/proc", str(program)).exists())


@pytest.mark.parametrize("then", ["sleep 0.5; exit", ":"])
def test_client_that_goes_after_it_has_asked_for_the_end(run: Path, then: str) -> None:
    """Does not come back: the session does not wait for it, also if the program is deaf."""
    with connected(run) as client:
        client.open(
            f"trap 'echo asked; {then}' TERM; echo up; while :; do sleep 0.1; done", patience_s=600
        )
        assert client.until(frames.STDOUT)[1] == b"up\n"
        client.say(frames.END)
        assert client.until(frames.STDOUT)[1] == b"asked\n"
