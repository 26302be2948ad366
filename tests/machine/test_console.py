"""What is shown and asked, at a real pseudo-terminal and without one."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.errors import UsageError
from scripts.machine import console

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ASK = """
from scripts.machine import console
from scripts.errors import UsageError
try:
    console.confirm("Really?", yes=False, otherwise="agree with --yes")
    print("agreed")
except UsageError as error:
    print(error)
"""


class Terminal:
    """A pseudo-terminal with somebody at it."""

    def __init__(self, columns: int = 80) -> None:
        self.ours, self.its = os.openpty()
        fcntl.ioctl(self.its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def start(self, code: str, *, stdout: int | None = None) -> subprocess.Popen[bytes]:
        """Start Python at this terminal; stdout may be elsewhere."""
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=self.its,
            stdout=self.its if stdout is None else stdout,
            stderr=self.its,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "TERM": "xterm"},
            start_new_session=True,
        )

    def read_until(self, text: str) -> str:
        """Give what the terminal shows up to a text."""
        seen = b""
        while text.encode() not in seen and select.select([self.ours], [], [], 30)[0]:
            seen += os.read(self.ours, 1024)
        return seen.decode()

    def rest(self) -> str:
        """Give what else it shows; whoever is at it must have ended."""
        seen = b""
        while select.select([self.ours], [], [], 0)[0]:
            seen += os.read(self.ours, 1024)
        return seen.decode()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """Open a terminal of 80 columns."""
    made = Terminal()
    yield made
    os.close(made.ours)
    os.close(made.its)


# -- questions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        *((word, "agreed") for word in ("y\n", "yes\n", "Y\n", " YES \n")),
        *((word, "nothing was done") for word in ("\n", "n\n", "no\n", "yep\n", "\x04")),
    ],
)
def test_question_at_a_terminal(terminal: Terminal, typed: str, expected: str) -> None:
    """Only a clear yes is one; the end of the input is a no."""
    started = terminal.start(ASK)
    asked = terminal.read_until("[y/N] ")
    os.write(terminal.ours, typed.encode())

    assert started.wait(30) == 0
    assert asked.endswith("nddt: Really? [y/N] ")
    assert expected in terminal.rest()


def test_question_keeps_stdout_clean(terminal: Terminal) -> None:
    """That is for the one thing that a script needs."""
    reader, writer = os.pipe()
    started = terminal.start(ASK, stdout=writer)
    os.close(writer)
    terminal.read_until("[y/N] ")
    os.write(terminal.ours, b"y\n")

    assert started.wait(30) == 0
    assert os.read(reader, 1024) == b"agreed\n"
    os.close(reader)


def test_question_without_a_terminal() -> None:
    """Is not agreed to, and says how to agree."""
    done = subprocess.run(
        [sys.executable, "-c", ASK], input=b"y\n", capture_output=True, check=False, cwd=ROOT
    )

    assert done.stdout.decode() == (
        "nddt: not done without your consent: Really? — agree with --yes\n"
    )
    assert done.stderr == b""


@pytest.mark.parametrize("closed", ["<&-", "2>&-"])
def test_question_with_a_closed_descriptor(closed: str) -> None:
    """Is the same."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", ASK],
        capture_output=True,
        check=False,
        cwd=ROOT,
    )

    assert done.stdout.startswith(b"nddt: not done without your consent")


def test_consent_beforehand() -> None:
    """Nothing is asked."""
    console.confirm("Really?", yes=True, otherwise="")


def test_confirm_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its exit code and next step."""
    monkeypatch.setattr(console, "can_ask", lambda: False)

    with pytest.raises(UsageError) as caught:
        console.confirm("Really?", yes=False, otherwise="agree with --yes")

    assert (caught.value.exit_code, caught.value.next_step) == (64, "agree with --yes")


# -- progress -------------------------------------------------------------------------------

PROGRESS = """
from scripts.machine import console
show = console.progress("building")
for line in ("one", "two \\x1b[31mred\\x07", "x" * 200, ""):
    show(line)
"""


def test_progress_at_a_terminal(terminal: Terminal) -> None:
    """Is one line that changes, never longer than the terminal is wide, and gone in the end."""
    started = terminal.start(PROGRESS)
    assert started.wait(30) == 0

    shown = terminal.rest().split("\r\x1b[K")
    assert shown == ["", "building: one", "building: two [31mred", f"building: {'x' * 69}", ""]


def test_progress_at_a_narrow_terminal_with_stdout_elsewhere() -> None:
    """As in `name=$(./nddt docker.create-sandbox)`."""
    terminal = Terminal(columns=40)
    started = terminal.start(PROGRESS, stdout=subprocess.DEVNULL)
    assert started.wait(30) == 0

    longest = max(len(line) for line in terminal.rest().split("\r\x1b[K"))
    os.close(terminal.ours)
    os.close(terminal.its)
    assert longest == 39


def test_progress_without_a_terminal() -> None:
    """Is a plain log, which is shown on one later."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRESS], capture_output=True, check=False, text=True, cwd=ROOT
    )

    assert done.stdout == ""
    assert done.stderr == f"one\ntwo \\x1b[31mred\\x07\n{'x' * 200}\n"


# -- the terminal afterwards ----------------------------------------------------------------

KEEP = """
import termios, tty
from scripts.machine import console
with console.kept_terminal():
    tty.setraw(0)
    print("raw", flush=True)
    {}
"""


@pytest.mark.parametrize("failing", [False, True], ids=["returns", "raises"])
def test_terminal_is_given_back(terminal: Terminal, *, failing: bool) -> None:
    """As it was; after a failure the screen, too."""
    before = termios.tcgetattr(terminal.its)
    started = terminal.start(KEEP.format("raise SystemExit" if failing else "pass"))
    shown = terminal.read_until("raw")
    started.wait(30)
    shown += terminal.rest()

    assert termios.tcgetattr(terminal.its) == before
    assert ("\x1b[?1049l" in shown) is failing
    assert ("\x1b[?25h" in shown) is failing


def test_without_a_terminal_nothing_is_given_back() -> None:
    """There is none to keep."""
    done = subprocess.run(
        [sys.executable, "-c", KEEP.replace("tty.setraw(0)", "pass").format("pass")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=ROOT,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"raw\n", b"")


# -- our own lines --------------------------------------------------------------------------

LOG = """
import logging
from scripts.machine import console
console.set_up_logging(verbose={})
log = logging.getLogger("nddt")
log.debug("command"); log.info("status"); log.warning("warning")
logging.getLogger("other").info("foreign")
"""


@pytest.mark.parametrize(
    ("verbose", "at_terminal", "expected"),
    [
        (False, False, ["warning"]),
        (False, True, ["status", "warning"]),
        (True, False, ["command", "status", "warning"]),
        (True, True, ["command", "status", "warning"]),
    ],
)
def test_which_lines_are_shown(
    terminal: Terminal, *, verbose: bool, at_terminal: bool, expected: list[str]
) -> None:
    """Warnings always, status lines at a terminal, commands if asked for; never on stdout."""
    code = LOG.format(verbose)
    if at_terminal:
        assert terminal.start(code, stdout=subprocess.DEVNULL).wait(30) == 0
        shown = terminal.rest()
    else:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.stdout == ""
        shown = done.stderr

    assert shown.split() == [word for line in expected for word in ("nddt:", line)]


def test_is_terminal(terminal: Terminal) -> None:
    """A closed descriptor is none."""
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)

    assert console.is_terminal(terminal.its)
    assert not console.is_terminal(writer)


def test_nothing_in_our_messages_is_obeyed_by_a_terminal() -> None:
    """Names come from sandboxes, with whatever somebody has put into them."""
    program = (
        "from pathlib import Path; from scripts.machine import console; "
        "from scripts.run import directory_copy as workspace; "
        "from scripts.workspace.copies.exchange import Report; "
        "console.set_up_logging(verbose=True); "
        "evil = '\\x1b]0;owned\\x07\\x9b31m\\r\\nnddt: all is well'; "
        "workspace._tell(Report(conflicts=[evil], failed={evil: evil}), 'sent'); "
        "print(console.table([[evil, 'é 日']]))"
    )

    done = subprocess.run(
        (sys.executable, "-c", program), cwd=ROOT, check=False, capture_output=True, text=True
    )

    shown = done.stdout + done.stderr
    assert (done.returncode, shown.count("owned")) == (0, 4), shown
    assert not [c for c in shown if not c.isprintable() and c != "\n"]
    assert "\\x1b]0;owned\\x07" in shown
    assert "é 日" in shown
    assert "\nnddt: 1 changed both here and in the sandbox" in shown


def test_a_difference(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Goes into a pipe as it is; a terminal obeys nothing in it, and has its colors."""
    content = b"--- here\n+++ sandbox\n@@ -1 +1 @@\n-a\n+\x1b]0;owned\x07\xff\n"

    console.show_difference(content, {})
    plain = capfdbinary.readouterr().out
    monkeypatch.setattr(console, "is_terminal", lambda _: True)
    console.show_difference(content, {"PAGER": "cat", "PATH": os.environ["PATH"]})
    console.show_difference(b"x", {"PAGER": "./cat"})  # which would be the directory's

    assert plain == content
    lines = capfdbinary.readouterr().out.decode().split("\n")
    assert lines[3:] == ["\x1b[31m-a\x1b[0m", "\x1b[32m+\\x1b]0;owned\\x07�\x1b[0m", "x"]
