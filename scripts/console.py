"""What a person at the terminal sees and is asked; all of it on stderr."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from typing import TYPE_CHECKING

from scripts.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("nddt")


def is_terminal(descriptor: int) -> bool:
    """Tell whether a file descriptor is open and a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def set_up_logging(*, verbose: bool) -> None:
    """Send our own lines to stderr.

    Warnings always; status lines if stderr is a terminal; with `verbose`, each command too.
    """
    logging.basicConfig(format="nddt: %(message)s", stream=sys.stderr)
    quiet = logging.INFO if is_terminal(2) else logging.WARNING
    log.setLevel(logging.DEBUG if verbose else quiet)


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
    if not (is_terminal(0) and is_terminal(2)):
        raise UsageError(f"not without your consent: {question}", otherwise)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("not agreed to, nothing was done", otherwise)


def progress(title: str) -> Callable[[str], None]:
    """Show a long action's output: one changing line on a terminal, else a plain log.

    Returns:
        A function to call with each line; with an empty line it clears the changing one.
    """
    if not is_terminal(2):
        return lambda line: print(line, file=sys.stderr) if line else None

    def show(line: str) -> None:
        printable = "".join(c for c in line if c.isprintable())
        text = f"{title}: {printable}" if line else ""
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[K{text[:width]}")
        sys.stderr.flush()

    return show
