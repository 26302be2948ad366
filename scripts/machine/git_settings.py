"""Settings of git: those of a repository, read without its includes, and those of the user."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from scripts.errors import DataError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
from scripts.machine import git, git_places

Pairs = tuple[tuple[str, str | None], ...]
"""Names, as `git config --list` writes them, and values; None is a name without a `=`."""


class Setting(NamedTuple):
    """One of the user's or the system's settings."""

    scope: str
    """`system` or `global`."""
    file: str
    """Where it stands; empty if that is no file."""
    name: str
    value: str | None


def parse(content: bytes) -> Pairs | None:
    """Read the text of a configuration, following no include; None if git cannot."""
    words = ("--file", "-", "--no-includes", "--list", "-z")
    code, said, _ = git.ask("config", words, os.devnull, stdin=content)
    return tuple(map(_pair, os.fsdecode(said).split("\0")[:-1])) if code == 0 else None


def _pair(field: str) -> tuple[str, str | None]:
    name, has_value, value = field.partition("\n")
    return name, value if has_value else None


def configured(git_directory: str) -> Pairs:
    """Read a repository's own configuration.

    Args:
        git_directory: Of the repository; empty for none.

    Returns:
        Nothing if there is none, or git cannot read it, or is not installed.
    """
    if not git_directory:
        return ()
    content = git_places.read_plain_file(
        os.path.join(git_places.common_of(git_directory), "config"), git_places.TEXT
    )
    try:
        return (parse(content) if content else None) or ()
    except UnavailableError:
        return ()


def own_settings(environ: Mapping[str, str]) -> tuple[Setting, ...]:
    """Read the user's and the system's settings, without what holds in some repositories alone.

    Args:
        environ: Of the user.

    Returns:
        Of a conditional include, there is the setting itself.

    Raises:
        DataError: git cannot read them.
    """
    found = _settings((), environ)
    return tuple(one for one in found if one.scope in {"system", "global"})


def included(file: str, environ: Mapping[str, str]) -> tuple[Setting, ...]:
    """Read a file that the user's settings include; nothing if there is none.

    Raises:
        DataError: git cannot read it.
    """
    return _settings(("--file", file), environ) if os.path.exists(file) else ()


def excludes_file() -> str | None:
    """Tell where the user keeps excludes of his own; None if it is git's default place."""
    return _excludes_file(tuple(sorted(os.environ.items())))


def excludes(top: str) -> bytes:
    """Read the user's own excludes, as they hold in a working tree; empty if there are none."""
    place = excludes_file()
    if place is None:
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        place = os.path.join(home, "git", "ignore")
    found = os.path.join(top, os.path.expanduser(place))
    return git_places.read_plain_file(os.path.realpath(found), git_places.TEXT) or b""


@cache
def _excludes_file(environ: tuple[tuple[str, str], ...]) -> str | None:
    found = own_settings(dict(environ))
    return next((one.value for one in reversed(found) if one.name == "core.excludesfile"), None)


def _settings(words: tuple[str, ...], environ: Mapping[str, str]) -> tuple[Setting, ...]:
    # --show-scope is there since git 2.26.
    shown = ("--list", "--includes", "--show-scope", "--show-origin", "-z")
    # In no repository at all, so that no condition is true of it.
    code, said, wrong = git.ask("config", (*words, *shown), os.devnull, own=environ)
    if code != 0:
        raise DataError(wrong)
    fields = iter(os.fsdecode(said).split("\0")[:-1])
    return tuple(
        Setting(scope, origin.removeprefix("file:"), *_pair(field))
        for scope, origin, field in zip(fields, fields, fields, strict=False)
    )
