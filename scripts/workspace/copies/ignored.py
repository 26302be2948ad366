"""What of a directory git ignores, and `.nddtignore` likewise.

This file is sent to a sandbox beside `answering.py`.
"""

from __future__ import annotations

import contextlib
import os
import re

from scripts.machine import git, git_places


def ignored(
    root: str, directory: str, nothing: git.Stand, excludes: str | None, private: str = ""
) -> set[str]:
    """Ask git what of a directory is ignored: .gitignore and .nddtignore, as in a repository.

    The directory's own index says what is ignored all the same because it is tracked.

    Args:
        root: Of the tree.
        directory: In it, with or without a repository.
        nothing: An empty repository.
        excludes: See `git_settings.excludes_file`.
        private: A path in it that is ignored, too, unless it is tracked.

    Returns:
        Paths of files and directories.

    Raises:
        DataError: git does not tell.
    """
    top = os.path.join(root, directory) if directory else root
    words = ("-o", "-i", "--directory", "-z")
    place = git_places.directory_of(top)
    with git.standing_in(place) if place else contextlib.nullcontext(nothing) as stand:
        standard = (*words, *standard_rules(stand, private))
        untracked = stand.listed(*standard, tree=top, excludes=excludes)
        if untracked is None:  # an index that cannot be read: it counts as empty
            untracked = nothing.listed(*standard, tree=top, excludes=excludes)
    own = nothing.listed(*words, "--exclude-per-directory=.nddtignore", tree=top)
    listed = os.fsdecode((untracked or b"") + (own or b"")).split("\0")
    return {os.path.join(directory, one.rstrip("/")) for one in listed if one}


def standard_rules(stand: git.Stand, private: str) -> list[str]:
    """Build the words by which `git ls-files` ignores what a repository does; see `ignored`."""
    words = ["--exclude-standard"]
    if private:
        words.append("--exclude=/" + re.sub(r"([^\w/.-])", r"\\\1", private))
    if stand.exclude:
        words.append(f"--exclude-from={stand.exclude}")
    return words
