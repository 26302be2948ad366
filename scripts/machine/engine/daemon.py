"""The Docker daemon of this machine: started with systemd or without, whatever a dead one left."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.errors import UnavailableError
from scripts.machine import search_path, state
from scripts.machine.engine import privilege

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("nddt")

# A constant, its input comes as arguments. Ignoring SIGHUP matters until setsid has happened:
# sudo hangs up its pseudo-terminal as soon as the shell is done.
_DETACHED = """trap '' HUP; setsid "$@" >"$0" 2>&1 </dev/null & echo $!"""


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """Where a daemon keeps what; the defaults are dockerd's own."""

    socket: Path = Path("/var/run/docker.sock")
    pid_file: Path = Path("/var/run/docker.pid")
    containerd_pid_file: Path = Path("/var/run/docker/containerd/containerd.pid")
    log: Path = Path("/var/log/nddt-dockerd.log")
    program: str = "dockerd"
    arguments: tuple[str, ...] = ()
    systemd: Path = Path("/run/systemd/system")
    """Exists if systemd runs: sd_booted(3)."""
    wait_s: float = 60
    """Seconds that it may take to answer."""

    @property
    def under_systemd(self) -> bool:
        """Whether systemd looks after it."""
        return self.systemd.is_dir()

    def start_command(self) -> tuple[str, ...]:
        """Build the command that starts it, as a person would type it."""
        if self.under_systemd:
            return ("systemctl", "start", "docker")
        return (search_path.find_program(self.program) or self.program, *self.arguments)


def process_name(pid: int) -> str:
    """Tell what a process is called, by proc(5); empty if there is none, or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    name, _, rest = text.partition("(")[2].rpartition(") ")
    return "" if rest.startswith(("Z", "X")) else name


def holder(pid_file: Path, program: str) -> int | None:
    """Read the process that a pid file means, if it still runs and is that program."""
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    if process_name(pid) == program:
        return pid
    # /proc may be mounted so that it hides other users' processes.
    hidden = not Path("/proc/1").exists() and state.is_alive(pid)
    return pid if hidden else None


def is_running(daemon: Daemon) -> bool:
    """Tell whether the process of its pid file is a daemon, answering or not."""
    return holder(daemon.pid_file, "dockerd") is not None


def start_daemon(daemon: Daemon, environ: Mapping[str, str]) -> None:
    """Start the daemon, unless it is just starting, and wait until it answers.

    Raises:
        UnavailableError: It ended, or did not answer in time.
    """
    pid = holder(daemon.pid_file, "dockerd")
    if pid is None and daemon.under_systemd:
        done = privilege.capture(daemon.start_command(), environ)
        if not done.ok:
            raise _failure(daemon, "systemctl could not start Docker", environ)
    elif pid is None:
        pid = _launch(daemon, environ)
    deadline = time.monotonic() + daemon.wait_s
    while time.monotonic() < deadline:
        if _answers(daemon, environ):
            return
        if pid is not None and not process_name(pid):
            raise _failure(daemon, "dockerd ended at once", environ)
        time.sleep(0.2)
    raise _failure(daemon, f"dockerd did not answer in {daemon.wait_s:g} s", environ)


def _launch(daemon: Daemon, environ: Mapping[str, str]) -> int:
    """Start dockerd in a session of its own, and give its process id."""
    left = [
        str(file)
        for file, program in (
            (daemon.pid_file, "dockerd"),
            (daemon.containerd_pid_file, "containerd"),
        )
        if holder(file, program) is None
    ]
    # dockerd refuses to start if any process has the id of its pid file; sockets it replaces.
    privilege.capture(("rm", "-f", *left), environ)
    argv = ("sh", "-c", _DETACHED, str(daemon.log), *daemon.start_command())
    started = privilege.capture(argv, environ)
    if not started.ok or not started.stdout.strip().isdigit():
        raise UnavailableError("dockerd could not be started", detail=started.stderr)
    return int(started.stdout)


def _answers(daemon: Daemon, environ: Mapping[str, str]) -> bool:
    """Ask as root: the caller may not have the right to."""
    words = ("version", "--format", "{{.Server.Version}}")
    argv = ("docker", "--host", f"unix://{daemon.socket}", *words)
    return privilege.capture(argv, environ, timeout_s=10).ok


def _failure(daemon: Daemon, message: str, environ: Mapping[str, str]) -> UnavailableError:
    where = str(daemon.log)
    read: tuple[str, ...] = ("tail", "-n", "30", where)
    if daemon.under_systemd:
        where = "journalctl -u docker"
        read = ("journalctl", "--unit=docker", "--lines=30", "--no-pager", "--output=cat")
    lines = privilege.capture(read, environ).stdout
    return UnavailableError(message, f"the lines above say why; all of them: {where}", detail=lines)
