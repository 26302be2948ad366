"""Programs of this machine: which are there, and the missing ones from apt."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from scripts.errors import UnavailableError
from scripts.machine import files, process, search_path, state
from scripts.machine.engine import privilege

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger("nddt")

PACKAGES: Mapping[str, tuple[str, ...]] = {
    # It refuses an archive whose signature it cannot check.
    "mmdebstrap": ("mmdebstrap", "debian-archive-keyring"),
    "newuidmap": ("uidmap",),
    "docker": ("docker.io",),
    "dockerd": ("docker.io",),
    "gpg": ("gnupg",),
    "ssh": ("openssh-client",),
    "ssh-keygen": ("openssh-client",),
}
"""Debian's packages; that of another program has the program's name."""


def docker_client() -> str:
    """Tell the client's name: `docker`, or `podman` where there is only that."""
    return (
        "podman"
        if not search_path.find_program("docker") and search_path.find_program("podman")
        else "docker"
    )


def engine_version(environ: Mapping[str, str]) -> process.Result:
    """Ask the engine, wherever DOCKER_HOST or the context says that it is, for its version."""
    argv = (docker_client(), "version", "--format", "{{.Server.Version}}")
    # An ssh:// engine may be a while away; without a key ssh would wait for a password.
    return process.capture(argv, env=environ, timeout_s=30)


def missing(programs: Sequence[str]) -> tuple[str, ...]:
    """Pick the programs that are not on this machine."""
    return tuple(program for program in programs if search_path.find_program(program) is None)


def packages(programs: Sequence[str], *, separate_client: bool) -> tuple[str, ...]:
    """Tell which packages hold programs, each once.

    Args:
        programs: Names of programs.
        separate_client: Whether the docker command has a package of its own, as since trixie.
    """
    client = {"docker": ("docker-cli",)} if separate_client else {}
    table = {**PACKAGES, **client}
    names = [name for program in programs for name in table.get(program, (program,))]
    return tuple(dict.fromkeys(names))


def ensure_installed(programs: tuple[str, ...], *, yes: bool, environ: Mapping[str, str]) -> None:
    """Install what is missing, after consent.

    Raises:
        UnavailableError: No consent, no apt, neither root nor sudo, or apt failed.
    """
    if not missing(programs):
        return
    with files.lock(state.runtime_directory(environ) / "l-engine"):
        # The second time: only apt's fresh lists tell that the client is a package of its own.
        for _attempt in range(2):
            wanted = missing(programs)
            if wanted:
                _install(wanted, yes=yes, environ=environ)
                yes = True
    wanted = missing(programs)
    if wanted:
        raise UnavailableError(
            f"{_listed(wanted)} cannot be found although apt-get installed its package",
            "check PATH",
        )


def _install(wanted: tuple[str, ...], *, yes: bool, environ: Mapping[str, str]) -> None:
    problem = f"{_listed(wanted)} {'are' if len(wanted) > 1 else 'is'} not installed"
    if search_path.find_program("apt-get") is None:
        raise UnavailableError(problem, _without_apt(wanted))
    update, install = install_commands(wanted)
    privilege.agree_to_root(problem, (update, install), yes=yes)
    names = install[install.index("--no-install-recommends") + 1 :]
    log.info("installing %s", _listed(names))
    # Somebody else's broken repository is no reason to stop: what matters may be in the lists.
    _, first = privilege.stream(update, "apt-get update", environ)
    patient = (*install, "-o", "DPkg::Lock::Timeout=300")
    code, last = privilege.stream(patient, f"installing {_listed(names)}", environ)
    if code != 0:
        raise UnavailableError(
            f"apt-get could not install {_listed(names)}",
            f"the lines above say why; then run: {privilege.typed((install,))}",
            detail="\n".join(f"{first}\n{last}".splitlines()[-30:]),
        )


def install_commands(wanted: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Build the commands that install programs."""
    names = packages(wanted, separate_client="docker" in wanted and _client_is_separate())
    install = ("apt-get", "install", "-y", "--no-install-recommends", *names)
    return ("apt-get", "update"), install


def _client_is_separate() -> bool:
    found = process.capture(("apt-cache", "pkgnames", "docker-cli"))
    return "docker-cli" in found.stdout.split()


def _without_apt(wanted: Sequence[str]) -> str:
    others = [name for name in wanted if name not in {"docker", "dockerd"}]
    steps = [f"install {_listed(others)}"] if others else []
    if len(others) < len(wanted):
        steps.append(engine_advice())
    return "; ".join(steps)


def engine_advice() -> str:
    """Tell how to get an engine where we cannot install one."""
    if sys.platform == "darwin":
        return "install and start Docker Desktop, OrbStack, Colima or Podman, or set DOCKER_HOST"
    return "install and start Docker or Podman, or set DOCKER_HOST"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
