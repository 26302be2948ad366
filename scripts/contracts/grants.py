"""What a sandbox was made with, property by property, against what is allowed now."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from scripts.machine import foreign_json

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = "another directory than this one"
"""Stands among settings for another directory than the caller's."""
_DOCKERS = ("", "isolated", "host")
"""Each can do more than the one before."""


@dataclass(frozen=True, kw_only=True)
class Grants:
    """All that a sandbox has and a setting could take away."""

    directory: str
    """Of this machine, that it shows or has a copy of; empty for none."""
    is_copy: bool
    is_readonly: bool
    mounts: tuple[tuple[str, str, bool], ...]
    """What the user names: source, target, whether only to read."""
    docker: str
    has_root: bool
    has_network: bool
    has_writable_system: bool
    pids: int
    """0 means no limit, here and below."""
    memory_gib: int
    cpus: int
    given: tuple[str, ...] = ()
    """Settings that were options of the command that made it, so that others need not say them."""

    def text(self) -> str:
        """Write it as a label."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def beyond(self, allowed: Grants) -> Iterator[str]:
        """Name the settings that allow less than this."""
        # A copy is no way to this machine: what comes back is each session's own affair.
        is_itself = self.directory and not self.is_copy
        if is_itself and (not allowed.directory or allowed.is_copy):
            yield "NDDT_WORKSPACE"
        elif self.directory and self.directory != allowed.directory:
            yield DIRECTORY
        if is_itself and allowed.is_readonly and not self.is_readonly:
            yield "NDDT_WORKSPACE_READONLY"
        may = set(allowed.mounts)
        may |= {(source, target, True) for source, target, _ in allowed.mounts}
        if not may.issuperset(self.mounts):
            yield "NDDT_MOUNTS"
        if _DOCKERS.index(self.docker) > _DOCKERS.index(allowed.docker):
            yield "NDDT_DOCKER_FORWARD"
        for name, field in _SWITCHES.items():
            if getattr(self, field) and not getattr(allowed, field):
                yield name
        for name, field in _LIMITS.items():
            limit = getattr(allowed, field)
            if limit and not 0 < getattr(self, field) <= limit:
                yield name


_SWITCHES = {
    "NDDT_SUDO": "has_root",
    "NDDT_NETWORK": "has_network",
    "NDDT_READONLY_ROOT": "has_writable_system",
}
_LIMITS = {"NDDT_PIDS": "pids", "NDDT_MEMORY": "memory_gib", "NDDT_CPUS": "cpus"}


def read_grants(label: str) -> Grants | None:
    """Read a label; None if there is none, or it is another version's."""
    try:
        found = foreign_json.parse(label, what="a label")
        found["mounts"] = tuple((str(a), str(b), bool(c)) for a, b, c in found["mounts"])
        made = Grants(**{**found, "given": tuple(found["given"])})
    except (ValueError, TypeError, KeyError):
        return None
    return made if made.docker in _DOCKERS else None
