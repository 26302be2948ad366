"""Files that programs act on, as they are found, and how much is looked at for that.

Whoever makes more of anything keeps nobody busy with it: beyond these limits, it is noted that
there is more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

DIRECTORIES = 1000
"""So many directories are looked at, the nearest first."""
HIDDEN = 200
"""So many that are hidden, or in hidden ones."""
REPOSITORIES = 200
"""So many git directories."""
FILES = 4000
"""So many files that are found of each kind: by exact names, and by each kind of patterns."""
SHARE = 50
"""So many steps a pattern may take until it is the next one's turn: files, or `STEP` entries."""
STEP = 40
MANY = 1000
"""Of a directory that `**` goes through, so many entries are looked at."""
ENTRIES = 200_000
"""So many entries of directories in all."""
CROWD = 20_000
"""Of a directory with more entries only what has an exact name is looked at."""
WORDS = 5000
"""So many words of files are taken for names of scripts, and so many settings are looked at."""
WORDS_OF_ONE = 1000
"""So many of one file."""
HOMES = 20
"""So many users' home directories are looked up."""
NAME = 1000
"""Characters of a setting's name."""
LINKS = 40
"""So many links are followed on the way to one file, as by Linux."""
PATH = 4096
"""Characters of a path that a file names; a longer one Linux refuses."""
STEPS = 100_000
"""So many directories are gone through for what files name, and so many behind links."""
STEPS_OF_ONE = 1000
"""So many for one path."""
DEPTH = 10
"""How deep `**` goes, and how often one configuration includes another."""


class Findings:
    """What has been found, and how much more may be."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        """Path → why there is more at it than is looked at; empty for a file."""
        self._files_left = FILES
        self._words_left = {"words": WORDS, "settings": WORDS}

    def add(self, path: str) -> None:
        """Add a file, if there may be one more of its kind."""
        if path in self.paths:
            return
        if self._files_left > 0:
            self._files_left -= 1
            self.paths[path] = ""
        else:
            self.note_more(f"{FILES} such files")

    def note_more(self, what: str, path: str = "…") -> None:
        """Note that there is more at a path than is looked at."""
        self.paths[path] = f"more than {what}"

    def begin_kind(self) -> None:
        """Count files from 0 again, since those of another kind follow."""
        self._files_left = FILES

    @property
    def is_full(self) -> bool:
        """Whether no more files of this kind are added."""
        return self._files_left <= 0

    def some(self, words: Sequence[T], kind: Literal["words", "settings"]) -> Sequence[T]:
        """Take as many words of one file as are still looked at."""
        most = min(self._words_left[kind], WORDS_OF_ONE)
        if len(words) > most:
            self.note_more(f"{most} names of files")
        some = words[:most]
        self._words_left[kind] -= len(some)
        return some
