"""The .env files: read once, parsed, and looked at for who else could have written them.

A .env file is data: nothing of it enters this process's environment, and `${NAME}` in it means
a name of the same file only.
"""

from __future__ import annotations

import hashlib
import io
import os
import pwd
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 1 << 20
"""Of a file, and of all its values with what `${NAME}` in them stands for."""
MOST_LINES = 10_000
MOST_BLANKS = 500
"""In a row on one line: to find a comment after them, dotenv takes the square of their number."""
_MOST_STEPS = 20_000_000
"""How often dotenv looks at a letter, at worst, to find each `${` and its `}`: about a second."""


@dataclass(frozen=True, kw_only=True)
class EnvFile:
    """A file as it was when it was read; what is hashed is what is parsed."""

    path: Path
    content: bytes = field(repr=False)
    found: os.stat_result
    """Of the file that was read, wherever a link led."""

    @property
    def digest(self) -> str:
        """The SHA-256 of its content."""
        return hashlib.sha256(self.content).hexdigest()

    def parse(self) -> tuple[dict[str, str], dict[str, int]]:
        """Read values and line numbers by name.

        Raises:
            ConfigError: It is not UTF-8, or a line is not `NAME=value`.
        """
        # Imported only where there is a file.
        from dotenv.parser import parse_stream  # noqa: PLC0415

        values = _Values()
        lines: dict[str, int] = {}
        try:
            text = self.content.decode()
            if any(len(one[0]) > MOST_BLANKS for one in re.finditer(r"[^\S\r\n]+", text)):
                raise _unreadable(self.path, f"it has over {MOST_BLANKS} blanks in a row")
            for binding in parse_stream(io.StringIO(text, newline=None)):
                text = binding.original.string
                line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                if binding.error:
                    raise _wrong_line(self.path, line, "this is not NAME=value")
                if binding.key and binding.value is not None:
                    try:
                        values.add(binding.key, binding.value)
                    except ValueError as error:
                        raise _wrong_line(self.path, line, str(error)) from error
                    lines[binding.key] = line
        except UnicodeDecodeError as error:
            raise _unreadable(self.path, error) from error
        return values.found, lines

    def doubts(self) -> str:
        """Say who else could have written it; empty if nobody but its user and root."""
        if self.found.st_uid not in {0, os.getuid()}:
            return f"belongs to {_name_of(self.found.st_uid)}"
        # A group of the user's own is the usual one, with a umask of 002.
        others = 0o002 if self.found.st_gid == os.getgid() else 0o022
        return "can be changed by others" if self.found.st_mode & others else ""


class _Values:
    """The values of a file so far, which may name each other."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._length = self._steps = 0

    def add(self, name: str, written: str) -> None:
        """Note a value, with what each `${NAME}` in it stands for.

        Raises:
            ValueError: A line of this kind could fill our memory, or take for ever.
        """
        from dotenv.variables import parse_variables  # noqa: PLC0415  (as above)

        self._steps += written.count("${") * len(written)
        if self._steps > _MOST_STEPS:
            raise ValueError("there are too many ${ in this file")
        parts = []
        for atom in parse_variables(written):
            parts.append(atom.resolve(self.found))
            self._length += len(parts[-1])
            if self._length > MOST_BYTES:
                raise ValueError("this file's values are more than 1 MiB with their ${NAME}")
        self.found[name] = "".join(parts)


def read_env_file(path: Path) -> EnvFile | None:
    """Read a file; None if there is none.

    Raises:
        ConfigError: It is not readable, no regular file, or more than such a file has.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a device can be to act on it
            raise _unreadable(path, "it is no file")
        with open(path, "rb", opener=_at_once) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise _unreadable(path, "it is no file")
            content = stream.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    for is_wrong, problem in (
        (len(content) > MOST_BYTES, "it has more than 1 MiB"),
        (b"\0" in content, "it holds a NUL byte"),
        (content.count(b"\n") + content.count(b"\r") > MOST_LINES, "it has over 10,000 lines"),
    ):
        if is_wrong:
            raise _unreadable(path, problem)
    return EnvFile(path=path, content=content, found=found)


def _at_once(path: str, flags: int) -> int:
    # A pipe that came meanwhile would wait for its writer, and a terminal become ours.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _wrong_line(path: Path, line: int, problem: str) -> ConfigError:
    return ConfigError(f"{path}, line {line}: {problem}", "correct that line")


def _unreadable(path: Path, problem: object) -> ConfigError:
    return ConfigError(f"{path} cannot be read: {problem}", "correct or remove it")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def user_directory(environ: Mapping[str, str]) -> Path:
    """Name the directory of the user's own configuration; it need not exist."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")  # noqa: PTH118
    return Path(home) / "nddt"
