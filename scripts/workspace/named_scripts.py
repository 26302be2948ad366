"""Scripts that a text names: a setting of git's, or a file that says what a program runs."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.workspace.links_below import Directory

_WORD = re.compile(rb"[^\s\"'`;&|<>()=,\[\]{}\\]+")
_SCRIPT = re.compile(r".*\.(ba|z|fi|k|)sh|.*\.(py|[cm]?[jt]s|rb|pl|lua|php|ps1|el|nix)")


def take(directory: Directory, content: bytes, base: str, *, is_ours: bool = False) -> None:
    """Add the scripts below a directory that a text names to what is found.

    Args:
        directory: Also absolute names are taken to be relative to it.
        content: The text.
        base: Full path of what names are relative to, too.
        is_ours: Whether links out of the directory may be followed.
    """
    words = list(dict.fromkeys(_WORD.findall(content)))
    for word in directory.found.some(words, "words"):
        name = re.sub(r"^\$(HOME|\{HOME\})(?=/)", "~", os.fsdecode(word).lstrip("!"))
        # What stands before a slash may be a variable, such as "$PROJECT_DIR"/x.
        rest = re.sub(r"^\$\{?\w+\}?/", "", name)
        meant = directory.expanded(name) if name.startswith("~") else rest
        root = directory.root
        for place, one in ((base, meant), (root, meant), (root, rest.lstrip("/"))):
            full = os.path.join(place, one)  # noqa: PTH118  (it is only text)
            path, links = directory.seek(full, is_ours=is_ours)
            if path and _is_script(directory, path):
                for found in (*links, path):
                    directory.found.add(found)


def _is_script(directory: Directory, path: str) -> bool:
    mode = directory.mode(path)
    return stat.S_ISREG(mode) and bool(_SCRIPT.fullmatch(path) or mode & 0o111)
