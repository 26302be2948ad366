"""What is installed, started and asked for when a machine has no engine, as far as it is pure."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts import engine, process
from scripts.engine import base_image, debootstrap, mirrors, privilege, programs
from scripts.engine.daemon import Daemon, holder, is_running, process_name
from scripts.engine.debootstrap import Base
from scripts.engine.mirrors import Mirrors
from scripts.errors import CannotCreateError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.conftest import Project

    Unprivileged = Callable[[], AbstractContextManager[None]]

BASE = Base(suite="trixie", slim=True)
TREE = Path("/t")

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


@pytest.mark.parametrize(
    ("targets", "main", "security"),
    [
        pytest.param(
            UPDATED,
            "http://deb.example.org/debian",
            "https://deb.example.org/debian-security",
            id="by-label",
        ),
        pytest.param(
            NEVER_UPDATED,
            "http://deb.example.org/debian",
            "http://deb.example.org/debian-security",
            id="by-address",
        ),
        pytest.param("", None, None, id="no-sources"),
        pytest.param("\n|\nDebian\nDebian|main\n", None, None, id="incomplete-lines"),
        pytest.param("Debian|main|https://me:key@deb.example.org/debian/\n", None, None, id="key"),
        pytest.param("Debian|main|mirror+file:/etc/apt/list\n", None, None, id="list-of-mirrors"),
        pytest.param("Debian|main|cdrom:[Debian 12]/\n", None, None, id="disc"),
        pytest.param("Debian|contrib|http://deb.example.org/debian/\n", None, None, id="contrib"),
        pytest.param("Ubuntu|main|http://ubuntu.example.org/ubuntu/\n", None, None, id="ubuntu"),
    ],
)
def test_debians_own_archives_are_chosen(
    targets: str, main: str | None, security: str | None
) -> None:
    """Other repositories, addresses with a password and apt's own schemes are left alone."""
    assert mirrors.choose_mirrors(targets) == Mirrors(main=main, security=security)


@pytest.mark.skipif(process.find("apt-get") is None, reason="needs apt-get")
def test_apt_of_this_machine_can_be_asked() -> None:
    """Its answer is an address, or none."""
    found = mirrors.mirrors()

    assert found.main is None or found.main.startswith(("http://", "https://"))


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
    """Nothing but a suite's name ever reaches debootstrap."""
    with pytest.raises(CannotCreateError) as caught:
        base_image.parse(image)

    assert "debian:SUITE-slim" in caught.value.message
    assert "NDDT_BASE_IMAGE" in caught.value.next_step


def test_debootstrap_is_told_suite_directory_and_mirror() -> None:
    """A mirror behind TLS needs certificates inside as well."""
    plain = ("debootstrap", "--variant=minbase", "--force-check-gpg")
    http, https = "http://deb.example.org/debian", "https://deb.example.org/debian"
    certificates = "--include=ca-certificates"

    assert debootstrap.debootstrap_command(BASE, TREE, None) == (*plain, "trixie", "/t")
    assert debootstrap.debootstrap_command(BASE, TREE, http) == (*plain, "trixie", "/t", http)
    assert debootstrap.debootstrap_command(BASE, TREE, https) == (
        *plain,
        certificates,
        "trixie",
        "/t",
        https,
    )


def test_a_slim_image_keeps_out_documentation() -> None:
    """Now and at each later installation; another image has all of it."""
    path = "etc/dpkg/dpkg.cfg.d/docker"
    nothing = Mirrors(main=None, security=None)
    files = debootstrap.extra_files(BASE, nothing)
    full = Base(suite="trixie", slim=False)

    assert "path-exclude /usr/share/man/*\n" in files[path]
    assert "copyright" not in files[path]
    assert path not in debootstrap.extra_files(full, nothing)
    assert "--exclude=./usr/share/man/*" in debootstrap.tar_command(BASE, TREE)
    assert "--exclude=./usr/share/man/*" not in debootstrap.tar_command(full, TREE)


def test_names_of_this_machine_stay_out() -> None:
    """Its name and name servers, which debootstrap copies, and what apt keeps."""
    words = debootstrap.tar_command(BASE, TREE)

    assert {"--exclude=./etc/hostname", "--exclude=./etc/resolv.conf"} <= set(words)
    assert words[-1] == "."


@pytest.mark.parametrize(
    ("suite", "security", "expected"),
    [
        ("trixie", "http://deb.example.org/s", "deb http://deb.example.org/s trixie-security main"),
        ("sid", "http://deb.example.org/s", None),
        ("trixie", None, None),
    ],
)
def test_security_updates_come_from_this_machines_mirror(
    suite: str, security: str | None, expected: str | None
) -> None:
    """Where there are any; sid has none."""
    chosen = Mirrors(main=None, security=security)
    files = debootstrap.extra_files(Base(suite=suite, slim=False), chosen)
    found = files.get("etc/apt/sources.list.d/security.list")

    assert (found and found.strip()) == expected


def test_labels_are_quoted_for_the_engine() -> None:
    """A path with quotes and dollars stays what it is."""
    words = debootstrap.import_command({"nddt.workspace": 'a "b" $HOME \\ é'})

    assert 'LABEL "nddt.workspace"="a \\"b\\" \\$HOME \\\\ é"' in words
    assert 'LABEL "nddt"="base"' in words
    assert words[-1] == "-"


def test_the_commands_by_hand_are_complete() -> None:
    """One after the other they make the image, each from what the one before has made."""
    fill, pack, load = debootstrap.commands_by_hand("debian:trixie-slim", BASE)

    assert fill[:4] == ("debootstrap", "--variant=minbase", "--force-check-gpg", "trixie") or (
        "--include=ca-certificates" in fill
    )
    assert "/var/tmp/trixie" in fill
    assert pack[1:] == (
        "--create",
        "--file=/var/tmp/trixie.tar",
        "--directory=/var/tmp/trixie",
        ".",
    )
    assert load[1:] == ("import", "/var/tmp/trixie.tar", "debian:trixie-slim")


# -- programs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "separate", "expected"),
    [
        (("rsync",), False, ("rsync",)),
        (("docker", "dockerd"), False, ("docker.io",)),
        (("docker", "dockerd"), True, ("docker-cli", "docker.io")),
        (("ssh", "ssh-keygen"), True, ("openssh-client",)),
        (("debootstrap",), False, ("debootstrap", "debian-archive-keyring", "gpgv")),
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


@pytest.mark.skipif(process.find("apt-get") is None, reason="needs apt-get")
def test_without_consent_the_commands_are_told(project: Project) -> None:
    """They can be copied as they are."""
    wanted = ("no-such-program", "debootstrap-of-yours")
    with pytest.raises(UnavailableError) as caught:
        engine.ensure_installed(wanted, yes=False, environ=project.environ)

    assert caught.value.message.startswith("no-such-program and debootstrap-of-yours are not")
    assert "apt-get update && " in caught.value.next_step
    assert (
        "apt-get install -y --no-install-recommends no-such-program debootstrap-of-yours"
        in caught.value.next_step
    )


@pytest.mark.usefixtures("path")
def test_without_apt_it_says_what_to_install(project: Project) -> None:
    """The engine by its choices, the rest by name."""
    with pytest.raises(UnavailableError) as caught:
        engine.ensure_installed(("docker", "rsync"), yes=True, environ=project.environ)

    assert caught.value.message == "docker and rsync are not installed"
    assert caught.value.next_step.startswith("install rsync; install and start Docker")


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
        privilege.agree("it is broken", TWO, yes=False)

    assert caught.value.exit_code == 69
    assert caught.value.message == "it is broken"
    todo = "sudo apt-get update && sudo rm 'a file'"
    assert caught.value.next_step == f"run: {todo} (or repeat this with --yes)"
    assert not called.exists()


@pytest.mark.usefixtures("path")
def test_without_sudo_somebody_else_must_help(without_privilege: Unprivileged) -> None:
    """Consent does not make anybody root."""
    with without_privilege(), pytest.raises(UnavailableError) as caught:
        privilege.agree("it is broken", TWO, yes=True)

    assert "you are not root and have no sudo" in caught.value.message
    assert caught.value.next_step == "have this run as root: apt-get update && rm 'a file'"


def test_sudo_may_refuse(path: Path, without_privilege: Unprivileged) -> None:
    """Said before anything is begun."""
    _executable(path / "sudo", "#!/bin/sh\nexit 1\n")
    with without_privilege(), pytest.raises(UnavailableError) as caught:
        privilege.agree("it is broken", TWO, yes=True)

    assert "sudo refuses" in caught.value.message


def test_sudo_hands_proxies_on_by_name(path: Path, without_privilege: Unprivileged) -> None:
    """The value of one may hold a password, and arguments can be read by anybody."""
    _executable(path / "sudo")
    secret = "http://me:geheim@proxy.example.org:3128"
    with without_privilege():
        words = privilege.command(("true",), {"https_proxy": secret})

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


@pytest.mark.skipif(process.find("docker") is None, reason="needs the docker command")
def test_nothing_is_started_for_an_engine_elsewhere(project: Project, runtime: Path) -> None:
    """Whoever has set DOCKER_HOST does not want another one here."""
    environ = {**project.environ, "DOCKER_HOST": f"unix://{runtime}/no.sock"}
    with pytest.raises(UnavailableError) as caught:
        engine.ensure_running(yes=True, environ=environ)

    assert f"{runtime}/no.sock does not answer" in caught.value.message
    assert caught.value.next_step == "start it there, or unset DOCKER_HOST"


@pytest.mark.skipif(process.find("docker") is None, reason="needs the docker command")
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


@pytest.mark.skipif(process.find("docker") is None, reason="needs the docker command")
def test_a_base_image_needs_an_engine(project: Project, runtime: Path) -> None:
    """Said before anything is downloaded."""
    environ = {**project.environ, "DOCKER_HOST": f"unix://{runtime}/no.sock"}
    with pytest.raises(UnavailableError, match="no engine answers"):
        engine.bootstrap_base("debian:trixie-slim", yes=True, environ=environ)
    with pytest.raises(UnavailableError, match="no engine answers"):
        engine.ensure_base("debian:trixie-slim", yes=True, environ=environ)
