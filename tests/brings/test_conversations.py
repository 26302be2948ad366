"""Conversations on their way into a sandbox and back, through real shells and archives."""

from __future__ import annotations

import gzip
import io
import logging
import os
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import naming
from scripts.agents import claude
from scripts.brings import conversations
from scripts.brings.conversations import Store
from scripts.contracts.agent import Request
from scripts.errors import ConfigError, TransportLostError
from scripts.machine.beneath import Beneath
from scripts.run import sessions
from scripts.transport.line import Line
from scripts.transport.ssh import Connection

if TYPE_CHECKING:
    from tests.conftest import Project

INSIDE = ".claude/projects/-workspace"
ONE, TWO = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    """A store that exists and is empty."""
    (tmp_path / "store").mkdir()
    return Store(directory=tmp_path / "store", inside=INSIDE, is_shown=False)


def write(directory: Path, name: str, content: str, age_s: float = 0) -> None:
    """Write a file that is so old."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (time.time() - age_s,) * 2)


def texts(directory: Path) -> dict[str, str]:
    """Give all files."""
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


class Sandbox:
    """A home directory in which sessions begin and end."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.place = home / INSIDE

    def begin(self, kept: Store, wanted: str | None) -> None:
        """Unpack what a session brings."""
        session = self.home.parent / "s.d"
        subprocess.run(
            ("sh", "-eu"),
            input=conversations.bring_conversations(kept, wanted).unpack().encode(),
            env={**self.environ, "NDDT_SESSION": str(session)},
            check=True,
        )
        assert not session.exists() or not list(session.iterdir())

    @property
    def environ(self) -> dict[str, str]:
        """The sandbox's variables."""
        return {"HOME": str(self.home), "PATH": os.environ["PATH"]}

    def end(self, kept: Store, limit_s: float = 30) -> None:
        """Bring back what is new."""
        command = conversations.sender(kept.inside)
        words = ("env", f"HOME={self.home}", "sh", "-c", command)
        assert conversations.fetch(kept, words, limit_s) == ""


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """An empty one."""
    return Sandbox(tmp_path / "home")


# -- where they are -------------------------------------------------------------------------


def test_stores(project: Project) -> None:
    """Each directory has its own; all that share nothing have one in common."""
    mount = conversations.store(project.load_for_provider(), "claude", INSIDE)
    project.environ["XDG_STATE_HOME"] = "/state"
    sync = conversations.store(project.load_for_provider(), "claude", INSIDE)
    project.environ["NDDT_WORKSPACE"] = "none"
    none = conversations.store(project.load_for_provider(), "claude", INSIDE)

    assert mount.directory.parent == project.home / ".local/state/nddt/conversations/claude"
    assert sync.directory == Path("/state/nddt/conversations/claude", mount.directory.name)
    assert none.directory == Path("/state/nddt/conversations/claude/nddt-workspace")
    assert [mount.is_shown, none.is_shown] == [True, False]


def test_a_project_does_not_get_at_the_shared_store(project: Project) -> None:
    """Nor at the kept sandbox of all that share nothing; whoever has none has it to himself."""
    project.write("NDDT_WORKSPACE=none\n")
    own = conversations.store(project.load(), "claude", INSIDE)
    project.write("NDDT_WORKSPACE=sync\n")
    project.write_user_file("NDDT_WORKSPACE=none\n")
    shared = conversations.store(project.load(), "claude", INSIDE)

    assert own.directory.name == naming.persistent_name(project.directory)
    assert shared.directory.name == "nddt-workspace"
    project.agree()
    assert conversations.store(project.load(), "claude", INSIDE).directory == own.directory


def test_a_store_is_private(tmp_path: Path) -> None:
    """It is made with all above it; what is in the way is an error that says so."""
    shown = Store(directory=tmp_path / "a/b", inside=INSIDE, is_shown=True)
    shown.prepare()
    shown.prepare()
    assert shown.directory.stat().st_mode & 0o777 == 0o700

    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        Store(directory=tmp_path / "file/b", inside=INSIDE, is_shown=True).prepare()


# -- on the way in --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(headless=True), None),
        (Request(headless=True, prompt="--continue"), None),
        (Request(headless=True, arguments=("--", "--continue")), None),
        (Request(headless=True, arguments=("--max-turns", "3")), None),
        (Request(headless=True, resume_last=True), "last"),
        (Request(headless=True, arguments=("-c",)), "last"),
        (Request(headless=True, resume=ONE), ONE),
        (Request(headless=True, arguments=("--resume", ONE)), ONE),
        (Request(headless=True, arguments=(f"--resume={ONE}",)), ONE),
        (Request(headless=True, arguments=("-r",)), "*"),
        (Request(), "*"),
    ],
)
def test_what_a_session_can_come_back_to(request_: Request, expected: str | None) -> None:
    """Decides what it needs."""
    assert claude.recalls(request_) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, []),
        ("last", [ONE]),
        (TWO, [TWO, f"{TWO}/subagents/agent-a"]),
        ("*", [ONE, TWO, f"{TWO}/subagents/agent-a"]),
        ("some title", [ONE, TWO, f"{TWO}/subagents/agent-a"]),
    ],
)
def test_only_what_is_needed(
    kept: Store, sandbox: Sandbox, wanted: str | None, expected: list[str]
) -> None:
    """Comes along, and the agent's notes; times stay what they were."""
    write(kept.directory, f"{ONE}.jsonl", "newest", 10)
    write(kept.directory, f"{TWO}.jsonl", "older", 1000)
    write(kept.directory, f"{TWO}/subagents/agent-a.jsonl", "helper", 1)
    write(kept.directory, "memory/note.md", "note")

    sandbox.begin(kept, wanted)

    assert sorted(texts(sandbox.place)) == sorted(
        [*(f"{name}.jsonl" for name in expected), "memory/note.md"]
    )
    if ONE in expected:
        age = time.time() - (sandbox.place / f"{ONE}.jsonl").stat().st_mtime
        assert 9 < age < 30


def test_the_longer_one_stays(kept: Store, sandbox: Sandbox) -> None:
    """In both directions: a conversation only gets longer. Of notes it is the newer one."""
    for name, here, there in (("a.jsonl", "123", "12"), ("b.jsonl", "12", "123")):
        write(kept.directory, name, here, 5)
        write(sandbox.place, name, there)
    write(kept.directory, "memory/a.md", "newer")
    write(sandbox.place, "memory/a.md", "older, longer", 100)
    write(kept.directory, "memory/b.md", "older, longer", 100)
    write(sandbox.place, "memory/b.md", "newer")

    sandbox.begin(kept, "*")
    both = {
        "a.jsonl": "123",
        "b.jsonl": "123",
        "memory/a.md": "newer",
        "memory/b.md": "newer",
    }
    assert texts(sandbox.place) == both
    sandbox.end(kept)
    assert texts(kept.directory) == both


def test_too_long(
    kept: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was asked for is named; of all, the newest come along."""
    monkeypatch.setattr(conversations, "BROUGHT", 10)
    write(kept.directory, "old.jsonl", "x" * 9, 50)
    write(kept.directory, "new.jsonl", "x" * 9)
    write(kept.directory, "long.jsonl", "x" * 11, 99)

    with caplog.at_level(logging.WARNING, "nddt"):
        assert list(conversations.bring_conversations(kept, "*").files) == [
            "session/conversations/new.jsonl"
        ]
        assert not caplog.messages
        assert not conversations.bring_conversations(kept, "long").files
    assert caplog.messages == [f"{kept.directory}/long.jsonl is too long to come along"]


def test_a_shown_directory_is_not_copied(kept: Store) -> None:
    """The sandbox has it already."""
    write(kept.directory, f"{ONE}.jsonl", "x")
    shown = Store(directory=kept.directory, inside=INSIDE, is_shown=True)

    assert not conversations.bring_conversations(shown, "*").files
    with sessions.fetched(shown, Way(("no-such-program",))):
        pass


def test_traps_in_the_store(kept: Store, tmp_path: Path) -> None:
    """A sandbox that shows the directory may have left links to what is not its own."""
    (tmp_path / "secrets").mkdir()
    write(tmp_path / "secrets", "s.jsonl", "secret")
    (kept.directory / "link.jsonl").symlink_to(tmp_path / "secrets/s.jsonl")
    (kept.directory / "deep").symlink_to(tmp_path / "secrets")
    os.mkfifo(kept.directory / "pipe.jsonl")
    write(kept.directory, "fine.jsonl", "x")

    assert list(conversations.bring_conversations(kept, "*").files) == [
        "session/conversations/fine.jsonl"
    ]
    for name in ("link.jsonl", "deep/s.jsonl", "pipe.jsonl"):
        with pytest.raises(OSError):  # noqa: PT011  (which one, depends on the trap)
            conversations._read(kept.directory, name)


# -- on the way back ------------------------------------------------------------------------


def test_what_is_new_comes_back(kept: Store, sandbox: Sandbox) -> None:
    """With its time, readable for its owner alone; what is known is not sent again."""
    write(kept.directory, f"{ONE}.jsonl", "old")
    sandbox.begin(kept, ONE)
    write(sandbox.place, f"{ONE}.jsonl", "old and new", 3)
    write(sandbox.place, f"{TWO}/tool-results/x.txt", "output")
    write(sandbox.place, "-rf.jsonl", "odd")
    write(sandbox.place, "not this.sh", "x")

    sandbox.end(kept)

    assert texts(kept.directory) == {
        f"{ONE}.jsonl": "old and new",
        f"{TWO}/tool-results/x.txt": "output",
        "-rf.jsonl": "odd",
    }
    path = kept.directory / f"{ONE}.jsonl"
    assert path.stat().st_mtime == (sandbox.place / f"{ONE}.jsonl").stat().st_mtime
    assert path.stat().st_mode & 0o777 == 0o600
    known = "".join(sorted(f"{len(v)} {k}\n" for k, v in texts(kept.directory).items()))
    sent = subprocess.run(
        ("sh", "-c", conversations.sender(INSIDE)),
        input=known.encode(),
        env=sandbox.environ,
        check=True,
        capture_output=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(sent)) as archive:
        assert archive.getnames() == ["not this.sh"]


def test_nothing_comes_back(kept: Store, sandbox: Sandbox, tmp_path: Path) -> None:
    """From a sandbox without any, and then nothing is made here."""
    sandbox.end(kept)
    assert not texts(kept.directory)
    nowhere = Store(directory=tmp_path / "nowhere", inside=INSIDE, is_shown=False)
    sandbox.end(nowhere)
    assert not nowhere.directory.exists()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("exit 0", "empty file"),
        ("echo no archive", "Not a gzipped file"),
        ("echo no way >&2; exit 255", "no way"),
        ("sleep 20", "no answer in 0 s"),
        ("tar -czf - -C / etc/passwd | head -c 50", "Compressed file ended"),
    ],
)
def test_a_failure(kept: Store, program: str, said: str) -> None:
    """Has a reason, and what there is stays."""
    write(kept.directory, "a.jsonl", "stays")

    limit_s = 0.3 if "sleep" in program else 20
    problem = conversations.fetch(kept, ("sh", "-c", program), limit_s)

    assert said in problem
    assert texts(kept.directory) == {"a.jsonl": "stays"}


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """Make an archive of these."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return io.BytesIO(gzip.compress(plain.getvalue()))


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """Give a member of an archive."""
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


@pytest.mark.parametrize(
    "hostile",
    [
        member("../out.jsonl"),
        member("/tmp/out.jsonl"),
        member("a/../../out.jsonl"),
        member(".hidden.jsonl"),
        member("a/.ssh/x.jsonl"),
        member("run.sh"),
        member("x" * 300 + "/" + "y/" * 50 + "z.jsonl"),
        member("link.jsonl", tarfile.SYMTYPE, "/etc/passwd"),
        member("link.jsonl", tarfile.LNKTYPE, "ok.jsonl"),
        member("pipe.jsonl", tarfile.FIFOTYPE),
        member("device.jsonl", tarfile.CHRTYPE),
        member("directory.jsonl", tarfile.DIRTYPE),
        member("new\nline.jsonl"),
    ],
)
def test_hostile_archives(kept: Store, hostile: tarfile.TarInfo) -> None:
    """Only plain conversations are taken, and the rest of the archive is still read."""
    archive = packed((hostile, b""), (member("ok.jsonl"), b"ok"))

    assert conversations.take(kept, archive) == 1

    assert texts(kept.directory) == {"ok.jsonl": "ok"}
    assert sorted(path.name for path in kept.directory.parent.iterdir()) == ["store"]


def test_links_here_lead_nowhere(kept: Store, tmp_path: Path) -> None:
    """What is written through a link that a sandbox has left would be written elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere", "x.jsonl", "")
    (kept.directory / "deep").symlink_to(tmp_path / "elsewhere")
    (kept.directory / "x.jsonl").symlink_to(tmp_path / "elsewhere/x.jsonl")

    assert conversations.take(kept, packed((member("x.jsonl"), b"new"))) == 1
    with pytest.raises(OSError, match="deep"):
        conversations.take(kept, packed((member("deep/y.jsonl"), b"new")))

    assert texts(tmp_path / "elsewhere") == {"x.jsonl": ""}
    assert (kept.directory / "x.jsonl").read_text() == "new"
    assert not (kept.directory / "x.jsonl").is_symlink()


def test_too_much_comes_back(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream is not read to its end, however small it is packed."""
    monkeypatch.setattr(conversations, "FETCHED", 1 << 20)
    monkeypatch.setattr(conversations, "MOST_FILES", 3)
    with pytest.raises(ValueError, match="too much"):
        conversations.take(kept, packed((member("a.jsonl"), bytes(2 << 20))))
    with pytest.raises(ValueError, match="too many"):
        conversations.take(kept, packed(*((member(f"{i}.jsonl"), b"x") for i in range(9))))
    assert len(texts(kept.directory)) == 3


def test_a_deep_store(kept: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Keeps nobody from what is not deep, and is told of once."""
    here = os.open(kept.directory, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=here)
        deeper = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    write(kept.directory, "fine.jsonl", "x")
    with caplog.at_level(logging.WARNING, "nddt"):
        assert list(conversations.bring_conversations(kept, "*").files) == [
            "session/conversations/fine.jsonl"
        ]
    (said,) = caplog.messages
    assert "too deep" in said
    with Beneath(kept.directory) as door:
        door.remove("deep")


def test_a_crowded_store(
    kept: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is no traceback: a line says that not all of it is looked at."""
    monkeypatch.setattr(Beneath.walk, "__kwdefaults__", {"depth": 9, "most": 20})
    for number in range(30):
        write(kept.directory, f"x{number}.jsonl", "x")
    with caplog.at_level(logging.WARNING, "nddt"):
        conversations.bring_conversations(kept, "*")
    (said,) = caplog.messages
    assert "too many files" in said


@pytest.mark.parametrize(
    "text",
    [
        # what pads an archive, headers of all kinds, a name of gzip's, nested headers
        "sys.stdout.buffer.write(archive(b'')); pour(bytes(1 << 20))",
        "pour(gzip.compress(header('x', b'x', 200 << 20)), ZEROS)",
        "pour(gzip.compress(header('x', b'g', 100 << 20)), ZEROS)",
        "pour(gzip.compress(header('x', b'L', 100 << 20)), ZEROS)",
        "pour(b'\\x1f\\x8b\\x08\\x08' + bytes(6), b'x' * (1 << 20))",
        "pour(gzip.compress(b''.join(header('x', b'x', 0) for _ in range(2000))))",
        "pour(gzip.compress(header('x', b'5', 9 << 24) + header('x', b'x', 9 << 24)), ZEROS)",
        "sys.stdout.buffer.write(archive(b'')); sys.stdout = sys.stderr; pour(bytes(1 << 20))",
    ],
)
def test_endless_answers(tmp_path: Path, text: str) -> None:
    """Take no memory of ours, and end."""
    sending = tmp_path / "sending.py"
    sending.write_text(f"{_SENDING}\n{text}\n")
    fetching = (
        "import resource, sys; from pathlib import Path; from scripts.brings import conversations; "
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak(); "
        f"store = conversations.Store(directory=Path({str(tmp_path / 'store')!r}), "
        "inside='x', is_shown=False); "
        f"print(conversations.fetch(store, (sys.executable, {str(sending)!r}), 2)); "
        "print((peak() - before) // 1024)"
    )
    done = subprocess.run(
        (sys.executable, "-c", fetching),
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert int(done.stdout.splitlines()[-1]) < 64, done.stdout
    assert not done.stderr


_SENDING = """
import gzip, io, sys, tarfile
ZEROS = gzip.compress(bytes(1 << 20))
def header(name, kind, size):
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, size
    return made.tobuf(tarfile.GNU_FORMAT)
def archive(content):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w"):
        pass
    return gzip.compress(plain.getvalue())
def pour(first, block=None):
    sys.stdout.buffer.write(first)
    while True:
        sys.stdout.buffer.write(first if block is None else block)
"""


def test_a_clock_that_is_ahead(kept: Store) -> None:
    """Does not keep later notes away."""
    ahead = member("memory/a.md")
    ahead.mtime = time.time() + 1e6
    conversations.take(kept, packed((ahead, b"from the future")))

    assert (kept.directory / "memory/a.md").stat().st_mtime <= time.time()


@given(st.binary(max_size=2000))
def test_any_bytes(data: bytes) -> None:
    """Are an archive, or an error that is expected."""
    nowhere = Store(directory=Path("/nonexistent/store"), inside=INSIDE, is_shown=False)
    for one in (data, gzip.compress(data)):
        try:
            assert conversations.take(nowhere, io.BytesIO(one)) == 0
        except (OSError, ValueError):
            continue


# -- around a session -----------------------------------------------------------------------


class Way(Line):
    """A line whose sessions are these commands, one after the other."""

    def __init__(self, *commands: tuple[str, ...], is_durable: bool = True) -> None:
        super().__init__(
            sandbox="s",
            connection=Connection(Path("/nonexistent")),
            stays=False,
            is_kept=False,
            is_durable=is_durable,
            retake=self._retake,
        )
        self.commands = list(commands)
        self.retaken = 0

    def session_argv(self, *words: str) -> tuple[str, ...]:
        """Give the next command, which has the last of the words at its end."""
        return (*self.commands.pop(0), words[-1])

    def _retake(self, _errors: str, _attempt: int) -> None:
        self.retaken += 1
        if self.retaken > 1:
            raise TransportLostError("it is gone")


def test_when_it_comes_back(kept: Store, sandbox: Sandbox) -> None:
    """After any end of a session, but not where there is no way to the sandbox any more."""
    there = ("env", f"HOME={sandbox.home}", "sh", "-c")
    way = Way(there, there)
    write(sandbox.place, "a.jsonl", "1")
    with sessions.fetched(kept, way):
        pass
    assert texts(kept.directory) == {"a.jsonl": "1"}
    write(sandbox.place, "a.jsonl", "12")
    with pytest.raises(KeyboardInterrupt), sessions.fetched(kept, way):
        raise KeyboardInterrupt
    assert texts(kept.directory) == {"a.jsonl": "12"}
    with pytest.raises(TransportLostError), sessions.fetched(kept, way):
        raise TransportLostError("it broke")
    assert not way.commands


def test_a_failure_is_one_line(
    kept: Store, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """And no error: the run has its own exit code. A connection over a network is taken anew."""
    there = ("env", f"HOME={sandbox.home}", "sh", "-c")
    broken = ("sh", "-c", "echo no way >&2; exit 255")
    write(sandbox.place, "a.jsonl", "1")
    way = Way(broken, there, broken)

    with caplog.at_level(logging.WARNING, "nddt"):
        with sessions.fetched(kept, way):
            pass
        assert texts(kept.directory) == {"a.jsonl": "1"}
        assert not caplog.messages
        with sessions.fetched(kept, way):
            pass
        with sessions.fetched(kept, Way(broken, is_durable=False)):
            pass
    assert caplog.messages == ["the conversation could not be brought back: no way"] * 2
