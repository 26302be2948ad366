"""Which of this machine's git settings come along, and as what file; mostly pure functions.

The file takes the place of the sandbox's system-wide one: what the sandbox's own ~/.gitconfig
and a repository say wins, and `git config --global` inside works as ever.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from scripts import process
from scripts.provisions import File, Provision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

log = logging.getLogger("nddt")

Entries = tuple[tuple[str, str | None], ...]
"""Names, as `git config --list` writes them, and values; None is a name without a `=`."""

_SAFE = re.compile(
    r"""
    (user|author|committer)\.(name|email|useconfigonly)
    | init\.defaultbranch
    | alias\..+
    | (apply|branch|column|commit|diff|fetch|log|merge|pull|push|rebase|rerere|stash|status|tag)
      \.(?!template$|external$|.*tool$|orderfile$|mailmap$|gpgsign$|forcesignannotated$)[^.]+
    | (advice|color|pretty)\..+
    | core\.(abbrev|autocrlf|commentchar|commentstring|eol|quotepath|safecrlf|whitespace)
    | (format\.pretty | help\.autocorrect | i18n\.\w+encoding | interactive\.singlekey)
    | (submodule\.recurse | versionsort\.suffix)
    """,
    re.VERBOSE,
)
"""Settings that are about what git does, and name no program, file or address of this machine."""
_SIGNING = re.compile(r"(commit|tag|push)\.gpgsign|tag\.forcesignannotated")

_GITHUB = (
    "!f() { [ \"$1\" != get ] || printf 'username=x-access-token\\npassword=%s\\n' "
    '"${GH_TOKEN:-$GITHUB_TOKEN}"; }; f'
)
"""Credential helper that gives git the token that gh uses, from the environment."""


def read(directory: Path, environ: Mapping[str, str]) -> Entries | None:
    """Read this machine's git settings, the system's and the user's, as they count in a directory.

    Returns:
        None if git is not here, or does not tell.
    """
    if not process.find("git"):
        log.info("git is not installed here: no settings of it come along")
        return None
    # --show-scope is there since git 2.26.
    words = ("git", "config", "--list", "--includes", "--show-scope", "-z")
    done = process.capture(words, env=environ, cwd=directory)
    if not done.ok:
        log.info("no settings of git come along: %s", done.last_line)
        return None
    fields = done.stdout.split("\0")
    return tuple(
        (name, value if has_value else None)
        for scope, (name, has_value, value) in zip(
            fields[::2], (field.partition("\n") for field in fields[1::2]), strict=False
        )
        if scope in {"system", "global"}
    )


def last(entries: Entries, name: str) -> str | None:
    """Give the value that counts; None if it is not set."""
    return next((value or "" for key, value in reversed(entries) if key == name), None)


def is_signing(entries: Entries) -> bool:
    """Tell whether commits or tags are signed without being asked."""
    off = {"false", "no", "off", "0", ""}
    return any(
        value is None or value.lower() not in off
        for name, value in entries
        if _SIGNING.fullmatch(name)
    )


def chosen(entries: Entries, signing: Entries | None) -> Entries:
    """Pick what makes sense in a sandbox.

    Args:
        entries: See `read`.
        signing: What signs there, `gpg.format` and the like; None if nothing can: then nothing
            is signed without being asked, since every commit would fail.
    """
    kept = tuple(
        (name, value)
        for name, value in entries
        if (_SAFE.fullmatch(name) and not (name.startswith("alias.") and _is_program(value)))
        or (signing is not None and _SIGNING.fullmatch(name))
    )
    return kept + (signing or ())


def _is_program(alias: str | None) -> bool:
    return (alias or "").lstrip().startswith("!")


def written(entries: Iterable[tuple[str, str | None]]) -> str:
    """Write settings as git-config(1) reads them."""
    lines = []
    for name, value in entries:
        section, _, rest = name.partition(".")
        subsection, _, key = rest.rpartition(".")
        quoted = f" {_quoted(subsection)}" if "." in rest else ""
        lines.append(f"[{section}{quoted}]\n")
        lines.append(f"\t{key}\n" if value is None else f"\t{key} = {_escaped(value)}\n")
    return "".join(lines)


def _quoted(subsection: str) -> str:
    text = subsection.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _escaped(value: str) -> str:
    return _quoted(value).replace("\n", "\\n").replace("\t", "\\t").replace("\b", "\\b")


def provision(entries: Entries, variables: Iterable[str]) -> Provision:
    """Bring settings along, and a way for git to use a token of GitHub's.

    Args:
        entries: What comes along.
        variables: Names of the variables that the session has.
    """
    helpers: Entries = ()
    if not {"GH_TOKEN", "GITHUB_TOKEN"}.isdisjoint(variables):
        hosts = ("github.com", "gist.github.com")
        helpers = tuple((f"credential.https://{host}.helper", _GITHUB) for host in hosts)
    if not entries and not helpers:
        return Provision()
    text = written((("include.path", "/etc/gitconfig"), *helpers, *entries))
    content = text.encode("utf-8", "surrogateescape")
    return Provision(
        files={"session/gitconfig": File(content=content)},
        before=('export GIT_CONFIG_SYSTEM="$NDDT_SESSION/gitconfig"',),
    )
