"""Names and labels of what we create."""

from __future__ import annotations

import hashlib
import os
import re
import time
import unicodedata
from typing import TYPE_CHECKING

from scripts import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

LABEL = "nddt"


def slug(text: str, length: int = 20) -> str:
    """Reduce text to lower-case letters, digits and single dashes; empty becomes `x`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:length].strip("-") or "x"


def digest(parts: Iterable[str], length: int) -> str:
    """Hash texts to `length` hex digits; where one text ends and the next begins counts."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.hexdigest()[:length]


def ephemeral_name(now: datetime, pid: int) -> str:
    """Name a sandbox that lives for one run: `nddt-YYYYMMDD-HHMMSS-PID`."""
    return f"nddt-{now:%Y%m%d-%H%M%S}-{pid}"


def persistent_name(directory: Path | None) -> str:
    """Name a directory's sandbox: `nddt-<slug>-<8 hex of its path>`; None shares nothing."""
    if directory is None:
        return "nddt-workspace"
    return f"nddt-{slug(directory.name)}-{digest([str(directory)], 8)}"


def key(provider: str, sandbox: str) -> str:
    """Tell a sandbox from those of other providers, where one of their names may be the same."""
    return f"{provider}-{sandbox}"


def image_tag(agent: str, version: str, content: str) -> str:
    """Tell an image from others by what goes into it: `<agent>-<version>-<content hash>`."""
    return f"{agent}-{version}-{content}"


def image_labels(owner: str) -> dict[str, str]:
    """Make the labels of an image; a user@host owns it, no workspace."""
    now = int(time.time())
    return labels(owner=owner, workspace="", mode="image", created=now, pid=os.getpid())


def labels(
    *,
    owner: str,
    workspace: str,
    mode: str,
    created: int,
    pid: int,
    is_synced: bool = False,
    is_offline: bool = False,
) -> dict[str, str]:
    """Make the labels that every created thing carries.

    Args:
        owner: user@host.
        workspace: Absolute path of the shared directory; empty for none.
        mode: `ephemeral`, `persistent` or `image`.
        created: Seconds since 1970.
        pid: The creating process.
        is_synced: Whether the sandbox has a copy of the directory.
        is_offline: Whether the sandbox has no network.
    """
    return {
        LABEL: mode,
        f"{LABEL}.version": __version__,
        f"{LABEL}.owner": owner,
        f"{LABEL}.workspace": workspace,
        f"{LABEL}.created": str(created),
        f"{LABEL}.pid": str(pid),
        **({f"{LABEL}.sync": "true"} if is_synced else {}),
        **({f"{LABEL}.offline": "true"} if is_offline else {}),
    }
