"""Which of this machine's git settings come along, and as what file; mostly pure functions.

The file takes the place of the sandbox's system-wide one: what the sandbox's own ~/.gitconfig
and a repository say wins, and `git config --global` inside works as ever.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.contracts.provisions import File, Provision
from scripts.errors import DataError, UnavailableError
from scripts.machine import git_places, git_settings
from scripts.machine.own_files import OwnFiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

log = logging.getLogger("nddt")

Entries = tuple[tuple[str, str | None], ...]
"""Names, as `git config --list` writes them, and values; None is a name without a `=`."""

INCLUDES = 10
"""How deep includes are followed, as git does."""

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
_IGNORED = 1 << 20
"""Bytes of a list of ignored files."""
_SIGNING = re.compile(r"(commit|tag|push)\.gpgsign|tag\.forcesignannotated")

_GITHUB = (
    "!f() { [ \"$1\" != get ] || printf 'username=x-access-token\\npassword=%s\\n' "
    '"${GH_TOKEN:-$GITHUB_TOKEN}"; }; f'
)
"""Credential helper that gives git the token that gh uses, from the environment."""


def read_git_settings(directory: Path, environ: Mapping[str, str]) -> Entries | None:
    """Read this machine's git settings, the system's and the user's, as they count in a directory.

    Returns:
        None if git is not here, or does not tell.
    """
    place = git_places.repository_of(str(directory))
    try:
        return tuple(_with_conditional(git_settings.own_settings(environ), place, environ))
    except (UnavailableError, DataError) as error:
        log.info("no settings of git come along: %s", error.message)
        return None


def _with_conditional(
    found: Iterable[git_settings.Setting], place: str, environ: Mapping[str, str], depth: int = 0
) -> Iterator[tuple[str, str | None]]:
    """Put what is included on a condition (git-config(1)) behind it, where that holds.

    git itself would have to be run in the repository, which may be somebody else's.
    """
    for one in found:
        yield one.name, one.value
        start, _, rest = one.name.partition(".")
        condition, _, key = rest.rpartition(".")
        is_meant = (start, key) == ("includeif", "path") and one.value and depth < INCLUDES
        if is_meant and place and _holds(condition, one.file, place, environ):
            file = str(Path(one.file).parent / _at_home(str(one.value), environ))
            yield from _with_conditional(
                git_settings.included(file, environ), place, environ, depth + 1
            )


def _holds(condition: str, file: str, place: str, environ: Mapping[str, str]) -> bool:
    """Tell whether the condition of an include is true of a repository.

    Args:
        condition: As it is written.
        file: In which it stands.
        place: The git directory of the repository.
        environ: Of the user.
    """
    kind, _, pattern = condition.partition(":")
    pattern += "**" if pattern.endswith("/") else ""
    if kind in {"gitdir", "gitdir/i"}:
        pattern = _at_home(pattern, environ)
        pattern = re.sub(r"^\.(?=/)", lambda _: str(Path(file).parent), pattern)
        pattern = pattern if pattern.startswith("/") else f"**/{pattern}"
        texts = [str(Path(place).resolve()), str(Path(place).absolute())]
    elif kind == "onbranch":
        texts = [git_places.line(f"{place}/HEAD").removeprefix("ref: refs/heads/")]
    elif condition.startswith("hasconfig:remote.*.url:"):
        pattern = pattern.removeprefix("remote.*.url:")
        pairs = git_settings.configured(place)
        texts = [value or "" for name, value in pairs if re.fullmatch(r"remote\..*\.url", name)]
    else:
        return False
    wanted = re.compile(_regular(pattern), re.IGNORECASE if kind.endswith("/i") else 0)
    return any(wanted.fullmatch(text) for text in texts if len(text) <= git_places.POINTER)


def _at_home(path: str, environ: Mapping[str, str]) -> str:
    return environ.get("HOME", "/") + path[1:] if path.startswith("~/") else path


def _regular(pattern: str) -> str:
    """Write a pattern of git's (WM_PATHNAME in its wildmatch.h) as a regular expression."""
    pattern = pattern.replace("\\/", "/")
    words = re.findall(r"\*\*/|/\*\*$|\*+|\?|\[[!^]?\]?[^]]*\]|\\.|.", pattern, re.DOTALL)
    known = {"**/": "(?:.*/)?", "/**": "/.*", "?": "[^/]"}
    return "".join(
        known.get(one)
        or ("[^/]*" if one[0] == "*" else "")
        or (re.sub(r"^\[!", "[^", one) if len(one) > 1 and one[0] == "[" else "")
        or re.escape(one.removeprefix("\\") or one)
        for one in words
    )


def last(entries: Entries, name: str) -> str | None:
    """Read the value that counts; None if it is not set."""
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


def ignored(entries: Entries, environ: Mapping[str, str]) -> Provision:
    """Bring the user's own list of ignored files along (gitignore(5), core.excludesFile).

    Args:
        entries: See `read`.
        environ: The user's.
    """
    home = Path(environ.get("HOME") or "/")
    usual = Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "git", "ignore")
    named = last(entries, "core.excludesfile")
    path = Path(_at_home(named, environ)) if named else usual
    try:
        content, _ = OwnFiles(path.parent, home).read(path.name, _IGNORED)
    except OSError as error:
        if named:
            log.info("%s does not come along: %s", path, error.strerror or "it is too large")
        return Provision()
    add = r"""printf '[core]\n\texcludesFile = "%s"\n' "$NDDT_SESSION/gitignore" """
    return Provision(
        files={"session/gitignore": File(content=content)},
        before=(f'{add}>>"$NDDT_SESSION/gitconfig"',),
    )


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


def bring_git_settings(entries: Entries, variables: Iterable[str]) -> Provision:
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
