"""Where this machine's apt finds Debian."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from scripts import process


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """Where this machine's apt finds Debian; None where it is not configured."""

    main: str | None
    security: str | None


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
