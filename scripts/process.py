"""The one door to other programs: argv tuples in, nothing through a shell string.

Every command is logged, quoted, at debug level (`--verbose` shows it), so arguments are
never the place for a secret: pass those through `env` or `stdin`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NoReturn

from scripts.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

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


@contextlib.contextmanager
def _installed(*programs: str) -> Iterator[None]:
    """Say which of these programs is missing, and what to do about it."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename not in programs:
            raise
        raise UnavailableError(f"{error.filename} is not installed", "run: inv setup") from error


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
    cwd: Path | None = None,
) -> Result:
    """Run a program to its end and keep what it prints.

    Args:
        argv: The program and its arguments.
        env: Its whole environment; None for ours.
        stdin: What it reads; empty means end of file at once.
        timeout_s: Seconds after which it is killed; its code is then 124.
        cwd: Where it runs; None for where we are.

    Raises:
        UnavailableError: The program is not installed.
    """
    log.debug("+ %s", shlex.join(argv))
    try:
        with _installed(argv[0]):
            done = subprocess.run(
                argv,
                check=False,
                capture_output=True,
                input=stdin,
                env=env,
                timeout=timeout_s,
                cwd=cwd,
            )
    except subprocess.TimeoutExpired:
        return Result(argv=tuple(argv), code=124, stdout="", stderr=f"no answer in {timeout_s} s")
    return Result(
        argv=tuple(argv),
        code=exit_code(done.returncode),
        stdout=done.stdout.decode(errors="replace"),
        stderr=done.stderr.decode(errors="replace"),
    )


def run_to_file(argv: Sequence[str], output: Path) -> int:
    """Run a program that may leave a part of itself behind, with all its output in a file.

    Returns:
        The exit code, 128 + n for signal n.
    """
    log.debug("+ %s", shlex.join(argv))
    with output.open("wb") as file, _installed(argv[0]):
        done = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return exit_code(done.returncode)


def _terminate(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGTERM)


def follow(argv: Sequence[str], on_output: Callable[[str], None], *, stdin: bytes) -> Result:
    """Run a program to its end, and hand over pieces of its stdout as they come.

    Args:
        argv: The program and its arguments.
        on_output: Called with each piece, which may end anywhere.
        stdin: What it reads.

    Raises:
        UnavailableError: The program is not installed.
    """
    log.debug("+ %s", shlex.join(argv))
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        with (
            _installed(argv[0]),
            subprocess.Popen(argv, stdin=given, stdout=subprocess.PIPE, stderr=errors) as running,
        ):
            try:
                while block := os.read(piped(running.stdout).fileno(), 65536):
                    on_output(block.decode(errors="replace"))
            except BaseException:
                running.kill()
                raise
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    return Result(argv=tuple(argv), code=exit_code(running.returncode), stdout="", stderr=said)


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    end: Callable[[int], object] = _terminate,
) -> int:
    """Run a long program and hand over each line that it prints, of stdout and stderr alike.

    Args:
        argv: The program and its arguments.
        on_line: Called with each line, without its line end.
        env: Its whole environment; None for ours.
        stdin: What it reads; empty means end of file at once.
        end: Called with its process id to end it, if something ends us meanwhile.

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
        _ok_code=tuple(range(-64, 256)),
        _decode_errors="replace",
        _return_cmd=True,
        _bg=True,
        _bg_exc=False,
    )
    try:
        done.wait()
    except BaseException:
        end(done.pid)
        raise
    return exit_code(done.exit_code)


def pipeline(
    source: Sequence[str], sink: Sequence[str], *, env: Mapping[str, str] | None = None
) -> tuple[int, Result]:
    """Run two programs, the first one's stdout being the second one's stdin.

    Returns:
        The first one's exit code, 128 + n for signal n, and what the second one left.
    """
    log.debug("+ %s | %s", shlex.join(source), shlex.join(sink))
    with (
        _installed(source[0], sink[0]),
        subprocess.Popen(
            source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env
        ) as first,
    ):
        try:
            done = subprocess.run(
                sink, check=False, stdin=first.stdout, capture_output=True, env=env
            )
        finally:
            # So that the first one ends if the second one has not read all.
            if first.stdout:
                first.stdout.close()
        code = first.wait()
    result = Result(
        argv=tuple(sink),
        code=exit_code(done.returncode),
        stdout=done.stdout.decode(errors="replace"),
        stderr=done.stderr.decode(errors="replace"),
    )
    return exit_code(code), result


def spawn(
    argv: Sequence[str],
    *,
    pipes: bool = False,
    stdin: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    shown: Sequence[str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program and go on.

    Args:
        argv: The program and its arguments.
        pipes: Give it pipes, and a session of its own that Ctrl-C does not reach.
            Else it has our terminal, or whatever our stdin, stdout and stderr are.
        stdin: What it reads in place of our stdin.
        env: Its whole environment; None for ours.
        cwd: Where it runs; None for where we are.
        shown: What `--verbose` shows in place of the arguments.

    Raises:
        UnavailableError: The program is not installed.
    """
    log.debug("+ %s", shlex.join(shown or argv))
    pipe = subprocess.PIPE if pipes else None
    with _installed(argv[0]):
        return subprocess.Popen(
            argv,
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
    with _installed(argv[0]):
        os.execvp(argv[0], tuple(argv))  # noqa: S606  (there is no shell)


def piped(stream: IO[bytes] | None) -> IO[bytes]:
    """Give a stream of a program that was started with pipes."""
    if stream is None:
        raise ValueError("started without pipes")
    return stream


def wait(started: subprocess.Popen[bytes], timeout_s: float | None = None) -> int | None:
    """Wait for a started program.

    Returns:
        Its exit code, 128 + n for signal n; None if it still runs after `timeout_s` seconds.
    """
    try:
        return exit_code(started.wait(timeout_s))
    except subprocess.TimeoutExpired:
        return None
