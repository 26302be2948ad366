"""Acting as root on this machine: only after consent, through sudo where needed."""

from __future__ import annotations

import os
import shlex
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING

from scripts import console, env_forward, process, state
from scripts.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ADMINISTRATION = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where dpkg and debootstrap look for their own tools; a plain `su` leaves it off PATH."""

# A constant, its input comes as arguments: signal, directory, program. Who waits for the lock
# of the directory gets it when we let go or are killed; then all of the session get the signal.
# A signal sent to sudo does not do: it hands on none that comes from its own process group.
_LEASHED = '(flock "$1" true; kill -s "$0" 0) >/dev/null 2>&1 & shift; exec "$@"'


def is_root() -> bool:
    """Tell whether we are root already."""
    return os.geteuid() == 0


def is_possible() -> bool:
    """Tell whether there is a way to be root."""
    return is_root() or process.find("sudo") is not None


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the environment for a program that works as root: it must not ask anything."""
    path = f"{environ.get('PATH', '/usr/bin:/bin')}:{ADMINISTRATION}"
    return {**environ, "PATH": path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def command(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
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
        prefix = "" if is_root() or not process.find("sudo") else "sudo "
    return " && ".join(prefix + shlex.join(words) for words in commands)


def agree(problem: str, commands: Sequence[Sequence[str]], *, yes: bool) -> None:
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
    return process.wait(process.spawn(("sudo", "--validate"))) == 0


def capture(
    argv: Sequence[str], environ: Mapping[str, str], *, timeout_s: float | None = None
) -> process.Result:
    """Run a short command as root and keep what it prints."""
    words = command(argv, environ)
    return process.capture(words, env=environment(environ), timeout_s=timeout_s)


def stream(
    argv: Sequence[str], title: str, environ: Mapping[str, str], *, end_by: str = "INT"
) -> tuple[int, str]:
    """Run a long command as root, in a session of its own, and show how it goes.

    Args:
        argv: The command.
        title: What the progress line says.
        environ: Our environment.
        end_by: The signal that it and all that it has started get if we end meanwhile. We then
            wait for it; after KILL nothing of it runs any more.

    Returns:
        Its exit code, and the last 30 lines that it printed.
    """
    tail: deque[str] = deque(maxlen=30)
    show = console.progress(title)

    def on_line(line: str) -> None:
        tail.append(line)
        show(line)

    with ExitStack() as leash:
        directory = leash.enter_context(state.own_directory(environ))
        leash.enter_context(state.lock(directory))

        def end(pid: int) -> None:
            leash.close()
            while state.is_alive(pid):
                time.sleep(0.05)

        words = ("setsid", "--wait", "sh", "-c", _LEASHED, end_by, str(directory), *argv)
        try:
            code = process.stream(
                command(words, environ), on_line, env=environment(environ), end=end
            )
        finally:
            show("")
    return code, "\n".join(tail)
