"""What a person at the terminal sees and is asked; all of it on stderr."""

from __future__ import annotations

import copy
import logging
import os
import shlex
import stat
import sys
import tempfile
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.errors import UsageError
from scripts.machine import process, running, search_path
from scripts.plain_text import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

log = logging.getLogger("nddt")

_PLAIN_SCREEN = b"".join(b"\x1b[?%dl" % mode for mode in (1049, 1000, 1002, 1003, 1004, 1006, 2004))
_PLAIN_SCREEN += b"\x1b[?25h\x1b[0m\r"


def is_terminal(descriptor: int) -> bool:
    """Tell whether a file descriptor is open and a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def is_piped() -> bool:
    """Tell whether our stdin is something that holds a prompt: a pipe, a socket, a file."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


def complain(text: str) -> None:
    """Write lines to stderr, with nothing in them that a terminal would obey."""
    sys.stderr.write(f"{printable(text)}\n")


class _Lines(logging.Formatter):
    """A message is one line, whatever names are in it; a list among its arguments is several."""

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_argument, record.args))
        return printable(super().format(record))


def _argument(one: object) -> object:
    if isinstance(one, int | float):
        return one
    return "\n".join(one_line(str(line)) for line in (one if isinstance(one, list) else [one]))


def set_up_logging(*, verbose: bool) -> None:
    """Send our own lines to stderr, with nothing in them that a terminal would obey.

    Warnings always; status lines if stderr is a terminal; with `verbose`, each command too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(logging.Filter("nddt"))  # an SDK's warnings mean nothing to a user
    handler.setFormatter(_Lines("nddt: %(message)s"))
    logging.basicConfig(handlers=[handler])
    quiet = logging.INFO if is_terminal(2) else logging.WARNING
    log.setLevel(logging.DEBUG if verbose else quiet)


def can_ask() -> bool:
    """Tell whether somebody is there to answer a question."""
    return is_terminal(0) and is_terminal(2)


def ask(question: str) -> bool:
    """Ask a yes-or-no question; without a terminal the answer is no."""
    if not can_ask():
        return False
    sys.stderr.write(f"nddt: {one_line(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def confirm(question: str, *, yes: bool, otherwise: str) -> None:
    """Ask before something that cannot be undone or that costs something.

    Args:
        question: What would be done, as a question.
        yes: Agreed to beforehand (`--yes`): nothing is asked.
        otherwise: The next step for whoever says no or cannot be asked.

    Raises:
        UsageError: The answer is no, or there is no terminal to ask on.
    """
    if yes:
        return
    if not can_ask():
        raise UsageError(f"not done without your consent: {question}", otherwise)
    if not ask(question):
        raise UsageError("not agreed to, nothing was done", otherwise)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Put rows, the first of which is the head, into columns."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


_COLORS = {"+": 32, "-": 31, "@": 36}


def show_difference(content: bytes, environ: Mapping[str, str]) -> None:
    """Write a difference to stdout: as it is, or for a terminal in color and by pages.

    Args:
        content: As `git diff` writes it.
        environ: Of the user; `PAGER` there is a program and its arguments.
    """
    if not is_terminal(1):
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    lines = printable(content.decode(errors="replace")).split("\n")
    shown = (f"\x1b[{_COLORS[one[0]]}m{one}\x1b[0m" if one[:1] in _COLORS else one for one in lines)
    pager = shlex.split(environ.get("PAGER", "less"))
    if not pager or not search_path.find_program(pager[0]):
        pager = ["cat"]
    with tempfile.TemporaryFile() as file:
        file.write("\n".join(shown).encode())
        file.seek(0)
        running.wait(process.spawn(pager, stdin=file, env={"LESS": "FRX", **environ}))


@contextmanager
def kept_terminal() -> Iterator[None]:
    """Restore the terminal as it was, however the program that used it ended."""
    if not is_terminal(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        yield
    except BaseException:
        # It had no chance to leave the alternate screen, mouse reports and the like.
        if is_terminal(1):
            os.write(1, _PLAIN_SCREEN)
        raise
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def progress(title: str) -> Callable[[str], None]:
    """Show a long action's output: one changing line on a terminal, else a plain log.

    Returns:
        A function to call with each line; with an empty line it clears the changing one.
    """
    if not is_terminal(2):
        return lambda line: complain(line) if line else None

    def show(line: str) -> None:
        printable = "".join(c for c in line if c.isprintable())
        text = f"{title}: {printable}" if line else ""
        width = (os.get_terminal_size(2).columns or 80) - 1
        sys.stderr.write(f"\r\x1b[K{text[:width]}")
        sys.stderr.flush()

    return show
