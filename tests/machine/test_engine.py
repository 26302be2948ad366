"""What is installed, started and asked for when a machine has no engine, as far as it is pure."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.errors import CannotCreateError, UnavailableError
from scripts.machine import engine, search_path
from scripts.machine.engine import base_image, debian, privilege, programs
from scripts.machine.engine.daemon import Daemon, holder, is_running, process_name
from scripts.machine.engine.debian import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.conftest import Project

    Unprivileged = Callable[[], AbstractContextManager[None]]

BASE = Base(suite="trixie", slim=True)

# -- the mirror -----------------------------------------------------------------------------

# Lines of `apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(REPO_URI)'`.
UPDATED = """\
Debian|main|http://deb.example.org/debian/
Debian|contrib|http://contrib.example.org/debian/
Debian|main|http://second.example.org/debian/
Debian-Security|main|https://deb.example.org/debian-security/
Docker CE|stable|https://docker.example.org/linux/debian/
Node Source|main|https://node.example.org/node_22.x/
"""
# The same with --no-release-info, before the first `apt-get update`.
NEVER_UPDATED = """\
$(LABEL)|main|http://deb.example.org/debian/
$(LABEL)|main|http://deb.example.org/debian-security/
$(LABEL)|main|https://node.example.org/node_22.x/
"""


MAIN = "deb http://deb.example.org/debian trixie main"


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        pytest.param(
            UPDATED,
            (MAIN, "deb https://deb.example.org/debian-security trixie-security main"),
            id="by-label",
        ),
        pytest.param(
            NEVER_UPDATED,
            (MAIN, "deb http://deb.example.org/debian-security trixie-security main"),
            id="by-address",
        ),
        pytest.param("Debian|main|http://deb.example.org/debian/\n", (MAIN,), id="no-security"),
        pytest.param("", (), id="no-sources"),
        pytest.param("\n|\nDebian\nDebian|main\n", (), id="incomplete-lines"),
        pytest.param("Debian|main|https://me:key@deb.example.org/debian/\n", (), id="key"),
        pytest.param("Debian|main|mirror+file:/etc/apt/list\n", (), id="list-of-mirrors"),
        pytest.param("Debian|main|cdrom:[Debian 12]/\n", (), id="disc"),
        pytest.param("Debian|contrib|http://deb.example.org/debian/\n", (), id="contrib"),
        pytest.param("Ubuntu|main|http://ubuntu.example.org/ubuntu/\n", (), id="ubuntu"),
    ],
)
def test_debians_own_archives_are_chosen(targets: str, expected: tuple[str, ...]) -> None:
    """Other repositories, addresses with a password and apt's own schemes are left alone."""
    assert debian.choose_sources("trixie", targets) == expected


def test_sid_has_no_security_updates() -> None:
    """Its archive is all that there is."""
    assert debian.choose_sources("sid", UPDATED) == (MAIN.replace("trixie", "sid"),)


@pytest.mark.skipif(search_path.find_program("apt-get") is None, reason="needs apt-get")
def test_apt_of_this_machine_can_be_asked() -> None:
    """Its answer names the suite that is asked for, and an address, or there is none."""
    found = debian.sources("trixie")

    assert all(line.startswith("deb http") and " trixie" in line for line in found)


# -- the image ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "suite", "slim"),
    [
        ("debian", "stable", False),
        ("debian:latest", "stable", False),
        ("debian:trixie", "trixie", False),
        ("debian:trixie-slim", "trixie", True),
        ("debian:stable-slim", "stable", True),
    ],
)
def test_images_of_debian_are_understood(image: str, suite: str, *, slim: bool) -> None:
    """The tag tells the suite, and whether it is slim."""
    assert base_image.parse(image) == Base(suite=suite, slim=slim)


@pytest.mark.parametrize(
    "image",
    [
        *("", "debian:", "debian:12", "debian:-slim", "debian:trixie-slim-x", "debian:TRIXIE"),
        *("ubuntu:noble", "example.org/debian:trixie", "debian:trixie\n", "debian:--help"),
        *("debian:../x", "debian@sha256:00", "xdebian:trixie"),
    ],
)
def test_other_images_are_refused(image: str) -> None:
    """Nothing but a suite's name ever reaches mmdebstrap."""
    with pytest.raises(CannotCreateError) as caught:
        base_image.parse(image)

    assert "debian:SUITE-slim" in caught.value.message
    assert "NDDT_BASE_IMAGE" in caught.value.next_step


def test_mmdebstrap_is_told_suite_target_and_sources() -> None:
    """A mirror behind TLS needs certificates inside as well."""
    http, https = MAIN, MAIN.replace("http:", "https:")
    certificates = "--include=ca-certificates"

    assert debian.fill_command(BASE, "-", ())[-2:] == ("trixie", "-")
    assert debian.fill_command(BASE, "-", (http,))[-3:] == ("trixie", "-", http)
    assert certificates not in debian.fill_command(BASE, "-", (http,))
    assert certificates in debian.fill_command(BASE, "-", (http, https))


def test_a_slim_image_keeps_out_documentation() -> None:
    """Now and at each later installation; another image has all of it."""
    option = "--dpkgopt=path-exclude=/usr/share/man/*"
    full = Base(suite="trixie", slim=False)

    assert option in debian.fill_command(BASE, "-", ())
    assert "copyright" not in " ".join(debian.fill_command(BASE, "-", ()))
    assert option not in debian.fill_command(full, "-", ())


def test_labels_are_quoted_for_the_engine() -> None:
    """A path with quotes and dollars stays what it is."""
    words = debian.import_command({"nddt.workspace": 'a "b" $HOME \\ é'})

    assert 'LABEL "nddt.workspace"="a \\"b\\" \\$HOME \\\\ é"' in words
    assert 'LABEL "nddt"="base"' in words
    assert words[-1] == "-"


@pytest.mark.skipif(search_path.find_program("apt-get") is None, reason="needs apt-get")
def test_the_commands_by_hand_are_complete() -> None:
    """The second one makes an image of what the first one writes."""
    fill, load = debian.commands_by_hand("debian:trixie-slim", BASE)

    assert fill[0] == "mmdebstrap"
    assert "/var/tmp/trixie.tar" in fill
    assert load[1:] == ("import", "/var/tmp/trixie.tar", "debian:trixie-slim")


# -- programs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "separate", "expected"),
    [
        (("rsync",), False, ("rsync",)),
        (("docker", "dockerd"), False, ("docker.io",)),
        (("docker", "dockerd"), True, ("docker-cli", "docker.io")),
        (("ssh", "ssh-keygen"), True, ("openssh-client",)),
        (("mmdebstrap",), False, ("mmdebstrap", "debian-archive-keyring")),
        ((), False, ()),
    ],
)
def test_packages(wanted: tuple[str, ...], expected: tuple[str, ...], *, separate: bool) -> None:
    """Each package once, under the name that Debian gives it."""
    assert programs.packages(wanted, separate_client=separate) == expected


def _executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is all of PATH, for every user."""
    runtime.chmod(0o755)
    directory = runtime / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


@pytest.mark.parametrize(
    ("there", "expected"),
    [((), "docker"), (("podman",), "podman"), (("docker", "podman"), "docker")],
)
def test_podman_serves_where_there_is_no_docker(
    path: Path, there: tuple[str, ...], expected: str
) -> None:
    """Docker comes first."""
    for name in there:
        _executable(path / name)

    assert programs.docker_client() == expected


def test_nothing_is_asked_if_nothing_is_missing(project: Project) -> None:
    """Not even for the right to."""
    engine.ensure_installed(("sh", "tar"), yes=False, environ=project.environ)


@pytest.mark.skipif(search_path.find_program("apt-get") is None, reason="needs apt-get")
def test_without_consent_the_commands_are_told(project: Project) -> None:
    """They can be copied as they are."""
    wanted = ("no-such-program", "mmdebstrap-of-yours")
    with pytest.raises(UnavailableError) as caught:
        engine.ensure_installed(wanted, yes=False, environ=project.environ)

    assert caught.value.message.startswith("no-such-program and mmdebstrap-of-yours are not")
    assert "apt-get update && " in caught.value.next_step
    assert (
        "apt-get install -y --no-install-recommends no-such-program mmdebstrap-of-yours"
        in caught.value.next_step
    )


@pytest.mark.usefixtures("path")
def test_without_apt_it_says_what_to_install(project: Project) -> None:
    """The engine by its choices, the rest by name."""
    with pytest.raises(UnavailableError) as caught:
        engine.ensure_installed(("docker", "rsync"), yes=True, environ=project.environ)

    assert caught.value.message == "docker and rsync are not installed"
    assert caught.value.next_step.startswith("install rsync; install and start Docker")


# -- who makes the base image ---------------------------------------------------------------


def _base_makers(path: Path, mmdebstrap: str) -> Path:
    """Put on PATH what makes an image, and an engine that writes down what it is told."""
    told = path / "told"
    for name in ("apt-get", "newuidmap"):
        _executable(path / name)
    _executable(path / "mmdebstrap", f"#!/bin/sh\n{mmdebstrap}\n")
    cat = "while read -r _; do :; done"
    _executable(
        path / "docker",
        f'#!/bin/sh\necho "$1 $2 $3" >>{told}\n[ "$1" = import ] || exit 0\n{cat}\necho 4711\n',
    )
    told.touch()
    told.chmod(0o666)
    return told


def test_who_is_not_root_makes_the_base_image_unasked(
    path: Path, without_privilege: Unprivileged
) -> None:
    """Nothing of it needs root; whatever mmdebstrap writes becomes the image."""
    told = _base_makers(path, "echo system")
    with without_privilege():
        engine.bootstrap_base("debian:trixie-slim", yes=False, environ={"PATH": str(path)})

    assert "tag 4711 debian:trixie-slim" in told.read_text()


def test_no_half_of_a_base_image_stays(path: Path, without_privilege: Unprivileged) -> None:
    """What mmdebstrap says is shown; maybe the kernel lets only root do it."""
    told = _base_makers(path, "echo half; echo 'E: no user namespaces' >&2; exit 25")
    with without_privilege(), pytest.raises(CannotCreateError) as caught:
        engine.bootstrap_base("debian:trixie-slim", yes=False, environ={"PATH": str(path)})

    assert caught.value.message.startswith("debian:trixie-slim could not be made from ")
    assert "E: no user namespaces" in caught.value.detail
    assert caught.value.next_step.endswith("or run this as root")
    assert "image rm 4711" in told.read_text()
    assert "tag" not in told.read_text()


@pytest.mark.skipif(not privilege.is_root(), reason="needs root")
def test_root_is_asked_before_a_base_image_is_made(path: Path) -> None:
    """For packages' scripts then run as root."""
    told = _base_makers(path, "echo system")
    with pytest.raises(UnavailableError) as caught:
        engine.bootstrap_base("debian:trixie-slim", yes=False, environ={"PATH": str(path)})

    assert caught.value.message == "debian:trixie-slim is made as root"
    assert "mmdebstrap --variant=minbase" in caught.value.next_step
    assert "import" not in told.read_text()


# -- consent --------------------------------------------------------------------------------

TWO = (("apt-get", "update"), ("rm", "a file"))


@pytest.mark.skipif(not privilege.is_root(), reason="needs root")
def test_root_types_no_sudo() -> None:
    """And words with spaces are quoted."""
    assert privilege.typed(TWO) == "apt-get update && rm 'a file'"


def test_others_type_sudo(path: Path, without_privilege: Unprivileged) -> None:
    """Before each command."""
    _executable(path / "sudo")
    with without_privilege():
        assert privilege.typed(TWO) == "sudo apt-get update && sudo rm 'a file'"
        assert privilege.typed(TWO, "") == "apt-get update && rm 'a file'"


def test_without_consent_nothing_is_done(path: Path, without_privilege: Unprivileged) -> None:
    """There is no terminal, so nobody is asked; sudo is not called either."""
    called = path / "called"
    _executable(path / "sudo", f"#!/bin/sh\necho >{called}\n")
    with without_privilege(), pytest.raises(UnavailableError) as caught:
        privilege.agree_to_root("it is broken", TWO, yes=False)

    assert caught.value.exit_code == 69
    assert caught.value.message == "it is broken"
    todo = "sudo apt-get update && sudo rm 'a file'"
    assert caught.value.next_step == f"run: {todo} (or repeat this with --yes)"
    assert not called.exists()


@pytest.mark.usefixtures("path")
def test_without_sudo_somebody_else_must_help(without_privilege: Unprivileged) -> None:
    """Consent does not make anybody root."""
    with without_privilege(), pytest.raises(UnavailableError) as caught:
        privilege.agree_to_root("it is broken", TWO, yes=True)

    assert "you are not root and have no sudo" in caught.value.message
    assert caught.value.next_step == "have this run as root: apt-get update && rm 'a file'"


def test_sudo_may_refuse(path: Path, without_privilege: Unprivileged) -> None:
    """Said before anything is begun."""
    _executable(path / "sudo", "#!/bin/sh\nexit 1\n")
    with without_privilege(), pytest.raises(UnavailableError) as caught:
        privilege.agree_to_root("it is broken", TWO, yes=True)

    assert "sudo refuses" in caught.value.message


def test_sudo_hands_proxies_on_by_name(path: Path, without_privilege: Unprivileged) -> None:
    """The value of one may hold a password, and arguments can be read by anybody."""
    _executable(path / "sudo")
    secret = "http://me:geheim@proxy.example.org:3128"
    with without_privilege():
        words = privilege.as_root(("true",), {"https_proxy": secret})

    assert words[0] == "sudo"
    assert "https_proxy" in words[1]
    assert "geheim" not in " ".join(words)


# -- processes ------------------------------------------------------------------------------


@pytest.fixture
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process called sleep."""
    with subprocess.Popen(["sleep", "60"]) as started:
        _eventually_called(started.pid, "sleep")
        yield started
        started.kill()


def _eventually_called(pid: int, name: str) -> None:
    """Wait for the exec after the fork."""
    for _attempt in range(500):
        if process_name(pid) == name:
            return
        os.sched_yield()
    assert process_name(pid) == name


def test_a_process_has_a_name(sleeping: subprocess.Popen[bytes]) -> None:
    """Until it has gone."""
    assert process_name(sleeping.pid) == "sleep"
    sleeping.kill()
    sleeping.wait()
    assert not process_name(sleeping.pid)


def test_a_zombie_is_no_process() -> None:
    """It has a process id, but nothing of it runs."""
    with subprocess.Popen(["true"]) as started:
        os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)

        assert Path(f"/proc/{started.pid}").exists()
        assert not process_name(started.pid)


def test_a_name_with_parentheses(tmp_path: Path) -> None:
    """The name ends at the last one; what looks like the state of a zombie is none."""
    script = _executable(tmp_path / "a) Z (b", "#!/bin/sh\nread -r _\n")
    with subprocess.Popen([script], stdin=subprocess.PIPE) as started:
        _eventually_called(started.pid, "a) Z (b")
        started.kill()


def test_a_pid_file_means_a_process_of_that_name(
    tmp_path: Path, sleeping: subprocess.Popen[bytes]
) -> None:
    """If another program has got the id meanwhile, it means nothing."""
    file = tmp_path / "a.pid"
    file.write_text(f"{sleeping.pid}\n")

    assert holder(file, "sleep") == sleeping.pid
    assert holder(file, "dockerd") is None
    assert not is_running(Daemon(pid_file=file))
    sleeping.kill()
    sleeping.wait()
    assert holder(file, "sleep") is None


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "99999999999", "1 2", "\xff"])
def test_a_pid_file_without_sense(tmp_path: Path, text: str) -> None:
    """It means nothing."""
    file = tmp_path / "a.pid"
    file.write_bytes(text.encode("latin-1"))

    assert holder(file, "sleep") is None
    assert holder(tmp_path / "missing", "sleep") is None


def test_the_command_that_starts_a_daemon(tmp_path: Path) -> None:
    """With systemd it is systemd's."""
    missing = tmp_path / "missing"

    assert Daemon(systemd=tmp_path).start_command() == ("systemctl", "start", "docker")
    assert Daemon(systemd=missing, arguments=("-D",)).start_command()[1:] == ("-D",)


# -- where the engine is --------------------------------------------------------------------


def test_podmans_socket_is_found(runtime: Path) -> None:
    """If it is a socket; a file of that name is none."""
    everybodys = engine.podman_socket({"XDG_RUNTIME_DIR": str(runtime / "missing")})
    environ = {"XDG_RUNTIME_DIR": str(runtime)}
    path = runtime / "podman/podman.sock"
    path.parent.mkdir()
    path.write_text("")

    assert engine.podman_socket(environ) == everybodys
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))

        assert engine.podman_socket(environ) == f"unix://{path}"
    # Podman's own service is started by its first caller: who listens does not matter.
    assert engine.podman_socket(environ) == f"unix://{path}"


@pytest.mark.skipif(search_path.find_program("docker") is None, reason="needs the docker command")
def test_nothing_is_started_for_an_engine_elsewhere(project: Project, runtime: Path) -> None:
    """Whoever has set DOCKER_HOST does not want another one here."""
    environ = {**project.environ, "DOCKER_HOST": f"unix://{runtime}/no.sock"}
    with pytest.raises(UnavailableError) as caught:
        engine.ensure_running(yes=True, environ=environ)

    assert f"{runtime}/no.sock does not answer" in caught.value.message
    assert caught.value.next_step == "start it there, or unset DOCKER_HOST"


@pytest.mark.skipif(search_path.find_program("docker") is None, reason="needs the docker command")
def test_nothing_is_started_for_another_context(project: Project, runtime: Path) -> None:
    """Nor whoever has chosen a context; one that does not exist is an error of its own."""
    address = f"host=unix://{runtime}/no.sock"
    create = ("docker", "context", "create", "far", "--docker", address)
    subprocess.run(create, env=project.environ, check=True, capture_output=True)
    use = ("docker", "context", "use", "far")
    subprocess.run(use, env=project.environ, check=True, capture_output=True)
    with pytest.raises(UnavailableError) as far:
        engine.ensure_running(yes=True, environ=project.environ)
    environ = {**project.environ, "DOCKER_CONTEXT": "nowhere"}
    with pytest.raises(UnavailableError) as nowhere:
        engine.ensure_running(yes=True, environ=environ)

    assert f"{runtime}/no.sock does not answer" in far.value.message
    assert "docker context use" in far.value.next_step
    assert "nowhere" in nowhere.value.message


@pytest.mark.skipif(search_path.find_program("docker") is None, reason="needs the docker command")
def test_a_base_image_needs_an_engine(project: Project, runtime: Path) -> None:
    """Said before anything is downloaded."""
    environ = {**project.environ, "DOCKER_HOST": f"unix://{runtime}/no.sock"}
    with pytest.raises(UnavailableError, match="no engine answers"):
        engine.bootstrap_base("debian:trixie-slim", yes=True, environ=environ)
    with pytest.raises(UnavailableError, match="no engine answers"):
        engine.ensure_base("debian:trixie-slim", yes=True, environ=environ)
