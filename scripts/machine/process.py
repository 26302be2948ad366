"""What other programs do for us: the one door to them.

Arguments are never the place for a secret, since `--verbose` shows them: pass those through `env`
or `stdin`.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NoReturn

from scripts.errors import DataError
from scripts.machine import search_path
from scripts.machine.pipes import ERRORS, KilledError, LineByLine, Tail, attend, piped
from scripts.machine.running import (
    ELSEWHERE,
    END_S,
    Running,
    ask_to_end,
    end_all,
    exit_code,
    installed,
    kill,
    start_program,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from scripts.machine.running import Started

log = logging.getLogger("nddt")

ANSWER_S = 60
"""How long a short command may take."""
OUTPUT = 4 << 20
"""Bytes of a program's stdout that are kept at most; whoever needs more says so."""
FILE = 16 << 20
"""Bytes to which a file may grow that a program's output goes to."""
TIDY_S = 60
"""How long a program may tidy up that was asked to end."""
PIPES: dict[str, Any] = {
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished program left.

    A program that a signal ended has code 128 + that signal, as in a shell. One that was killed
    has 124 if it took too long, 65 if it printed too much, and stderr says so.
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


def capture(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float | None = ANSWER_S,
    most: int = OUTPUT,
    cwd: Path = ELSEWHERE,
) -> Result:
    """Run a program to its end and keep what it prints.

    Args:
        argv: The program and its arguments.
        env: Its whole environment; None for ours.
        stdin: What it reads; empty means end of file at once.
        timeout_s: Seconds after which it is killed; its code is then 124. Whoever says None says
            why.
        most: Bytes of stdout after which it is killed; its code is then 65. Of stderr the last
            ones are kept.
        cwd: Where it runs.

    Raises:
        UnavailableError: The program is not installed.
    """
    output = bytearray()

    def keep(block: bytes) -> None:
        output.extend(block)
        if len(output) > most:
            raise KilledError(DataError.exit_code, f"its answer has more than {most} bytes")

    errors = Tail()
    try:
        with Running(argv, env=env, cwd=cwd, **PIPES) as started:
            takers = {started.stdout: keep, started.stderr: errors.add}
            code = attend(started, stdin, takers, timeout_s)
    except KilledError as error:
        return Result(argv=tuple(argv), code=error.code, stdout="", stderr=str(error))
    text = output.decode(errors="replace")
    return Result(argv=tuple(argv), code=code, stdout=text, stderr=errors.text)


def run_to_file(argv: Sequence[str], output: Path, *, timeout_s: float | None = None) -> int:
    """Run a program that may leave a part of itself behind, with all its output in a file.

    No file that it or what it starts writes grows beyond `FILE`: there it ends by a signal.

    Args:
        argv: The program and its arguments.
        output: The file.
        timeout_s: Seconds after which it is killed; its code is then 124.

    Returns:
        The exit code, 128 + n for signal n.

    Raises:
        UnavailableError: The program is not installed.
    """
    with installed(argv[0]):
        if not search_path.find_program(argv[0]):
            raise FileNotFoundError(None, None, argv[0])
    limited = ("sh", "-c", f'ulimit -f {FILE // 512}; exec "$@"', "sh", *argv)
    nothing = subprocess.DEVNULL
    with (
        output.open("wb") as file,
        Running(
            limited, shown=argv, stdin=nothing, stdout=file, stderr=file, start_new_session=True
        ) as started,
    ):
        code = wait(started, timeout_s)
        kill(started)
    return 124 if code is None else code


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    end: Callable[[Started], object] = ask_to_end,
) -> int:
    """Run a long program and hand over each line that it prints, of stdout and stderr alike.

    Args:
        argv: The program and its arguments.
        on_line: Called with each line, without its line end; a long one comes in pieces.
        env: Its whole environment; None for ours.
        stdin: What it reads; empty means end of file at once.
        end: Called with it to end it, if something ends us meanwhile.

    Returns:
        The exit code, 128 + n for signal n.

    Raises:
        UnavailableError: The program is not installed.
    """
    lines = LineByLine(on_line)
    pipes = {**PIPES, "stderr": subprocess.STDOUT}
    with Running(argv, end=end, env=env, **pipes) as started:
        code = attend(started, stdin, {started.stdout: lines.add})
    lines.end()
    return code


def pipeline(
    source: Sequence[str],
    sink: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> tuple[Result, Result]:
    """Run two programs, the first one's stdout being the second one's stdin.

    There is no time limit, since nobody knows how much there is to carry.

    Args:
        source: The first one and its arguments.
        sink: The second one and its arguments.
        env: Their whole environment; None for ours.
        on_line: Called with each line that the first one prints on stderr. That one then is a
            program that tidies up: it has a session of its own, and if something ends us, all
            in that are asked to end and waited for.

    Returns:
        What each of them left.

    Raises:
        UnavailableError: One of them is not installed.
    """
    errors, output, complaints = Tail(), Tail(), Tail()
    lines = LineByLine(on_line or (lambda _: None))

    def complain(block: bytes) -> None:
        errors.add(block)
        lines.add(block)

    def end_first(first: Started) -> None:
        if on_line and first.poll() is None:
            end_all(first)
            wait(first, TIDY_S)
        kill(first)

    out: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": env}
    apart: dict[str, Any] = {"stdin": subprocess.DEVNULL, "start_new_session": on_line is not None}
    with Running(source, end=end_first, **apart, **out) as first:
        with Running(sink, stdin=piped(first.stdout), **out) as second:
            piped(first.stdout).close()  # the second one alone has it now
            takers = {
                first.stderr: complain,
                second.stdout: output.add,
                second.stderr: complaints.add,
            }
            code = attend(second, b"", takers)
        wait(first, END_S)
        end_first(first)
    left = Result(
        argv=tuple(source), code=exit_code(first.returncode or 0), stdout="", stderr=errors.text
    )
    result = Result(argv=tuple(sink), code=code, stdout=output.text, stderr=complaints.text)
    return left, result


def spawn(
    argv: Sequence[str],
    *,
    pipes: bool = False,
    stdin: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path = ELSEWHERE,
    shown: Sequence[str] | None = None,
) -> Started:
    """Start a program and go on.

    Args:
        argv: The program and its arguments.
        pipes: Give it pipes, and a session of its own that Ctrl-C does not reach.
            Else it has our terminal, or whatever our stdin, stdout and stderr are.
        stdin: What it reads in place of our stdin.
        env: Its whole environment; None for ours.
        cwd: Where it runs.
        shown: What `--verbose` shows in place of the arguments.

    Raises:
        UnavailableError: The program is not installed.
    """
    pipe = subprocess.PIPE if pipes else None
    return start_program(
        argv,
        shown=shown,
        stdin=pipe if pipes else stdin,
        stdout=pipe,
        stderr=pipe,
        start_new_session=pipes,
        env=env,
        cwd=cwd,
    )


def become(argv: Sequence[str]) -> NoReturn:
    """Go on as another program, with the same stdin, stdout and stderr.

    Raises:
        UnavailableError: It is not installed.
    """
    log.debug("+ %s", shlex.join(argv))
    with installed(argv[0]):
        if not search_path.find_program(argv[0]):
            raise FileNotFoundError(None, None, argv[0])
        # A chdir of our own would be that of every thread, and stay if this fails.
        moved = ("sh", "-c", 'cd "$0" && exec "$@"', str(ELSEWHERE), *argv)
        os.execvp("sh", moved)  # noqa: S606  (nothing is part of its text)


def tail(file: Path) -> str:
    """Read the last of a file that a program's output goes to; empty if there is none."""
    try:
        with file.open("rb") as read:
            read.seek(max(0, os.fstat(read.fileno()).st_size - ERRORS))
            return read.read(ERRORS).decode(errors="replace")
    except FileNotFoundError:
        return ""
