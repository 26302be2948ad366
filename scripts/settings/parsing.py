"""How each kind of setting is written: text → value; a ValueError says what is allowed."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.sandbox_places import WORKSPACE
from scripts.settings import allowlist

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9_-]*/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,62}")
SNAPSHOT = re.compile(r"([\w.:-]+(/[\w.:-]+)*)?", re.ASCII)
VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,2}")
PACKAGE_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){2}(-[0-9A-Za-z.-]{1,64})?")
"""What a registry may answer: it becomes a part of names and command lines."""
AGENT_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+|latest|stable|next")


def text(value: str) -> str:
    """Take any text."""
    return value


def boolean(value: str) -> bool:
    """Read true or false, in any of the usual words."""
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if value.lower() not in words:
        raise ValueError("true or false")
    return words[value.lower()]


def count(value: str) -> int:
    """Read a whole number, 0 or more."""
    if not re.fullmatch(r"\d{1,9}", value):
        raise ValueError("a whole number, 0 or more")
    return int(value)


def optional_count(value: str) -> int:
    """Read a whole number; empty is 0."""
    if value in {"", "0"}:
        return 0
    return count(value)


def url(value: str) -> str:
    """Read an address of HTTP."""
    if not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", value):
        raise ValueError("an address such as https://host/api")
    return value.rstrip("/")


def hosts(value: str) -> tuple[allowlist.Rule, ...]:
    """Read hosts of an allow-list, separated by commas."""
    return tuple(dict.fromkeys(map(allowlist.rule, words(value))))


def parse_command(value: str) -> str:
    """Check that it can be split as in a shell."""
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError("a program and its arguments, quoted as in a shell") from error
    return value


def names(value: str) -> tuple[str, ...]:
    """Read names of variables, separated by commas; a first `+` means that they are more."""
    more = ("+",) if value.startswith("+") else ()
    names = words(value.removeprefix("+"))
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\*?", name) for name in names):
        raise ValueError("names of variables separated by commas; a * at a name's end is allowed")
    return (*more, *names)


def words(value: str) -> tuple[str, ...]:
    """Read words, separated by commas."""
    return tuple(word.strip() for word in value.split(",") if word.strip())


def repositories(value: str) -> tuple[str, ...]:
    """Read OWNER/NAME, separated by commas."""
    names = words(value)
    if not all(re.fullmatch(REPOSITORY, name) for name in names):
        raise ValueError("OWNER/NAME, separated by commas")
    return names


def port(value: str) -> int:
    """Read the number of a port; a ValueError says what is allowed."""
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 0 < int(value) < 65536:
        raise ValueError("a port from 1 to 65535")
    return int(value)


def ports(value: str) -> tuple[int, ...]:
    """Read numbers of ports, separated by commas."""
    try:
        return tuple(dict.fromkeys(port(word) for word in words(value)))
    except ValueError as error:
        raise ValueError("ports from 1 to 65535, separated by commas") from error


@dataclass(frozen=True)
class Mount:
    """A directory of this machine that a sandbox shows."""

    source: Path
    """Where it really is: no link is on the way."""
    target: str
    readonly: bool = False
    named: Path | None = field(default=None, compare=False, repr=False)
    """The absolute path that the user wrote for it."""

    def __str__(self) -> str:
        return f"{self.source}:{self.target}{':ro' if self.readonly else ''}"


def mount(word: str) -> Mount:
    """Read HERE:IN_SANDBOX, with :ro for what is not to be changed."""
    match = re.fullmatch(r"([^:]+):(/[^:]*)(:ro|:rw)?", word)
    if not match or ".." in match[2].split("/"):
        raise ValueError("HERE:/IN/SANDBOX or HERE:/IN/SANDBOX:ro, separated by commas")
    target = "/" + "/".join(part for part in match[2].split("/") if part not in {"", "."})
    if target in {"/", WORKSPACE}:
        raise ValueError(f"a place in the sandbox other than / and {WORKSPACE}")
    try:
        named = Path(match[1]).expanduser().absolute()
        source = named.resolve()
    except RuntimeError as error:  # ~NAME, and nobody has that name; a loop of links
        raise ValueError("directories that exist") from error
    return Mount(source, target, readonly=match[3] == ":ro", named=named)


def mounts(value: str) -> tuple[Mount, ...]:
    """Read mounts, separated by commas; each place in the sandbox once."""
    found = tuple(mount(word) for word in words(value))
    if len({one.target for one in found}) < len(found):
        raise ValueError("each place in the sandbox once")
    return found


def log_file(value: str) -> str:
    """Read an absolute path, or one that begins with ~/."""
    path = os.path.expanduser(value)  # noqa: PTH111  (what has no home stays as it is)
    # Relative to the directory it would be where the sandbox can change it.
    if path and not path.startswith("/"):
        raise ValueError("a path that begins with / or ~/")
    return path


def choice(*allowed: str) -> Callable[[str], str]:
    """Make what reads one of these words."""

    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(" or ".join(allowed))
        return value

    return parse


def like(pattern: re.Pattern[str], description: str) -> Callable[[str], str]:
    """Make what reads something that matches as a whole."""

    def parse(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(description)
        return value

    return parse
