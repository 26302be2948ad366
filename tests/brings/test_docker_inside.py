"""Docker inside: what a provider gives for it or refuses, and the start of a daemon."""

from __future__ import annotations

import csv
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts import plan
from scripts.brings import docker_inside
from scripts.errors import ConfigError
from scripts.machine import search_path
from scripts.providers import daytona, docker
from scripts.providers.docker import arguments
from scripts.settings.host import Host

if TYPE_CHECKING:
    from scripts.contracts.sandbox import Specification
    from tests.conftest import Project

NETWORK = Host(ca_certs="", proxies={}, apt_mirror="", npm_registry="", pip_index_url="")


def wanted(project: Project, mode: str) -> Specification:
    """Describe a sandbox with a Docker of this kind."""
    project.environ["NDDT_DOCKER_FORWARD"] = mode
    return plan.specification(
        project.load_for_provider(), (1000, 1000), persistent=True, pid=os.getpid()
    )


# -- what a sandbox is made with -------------------------------------------------------------


def test_nothing_without_a_wish(project: Project) -> None:
    """No argument, no shell text."""
    want = wanted(project, "")

    assert arguments.docker_arguments(project.load(), want) == ()
    assert docker_inside.bring_docker(want, NETWORK).unpack() == ":"


def test_an_own_daemon_has_a_labelled_volume_and_no_capability(project: Project) -> None:
    """The volume has all labels, whatever is in them."""
    want = wanted(project, "isolated")
    want = replace(want, labels={**want.labels, "nddt.workspace": '/a,b"c'})

    words = arguments.docker_arguments(project.load(), want)

    assert not [word for word in words if "cap" in word or "privileged" in word]
    (mount,) = csv.reader([words[words.index("--mount") + 1]])
    assert mount[:2] == ["type=volume", "target=/home/nddt/.local/share/docker"]
    assert {f"volume-label={name}={value}" for name, value in want.labels.items()} == set(mount[2:])


def test_the_engines_socket_and_its_group(project: Project, tmp_path: Path) -> None:
    """Are the sandbox's."""
    socket = tmp_path / "docker.sock"
    project.environ["DOCKER_HOST"] = f"unix://{socket}"
    missing = arguments.docker_arguments(project.load(), wanted(project, "host"))
    socket.touch()

    words = arguments.docker_arguments(project.load(), wanted(project, "host"))

    (mount,) = csv.reader([words[words.index("--mount") + 1]])
    assert mount == ["type=bind", f"source={socket}", "target=/var/run/docker.sock"]
    assert words[:2] == missing
    assert words[2:] == (f"--group-add={socket.stat().st_gid}",)


@pytest.mark.parametrize(
    ("mode", "address", "problem"),
    [
        ("host", "tcp://10.0.0.1:2375", "socket"),
        ("host", "tcp://127.0.0.1:2375", "socket"),
        ("host", "ssh://me@there", "socket"),
        ("host", "unix:///run/user/1/podman/podman.sock", "Podman"),
        ("isolated", "unix:///run/podman/podman.sock", "Podman"),
    ],
)
def test_what_an_engine_cannot_give(
    project: Project, mode: str, address: str, problem: str
) -> None:
    """Is refused, with the setting and where it comes from."""
    project.environ.update(NDDT_DOCKER_FORWARD=mode, DOCKER_HOST=address)

    with pytest.raises(ConfigError, match=rf"{mode} \(environment\).*{problem}"):
        docker.docker_risk(project.load())


def test_what_the_cloud_cannot_give(project: Project) -> None:
    """Is this machine's engine; a daemon of the sandbox's own is nobody's risk."""
    project.environ["NDDT_DOCKER_FORWARD"] = "host"
    with pytest.raises(ConfigError, match=r"host \(environment\) needs Docker"):
        daytona.docker_risk(project.load())
    project.environ["NDDT_DOCKER_FORWARD"] = "isolated"

    assert daytona.docker_risk(project.load()) == ""


# -- the start of a daemon -------------------------------------------------------------------


def test_proxies_are_meant_as_seen_from_the_daemon(project: Project) -> None:
    """Its loopback is another one than the session's."""
    proxies = {
        "HTTP_PROXY": "http://a:b@127.0.0.1:1",
        "https_proxy": "http://localhost:3128/",
        "ALL_PROXY": "socks5://[::1]",
        "NO_PROXY": "x//127.0.0.1",
        "FTP_PROXY": "http://127.0.0.1.example:1",
    }
    network = Host(**{**vars(NETWORK), "proxies": proxies})

    text = docker_inside.bring_docker(wanted(project, "isolated"), network).unpack()

    assert "HTTP_PROXY=http://a:b@10.0.2.2:1\n" in text
    assert "https_proxy=http://10.0.2.2:3128/\n" in text
    assert "ALL_PROXY=socks5://10.0.2.2\n" in text
    assert "NO_PROXY=x//127.0.0.1," in text
    assert "FTP_PROXY=http://127.0.0.1.example:1\n" in text


DEBIANS = (
    "cat",
    "cut",
    "env",
    "flock",
    "grep",
    "id",
    "mkdir",
    "rm",
    "seq",
    "setsid",
    "sh",
    "sleep",
    "tail",
)
"""Programs of Debian's that the start uses."""
SAYS = "nddt: Docker in the sandbox does not start: "


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A place in which the start of a session can be tried without a sandbox."""

    project: Project
    programs: Path
    session: Path

    def start(self) -> tuple[int, str]:
        """Start a session; give its exit code and what it says."""
        text = docker_inside.bring_docker(wanted(self.project, "isolated"), NETWORK).unpack()
        done = subprocess.run(
            ("sh", "-c", f"{text}\necho started", f"{self.session.with_suffix('.sh')}"),
            env={"PATH": str(self.programs), "HOME": "/", "NDDT_SESSION": str(self.session)},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def has(self, name: str, text: str) -> None:
        """Have a program."""
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        program.chmod(0o755)


@pytest.fixture
def sandbox(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """One without Docker: it has what the start needs of Debian, and a session."""
    programs, session = tmp_path / "bin", tmp_path / "session.d"
    programs.mkdir()
    session.mkdir()
    for name in DEBIANS:
        (programs / name).symlink_to(str(search_path.find_program(name)))
    (tmp_path / "tun").touch()
    monkeypatch.setattr(docker_inside, "PLACE", str(tmp_path / "docker"))
    monkeypatch.setattr(docker_inside, "TUN", str(tmp_path / "tun"))
    made = Sandbox(project=project, programs=programs, session=session)
    made.has("unshare", 'shift 3; exec "$@"')  # older ones know no --map-users=all
    return made


def test_a_sandbox_without_docker_says_so(sandbox: Sandbox) -> None:
    """It was made before there was a wish; nothing of the session is left."""
    code, said = sandbox.start()

    assert (code, said) == (73, f"{SAYS}it was made without — make it anew: nddt cleanup\n")
    assert not sandbox.session.exists()


def test_a_device_for_root_alone_is_named(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is to be done on the engine's machine."""
    sandbox.has("rootlesskit", "")
    monkeypatch.setattr(docker_inside, "TUN", "/proc/nothing")

    code, said = sandbox.start()

    assert (code, said.count("\n")) == (73, 1)
    assert "chmod 666 /proc/nothing" in said


def test_a_daemon_that_ends_says_why(sandbox: Sandbox) -> None:
    """Its own last words are shown, not what rootlesskit says of its end; no variable is seen."""
    sandbox.has(
        "rootlesskit",
        "echo first; echo failed: no ${NDDT_SESSION:-variable}; "
        "echo '[rootlesskit:child ] error: command exited: exit status 1'; exit 1",
    )

    assert sandbox.start() == (73, f"{SAYS}failed: no variable\n")


def test_a_daemon_that_answers_is_not_started_again(sandbox: Sandbox) -> None:
    """Of two sessions at once the second waits for the first one's."""
    note = sandbox.session.parent / "note"
    sandbox.has("docker", f'[ -e "{note}" ]')
    sandbox.has("rootlesskit", f'echo x >>"{note}"; exec sleep 5')

    assert [sandbox.start(), sandbox.start()] == [(0, "started\n")] * 2
    assert note.read_text() == "x\n"


def test_a_daemon_that_is_about_to_answer_is_waited_for(sandbox: Sandbox) -> None:
    """The session that has started it was ended before it did."""
    note = sandbox.session.parent / "note"
    sandbox.has("docker", f'[ -e "{note}" ]')
    sandbox.has("rootlesskit", "echo never")
    program = sandbox.session.parent / "rootlesskit"  # its name in /proc
    program.symlink_to(str(search_path.find_program("sh")))
    with subprocess.Popen((program, "-c", f'sleep 0.3; echo >"{note}"; sleep 100')) as running:
        Path(f"{docker_inside.PLACE}.pid").write_text(str(running.pid), encoding="ascii")
        found = sandbox.start()
        running.kill()

    assert found == (0, "started\n")
