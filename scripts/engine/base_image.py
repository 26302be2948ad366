"""The image that sandboxes build on: there, pulled, or made from the Debian mirror."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import process
from scripts.engine import privilege
from scripts.engine.debootstrap import Base, debootstrap_command, make
from scripts.engine.programs import docker_client, ensure_installed, missing
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
    base = parse(image)
    _check_engine(environ)
    ensure_installed(("debootstrap",), yes=yes, environ=environ)
    example = debootstrap_command(base, Path("DIRECTORY"), None)
    privilege.agree(f"{image} is made by debootstrap as root", (example,), yes=yes)
    make(image, base, environ=environ, labels=labels or {})


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
    _check_possible(problem)
    privilege.agree(problem, (("debootstrap", parse(image).suite, "…"),), yes=yes)
    bootstrap_base(image, yes=yes, environ=environ, labels=labels)


def _check_engine(environ: Mapping[str, str]) -> None:
    words = (docker_client(), "version", "--format", "{{.Server.Version}}")
    asked = process.capture(words, env=environ, timeout_s=30)
    if not asked.ok:
        raise UnavailableError(f"no engine answers: {asked.last_line}", "run: inv setup")


def _check_possible(problem: str) -> None:
    tools = process.find("apt-get") or not missing(("debootstrap",))
    if not (privilege.is_possible() and tools):
        raise CannotCreateError(
            problem,
            "make it as root on a Debian machine (inv docker.bootstrap-base), "
            "or set NDDT_BASE_IMAGE to an image that you have",
        )
