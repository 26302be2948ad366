"""What the scenarios are told with: a caller of ./nddt, a terminal, the provider from outside."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import termios
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TypeVar

from tests.daytona_double import DaytonaDouble, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
KEY = "sk-ant-test-0123456789abcdefghijklmnopqrstuvwxyz"
GONE_S = 5.0
"""How soon after its client nothing of a sandbox may be left."""

T = TypeVar("T")


def eventually(look: Callable[[], T], within_s: float = 20.0, *, rarest_s: float = 0.2) -> T:
    """Look again and again until there is something to see, and give that.

    Args:
        look: What there is to see.
        within_s: How long to look.
        rarest_s: How rarely it may come to look: most looks start a program.

    Returns:
        What `look` gave last, even if that is nothing: the caller asserts.
    """
    deadline, pause_s = time.monotonic() + within_s, 0.01
    while True:
        found = look()
        if found or time.monotonic() > deadline:
            return found
        pause_s = min(1.3 * pause_s, rarest_s)
        time.sleep(pause_s)


# -- a caller -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a finished command left."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def lines(self) -> list[str]:
        """Its stdout."""
        return self.stdout.decode().splitlines()

    @property
    def said(self) -> str:
        """Its stderr."""
        return self.stderr.decode()


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody in a directory, who types ./nddt."""

    provider: str
    launcher: tuple[str, ...]
    directory: Path
    environ: Mapping[str, str] = field(repr=False)

    def to(self, directory: Path) -> Caller:
        """Be in another directory."""
        return replace(self, directory=directory)

    def having(self, **environ: str) -> Caller:
        """Have more variables."""
        return replace(self, environ={**self.environ, **environ})

    def with_agent(self, script: str) -> Caller:
        """Have a shell script in place of the agent; in a process list it is `agent.sh`.

        It has its key, which nddt would else say, unless it is to have none.
        """
        access = self.environ.get("NDDT_MODEL_ACCESS", "env")
        command = shlex.join(("bash", "-c", script, "agent.sh"))
        return self.having(NDDT_COMMAND=command, NDDT_MODEL_ACCESS=access)

    def task(self, name: str) -> str:
        """Give the name of a task of the provider's own."""
        return f"{self.provider}.{name}"

    def make_sandbox(self) -> str:
        """Make the directory's sandbox and give its name."""
        done = self(self.task("create-sandbox"))
        assert done.code == 0, done.said
        return done.lines[-1]

    @property
    def runtime(self) -> Path:
        """Where this caller's sockets, keys and locks are."""
        return Path(self.environ["XDG_RUNTIME_DIR"]) / "nddt"

    def start(
        self,
        *words: str,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            (*self.launcher, *words),
            cwd=self.directory,
            env=dict(self.environ),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def __call__(self, *words: str, stdin: bytes | None = None, within_s: float = 120) -> Done:
        """Run a command to its end.

        Args:
            words: Its arguments.
            stdin: What is piped into it; None for /dev/null.
            within_s: A longer one fails the test.
        """
        pipe = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self.start(*words, stdin=pipe) as running:
            try:
                stdout, stderr = running.communicate(stdin, within_s)
            except BaseException:
                running.kill()
                raise
        return Done(code=running.returncode, stdout=stdout, stderr=stderr)


@contextmanager
def ended(running: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Make sure that a started command is over at the block's end, also if the test fails."""
    with running:
        try:
            yield running
        finally:
            running.kill()


def end(running: subprocess.Popen[bytes], within_s: float = 30) -> Done:
    """Wait for a started command."""
    with running:
        try:
            stdout, stderr = running.communicate(timeout=within_s)
        except BaseException:
            running.kill()
            raise
    return Done(code=running.returncode, stdout=stdout or b"", stderr=stderr)


# -- somebody in the cloud ----------------------------------------------------------------


@dataclass(frozen=True)
class Cloud:
    """A caller whose provider is the double, and the double."""

    caller: Caller
    double: DaytonaDouble

    def agent(self, script: str) -> Caller:
        """Have a shell script in place of the agent."""
        return self.caller.with_agent(script).having(ANTHROPIC_API_KEY=KEY)

    def ours(self) -> list[str]:
        """Name the sandboxes that exist."""
        return [one.name for one in self.double.sandboxes().values() if one.state != "destroying"]


def caller_of(
    double: DaytonaDouble, launcher: tuple[str, ...], environ: Mapping[str, str], directory: Path
) -> Caller:
    """Give somebody with an account there."""
    return Caller(
        provider="daytona",
        launcher=launcher,
        directory=directory,
        environ={
            **environ,
            **double.environ,
            "NDDT_IDLE_MINUTES": "600",
            "NDDT_WORKSPACE": "none",
            "XDG_STATE_HOME": str(directory),  # a gateway that is known to this test alone
        },
    )


# -- a terminal -----------------------------------------------------------------------------

_ESCAPES = re.compile(
    rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1bP[^\x1b]*\x1b\\"
    rb"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]"
)


class Terminal:
    """A terminal in which a command runs as its session's leader."""

    def __init__(self, caller: Caller, *words: str, rows: int = 43, columns: int = 132) -> None:
        self._master, self._slave = pty.openpty()
        self._output = b""
        self.resize(rows, columns)
        self.before = self.attributes
        self.process = subprocess.Popen(
            ("setsid", "--ctty", *caller.launcher, *words),
            cwd=caller.directory,
            env={**caller.environ, "TERM": "xterm-256color"},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
        )

    @property
    def attributes(self) -> list[Any]:
        """The terminal's modes, as termios gives them."""
        return termios.tcgetattr(self._slave)

    @property
    def output(self) -> bytes:
        """All that has been written so far."""
        while self._master >= 0 and select.select([self._master], [], [], 0)[0]:
            self._output += os.read(self._master, 65536)
        return self._output

    @property
    def text(self) -> str:
        """The words of the output without blanks, which a full-screen program jumps over."""
        return "".join(_ESCAPES.sub(b"", self.output).decode(errors="replace").split())

    def shows(self, words: str, within_s: float = 30) -> bool:
        """Wait until these words have appeared since the last `forget`."""
        wanted = "".join(words.split())
        return eventually(lambda: wanted in self.text, within_s, rarest_s=0.02)

    def forget(self) -> None:
        """Look only at what is written from now on."""
        _ = self.output
        self._output = b""

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size, of which the kernel tells the foreground process."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def code(self, within_s: float = 30) -> int | None:
        """Wait for the end and give the exit code; None if it still runs."""

        def look() -> bool:
            _ = self.output  # a full terminal would keep the command from ending
            return self.process.poll() is not None

        eventually(look, within_s, rarest_s=0.02)
        return self.process.returncode

    def hang_up(self) -> None:
        """Lose the terminal, as by closing its window."""
        os.close(self._master)
        self._master = -1

    def __enter__(self) -> Self:
        """Use it until the block's end, where the command is over."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the command if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        self.process.kill()
        self.process.wait()
        if self._master >= 0:
            os.close(self._master)
        os.close(self._slave)


# -- this machine ---------------------------------------------------------------------------


def keeper_of(caller: Caller) -> int | None:
    """Ask which keeper the directory's sandbox has."""
    found = json.loads(caller(caller.task("list"), "--json").stdout)
    pids = [one["keeper"] for one in found if one["mode"] == "persistent"]
    return pids[0] if pids else None


def processes(mark: Path) -> dict[int, str]:
    """Find the processes that have a path in their arguments or their environment.

    Returns:
        Process id → command line.
    """
    found = {}
    wanted = os.fsencode(mark)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # it has ended, or is another user's
            line = (entry / "cmdline").read_bytes()
            if wanted in line or wanted in (entry / "environ").read_bytes():
                found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace")
    return found


def process_list() -> str:
    """Give what any user of this machine sees of all processes."""
    return _output("ps", "auxww")


def _output(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, check=check, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout.decode(errors="replace")


# -- the provider, from outside -------------------------------------------------------------


@dataclass(frozen=True)
class Mine:
    """Tells what the tests have made from all that is on the machine."""

    base: Path
    """The workspaces are in here."""
    prefix: str
    """Names begin like this, where there is no workspace."""


class Outside(Protocol):
    """A provider, looked at and disturbed without nddt."""

    def is_gone(self, look: Callable[[], object]) -> bool:
        """Wait until `look` says that nothing is left, as of a killed client's sandbox."""

    def environ(self) -> Mapping[str, str]:
        """Give the variables that lead a caller there."""

    def sandboxes(self) -> dict[str, str]:
        """Give our sandboxes: name → `running` or anything else."""

    def extras(self, name: str) -> Sequence[str]:
        """Give what belongs to a sandbox and must go with it, such as volumes."""

    def existing_extras(self) -> Sequence[str]:
        """Give all such things of the provider."""

    def visible(self, name: str) -> str:
        """Give all that the provider tells about a sandbox, its image and its output."""

    def kill(self, name: str) -> None:
        """End a sandbox behind nddt's back."""

    def remove(self, name: str) -> None:
        """Remove a sandbox behind nddt's back; one that is gone is fine."""

    def stranger(self, name: str) -> Any:  # noqa: ANN401  (a context manager)
        """Have something of this name that nddt did not make."""

    def neighbour(self, name: str) -> Any:  # noqa: ANN401  (a context manager)
        """Have a sandbox of this name that another owner's nddt made."""

    def unreachable(self) -> Mapping[str, str]:
        """Give the variables with which the provider does not answer."""

    def group(self) -> str | None:
        """Give the group that an ordinary user must be in; None if any user will do."""

    def forget_images(self, owner: str) -> None:
        """Remove the images of an owner."""

    def close(self) -> None:
        """Be done with it."""


class Docker:
    """The engine that the docker command reaches."""

    def __init__(self, mine: Mine) -> None:
        self._mine = mine

    def is_gone(self, look: Callable[[], object]) -> bool:
        """Wait: the container goes with the client's connection."""
        return bool(eventually(look, GONE_S))

    def environ(self) -> Mapping[str, str]:
        """Give nothing: it is where the docker command finds it."""
        return {}

    def close(self) -> None:
        """Leave it as it is."""

    def sandboxes(self) -> dict[str, str]:
        """Give our containers."""
        form = '{{.Names}}\t{{.State}}\t{{.Label "nddt.workspace"}}'
        lines = _output("docker", "ps", "--all", "--filter", "label=nddt", "--format", form)
        # Of a container that goes meanwhile the engine writes half a line.
        rows = [line.split("\t") for line in lines.splitlines() if line.count("\t") == 2]
        return {
            name: state
            for name, state, workspace in rows
            if workspace.startswith(str(self._mine.base)) or name.startswith(self._mine.prefix)
        }

    def extras(self, name: str) -> Sequence[str]:
        """Give the names of its volumes."""
        form = '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}'
        return _output("docker", "inspect", "--format", form, name).split()

    def existing_extras(self) -> Sequence[str]:
        """Give the names of all volumes."""
        return _output("docker", "volume", "ls", "--quiet").split()

    def visible(self, name: str) -> str:
        """Give inspect, history and logs."""
        image = _output("docker", "inspect", "--format", "{{.Config.Image}}", name).strip()
        return "\n".join(
            (
                _output("docker", "inspect", name),
                _output("docker", "inspect", image),
                _output("docker", "history", "--no-trunc", image),
                _output("docker", "logs", name, check=False),  # there may be none to read
                _output("docker", "top", name, "auxww"),
            )
        )

    def kill(self, name: str) -> None:
        """Kill the container."""
        _output("docker", "kill", name)

    def remove(self, name: str) -> None:
        """Remove the container and its volumes."""
        _output("docker", "rm", "--force", "--volumes", name, check=False)

    @contextmanager
    def _made(self, name: str, *labels: str) -> Iterator[None]:
        images = _output("docker", "images", "--quiet", "--filter", "label=nddt").split()
        words = [word for label in labels for word in ("--label", label)]
        _output("docker", "create", "--name", name, *words, images[0], "true")
        try:
            yield
        finally:
            self.remove(name)

    def stranger(self, name: str) -> Any:  # noqa: ANN401
        """Have a container without labels."""
        return self._made(name)

    def neighbour(self, name: str) -> Any:  # noqa: ANN401
        """Have a container with another owner's labels."""
        return self._made(
            name,
            f"nddt.sandbox={name}",
            "nddt=persistent",
            "nddt.owner=somebody@else",
            "nddt.created=1",
            "nddt.pid=1",
        )

    def unreachable(self) -> Mapping[str, str]:
        """Name a socket that nobody listens on."""
        return {"DOCKER_HOST": f"unix://{self._mine.base}/nobody.sock"}

    def group(self) -> str | None:
        """Give the group of the socket."""
        return Path("/var/run/docker.sock").group()

    def forget_images(self, owner: str) -> None:
        """Remove the images with this owner's label."""
        wanted = f"label=nddt.owner={owner}"
        form = "{{.Repository}}:{{.Tag}}"
        names = _output("docker", "images", "--filter", wanted, "--format", form).split()
        if names:
            _output("docker", "rmi", *names)


class Daytona:
    """A double of the platform, whose minutes last a second."""

    def __init__(self, mine: Mine) -> None:
        self._mine = mine
        self.double = DaytonaDouble(minute_s=1.0)

    def is_gone(self, look: Callable[[], object]) -> bool:
        """Wait; the quarter of an hour after which the platform stops it passes in a second."""
        return bool(eventually(look, 2)) or self._is_gone_later(look)

    def _is_gone_later(self, look: Callable[[], object]) -> bool:
        minute_s, self.double.options.minute_s = self.double.options.minute_s, 0.05
        try:
            return bool(eventually(look, 40))
        finally:
            self.double.options.minute_s = minute_s

    def environ(self) -> Mapping[str, str]:
        """Give the account; the gateway's key is new each time.

        What a copy of the directory does to a run has tests of its own.
        """
        known = {"XDG_STATE_HOME": str(self._mine.base / "state"), "NDDT_IDLE_MINUTES": "900"}
        return {**self.double.environ, **known, "NDDT_WORKSPACE": "none"}

    def close(self) -> None:
        """End the platform with all that is left in it."""
        self.double.close()

    def sandboxes(self) -> dict[str, str]:
        """Give all that are not on their way out."""
        found = self.double.sandboxes().items()
        words = {"started": "running"}
        return {
            name: words.get(one.state, one.state)
            for name, one in found
            if one.state not in {"destroying", "destroyed"}
        }

    def extras(self, name: str) -> Sequence[str]:
        """Give its container."""
        return [self.double.container_of(name)]

    def existing_extras(self) -> Sequence[str]:
        """Give all containers of the engine."""
        return _output("docker", "ps", "--all", "--quiet", "--no-trunc").split()

    def visible(self, name: str) -> str:
        """Give what the API tells, and what the engine tells of the container."""
        one = self.double.sandboxes()[name]
        container = self.double.container_of(name)
        told = (repr(dict(one.env)), repr(one), *map(repr, self.double.snapshots().values()))
        return "\n".join(
            (*told, _output("docker", "inspect", container), _output("docker", "top", container))
        )

    def kill(self, name: str) -> None:
        """Stop it."""
        self.double.stop_behind_back(name)

    def remove(self, name: str) -> None:
        """Remove it."""
        with suppress(LookupError):
            self.double.remove_behind_back(name)

    @contextmanager
    def _made(self, name: str, labels: Mapping[str, str]) -> Iterator[None]:
        self.double.add_sandboxes([Row(name=name, labels=labels)])
        try:
            yield
        finally:
            self.remove(name)

    def stranger(self, name: str) -> Any:  # noqa: ANN401
        """Have a sandbox without labels."""
        return self._made(name, {})

    def neighbour(self, name: str) -> Any:  # noqa: ANN401
        """Have a sandbox with another owner's labels."""
        labels = {"nddt": "persistent", "nddt.owner": "somebody@else"}
        return self._made(name, {**labels, "nddt.created": "1", "nddt.pid": "1"})

    def unreachable(self) -> Mapping[str, str]:
        """Name a port that nobody listens on."""
        return {"DAYTONA_API_URL": "http://127.0.0.1:9/api"}

    def group(self) -> str | None:
        """Give none: who has a key may use it."""
        return None

    def forget_images(self, owner: str) -> None:
        """Leave them: they end with the double."""


OUTSIDES: Mapping[str, Callable[[Mine], Outside]] = {"docker": Docker, "daytona": Daytona}
