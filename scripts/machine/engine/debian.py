"""A Debian system from where this machine's apt finds Debian, by mmdebstrap, as an image."""

from __future__ import annotations

import json
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts.errors import CannotCreateError
from scripts.machine import console, process
from scripts.machine.engine import privilege
from scripts.machine.engine.programs import docker_client
from scripts.naming import LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("nddt")

PLACE = "/var/tmp"  # noqa: S108  (mmdebstrap makes a private directory in it)
"""Where the system grows; not /tmp, which is often in memory, or mounted nodev."""
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
WITHOUT_SECURITY = ("sid", "unstable")
# What nobody reads in a container; Debian's slim images leave out the same, but keep copyright.
DOCUMENTATION = tuple(
    f"/usr/share/{path}"
    for path in ("doc/*/changelog*", "doc/*/NEWS*", "doc/*/README*", "info/*", "locale/*", "man/*")
)
_SETTINGS = 'apt-config dump Acquire >>"$MMDEBSTRAP_APT_CONFIG"'
"""What this machine's apt needs to reach its mirror, such as a proxy; nothing of it stays."""
_FINISH = (
    'rm -f "$1/etc/hostname" "$1/etc/resolv.conf"; '  # mmdebstrap copies those of this machine
    # A later apt-get install in a layer leaves no packages behind.
    """echo 'APT::Keep-Downloaded-Packages "false";' >"$1/etc/apt/apt.conf.d/docker-clean\""""
)


@dataclass(frozen=True, kw_only=True)
class Base:
    """What an image is made of."""

    suite: str
    """Debian's name for it, such as trixie."""
    slim: bool
    """Without documentation, and apt does not install any later."""


# -- what goes in ---------------------------------------------------------------------------


def choose_sources(suite: str, targets: str) -> tuple[str, ...]:
    """Pick Debian's own archives from apt's sources, as lines of a sources.list.

    Args:
        suite: What the lines are to name in place of what this machine runs.
        targets: Lines `LABEL|COMPONENT|URI` of `apt-get indextargets`. Before the first
            `apt-get update` no label is known; then the URI's end decides.

    Returns:
        Nothing if apt is not configured for Debian: mmdebstrap has an address of its own.
    """
    found: dict[str, str] = {}
    for line in targets.splitlines():
        label, component, uri = (*line.split("|"), "", "")[:3]
        address = urlsplit(uri.rstrip("/"))
        # Of mirror+file: and the like only apt knows the meaning; a password must not leave.
        if component != "main" or address.scheme not in {"http", "https"} or "@" in address.netloc:
            continue
        if label.startswith("$"):
            ends = {"debian": "Debian", "debian-security": "Debian-Security"}
            label = ends.get(address.path.rpartition("/")[2], "")
        found.setdefault(label, uri.rstrip("/"))
    if "Debian" not in found:
        return ()
    lines = [f"deb {found['Debian']} {suite} main"]
    if "Debian-Security" in found and suite not in WITHOUT_SECURITY:
        lines.append(f"deb {found['Debian-Security']} {suite}-security main")
    return tuple(lines)


def sources(suite: str) -> tuple[str, ...]:
    """Ask this machine's apt where it finds Debian."""
    words = ("--format", "$(LABEL)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages")
    known = process.capture(("apt-get", "indextargets", *words)).stdout
    if not known.strip():
        known = process.capture(("apt-get", "indextargets", "--no-release-info", *words)).stdout
    return choose_sources(suite, known)


def fill_command(base: Base, target: str, lines: tuple[str, ...]) -> tuple[str, ...]:
    """Build the command that writes a system as a tar archive.

    Args:
        base: What it is made of.
        target: The archive's file; `-` for stdout.
        lines: Where it comes from.
    """
    left_out = DOCUMENTATION if base.slim else ()
    # Else apt inside could not reach its own mirror.
    secure = any(" https:" in line for line in lines)
    return (
        *("mmdebstrap", "--variant=minbase", "--format=tar", f"--keyring={KEYRING}"),
        "--skip=check/signed-by",
        *(("--include=ca-certificates",) if secure else ()),
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in left_out),
        *(f"--setup-hook={_SETTINGS}", f"--customize-hook={_FINISH}"),
        *(base.suite, target, *lines),
    )


def commands_by_hand(image: str, base: Base) -> tuple[tuple[str, ...], ...]:
    """Build the commands with which a person would make such an image."""
    archive = f"{PLACE}/{base.suite}.tar"
    return (
        fill_command(base, archive, sources(base.suite)),
        (docker_client(), "import", archive, image),
    )


def import_command(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Build the command that makes an image of a tar archive on stdin and prints its id."""
    changes = ['CMD ["bash"]']
    changes += [f"LABEL {_quoted(k)}={_quoted(v)}" for k, v in {**labels, LABEL: "base"}.items()]
    words = (word for one in changes for word in ("--change", one))
    return (docker_client(), "import", *words, "-")


def _quoted(text: str) -> str:
    """Quote as a Dockerfile wants it, where $ means a variable."""
    return json.dumps(text, ensure_ascii=False).replace("$", r"\$")


# -- making it ------------------------------------------------------------------------------


def make(image: str, base: Base, *, environ: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Make an image; takes about 30 s. mmdebstrap must be installed.

    Root makes it as root, anybody else in a user namespace.

    Args:
        image: Its name.
        base: What it is made of.
        environ: Our environment.
        labels: Its labels besides nddt=base.

    Raises:
        CannotCreateError: Nothing was made, and nothing is left.
    """
    lines = sources(base.suite)
    where = urlsplit(lines[0].split()[1]).hostname if lines else "mmdebstrap's own mirror"
    log.info("making %s from %s", image, where)
    tail: deque[str] = deque(maxlen=30)
    show = console.progress(f"mmdebstrap {base.suite}")

    def on_line(line: str) -> None:
        tail.append(line)
        show(line)

    words, load = fill_command(base, "-", lines), import_command(labels)
    env = {**privilege.environment(environ), "TMPDIR": PLACE}
    try:
        packed, imported = process.pipeline(words, load, env=env, on_line=on_line)
    finally:
        show("")
    if packed.ok and imported.ok:
        process.capture((docker_client(), "tag", imported.stdout.split()[-1], image), env=env)
        return
    for unfinished in imported.stdout.split()[-1:]:
        process.capture((docker_client(), "image", "rm", unfinished), env=env)
    reason = "the lines above say why; check NDDT_BASE_IMAGE and: docker system df"
    raise CannotCreateError(
        f"{image} could not be made from {where}",
        reason if privilege.is_root() else f"{reason}; or run this as root",
        detail="\n".join((*tail, imported.stderr)),
    )
