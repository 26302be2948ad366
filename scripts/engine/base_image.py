"""The image that sandboxes build on: there, pulled, or made from the Debian mirror."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from scripts import process
from scripts.engine import privilege
from scripts.engine.debootstrap import Base, commands_by_hand, make
from scripts.engine.programs import (
    docker_client,
    engine_version,
    ensure_installed,
    install_commands,
    missing,
)
from scripts.errors import CannotCreateError, UnavailableError

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
        yes: Installing debootstrap and using sudo are agreed to beforehand.
        environ: Our environment.
        labels: Its labels besides nddt=base.

    Raises:
        CannotCreateError: It cannot be made so, or debootstrap failed.
        UnavailableError: No engine answers, or no consent, or neither root nor sudo.
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
    if not (privilege.is_possible() and (process.find("apt-get") or process.find("debootstrap"))):
        raise CannotCreateError(
            problem,
            "make it as root on a Debian machine (inv docker.bootstrap-base), "
            "or set NDDT_BASE_IMAGE to an image that you have",
        )
    _make(image, problem, yes=yes, environ=environ, labels=labels)


def _check_engine(environ: Mapping[str, str]) -> None:
    asked = engine_version(environ)
    if not asked.ok:
        raise UnavailableError(f"no engine answers: {asked.last_line}", "run: inv setup")


def _make(
    image: str,
    problem: str,
    *,
    yes: bool,
    environ: Mapping[str, str],
    labels: Mapping[str, str] | None,
) -> None:
    """Ask once for all that it takes, and do it."""
    base, wanted = parse(image), missing(("debootstrap",))
    if wanted and not process.find("apt-get"):
        ensure_installed(wanted, yes=yes, environ=environ)  # which tells what to do instead
    installing = install_commands(wanted) if wanted else ()
    privilege.agree(problem, (*installing, *commands_by_hand(image, base)), yes=yes)
    ensure_installed(wanted, yes=True, environ=environ)
    make(image, base, environ=environ, labels=labels or {})
