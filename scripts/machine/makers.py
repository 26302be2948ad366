"""Who made a sandbox: which installation of nddt, in which boot, which process.

A user, a host name and a process id can be the same on many machines, as with runners of a CI
that share an engine or an account. What is noted of a maker are hashes: they can be compared, and
tell nothing of the machine.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import naming
from scripts.machine import files, state

if TYPE_CHECKING:
    from collections.abc import Mapping

_LENGTH = 16
_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Maker:
    """What made a sandbox; empty where that is not known."""

    installation: str = ""
    boot: str = ""
    process: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """What a sandbox carries of it."""
        found = {"installation": self.installation, "boot": self.boot, "process": self.process}
        return {f"{naming.LABEL}.{name}": value for name, value in found.items() if value}


def of_labels(labels: Mapping[str, str]) -> Maker:
    """Read the maker from a sandbox's labels; older ones have none."""
    names = ("installation", "boot", "process")
    return Maker(**{name: labels.get(f"{naming.LABEL}.{name}", "") for name in names})


def of_process(environ: Mapping[str, str], pid: int) -> Maker:
    """Look up what a sandbox is to carry that a process of this machine makes."""
    installation = _installation(environ)
    if not installation:
        return Maker()
    boot = naming.digest((installation, _text("/proc/sys/kernel/random/boot_id")), _LENGTH)
    started = _start(pid)
    process = naming.digest((boot, str(pid), started), _LENGTH) if started else ""
    return Maker(installation=installation, boot=boot, process=process)


def keep(environ: Mapping[str, str]) -> None:
    """Make this installation's id, if it has none; without one, nothing is known to be ours."""
    file = _file(environ)
    with suppress(OSError):
        if not file.exists():
            files.write_once(file, f"{secrets.token_hex(16)}\n")


def is_ours(environ: Mapping[str, str], maker: Maker) -> bool:
    """Tell whether this installation has made something; False where that is not known."""
    return bool(maker.installation) and maker.installation == _installation(environ)


def has_ended(environ: Mapping[str, str], maker: Maker, *, pid: int, made_at: int) -> bool:
    """Tell whether a process of this installation that made something is surely gone.

    Args:
        environ: Where this installation's id is kept.
        maker: What is noted of it.
        pid: Its process id.
        made_at: Seconds since 1970. What was made in another boot of this machine was made
            before this one; else a copy of this machine made it, ids and all.
    """
    if not is_ours(environ, maker) or not maker.process:
        return False
    now = of_process(environ, pid)
    if maker.boot != now.boot:
        return made_at < time.time() - time.clock_gettime(_SINCE_BOOT)
    return maker.process != now.process


_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _file(environ: Mapping[str, str]) -> Path:
    return state.state_directory(environ) / "installation"


def _installation(environ: Mapping[str, str]) -> str:
    """Hash our id with the machine's, and the world of processes that ids are of."""
    own = _text(_file(environ))
    if not own:
        return ""
    numbers = ""
    with suppress(OSError):
        numbers = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  (it leads to no path)
    return naming.digest((own, _text("/etc/machine-id"), numbers), _LENGTH)


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _start(pid: int) -> str:
    """Look up when a process began, in ticks since the boot; empty if it has ended."""
    if not _PROC.joinpath("self/stat").exists():  # not Linux: its id alone tells it from others
        return "?" if state.is_alive(pid) else ""
    # The program's name, in parentheses, may have spaces and parentheses of its own.
    fields = _text(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in {"Z", "X"} else ""
