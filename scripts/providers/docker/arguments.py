"""What a container is made with: what it shows, what it may do, and how much it may use."""

from __future__ import annotations

import csv
import io
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts import naming
from scripts.contracts import docker_places
from scripts.errors import ConfigError
from scripts.providers.docker.engine import endpoint, program
from scripts.sandbox_places import WORKSPACE

if TYPE_CHECKING:
    from scripts.contracts.sandbox import Specification
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

INIT = ("--entrypoint=tini",)
"""The image's own: not every engine has one for --init."""
FINGERPRINT = f"{naming.LABEL}.fingerprint"
ROOT_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE"),
    *("AUDIT_WRITE", "SETGID", "SETUID", "SYS_CHROOT"),
)
"""What a sandbox's root keeps, to install packages and to look after files of other users.

sshd needs the last four of a root, the first of them for a terminal. Any other user has no
capability at all, unless sudo gives them these.
"""


def docker_risk(settings: Settings) -> str:
    """Refuse what only Docker's own engine on this machine has; tell whom root can harm."""
    mode, address = settings.docker_forward, endpoint(settings)
    here = f"NDDT_DOCKER_FORWARD={mode} ({settings.sources['NDDT_DOCKER_FORWARD']})"
    if program() == "podman" or "podman" in address:
        raise ConfigError(f"{here} needs Docker; this is Podman", "take it away, or use Docker")
    if mode == "host":
        if not address.startswith("unix://"):
            problem = f"{here} needs the socket of an engine on this machine, not {address}"
            raise ConfigError(problem, "set NDDT_DOCKER_FORWARD=isolated")
        return (
            "with NDDT_DOCKER_FORWARD=host there is no sandbox: through the engine's socket the "
            "agent can do all that the engine can, as a rule all that root can on this machine"
        )
    if os.getuid() == 0 or settings.sudo:  # of a rootless engine, root in it is that user
        whose = "of root" if os.getuid() == 0 else "with NDDT_SUDO"
        return (
            f"with NDDT_DOCKER_FORWARD=isolated the sandbox {whose} is a weak one: a program in it "
            "can change the settings of the engine's kernel in /proc/sys, and so take over the "
            "machine; that of an ordinary user without sudo cannot"
        )
    return ""


def _mount(source: Path, target: str, *, readonly: bool = False) -> str:
    """Build the value of --mount that shows a directory or a file of this machine."""
    how = ("readonly",) if readonly else ()
    return _csv("type=bind", f"source={source}", f"target={target}", *how)


def _csv(*words: str) -> str:
    """Write a value of --mount, a line of CSV: any path survives it."""
    line = io.StringIO()
    csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL).writerow(words)
    return line.getvalue()


def _volume(want: Specification, target: str) -> str:
    """Build the value of --mount for a volume that goes with its sandbox."""
    labels = [f"volume-label={name}={value}" for name, value in want.labels.items()]
    return _csv("type=volume", f"target={target}", *labels)


def confinement(want: Specification) -> tuple[str, ...]:
    """Build the arguments of `docker run` that take away what a sandbox does not need.

    The engine's own filters of system calls (seccomp) and paths stay as they are.
    """
    kept = ROOT_CAPABILITIES if want.user == "root" or want.has_sudo else ()
    words = ["--cap-drop=ALL"]
    if want.docker == "isolated":
        # newuidmap(1) gains its privilege from its file; it maps root, too, if that is the user.
        kept = (*kept, "SETFCAP", "SETGID", "SETUID")
    elif not want.has_sudo:
        words += ["--security-opt=no-new-privileges"]
    words += [f"--cap-add={name}" for name in dict.fromkeys(kept)]
    words += [f"--pids-limit={want.pids}"] if want.pids else []
    words += [f"--cpus={want.cpus}"] if want.cpus else []
    # Swap would be a way around the limit.
    limit = f"{want.memory_gib}g"
    words += [f"--memory={limit}", f"--memory-swap={limit}"] if want.memory_gib else []
    if want.has_readonly_root:
        words += ["--read-only"]
        words += [f"--tmpfs={place}:exec,mode=1777" for place in ("/tmp", "/var/tmp")]  # noqa: S108
        # These begin as they are in the image, and are the user's; a tmpfs would be neither.
        own = () if want.workspace is not None and not want.is_synced else (WORKSPACE,)
        for place in (want.home, *own):
            words += ["--mount", _volume(want, place)]
    return tuple(words)


def run_arguments(want: Specification, image: str) -> tuple[str, ...]:
    """Build the arguments of `docker run` that ephemeral and persistent sandboxes share."""
    words = ["--pull=never", "--name", want.name, "--hostname", want.name[:63]]
    # What the pipe carries is encrypted; a log of it would only fill the disk.
    words += ["--log-driver=none"]
    words += ["--network=none"] if want.is_offline else []
    words += confinement(want)
    words += [word for item in want.labels.items() for word in ("--label", "=".join(item))]
    for one in want.binds:
        words += ["--mount", _mount(one.source, one.target, readonly=one.readonly)]
    # Labels of an image are every container's: only its own name says that this one is a sandbox.
    words += ["--label", f"{naming.SANDBOX}={want.name}"]
    words += ["--label", f"{naming.GRANTS}={want.grants.text()}"]
    return (*words, "--label", f"{FINGERPRINT}={want.fingerprint(image)}")


def docker_arguments(settings: Settings, want: Specification) -> tuple[str, ...]:
    """Build the arguments of `docker run` that let a sandbox have Docker."""
    if want.docker == "host":
        socket = Path(urlsplit(endpoint(settings)).path).resolve()
        shown = ("--mount", _mount(socket, docker_places.SOCKET))
        # Without one, the docker command will say what is wrong.
        return (*shown, f"--group-add={socket.stat().st_gid}") if socket.exists() else shown
    if want.docker == "isolated":
        return (
            # For user namespaces, and for the /proc of a container in one, which the kernel gives
            # only to those who see all of their own.
            *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
            *("--security-opt=systempaths=unconfined", f"--device={docker_places.TUN}"),
            # overlayfs does not stand on the sandbox's own files, which are one.
            *("--mount", _volume(want, docker_places.data(want.home))),
        )
    return ()
