"""A Debian system from this machine's mirror, by debootstrap, as an image."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts import process, state
from scripts.engine import privilege
from scripts.engine.programs import docker_client
from scripts.errors import CannotCreateError
from scripts.naming import LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger("nddt")

# Not /tmp, which is often mounted nodev, or in memory; debootstrap makes devices.
PARENT = Path("/var/tmp")  # noqa: S108  (mkdtemp makes a private directory in it)
PREFIX = f"nddt-base-{os.getuid()}-"
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


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """Where this machine's apt finds Debian; None where it is not configured."""

    main: str | None
    security: str | None


# -- the mirror -----------------------------------------------------------------------------


def choose_mirrors(targets: str) -> Mirrors:
    """Pick Debian's own archives from apt's list of sources.

    Args:
        targets: Lines `LABEL|COMPONENT|URI` of `apt-get indextargets`. Before the first
            `apt-get update` no label is known; then the URI's end decides.
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
    return Mirrors(main=found.get("Debian"), security=found.get("Debian-Security"))


def mirrors() -> Mirrors:
    """Ask this machine's apt for its mirrors."""
    if process.find("apt-get") is None:
        return Mirrors(main=None, security=None)
    words = ("--format", "$(LABEL)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages")
    known = process.capture(("apt-get", "indextargets", *words)).stdout
    if not known.strip():
        known = process.capture(("apt-get", "indextargets", "--no-release-info", *words)).stdout
    return choose_mirrors(known)


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


@contextmanager
def _private_directory(environ: Mapping[str, str]) -> Iterator[Path]:
    """Make a directory for this process alone, and remove it with all that root puts there.

    What a killed process has left goes, too.
    """
    for left in PARENT.glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and left.stat().st_uid == os.getuid() and not state.is_alive(int(pid)):
            _remove(left, environ)
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=PARENT))
    try:
        yield path
    finally:
        _remove(path, environ)


def _remove(path: Path, environ: Mapping[str, str]) -> None:
    """Remove a tree of root's, from which a dying debootstrap may just be withdrawing."""
    for _attempt in range(10):
        table = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        mounted = [one for one in (line.split()[1] for line in table) if one.startswith(f"{path}/")]
        if mounted:
            privilege.capture(("umount", *reversed(mounted)), environ)
        words = ("rm", "--recursive", "--force", "--one-file-system", str(path))
        done = privilege.capture(words, environ)
        if done.ok:
            return
        time.sleep(0.5)
    log.warning("%s could not be removed: %s", path, done.last_line)


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
    with _private_directory(environ) as directory:
        tree = directory / "tree"
        _fill(tree, base, chosen.main, environ)
        _add(directory, extra_files(base, chosen), environ)
        source = privilege.command(tar_command(base, tree), environ)
        code, imported = process.pipeline(source, import_command(labels), env=environ)
        _name(image, code, imported, environ)


def _fill(tree: Path, base: Base, mirror: str | None, environ: Mapping[str, str]) -> None:
    # In namespaces of its own nothing of it outlives it, neither a process nor a mount.
    alone: tuple[str, ...] = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    if not privilege.capture((*alone, "true"), environ).ok:
        alone = ()
    words = (*alone, *debootstrap_command(base, tree, mirror))
    code, output = privilege.stream(words, f"debootstrap {base.suite}", environ)
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
