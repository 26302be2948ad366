"""The one door to other programs: argv tuples in, nothing through a shell string.

Every command is logged, quoted, at debug level (`--verbose` shows it), so arguments are
never the place for a secret: pass those through `env` or `stdin`.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger("nddt")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished program left.

    A program that a signal ended has code 128 + that signal, as in a shell.
    """

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether the program exited with 0."""
        return self.code == 0

    @property
    def last_line(self) -> str:
        """The last line that says something, of stderr, else of stdout."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1].strip() if lines else f"exit code {self.code}"


def exit_code(returncode: int) -> int:
    """Translate Popen's negative signal numbers to a shell's 128 + n."""
    return 128 - returncode if returncode < 0 else returncode


def find(program: str) -> str | None:
    """Look a program up on PATH.

    The administrator's directories count too: an ordinary user's PATH may lack them.
    """
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def capture(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float | None = None,
) -> Result:
    """Run a program to its end and keep what it prints.

    Args:
        argv: The program and its arguments.
        env: Its whole environment; None for ours.
        stdin: What it reads; empty means end of file at once.
        timeout_s: Seconds after which it is killed; its code is then 124.

    Raises:
        UnavailableError: The program is not installed.
    """
    log.debug("+ %s", shlex.join(argv))
    try:
        done = subprocess.run(
            argv, check=False, capture_output=True, input=stdin, env=env, timeout=timeout_s
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{argv[0]} is not installed", "run: inv setup") from error
    except subprocess.TimeoutExpired:
        return Result(argv=tuple(argv), code=124, stdout="", stderr=f"no answer in {timeout_s} s")
    return Result(
        argv=tuple(argv),
        code=exit_code(done.returncode),
        stdout=done.stdout.decode(errors="replace"),
        stderr=done.stderr.decode(errors="replace"),
    )


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> int:
    """Run a long program and hand over each line that it prints, of stdout and stderr alike.

    Args:
        argv: The program and its arguments.
        on_line: Called with each line, without its line end.
        env: Its whole environment; None for ours.
        stdin: What it reads; empty means end of file at once.

    Returns:
        The exit code, 128 + n for signal n.

    Raises:
        UnavailableError: The program is not installed.
    """
    import sh  # noqa: PLC0415  (as costly as all of our own modules together)

    log.debug("+ %s", shlex.join(argv))
    try:
        command = sh.Command(argv[0])
    except sh.CommandNotFound as error:
        raise UnavailableError(f"{argv[0]} is not installed", "run: inv setup") from error
    done: Any = command(
        *argv[1:],
        _env=dict(env) if env is not None else None,
        _in=stdin,
        _out=lambda line: on_line(line.rstrip("\r\n")),
        _err_to_out=True,
        _tty_out=False,
        _no_out=True,
        _ok_code=range(-64, 256),
        _decode_errors="replace",
        _return_cmd=True,
    )
    return exit_code(done.exit_code)
