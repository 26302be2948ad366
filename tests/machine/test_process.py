"""The door to other programs, with real ones."""

from __future__ import annotations

import ast
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.configuration import reading
from scripts.errors import EndedBySignalError, UnavailableError
from scripts.machine import pipes, process, running, search_path, signals

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
SIGNALS = [
    pytest.param(one, id=one.name) for one in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)
]


def shell(text: str, *words: str) -> tuple[str, ...]:
    """Give the command that runs shell text."""
    return ("sh", "-c", text, "sh", *words)


@pytest.mark.parametrize(
    ("returncode", "code"), [(0, 0), (3, 3), (255, 255), (-2, 130), (-9, 137), (-15, 143)]
)
def test_exit_code(returncode: int, code: int) -> None:
    """Signals are 128 + n, as in a shell."""
    assert running.exit_code(returncode) == code


# -- capture --------------------------------------------------------------------------------


def test_capture() -> None:
    """Keeps both outputs apart, and the code."""
    done = process.capture(shell("echo out; echo err >&2; exit 3"))

    assert (done.code, done.stdout, done.stderr, done.ok) == (3, "out\n", "err\n", False)


@pytest.mark.parametrize("word", ["", "a b", "it's", "$HOME", "-x", "*", "a\nb", "日本"])
def test_capture_passes_arguments_unchanged(word: str) -> None:
    """There is no shell in between."""
    assert process.capture(("printf", "%s", word)).stdout == word


def test_capture_gives_stdin_and_environment() -> None:
    """And nothing of ours, if one is given."""
    done = process.capture(
        shell('cat; printf "%s" "$A$HOME"'),
        env={"A": "a", "PATH": os.environ["PATH"]},
        stdin=b"in ",
    )

    assert done.stdout == "in a"


def test_capture_without_stdin_reads_nothing() -> None:
    """Not even a terminal."""
    assert process.capture(("cat",)).stdout == ""


def test_capture_in_a_directory(tmp_path: Path) -> None:
    """Of the caller's choice."""
    assert process.capture(("pwd",), cwd=tmp_path).stdout == f"{tmp_path.resolve()}\n"


def test_capture_of_bytes_that_are_no_text() -> None:
    """Replaces those."""
    assert process.capture(("printf", r"a\377b")).stdout == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("signum", SIGNALS)
def test_capture_of_a_signal(signum: signal.Signals) -> None:
    """Is 128 + n."""
    assert process.capture(shell(f"kill -{signum.value} $$")).code == 128 + signum


@pytest.mark.parametrize(
    "text", ["sleep 60", "sleep 3 & echo $!; wait"], ids=["alone", "with-a-child"]
)
def test_capture_with_a_time_limit(text: str) -> None:
    """Is 124 when that is over, whoever else holds on to the output."""
    began = time.monotonic()
    done = process.capture(shell(text), timeout_s=0.2)

    assert (done.code, done.stderr) == (124, "no answer in 0.2 s")
    assert time.monotonic() - began < 2.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo a; echo b; echo", "b"),
        ("echo out; echo err >&2; echo 'last  ' >&2", "last"),
        ("exit 4", "exit code 4"),
    ],
    ids=["stdout", "stderr-first", "nothing"],
)
def test_last_line(text: str, expected: str) -> None:
    """Is what says most about a failure."""
    assert process.capture(shell(text)).last_line == expected


# -- limits ---------------------------------------------------------------------------------

GROWTH = """
import re, sys, time
from pathlib import Path
from scripts.machine import process
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
talk = ("sh", "-c", sys.argv[1])
before = peak()
if sys.argv[2] == "capture":
    done = process.capture(talk, timeout_s=60)
    print(done.code, done.last_line[:60])
elif sys.argv[2] == "source":
    print(*(one.code for one in process.pipeline(talk, ("cat",))))
elif sys.argv[2] == "sink":
    print(*(one.code for one in process.pipeline(("true",), talk)))
else:
    print(process.stream(talk, len))
print((peak() - before) // 1024)
"""
ENDLESS = {
    "zeros": "exec head -c 200000000 /dev/zero",
    "lines": "yes $(seq 200) | head -c 200000000",
    "errors": "yes $(seq 200) | head -c 200000000 >&2; echo >&2; echo the reason >&2; exit 3",
    "error-zeros": "head -c 200000000 /dev/zero >&2; echo >&2; echo the reason >&2; exit 3",
}


@pytest.mark.parametrize("by", ["capture", "stream", "source", "sink"])
@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS.keys())
def test_memory(text: str, by: str) -> None:
    """Grows by less than 64 MiB, whatever a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, text, by],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    said, growth = done.stdout.splitlines()

    assert int(growth) < 64
    if by == "capture" and "reason" not in text:
        assert said == f"65 its answer has more than {process.OUTPUT} bytes"
    elif by == "capture" and "reason" in text:
        assert said == "3 the reason"
    elif by == "stream":
        assert said == ("3" if "reason" in text else "0")


def test_capture_of_more_if_that_is_said() -> None:
    """Keeps it."""
    most = process.OUTPUT + 1
    done = process.capture(("head", "-c", str(most), "/dev/zero"), most=most)

    assert (done.code, len(done.stdout)) == (0, most)


@pytest.mark.parametrize("text", ["yes", "yes >&2", "exec cat /dev/zero", "trap : TERM; yes"])
def test_capture_without_an_end(text: str) -> None:
    """Ends it, and says why."""
    done = process.capture(shell(text), timeout_s=1)

    assert (done.code, done.last_line) in {
        (124, "no answer in 1 s"),
        (65, f"its answer has more than {process.OUTPUT} bytes"),
    }


@pytest.mark.parametrize("pipe", [1, 2])
def test_capture_of_a_program_whose_pipe_is_held(pipe: int) -> None:
    """Ends with the program, and with all that it has printed."""
    began = time.monotonic()
    done = process.capture(
        shell(f"head -c 300000 /dev/zero; sleep 20 {3 - pipe}>/dev/null & echo $! >&2; exit 3"),
        timeout_s=15,
    )
    os.kill(int(done.stderr), signal.SIGKILL)

    assert (done.code, len(done.stdout)) == (3, 300_000)
    assert time.monotonic() - began < 10


def test_capture_of_a_program_that_leaves_a_talker() -> None:
    """Ends with the program, too."""
    done = process.capture(
        shell("while :; do echo x; sleep 0.01; done >&2 & echo $!; exit 3"), timeout_s=30
    )
    os.kill(int(done.stdout), signal.SIGKILL)

    assert done.code == 3


def test_capture_of_a_program_that_does_not_read() -> None:
    """Is not stopped by that, nor is the program."""
    assert process.capture(("true",), stdin=b"x" * 1_000_000).ok
    done = process.capture(shell("exec 0<&-; echo out; exit 3"), stdin=b"x" * 1_000_000)
    assert (done.code, done.stdout) == (3, "out\n")


def test_capture_both_ways_at_once() -> None:
    """Neither waits for the other."""
    given = os.urandom(1_000_000).hex()

    assert process.capture(("cat",), stdin=given.encode()).stdout == given


def test_pipeline_whose_first_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends it when the second one has, and a while has passed."""
    monkeypatch.setattr(process, "END_S", 0.5)
    began = time.monotonic()
    sent, done = process.pipeline(shell("exec >&-; exec sleep 60"), ("true",))

    assert (sent.ok, done.code) == (False, 0)
    assert 0.5 <= time.monotonic() - began < 10


def test_run_to_file_of_much(tmp_path: Path) -> None:
    """Does not fill the disk."""
    assert process.run_to_file(("cat", "/dev/zero"), tmp_path / "log") != 0
    assert (tmp_path / "log").stat().st_size == process.FILE


@pytest.mark.parametrize("end", ["\n", ""])
def test_stream_of_a_long_line(end: str) -> None:
    """Comes in pieces, and whole."""
    code, lines = streamed(f"head -c 1000000 /dev/zero | tr '\\0' x; printf '{end}'")

    assert code == 0
    assert len("".join(lines)) == 1_000_000
    assert max(map(len, lines)) <= 2 * pipes.LINE


# -- missing programs -----------------------------------------------------------------------

MISSING = ("nddt-no-such-program", "x")
STARTS = {
    "capture": lambda _: process.capture(MISSING),
    "run_to_file": lambda path: process.run_to_file(MISSING, path / "log"),
    "stream": lambda _: process.stream(MISSING, print),
    "pipeline-source": lambda _: process.pipeline(MISSING, ("cat",)),
    "pipeline-sink": lambda _: process.pipeline(("echo",), MISSING),
    "spawn": lambda _: process.spawn(MISSING),
}


@pytest.mark.parametrize("start", [pytest.param(one, id=name) for name, one in STARTS.items()])
def test_missing_program(tmp_path: Path, start: Callable[[Path], object]) -> None:
    """Is named, with the task that installs what is missing."""
    with pytest.raises(UnavailableError, match="nddt-no-such-program is not installed") as caught:
        start(tmp_path)

    assert (caught.value.exit_code, caught.value.next_step) == (69, "run: nddt setup")


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks on PATH first, then where the administrator's programs are."""
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    (tmp_path / "mine").chmod(0o755)
    administrators = next(Path("/usr/sbin").iterdir()).name
    monkeypatch.setenv("PATH", str(tmp_path))

    assert search_path.find_program("mine") == str(tmp_path / "mine")
    assert search_path.find_program(administrators) == shutil.which(
        administrators, path="/usr/sbin"
    )
    assert search_path.find_program("nddt-no-such-program") is None


# -- stream ---------------------------------------------------------------------------------


def streamed(text: str, **options: object) -> tuple[int, list[str]]:
    """Stream shell text; give its code and lines."""
    lines: list[str] = []
    code = process.stream(shell(text), lines.append, **options)  # type: ignore[arg-type]
    return code, lines


def test_stream() -> None:
    """Gives the lines of both outputs in their order, also a last one without an end."""
    code, lines = streamed(r"echo a; echo b >&2; echo; printf 'c\r\nd'; exit 5")

    assert (code, lines) == (5, ["a", "b", "", "c", "d"])


def test_stream_gives_lines_as_they_come() -> None:
    """Not at the end."""
    came: list[float] = []
    process.stream(shell("echo a; sleep 0.5; echo b"), lambda _: came.append(time.monotonic()))

    assert came[1] - came[0] > 0.3


def test_stream_gives_stdin_and_environment() -> None:
    """And nothing of ours, if one is given."""
    env = {"A": "a", "PATH": os.environ["PATH"]}

    assert streamed('cat; echo "$A$HOME"', env=env, stdin=b"in\n") == (0, ["in", "a"])


def test_stream_has_no_terminal() -> None:
    """Nor stdin, unless it is given some."""
    assert streamed("cat; [ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none") == (0, ["none"])


def test_stream_of_bytes_that_are_no_text() -> None:
    """Replaces those."""
    assert streamed(r"printf 'a\377b\n'")[1] == ["a\N{REPLACEMENT CHARACTER}b"]


@pytest.mark.parametrize("code", [0, 1, 127, 128, 255])
def test_stream_of_an_exit_code(code: int) -> None:
    """Is that code."""
    assert streamed(f"exit {code}") == (code, [])


@pytest.mark.parametrize("signum", SIGNALS)
def test_stream_of_a_signal(signum: signal.Signals) -> None:
    """Is 128 + n."""
    assert streamed(f"kill -{signum.value} $$") == (128 + signum, [])


def test_stream_of_much() -> None:
    """Loses nothing."""
    code, lines = streamed("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done")

    assert (code, lines) == (0, [str(number) for number in range(20_000)])


STREAM = """
import sys
from scripts.machine import process
try:
    process.stream(("sh", "-c", "echo $$; exec sleep 60"), lambda line: print(line, flush=True))
except KeyboardInterrupt:
    print("interrupted")
"""


def test_stream_that_is_interrupted_ends_its_program() -> None:
    """A build goes on in the background otherwise."""
    started = subprocess.Popen(
        [sys.executable, "-c", STREAM], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with started:
        assert started.stdout
        pid = int(started.stdout.readline())
        time.sleep(0.2)  # for it to wait; this line may come before
        started.send_signal(signal.SIGINT)
        said = started.communicate(timeout=30)[0]

    assert said == "interrupted\n"
    assert _is_gone(pid)


def _is_gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")  # procps is not on every machine
    for _ in range(100):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


# -- pipeline, to a file, in the background -------------------------------------------------


def test_pipeline() -> None:
    """Carries bytes, and keeps what the second one says."""
    sent, done = process.pipeline(
        shell("head -c 1000000 /dev/zero; echo no >&2; exit 3"),
        shell("wc -c; echo err >&2; exit 4"),
    )

    assert (sent.code, sent.stderr) == (3, "no\n")
    assert (done.code, done.stdout.strip(), done.stderr) == (4, "1000000", "err\n")


def test_pipeline_whose_second_does_not_read() -> None:
    """The first one ends at that."""
    sent, done = process.pipeline(("yes",), ("true",))

    assert (sent.code, done.code) == (128 + signal.SIGPIPE, 0)


def test_run_to_file(tmp_path: Path) -> None:
    """Does not wait for what the program leaves in the background."""
    began = time.monotonic()
    code = process.run_to_file(
        shell("echo out; echo err >&2; sleep 20 >/dev/null 2>&1 & exit 3"), tmp_path / "log"
    )

    assert code == 3
    assert (tmp_path / "log").read_text() == "out\nerr\n"
    assert time.monotonic() - began < 10


def test_spawn_with_pipes() -> None:
    """In a session of its own, which Ctrl-C does not reach."""
    started = process.spawn(shell("read line; echo $line; echo err >&2"), pipes=True)
    session = os.getsid(started.pid)
    stdout, stderr = started.communicate(b"hello\n", timeout=30)

    assert (session, stdout, stderr) == (started.pid, b"hello\n", b"err\n")


def test_spawn_with_a_file_as_stdin(tmp_path: Path) -> None:
    """Reads that."""
    (tmp_path / "in").write_text("exit 7\n")
    with (tmp_path / "in").open("rb") as file:
        assert running.wait(process.spawn(("sh",), stdin=file)) == 7


def test_wait() -> None:
    """Gives None while it runs, and then how it ended."""
    started = process.spawn(("sleep", "60"))

    assert running.wait(started, 0.05) is None
    started.terminate()
    assert running.wait(started) == 143


def test_commands_are_logged_quoted(caplog: pytest.LogCaptureFixture) -> None:
    """What --verbose shows can be pasted; the environment and stdin are not in it."""
    with caplog.at_level(logging.DEBUG, "nddt"):
        process.capture(
            ("printf", "a b"), env={"S": "secret", "PATH": os.environ["PATH"]}, stdin=b"secret"
        )

    assert caplog.messages == ["+ printf 'a b'"]


PROBES = {
    "capture": "print(process.capture(PWD).stdout.strip())",
    "spawn": "running.wait(process.spawn(PWD))",
    "spawn-pipes": "print(process.spawn(PWD, pipes=True).communicate()[0].decode().strip())",
    "stream": "process.stream(PWD, print)",
    "source": "print(process.pipeline(PWD, ('cat',))[1].stdout.strip())",
    "sink": "print(process.pipeline(('true',), PWD)[1].stdout.strip())",
    "file": "process.run_to_file(PWD, Path('out')); print(Path('out').read_text().strip())",
    "become": "process.become(PWD)",
}


@pytest.mark.parametrize("how", PROBES)
def test_no_program_runs_in_the_callers_directory(tmp_path: Path, how: str) -> None:
    """Unless it is said: what lies there is settings and modules to many a program."""
    start = (
        "from pathlib import Path; from scripts.machine import process, running; "
        "PWD = ('/bin/pwd', '-P'); "
    )

    done = subprocess.run(
        (sys.executable, "-c", f"{start}{PROBES[how]}"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PWD": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "/\n"


def test_each_start_says_where() -> None:
    """There is no other way to start a program on this machine; `relay*.py` are a sandbox's."""
    found = []
    for file in sorted((ROOT / "scripts").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called = ast.unparse(node.func)
            if called in {"subprocess.Popen", "subprocess.run", "subprocess.call"} or re.match(
                r"os\.(exec|spawn|posix_spawn|system|popen)|subprocess\.(check_|getoutput)", called
            ):
                where = [ast.unparse(one.value) for one in node.keywords if one.arg == "cwd"]
                found.append((file.name, called, *where))

    assert sorted(one for one in found if not one[0].startswith("relay")) == [
        ("git.py", "subprocess.Popen", "tree"),
        ("process.py", "os.execvp"),  # which moves first
        ("running.py", "subprocess.Popen", "self._cwd"),
    ]


def test_a_relative_path_names_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in PAGER=./less, which would be the directory's."""
    (tmp_path / "less").symlink_to("/bin/true")
    monkeypatch.chdir(tmp_path)

    assert [search_path.find_program(one) for one in ("./less", f"../{tmp_path.name}/less")] == [
        None,
        None,
    ]
    assert search_path.find_program(f"{tmp_path}/less") == f"{tmp_path}/less"


@pytest.mark.parametrize(
    "path",
    [":{}", ".:{}", "bin:./bin:{}", "{}:", "$HERE/bin:{}", "$HERE:{}", "$HERE/../link:{}"],
)
def test_no_program_of_the_directory_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    """None is looked for there once the settings are loaded, also for `inv`."""
    here = tmp_path / "here"
    for place in (here, here / "bin"):
        place.mkdir(exist_ok=True)
        (place / "true").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (place / "true").chmod(0o755)
        (place / "only-here").symlink_to(place / "true")
    (tmp_path / "link").symlink_to("here/bin")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", path.replace("$HERE", str(here)).format(os.environ["PATH"]))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    loaded = reading.from_here()

    for environ in (None, loaded.process_environment):
        assert process.capture(("true",), env=environ).ok
        with pytest.raises(UnavailableError) as caught:
            process.capture(("only-here",), env=environ)
        assert ("a sandbox may change" in str(caught.value)) == ("$" in path)
    assert search_path.find_program("only-here") is None
    assert not (tmp_path / "ran").exists()


WAYS: dict[str, Callable[[Path], object]] = {
    "capture": lambda _: process.capture(("sleep", "60")),
    "stream": lambda _: process.stream(("sleep", "60"), print),
    "file": lambda place: process.run_to_file(("sleep", "60"), place / "out"),
    "spawn": lambda _: process.spawn(("sleep", "60"), pipes=True),
    "source": lambda _: process.pipeline(("sleep", "60"), ("cat",)),
    "tidying source": lambda _: process.pipeline(("sleep", "60"), ("cat",), on_line=print),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_signal_while_a_program_starts(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves none that nobody has: it is ended, and waited for."""
    began: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        """One that has just been made when a signal comes."""

        def __init__(self, *words: Any, **options: Any) -> None:  # noqa: ANN401
            super().__init__(*words, **options)
            began.append(self)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with signals.raised(), pytest.raises(EndedBySignalError):
        WAYS[way](tmp_path)

    assert [one.returncode is not None for one in began] == [True]
