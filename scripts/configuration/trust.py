"""What the user has agreed to: a project's .env file, by its path and its exact content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts import naming
from scripts.errors import ConfigError
from scripts.machine import files, state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scripts.settings.env_file import EnvFile


def _note(environ: Mapping[str, str], path: Path) -> Path:
    # Links are not followed: a project could hold one to the file of another.
    return state.state_directory(environ) / "trust" / naming.digest([str(path)], 32)


def _agreed_to(environ: Mapping[str, str], path: Path) -> str:
    """Read the digest that was agreed to; empty if none was."""
    try:
        return _note(environ, path).read_text(encoding="utf-8", errors="replace").split(" ")[0]
    except OSError:
        return ""


def is_agreed(environ: Mapping[str, str], file: EnvFile) -> bool:
    """Tell whether the user has agreed to a file with exactly this content."""
    return _agreed_to(environ, file.path) == file.digest


def standing(environ: Mapping[str, str], file: EnvFile) -> str:
    """Say why a file that is not agreed to is not."""
    known = _agreed_to(environ, file.path)
    return "has changed since you agreed to it" if known else "is not agreed to"


def agree_to_env_file(environ: Mapping[str, str], file: EnvFile) -> None:
    """Note the user's consent, which lasts as long as the content does.

    Raises:
        ConfigError: The note cannot be written.
    """
    note = _note(environ, file.path)
    try:
        # As sha256sum writes it; a path may hold bytes that are no UTF-8.
        shown = str(file.path).encode("utf-8", "backslashreplace").decode()
        files.write(note, f"{file.digest}  {shown}\n")
    except OSError as error:
        problem = f"{note} cannot be written: {error.strerror}"
        raise ConfigError(problem, "let it be yours, and try again") from error


def revoke(environ: Mapping[str, str], path: Path) -> bool:
    """Take consent back, and tell whether there was any.

    Raises:
        ConfigError: The note cannot be removed.
    """
    try:
        _note(environ, path).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        problem = f"consent to {path} cannot be taken back: {error.strerror}"
        raise ConfigError(problem, f"remove {_note(environ, path)}") from error
    return True
