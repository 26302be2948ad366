"""The door to other programs, with real ones."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts import process
from scripts.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
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
    assert process.exit_code(returncode) == code


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

    assert (caught.value.exit_code, caught.value.next_step) == (69, "run: inv setup")


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks on PATH first, then where the administrator's programs are."""
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    (tmp_path / "mine").chmod(0o755)
    administrators = next(Path("/usr/sbin").iterdir()).name
    monkeypatch.setenv("PATH", str(tmp_path))

    assert process.find("mine") == str(tmp_path / "mine")
    assert process.find(administrators) == shutil.which(administrators, path="/usr/sbin")
    assert process.find("nddt-no-such-program") is None


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
from scripts import process
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
    code, done = process.pipeline(
        shell("head -c 1000000 /dev/zero; exit 3"), shell("wc -c; echo err >&2; exit 4")
    )

    assert (code, done.code, done.stdout.strip(), done.stderr) == (3, 4, "1000000", "err\n")


def test_pipeline_whose_second_does_not_read() -> None:
    """The first one ends at that."""
    code, done = process.pipeline(("yes",), ("true",))

    assert (code, done.code) == (128 + signal.SIGPIPE, 0)


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
        assert process.wait(process.spawn(("sh",), stdin=file)) == 7


def test_wait() -> None:
    """Gives None while it runs, and then how it ended."""
    started = process.spawn(("sleep", "60"))

    assert process.wait(started, 0.05) is None
    started.terminate()
    assert process.wait(started) == 143


def test_commands_are_logged_quoted(caplog: pytest.LogCaptureFixture) -> None:
    """What --verbose shows can be pasted; the environment and stdin are not in it."""
    with caplog.at_level(logging.DEBUG, "nddt"):
        process.capture(
            ("printf", "a b"), env={"S": "secret", "PATH": os.environ["PATH"]}, stdin=b"secret"
        )

    assert caplog.messages == ["+ printf 'a b'"]
