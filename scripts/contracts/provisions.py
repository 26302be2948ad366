"""What a session brings along from this machine, and how it is handed over.

Everything goes into the sandbox with the session's script, over SSH and into memory; what is
secret is in no argument list, image or volume.
"""

from __future__ import annotations

import base64
import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from scripts.settings import host
from scripts.transport.forwards import SamePort

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from scripts.transport.forwards import Forward


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that comes along."""

    content: bytes = field(repr=False)
    mode: int = 0o600
    modified: float = 0
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What an agent needs of this machine for as long as it runs."""

    forwards: tuple[Forward, ...]
    make_service: Callable[[], Callable[[], AbstractContextManager[object]]] = field(repr=False)
    """Called here, returns the service that runs in another process: something pickle takes."""
    mark: str = ""
    """Tells it from one with other keys; empty if it has none."""


@dataclass(frozen=True, kw_only=True)
class Provision:
    """What one session brings along; two of them add up to one."""

    forwards: tuple[Forward, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret: frozenset[str] = frozenset()
    """Names of the variables that are shown to nobody."""
    files: Mapping[str, File] = field(default_factory=dict, repr=False)
    """By their path: relative to the home directory in the sandbox, or, if it begins with
    `session/`, to the session's own private directory, `$NDDT_SESSION`, which ends with it."""
    before: tuple[str, ...] = ()
    """Shell text that runs before the program, after the files are there."""
    after: tuple[str, ...] = ()
    """Shell text that runs after the program, whose exit code is `$code`."""
    background_services: tuple[Callable[[], AbstractContextManager[object]], ...] = ()
    """What runs on this machine while the session does."""
    kept: tuple[Kept, ...] = ()
    """What runs here as long as the agent does, also when nobody is at it; see `keeper`."""
    system_prompt_lines: tuple[str, ...] = ()
    """Lines that the agent is told beside its prompt."""
    plan_lines: tuple[tuple[str, str], ...] = ()
    """Title and value of the lines that tell a person of it, as `--dry` prints them."""

    def __add__(self, other: Self) -> Provision:
        """Bring both along; of two files or variables of one name, the other's."""
        return Provision(
            forwards=tuple(dict.fromkeys((*self.forwards, *other.forwards))),
            variables={**self.variables, **other.variables},
            secret=self.secret | other.secret,
            files={**self.files, **other.files},
            before=self.before + other.before,
            after=self.after + other.after,
            background_services=self.background_services + other.background_services,
            kept=self.kept + other.kept,
            system_prompt_lines=self.system_prompt_lines + other.system_prompt_lines,
            plan_lines=self.plan_lines + other.plan_lines,
        )

    def unpack(self) -> str:
        """Build shell text that puts the files where they belong and then prepares the rest."""
        return "\n".join((*self._unpacked(), *self.before)) or ":"

    def _unpacked(self) -> tuple[str, ...]:
        lines = []
        for prefix, place in (("session/", '"$NDDT_SESSION"'), ("", '"$HOME"')):
            chosen = {
                path.removeprefix(prefix): file
                for path, file in self.files.items()
                if path.startswith("session/") == bool(prefix)
            }
            if chosen:
                # -U: what is there may be read-only, or a link to somewhere else.
                lines += ['mkdir -p -m 700 "$NDDT_SESSION"'] if prefix else []
                unpack = f"base64 -d <<'NDDT' | tar -xzpU --no-same-owner -C {place}"
                lines += [unpack, base64.b64encode(_packed(chosen)).decode(), "NDDT"]
        return tuple(lines)


def kept(
    forwards: tuple[Forward, ...],
    serve: Callable[[], AbstractContextManager[object]],
    mark: str = "",
) -> Provision:
    """Have something for as long as an agent runs; see `Kept`."""
    return Provision(kept=(Kept(forwards=forwards, make_service=lambda: serve, mark=mark),))


def _packed(files: Mapping[str, File]) -> bytes:
    """Pack files, and the directories that they are in as ones for their owner alone."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for path, file in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(file.content), file.mode
            entry.mtime = file.modified
            archive.addfile(entry, io.BytesIO(file.content))
    return packed.getvalue()


def this_machine(urls: Mapping[str, str]) -> Provision:
    """Make every address that means this machine mean it in the sandbox, too.

    Args:
        urls: Variable → URL.
    """
    found: dict[SamePort, None] = {}
    for name, url in urls.items():
        endpoint = host.loopback_endpoint(url if "//" in url else f"http://{url}", name)
        if endpoint:
            found[SamePort(*endpoint)] = None
    shown = tuple(("reaches", f"{one.host}:{one.port} of this machine") for one in found)
    return Provision(forwards=tuple(found), plan_lines=shown)
