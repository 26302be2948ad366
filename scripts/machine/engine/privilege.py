"""Acting as root on this machine: only after consent, through sudo where needed."""

from __future__ import annotations

import os
import shlex
from collections import deque
from typing import TYPE_CHECKING

from scripts import env_forward
from scripts.errors import UnavailableError
from scripts.machine import console, process, running, search_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ADMINISTRATION = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where dpkg and mmdebstrap look for their own tools; a plain `su` leaves it off PATH."""


def is_root() -> bool:
    """Tell whether we are root already."""
    return os.geteuid() == 0


def is_possible() -> bool:
    """Tell whether there is a way to be root."""
    return is_root() or search_path.find_program("sudo") is not None


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Build the environment for a program that works as root: it must not ask anything."""
    path = f"{environ.get('PATH', '/usr/bin:/bin')}:{ADMINISTRATION}"
    return {**environ, "PATH": path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def as_root(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Make a command run as root.

    Proxies reach it by name only: the value of one may hold a password.
    """
    if is_root():
        return tuple(argv)
    kept = ",".join(("DEBIAN_FRONTEND", "LC_ALL", *env_forward.proxies(environ)))
    return ("sudo", f"--preserve-env={kept}", *argv)


def typed(commands: Sequence[Sequence[str]], prefix: str | None = None) -> str:
    """Write commands as a person would type them, with sudo where that is the way."""
    if prefix is None:
        prefix = "" if is_root() or not search_path.find_program("sudo") else "sudo "
    return " && ".join(prefix + shlex.join(words) for words in commands)


def agree_to_root(problem: str, commands: Sequence[Sequence[str]], *, yes: bool) -> None:
    """Ask before commands are run as root, and make sure that they can be.

    Args:
        problem: What is wrong, in one line.
        commands: What would be done about it.
        yes: Agreed to beforehand: nothing is asked, but for sudo's password.

    Raises:
        UnavailableError: No consent, or no way to be root; it tells the commands.
    """
    todo = typed(commands)
    as_root = f"have this run as root: {typed(commands, '')}"
    if not is_possible():
        raise UnavailableError(f"{problem}, and you are not root and have no sudo", as_root)
    if not (yes or console.ask(f"{problem}. Run: {todo} ?")):
        raise UnavailableError(problem, f"run: {todo} (or repeat this with --yes)")
    if not _sudo_is_open():
        raise UnavailableError(f"{problem}, and sudo refuses", as_root)


def _sudo_is_open() -> bool:
    """Let sudo ask for the password now, on the terminal, and not amid a progress line.

    `sudo -v` asks even those who need no password for most commands, hence the first try.
    """
    if is_root() or process.capture(("sudo", "--non-interactive", "true")).ok:
        return True
    return running.wait(process.spawn(("sudo", "--validate"))) == 0


def capture(
    argv: Sequence[str], environ: Mapping[str, str], *, timeout_s: float | None = None
) -> process.Result:
    """Run a short command as root and keep what it prints.

    There is no time limit unless one is given: what root does is not left half done.
    """
    words = as_root(argv, environ)
    return process.capture(words, env=environment(environ), timeout_s=timeout_s)


def stream(argv: Sequence[str], title: str, environ: Mapping[str, str]) -> tuple[int, str]:
    """Run a long command as root and show how it goes.

    If something ends us, we wait for it first: what root does is not left half done. Ctrl-C
    reaches it as well.

    Returns:
        Its exit code, and the last 30 lines that it printed.
    """
    tail: deque[str] = deque(maxlen=30)
    show = console.progress(title)

    def on_line(line: str) -> None:
        tail.append(line)
        show(line)

    words = as_root(argv, environ)
    try:
        code = process.stream(words, on_line, env=environment(environ), end=running.let_finish)
    finally:
        show("")
    return code, "\n".join(tail)
