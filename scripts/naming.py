"""Names and labels of what we create."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
import time
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

PROGRAM = "nddt"
"""Our launcher."""
ROOT = Path(__file__).resolve().parent.parent
"""Of this very program."""
LABEL = "nddt"
GRANTS = f"{LABEL}.grants"
"""Label of a sandbox: what it was made with."""


SANDBOX = f"{LABEL}.sandbox"
"""Label of a container: its own name, which no image can hand on to another."""


def said(words: str) -> str:
    """Write a command of ours as the user can type it: with the program that they have typed."""
    return f"{_typed()} {words}"


def _typed() -> str:
    """Name the program that was typed, if it is our launcher; or `inv`, where its tasks are ours.

    Elsewhere `inv` would run what is in the directory.
    """
    typed = Path(sys.argv[0])
    if typed.name in {"inv", "invoke"} or typed.match("invoke/__main__.py"):
        return "inv" if Path.cwd() == ROOT else shlex.quote(str(ROOT / PROGRAM))
    if "/" not in sys.argv[0] or typed.resolve() != ROOT / PROGRAM:
        return PROGRAM
    on_path = shutil.which(typed.name) == sys.argv[0]
    return typed.name if on_path else shlex.quote(sys.argv[0])


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
    maker: Mapping[str, str] | None = None,
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
        maker: Labels of who makes it (`machine.makers`).
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
        **(maker or {}),
    }


def number(label: str) -> int:
    """Read a number from a label, which anybody can have written; 0 if it is none."""
    found = re.fullmatch(r"[0-9]{1,10}", label)
    return min(int(found[0]), (1 << 31) - 1) if found else 0
