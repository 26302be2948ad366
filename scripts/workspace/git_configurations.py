"""What git's configurations lead to: directories of hooks, further files, and programs."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from scripts.errors import DataError, UnavailableError
from scripts.machine import git_places, git_settings
from scripts.workspace import findings, named_scripts
from scripts.workspace.listed_files import Pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.workspace.links_below import Directory
    from scripts.workspace.listed_files import ListedFiles

_LEADS = re.compile(
    rb"hookspath|\binclude|fsmonitor|command|textconv|driver|clean|smudge|process|pager|editor"
    rb"|helper|askpass|gitproxy|\bcmd\b|alias|external|program|pack\b|difffilter|path\b",
    re.IGNORECASE,
)
"""Only a configuration with one of these words in it can lead to another file."""
_PROGRAM = re.compile(
    r"core\.(fsmonitor|sshcommand|editor|pager|askpass|gitproxy|alternaterefscommand)"
    r"|sequence\.editor|diff\.external|interactive\.difffilter|uploadpack\.packobjectshook"
    r"|(pager|alias)\..+|(diff|merge|filter|difftool|mergetool|trailer|gpg|browser|man)\..*"
    r"(command|textconv|driver|clean|smudge|process|cmd|path|program)"
    r"|remote\..*\.(uploadpack|receivepack)|(credential|.*\.credential).*helper|submodule\..*\.update",
    re.DOTALL,
)
_INCLUDE = re.compile(r"include\.path|includeif\..*\.path", re.DOTALL)
_HOOKS = (
    *("applypatch-msg", "commit-msg", "fsmonitor-watchman", "p4-changelist", "p4-post-changelist"),
    *("p4-pre-submit", "p4-prepare-changelist", "post-applypatch", "post-checkout", "post-commit"),
    *("post-index-change", "post-merge", "post-receive", "post-rewrite", "post-update"),
    *("pre-applypatch", "pre-auto-gc", "pre-commit", "pre-merge-commit", "pre-push", "pre-rebase"),
    *("pre-receive", "prepare-commit-msg", "proc-receive", "push-to-checkout"),
    *("reference-transaction", "sendemail-validate", "update"),
)
"""All that git runs of a directory of hooks (githooks(5)), where much else is in it."""


def leads_on(name: str) -> bool:
    """Tell whether a setting of git's leads to further files."""
    if len(name) > findings.NAME:
        return False
    return name == "core.hookspath" or bool(_INCLUDE.fullmatch(name) or _PROGRAM.fullmatch(name))


@lru_cache(64)
def _parsed(content: bytes) -> git_settings.Pairs:
    try:
        return git_settings.parse(content) or ()
    except (DataError, UnavailableError):
        return ()


class Seen(NamedTuple):
    """How a configuration is come by."""

    bases: tuple[str, ...] = ()
    """Full paths of the working tree and the git directory; none for each repository's."""
    depth: int = findings.DEPTH
    """So many more that include each other."""
    is_ours: bool = False
    """Whether it is out of the directory: links that it names may be followed anywhere."""


class Configurations:
    """What configurations lead to below a directory."""

    def __init__(self, directory: Directory, listed: ListedFiles) -> None:
        self._directory = directory
        self._found = directory.found
        self._listed = listed
        self._taken: set[tuple[str, str]] = set()
        self.hooks_of_all: list[str] = []
        """Directories of hooks that are relative to each repository's."""

    def content(self, full: str, *, is_ours: bool) -> tuple[str | None, bytes]:
        """Read a file of git's, in the directory or out of it.

        Returns:
            Its path, None if it is elsewhere; and its content.
        """
        path = self._directory.followed(full, is_ours=is_ours)
        if path is not None:
            return path, self._directory.read(path, git_places.TEXT)
        is_name = "\0" not in full and len(full) <= findings.PATH
        is_elsewhere = is_name and self._directory.below(full) is None
        if not (is_elsewhere and (is_ours or self._directory.is_near(full))):
            return None, b""
        return None, git_places.read_plain_file(os.path.realpath(full), git_places.TEXT) or b""

    def working_tree(self, files: Sequence[str], place: str, *, is_ours: bool) -> str:
        """Tell where the working tree is, if configurations say so; empty if they do not.

        Args:
            files: Full paths of the configurations.
            place: Of the git directory.
            is_ours: Whether links out of the directory may be followed.
        """
        said = ""
        for file in files:
            _, content = self.content(file, is_ours=is_ours)
            if b"worktree" in content.lower():
                said = dict(_parsed(content)).get("core.worktree") or said
        name = self._directory.expanded(said)
        return os.path.normpath(os.path.join(place, name)) if said else ""  # noqa: PTH118

    def take(self, full: str, seen: Seen) -> None:
        """Take a configuration of git, and what it leads to."""
        path, content = self.content(full, is_ours=seen.is_ours)
        key = (os.path.normpath(full), "\0".join(seen.bases))
        kind = self._directory.kind(path)
        if not seen.depth or key in self._taken or kind == stat.S_IFDIR:
            return
        self._taken.add(key)
        if path and kind:
            self._found.add(path)
        if not _LEADS.search(content):
            return
        pairs = [one for one in _parsed(content) if leads_on(one[0])]
        for name, value in self._found.some(pairs, "settings"):
            self.take_setting(full, name, value or "", seen._replace(is_ours=path is None))

    def take_setting(self, file: str, name: str, value: str, seen: Seen) -> None:
        """Take what a setting leads to.

        Args:
            file: Full path of the configuration.
            name: One that leads on.
            value: What it is set to.
            seen: Says what it is relative to.
        """
        if name == "core.hookspath":
            self.take_hooks(value, seen)
        elif _INCLUDE.fullmatch(name):
            base = os.path.dirname(file)  # noqa: PTH120  (it is only text)
            full = os.path.join(base, self._directory.expanded(value))  # noqa: PTH118
            if full.startswith("/"):
                self.take(full, seen._replace(depth=seen.depth - 1))
        else:
            base = seen.bases[0] if seen.bases else self._directory.root
            named_scripts.take(self._directory, os.fsencode(value), base, is_ours=seen.is_ours)

    def take_hooks(self, value: str, seen: Seen) -> None:
        """Take a directory of hooks; a relative one is so to where they run."""
        name = self._directory.expanded(value)
        if not seen.bases and not name.startswith("/"):
            self.hooks_of_all.append(name)
        for full in {os.path.join(base, name) for base in seen.bases or ("/",)} if name else ():  # noqa: PTH118
            path = self._directory.followed(full, is_ours=seen.is_ours)
            if path is None and seen.is_ours:
                self.take_linked(full)
            elif path == "":
                for one in _HOOKS:
                    self._listed.take("", Pattern((one,)))
            elif path:
                self._listed.take_hooks("", path)

    def take_linked(self, directory: str) -> None:
        """Take what links in a directory of hooks lead to that is not below this one."""
        with suppress(OSError, ValueError), os.scandir(directory) as listing:
            for one in islice(listing, findings.WORDS_OF_ONE):
                is_link = one.is_symlink()
                path = self._directory.followed(one.path, is_ours=True) if is_link else None
                if path and self._directory.kind(path):
                    self._found.add(path)
