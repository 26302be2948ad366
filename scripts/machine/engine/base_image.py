"""The image that sandboxes build on: there, pulled, or made from the Debian mirror."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from scripts.errors import CannotCreateError, UnavailableError
from scripts.machine import process, search_path
from scripts.machine.engine import privilege
from scripts.machine.engine.debian import Base, commands_by_hand, make
from scripts.machine.engine.programs import (
    docker_client,
    engine_version,
    ensure_installed,
    install_commands,
    missing,
)
from scripts.naming import said

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("nddt")

PULL_S = 300
"""Seconds for a pull: the image has 30 MB."""


def parse(image: str) -> Base:
    """Tell what an image such as debian:trixie-slim is made of.

    Raises:
        CannotCreateError: It is no suite of Debian.
    """
    found = re.fullmatch(r"debian(?::([a-z]+)(-slim)?)?", image)
    if not found:
        raise CannotCreateError(
            f"{image} cannot be made from a Debian mirror, only debian:SUITE and debian:SUITE-slim",
            "set NDDT_BASE_IMAGE to one of these, or to an image that you have",
        )
    suite = found[1] or "latest"
    return Base(suite="stable" if suite == "latest" else suite, slim=found[2] is not None)


def bootstrap_base(
    image: str, *, yes: bool, environ: Mapping[str, str], labels: Mapping[str, str] | None = None
) -> None:
    """Make a base image such as debian:trixie-slim without a registry.

    Args:
        image: debian:SUITE or debian:SUITE-slim.
        yes: Installing mmdebstrap, and working as root if we are, are agreed to beforehand.
        environ: Our environment.
        labels: Its labels besides nddt=base.

    Raises:
        CannotCreateError: It cannot be made so, or mmdebstrap failed.
        UnavailableError: No engine answers, or no consent, or mmdebstrap cannot be installed.
    """
    parse(image)
    _check_engine(environ)
    _make(image, f"{image} is made as root", yes=yes, environ=environ, labels=labels)


def ensure_base(
    image: str, *, yes: bool, environ: Mapping[str, str], labels: Mapping[str, str] | None = None
) -> None:
    """Make sure that the engine has the base image: pulled, or made after consent.

    Raises:
        CannotCreateError: It can be neither pulled nor made.
        UnavailableError: No engine answers, or it can be made, but there is no consent.
    """
    client = docker_client()
    if process.capture((client, "image", "inspect", image), env=environ).ok:
        return
    log.info("pulling %s", image)
    pulled = process.capture((client, "pull", "--quiet", image), env=environ, timeout_s=PULL_S)
    if pulled.ok:
        return
    _check_engine(environ)
    reason = pulled.last_line.removeprefix("Error response from daemon: ")
    problem = f"{image} cannot be pulled: {reason}"
    try:
        parse(image)
    except CannotCreateError as error:
        raise CannotCreateError(problem, "set NDDT_BASE_IMAGE to an image that you have") from error
    if not search_path.find_program("apt-get"):
        raise CannotCreateError(
            problem,
            f"make it on a Debian machine ({said('docker.bootstrap-base')}), "
            "or set NDDT_BASE_IMAGE to an image that you have",
        )
    _make(image, problem, yes=yes, environ=environ, labels=labels)


def _check_engine(environ: Mapping[str, str]) -> None:
    asked = engine_version(environ)
    if not asked.ok:
        raise UnavailableError(f"no engine answers: {asked.last_line}", f"run: {said('setup')}")


def _make(
    image: str,
    problem: str,
    *,
    yes: bool,
    environ: Mapping[str, str],
    labels: Mapping[str, str] | None,
) -> None:
    """Ask once for all that it takes, and do it; who is not root needs none to make it."""
    base = parse(image)
    wanted = missing(("mmdebstrap",) if privilege.is_root() else ("mmdebstrap", "newuidmap"))
    if wanted and not search_path.find_program("apt-get"):
        ensure_installed(wanted, yes=yes, environ=environ)  # which tells what to do instead
    todo = install_commands(wanted) if wanted else ()
    if privilege.is_root():
        todo = (*todo, *commands_by_hand(image, base))
    if todo:
        privilege.agree_to_root(problem, todo, yes=yes)
    ensure_installed(wanted, yes=True, environ=environ)
    make(image, base, environ=environ, labels=labels or {})
