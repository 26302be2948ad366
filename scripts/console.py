"""What a person at the terminal sees and is asked; all of it on stderr."""

from __future__ import annotations

import logging
import os
import sys
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

log = logging.getLogger("nddt")

_PLAIN_SCREEN = b"".join(b"\x1b[?%dl" % mode for mode in (1049, 1000, 1002, 1003, 1004, 1006, 2004))
_PLAIN_SCREEN += b"\x1b[?25h\x1b[0m\r"


def is_terminal(descriptor: int) -> bool:
    """Tell whether a file descriptor is open and a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def printable(text: str) -> str:
    r"""Give a text that a terminal shows and does not obey: an escape character becomes \x1b."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Give a name that may hold anything as a part of one line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


class _Printable(logging.Formatter):
    """Names of files and lines from a sandbox are in our messages, too."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_logging(*, verbose: bool) -> None:
    """Send our own lines to stderr, with nothing in them that a terminal would obey.

    Warnings always; status lines if stderr is a terminal; with `verbose`, each command too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(logging.Filter("nddt"))  # an SDK's warnings mean nothing to a user
    handler.setFormatter(_Printable("nddt: %(message)s"))
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
    sys.stderr.write(f"nddt: {question} [y/N] ")
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


@contextmanager
def kept_terminal() -> Iterator[None]:
    """Give the terminal back as it was, however the program that used it ended."""
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


def _write_line(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def progress(title: str) -> Callable[[str], None]:
    """Show a long action's output: one changing line on a terminal, else a plain log.

    Returns:
        A function to call with each line; with an empty line it clears the changing one.
    """
    if not is_terminal(2):
        return lambda line: _write_line(line) if line else None

    def show(line: str) -> None:
        printable = "".join(c for c in line if c.isprintable())
        text = f"{title}: {printable}" if line else ""
        width = (os.get_terminal_size(2).columns or 80) - 1
        sys.stderr.write(f"\r\x1b[K{text[:width]}")
        sys.stderr.flush()

    return show
