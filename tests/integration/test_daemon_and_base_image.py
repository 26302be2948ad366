"""A daemon of our own, started and stopped beside the machine's, and a base image made in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.errors import CannotCreateError, EndedBySignalError, UnavailableError
from scripts.machine import engine, process, signals
from scripts.machine.engine import daemon as local
from scripts.machine.engine import debian, privilege, programs
from scripts.machine.engine.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parent.parent.parent
IMAGE = "debian:trixie-slim"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a daemon")


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    """What the tests need is installed on a machine that is there for tests."""
    needed = ("docker", "dockerd", "mmdebstrap", "newuidmap")
    if os.environ.get("CI"):
        engine.ensure_installed(needed, yes=True, environ=os.environ)
    elif programs.missing(needed):
        pytest.skip(f"not installed: {', '.join(programs.missing(needed))}")


# -- a daemon that has nothing in common with the machine's -----------------------------------


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory with all that a daemon keeps, and the environment of its callers."""

    directory: Path
    daemon: Daemon
    environ: dict[str, str]

    def processes(self, name: str) -> list[int]:
        """Give the processes of that name which were told about this directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and local.process_name(int(entry.name)) == name:
                words = _command_line(int(entry.name))
                found += [int(entry.name)] if str(self.directory) in words else []
        return found

    def start(self) -> None:
        """Start it, without consent: that is asked for elsewhere."""
        local.start_daemon(self.daemon, self.environ)

    def docker(self, *words: str) -> str:
        """Run a docker command there, and give what it prints."""
        done = process.capture(("docker", *words), env=self.environ, timeout_s=60)
        assert done.ok, done.stderr
        return done.stdout.strip()

    def stop(self) -> None:
        """End its processes, by their ids, and remove its files."""
        # One after the other: a daemon that lives starts its containerd again, and one that
        # ends takes it along.
        for name in ("dockerd", "containerd"):
            self._end(name)
        for mounted in reversed(_mounts(self.directory)):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        _eventually(self._is_removed)

    def _end(self, name: str) -> None:
        def ended() -> bool:
            # Again and again: one that is just starting does not listen yet.
            for pid in self.processes(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            return not self.processes(name)

        _eventually(ended)

    def _is_removed(self) -> bool:
        # A shim of containerd's may still be writing its last file.
        shutil.rmtree(self.directory, ignore_errors=True)
        return not self.directory.exists()


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mounts(below: Path) -> list[str]:
    table = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [one for one in (line.split()[1] for line in table) if one.startswith(f"{below}/")]


def _eventually(condition: Callable[[], object], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _place() -> Place:
    # Short: sockets are in it; not /tmp, which may be in memory.
    directory = Path(tempfile.mkdtemp(prefix="nddt-t", dir="/var/tmp"))
    directory.chmod(0o755)
    (directory / "home").mkdir()
    files = Daemon(
        socket=directory / "d.sock",
        pid_file=directory / "d.pid",
        containerd_pid_file=directory / "exec/containerd/containerd.pid",
        log=directory / "d.log",
        systemd=directory / "no-systemd",
        program=str(directory / "dockerd"),
    )
    arguments = (
        f"--host=unix://{files.socket}",
        f"--pidfile={files.pid_file}",
        f"--data-root={directory}/data",
        f"--exec-root={directory}/exec",
        f"--config-file={directory}/daemon.json",
        "--iptables=false",
        "--ip6tables=false",
    )
    (directory / "daemon.json").write_text("{}")
    # With a network of its own: two daemons on one network take docker0 from each other.
    program = directory / "dockerd"
    real = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
    program.write_text(f'#!/bin/sh\nexec unshare --net {real} "$@"\n')
    program.chmod(0o755)
    environ = {
        "HOME": str(directory / "home"),
        "PATH": os.environ["PATH"],
        "DOCKER_HOST": f"unix://{files.socket}",
        # A registry that cannot be reached.
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1"),
    }
    return Place(directory=directory, daemon=replace(files, arguments=arguments), environ=environ)


@pytest.fixture
def place() -> Iterator[Place]:
    """A place where no daemon runs yet."""
    made = _place()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    """A daemon without images that reaches no registry."""
    made = _place()
    try:
        made.start()
        yield made
    finally:
        made.stop()


# -- the daemon -------------------------------------------------------------------------------


@pytest.fixture
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no daemon."""
    with subprocess.Popen(["sleep", "600"]) as started:
        yield started
        started.kill()


def _leave_behind(place: Place, pid: int) -> None:
    """Make what a daemon that was killed leaves."""
    for file in (place.daemon.pid_file, place.daemon.containerd_pid_file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(pid))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.daemon.socket))


def test_a_daemon_starts_over_what_a_dead_one_left(place: Place) -> None:
    """Two files with the id of no process, and a socket on which nobody listens."""
    with subprocess.Popen(["true"]) as gone:
        pass
    _leave_behind(place, gone.pid)

    assert not local.is_running(place.daemon)
    place.start()

    assert engine.docker_client() == "docker"
    assert place.docker("version", "--format", "{{.Server.Version}}")
    assert local.is_running(place.daemon)
    (pid,) = place.processes("dockerd")
    assert local.holder(place.daemon.pid_file, "dockerd") == pid
    assert os.getsid(pid) == pid, "a closed terminal would end it"


def test_a_daemon_starts_though_its_id_was_given_to_another(
    place: Place, sleeping: subprocess.Popen[bytes]
) -> None:
    """The other program is left alone."""
    _leave_behind(place, sleeping.pid)
    place.start()

    assert local.holder(place.daemon.pid_file, "dockerd") in place.processes("dockerd")
    assert sleeping.poll() is None


def test_two_starts_at_once_make_one_daemon(place: Place) -> None:
    """The second one waits, and finds it running."""
    failed: list[UnavailableError] = []

    def start() -> None:
        try:
            engine._start(place.daemon, yes=True, environ=place.environ)
        except UnavailableError as error:
            failed.append(error)

    both = [threading.Thread(target=start) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()

    assert not failed
    assert len(place.processes("dockerd")) == 1


def test_a_slow_daemon_is_waited_for_and_not_started_again(place: Place) -> None:
    """The one who waited in vain says so; the next one waits on."""
    impatient = replace(place.daemon, wait_s=0)
    with pytest.raises(UnavailableError, match="did not answer in 0 s"):
        local.start_daemon(impatient, place.environ)
    _eventually(lambda: local.is_running(place.daemon))
    place.start()

    assert len(place.processes("dockerd")) == 1


def test_a_daemon_that_ends_at_once(place: Place) -> None:
    """Its last lines say why."""
    broken = replace(place.daemon, arguments=("--no-such-flag",))
    with pytest.raises(UnavailableError) as caught:
        local.start_daemon(broken, place.environ)

    assert caught.value.exit_code == 69
    assert caught.value.message == "dockerd ended at once"
    assert "no-such-flag" in caught.value.detail
    assert str(place.daemon.log) in caught.value.next_step


def test_without_consent_no_daemon_is_started(place: Place) -> None:
    """The command that would start it is told."""
    with pytest.raises(UnavailableError) as caught:
        engine._start(place.daemon, yes=False, environ=place.environ)

    assert caught.value.message == "the Docker daemon does not run"
    assert f"--data-root={place.directory}/data" in caught.value.next_step
    assert not place.processes("dockerd")


# -- the base image ---------------------------------------------------------------------------


def test_without_consent_no_image_is_made(running: Place) -> None:
    """It cannot be pulled; the commands that make it are told."""
    with pytest.raises(UnavailableError) as caught:
        engine.ensure_base(IMAGE, yes=False, environ=running.environ)

    assert caught.value.message.startswith(f"{IMAGE} cannot be pulled: ")
    assert "mmdebstrap --variant=minbase" in caught.value.next_step
    assert f"docker import /var/tmp/trixie.tar {IMAGE}" in caught.value.next_step
    assert not running.docker("images", "--quiet")


def test_an_image_that_is_no_debian_cannot_be_made(running: Place) -> None:
    """What stopped the pull is the reason."""
    with pytest.raises(CannotCreateError) as caught:
        engine.ensure_base("nddt-no-such:1", yes=True, environ=running.environ)

    assert caught.value.exit_code == 73
    assert caught.value.message.startswith("nddt-no-such:1 cannot be pulled: ")
    assert "NDDT_BASE_IMAGE" in caught.value.next_step


def _reaching_mirrors(place: Place) -> dict[str, str]:
    """Build its environment without the proxy that keeps registries away."""
    proxies = {k: v for k, v in os.environ.items() if k.lower() in {"http_proxy", "https_proxy"}}
    return {k: v for k, v in place.environ.items() if "PROXY" not in k} | proxies


@pytest.fixture
def nursery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory in which systems grow."""
    tmp_path.chmod(0o755)
    monkeypatch.setattr(debian, "PLACE", str(tmp_path))
    return tmp_path


def test_an_unknown_suite(running: Place, nursery: Path) -> None:
    """The mirror's answer is shown."""
    environ = _reaching_mirrors(running)
    with pytest.raises(CannotCreateError) as caught:
        engine.bootstrap_base("debian:nosuch-slim", yes=True, environ=environ)

    assert caught.value.exit_code == 73
    assert caught.value.message.startswith("debian:nosuch-slim could not be made from ")
    assert "nosuch" in caught.value.detail
    assert "NDDT_BASE_IMAGE" in caught.value.next_step
    assert not list(nursery.iterdir())
    assert not running.docker("images", "--quiet")


# What `inv docker.bootstrap-base` does, in a process that can be ended.
BOOTSTRAP = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from scripts.machine import engine, signals
from scripts.machine.engine import debian
debian.PLACE = sys.argv[2]
with signals.raised():
    engine.bootstrap_base(sys.argv[1], yes=True, environ=dict(os.environ))
"""


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive)]
)
def test_nothing_is_left_of_an_interrupted_one(
    running: Place, tmp_path: Path, signum: signal.Signals
) -> None:
    """No directory, no process and no image, while packages are on their way."""
    environ = {**_reaching_mirrors(running), "PYTHONPATH": str(REPOSITORY)}
    argv = [sys.executable, "-c", BOOTSTRAP, IMAGE, str(tmp_path)]
    with subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL) as started:
        _eventually(lambda: list(tmp_path.glob("*/var/lib/apt/lists/*")), within_s=60)
        started.send_signal(signum)
        assert started.wait(30) != 0

    assert not list(tmp_path.iterdir())
    assert not _working(tmp_path)
    assert not running.docker("images", "--quiet")


def _working(directory: Path) -> list[str]:
    """List the command lines of programs that work with that directory."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [words for words in map(_command_line, pids) if str(directory) in words]


def test_a_program_that_works_as_root_is_waited_for(project_environ: dict[str, str]) -> None:
    """So apt-get can finish what must not be left half done, however much it has to say."""
    done = Path(project_environ["HOME"], "done")
    script = f'kill {os.getpid()}; sleep 0.5; yes | head -c 1000000; echo >"$0"'

    with signals.raised(), pytest.raises(EndedBySignalError):
        privilege.stream(("sh", "-c", script, str(done)), "a program", project_environ)

    assert done.exists()


@pytest.fixture
def project_environ(tmp_path: Path) -> dict[str, str]:
    """An environment with an empty home."""
    return {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}


@pytest.mark.exhaustive
def test_a_base_image_is_made_where_none_can_be_pulled(running: Place, nursery: Path) -> None:
    """It is a small Debian with our labels, and it is there the next time."""
    labels = {"nddt.workspace": '/a "b" $HOME'}
    environ = _reaching_mirrors(running)
    engine.ensure_base(IMAGE, yes=True, environ=environ, labels=labels)
    engine.ensure_base(IMAGE, yes=False, environ=environ)

    (found,) = json.loads(running.docker("image", "inspect", IMAGE))
    assert found["Config"]["Labels"] == {**labels, "nddt": "base"}
    assert found["Config"]["Cmd"] == ["bash"]
    assert found["Size"] < 250_000_000
    run = ("run", "--rm", "--network=none", IMAGE, "sh", "-c")
    assert running.docker(*run, ". /etc/os-release; echo $VERSION_CODENAME") == "trixie"
    assert not running.docker(*run, "find /usr/share/man /var/cache/apt -type f -size +0")
    assert "security" in running.docker(*run, "cat /etc/apt/sources.list /etc/apt/*/*")
    assert "docker-clean" in running.docker(*run, "ls /etc/apt/apt.conf.d")
    assert not list(nursery.iterdir())
