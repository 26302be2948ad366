"""The .env files: read once, parsed, and looked at for who else could have written them.

A .env file is data: nothing of it enters this process's environment, and `${NAME}` in it means
a name of the same file only.
"""

from __future__ import annotations

import hashlib
import io
import os
import pwd
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scripts.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


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
        """Give values and line numbers by name.

        Raises:
            ConfigError: It is not UTF-8, or a line is not `NAME=value`.
        """
        # Imported only where there is a file.
        from dotenv.parser import parse_stream  # noqa: PLC0415
        from dotenv.variables import parse_variables  # noqa: PLC0415

        values: dict[str, str] = {}
        lines: dict[str, int] = {}
        try:
            bindings = list(parse_stream(io.TextIOWrapper(io.BytesIO(self.content), "utf-8")))
        except UnicodeDecodeError as error:
            raise _unreadable(self.path, error) from error
        for binding in bindings:
            text = binding.original.string
            line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            if binding.error:
                problem = f"{self.path}, line {line}: this is not NAME=value"
                raise ConfigError(problem, "correct that line")
            if binding.key and binding.value is not None:
                atoms = parse_variables(binding.value)
                values[binding.key] = "".join(atom.resolve(values) for atom in atoms)
                lines[binding.key] = line
        return values, lines

    def doubts(self) -> str:
        """Say who else could have written it; empty if nobody but its user and root."""
        if self.found.st_uid not in {0, os.getuid()}:
            return f"belongs to {_name_of(self.found.st_uid)}"
        # A group of the user's own is the usual one, with a umask of 002.
        others = 0o002 if self.found.st_gid == os.getgid() else 0o022
        return "can be changed by others" if self.found.st_mode & others else ""


def read(path: Path) -> EnvFile | None:
    """Read a file; None if there is none.

    Raises:
        ConfigError: It is not readable, or no regular file.
    """
    try:
        with open(path, "rb", opener=_at_once) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise _unreadable(path, "it is no file")
            return EnvFile(path=path, content=stream.read(), found=found)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for its writer


def _unreadable(path: Path, problem: object) -> ConfigError:
    return ConfigError(f"{path} cannot be read: {problem}", "correct or remove it")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
