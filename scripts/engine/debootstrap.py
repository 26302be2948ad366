"""A Debian system from this machine's mirror, by debootstrap, as an image."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts import process
from scripts.engine import privilege
from scripts.engine.mirrors import Mirrors, mirrors
from scripts.engine.programs import docker_client
from scripts.engine.scratch import PARENT, private_directory
from scripts.errors import CannotCreateError
from scripts.naming import LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = logging.getLogger("nddt")

WITHOUT_SECURITY = ("sid", "unstable")
# What nobody reads in a container; Debian's slim images leave out the same, but keep copyright.
DOCUMENTATION = tuple(
    f"/usr/share/{path}"
    for path in ("doc/*/changelog*", "doc/*/NEWS*", "doc/*/README*", "info/*", "locale/*", "man/*")
)
LEFT_OVERS = (
    *("/var/cache/apt/archives/*.deb", "/var/cache/apt/*.bin", "/var/lib/apt/lists/*"),
    *("/var/log/*.log", "/var/log/apt/*", "/etc/hostname", "/etc/resolv.conf"),
)
"""What debootstrap leaves: caches, logs, and this machine's name and name servers."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """What an image is made of."""

    suite: str
    """Debian's name for it, such as trixie."""
    slim: bool
    """Without documentation, and apt does not install any later."""


# -- what goes in ---------------------------------------------------------------------------


def debootstrap_command(base: Base, tree: Path, mirror: str | None) -> tuple[str, ...]:
    """Give the command that fills a directory with a system."""
    words = ["debootstrap", "--variant=minbase", "--force-check-gpg"]
    if mirror and mirror.startswith("https:"):
        # Else apt inside could not reach its own mirror.
        words.append("--include=ca-certificates")
    return (*words, base.suite, str(tree), *([mirror] if mirror else []))


def extra_files(base: Base, chosen: Mirrors) -> dict[str, str]:
    """Give files that a container's Debian has and a machine's has not: path → text."""
    files = {
        # A later apt-get install in a layer leaves no packages behind.
        "etc/apt/apt.conf.d/docker-clean": 'APT::Keep-Downloaded-Packages "false";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\n'
        'Acquire::Languages "none";\n',
    }
    if chosen.security and base.suite not in WITHOUT_SECURITY:
        line = f"deb {chosen.security} {base.suite}-security main\n"
        files["etc/apt/sources.list.d/security.list"] = line
    if base.slim:
        lines = "".join(f"path-exclude {pattern}\n" for pattern in DOCUMENTATION)
        files["etc/dpkg/dpkg.cfg.d/docker"] = lines
    return files


def tar_command(base: Base, tree: Path) -> tuple[str, ...]:
    """Give the command that writes the system to stdout."""
    left_out = (*LEFT_OVERS, *(DOCUMENTATION if base.slim else ()))
    excluded = (f"--exclude=.{pattern}" for pattern in left_out)
    return ("tar", "--create", "--numeric-owner", f"--directory={tree}", *excluded, ".")


def commands_by_hand(image: str, base: Base) -> tuple[tuple[str, ...], ...]:
    """Give the commands with which a person would make such an image."""
    tree, archive = PARENT / base.suite, f"{PARENT / base.suite}.tar"
    return (
        debootstrap_command(base, tree, mirrors().main),
        ("tar", "--create", f"--file={archive}", f"--directory={tree}", "."),
        (docker_client(), "import", archive, image),
    )


def import_command(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Give the command that makes an image of a tar archive on stdin and prints its id."""
    changes = ['CMD ["bash"]']
    changes += [f"LABEL {_quoted(k)}={_quoted(v)}" for k, v in {**labels, LABEL: "base"}.items()]
    words = (word for one in changes for word in ("--change", one))
    return (docker_client(), "import", *words, "-")


def _quoted(text: str) -> str:
    """Quote as a Dockerfile wants it, where $ means a variable."""
    return json.dumps(text, ensure_ascii=False).replace("$", r"\$")


# -- making it ------------------------------------------------------------------------------


def make(image: str, base: Base, *, environ: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Make an image; takes about 25 s. debootstrap must be installed, and root agreed to.

    Args:
        image: Its name.
        base: What it is made of.
        environ: Our environment.
        labels: Its labels besides nddt=base.

    Raises:
        CannotCreateError: Nothing was made, and nothing is left.
    """
    chosen = mirrors()
    log.info("making %s from %s", image, chosen.main or "debootstrap's own mirror")
    with private_directory(environ) as directory:
        tree = directory / "tree"
        _fill(tree, base, chosen.main, environ)
        _add(directory, extra_files(base, chosen), environ)
        source = privilege.command(tar_command(base, tree), environ)
        code, imported = process.pipeline(source, import_command(labels), env=environ)
        _name(image, code, imported, environ)


def _fill(tree: Path, base: Base, mirror: str | None, environ: Mapping[str, str]) -> None:
    words = debootstrap_command(base, tree, mirror)
    # Not by a signal that it could catch: it would go on cleaning up, or just go on.
    title = f"debootstrap {base.suite}"
    code, output = privilege.stream(words, title, environ, end_by="KILL")
    if code == 0:
        return
    if "No such script" in output:
        raise CannotCreateError(
            f"this machine's debootstrap does not know the suite {base.suite}",
            "check NDDT_BASE_IMAGE, or install a newer debootstrap",
        )
    lines = tuple(dict.fromkeys((*_log(tree, environ), *output.splitlines())))
    raise CannotCreateError(
        f"debootstrap could not make {base.suite} from {mirror or 'its own mirror'}",
        "the lines above say why",
        detail="\n".join(lines[-30:]),
    )


def _log(tree: Path, environ: Mapping[str, str]) -> list[str]:
    """Read debootstrap's own log, which says what it prints only as `see the log`."""
    argv = ("tail", "-n", "20", str(tree / "debootstrap/debootstrap.log"))
    return privilege.capture(argv, environ).stdout.splitlines()


def _add(directory: Path, files: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Put files into the tree, as root's and readable for all, whatever the umask is."""
    extra = directory / "extra"
    for name, text in files.items():
        path = extra / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in (extra, *extra.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    words = ("cp", "--recursive", "--preserve=mode", f"{extra}/.", str(directory / "tree"))
    done = privilege.capture(words, environ)
    if not done.ok:
        raise CannotCreateError(f"the base image is incomplete: {done.last_line}", "make room")


def _name(image: str, code: int, imported: process.Result, environ: Mapping[str, str]) -> None:
    """Tag what was imported, or remove it if it is not whole."""
    found = imported.stdout.split()
    if code == 0 and imported.ok and found:
        done = process.capture((docker_client(), "tag", found[-1], image), env=environ)
        if done.ok:
            return
        imported = done
    if found:
        process.capture((docker_client(), "image", "rm", found[-1]), env=environ)
    reason = imported.last_line if not imported.ok else f"tar ended with {code}"
    raise CannotCreateError(f"{image} could not be imported: {reason}", "see: docker system df")
