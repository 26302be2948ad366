"""Files that `protected_files.txt` names: what programs act on, without their being started.

Of what may be a crowd, each pattern has its turn, after all that has an exact name.
"""

from __future__ import annotations

import re
import stat
from collections import deque
from fnmatch import translate
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scripts.workspace import findings

if TYPE_CHECKING:
    from collections.abc import Iterator, KeysView, Sequence

    from scripts.workspace.links_below import Directory

LIST = Path(__file__).parent / "protected_files.txt"


class Pattern(NamedTuple):
    """A line of the list."""

    words: tuple[str, ...]
    """Names and patterns for names, of directories and, the last one, of files."""
    names_scripts: bool = False


@cache
def _patterns() -> tuple[dict[str, list[Pattern]], list[tuple[re.Pattern[str], Pattern]]]:
    """Read the list: what begins with a plain name, and what with a pattern for names."""
    plain: dict[str, list[Pattern]] = {}
    others = []
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            words = tuple(line.removeprefix("@").split("/"))
            pattern = Pattern(words, names_scripts=line.startswith("@"))
            if "*" in words[0]:
                others.append((re.compile(translate(words[0])), pattern))
            else:
                plain.setdefault(words[0], []).append(pattern)
    return plain, others


@cache
def _any_other() -> re.Pattern[str]:
    return re.compile("|".join(expression.pattern for expression, _ in _patterns()[1]))


def plain_names() -> set[str]:
    """Look up the names with which lines of the list begin."""
    return set(filter(None, _patterns()[0]))


class ListedFiles:
    """What fits the list, and other patterns, in a directory."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._found = directory.found
        self._hooks: list[Iterator[str]] = []
        self._flat: list[Iterator[str]] = []
        self._deep: list[Iterator[str]] = []
        self.naming_scripts: list[tuple[str, str]] = []
        """Files that name scripts, and where that is seen from."""

    def take_named(self, inside: str, names: KeysView[str]) -> None:
        """Take what the list has about names in a directory."""
        plain, others = _patterns()
        for pattern in () if inside else plain[""]:
            self.take("", pattern._replace(words=pattern.words[1:]))
        for pattern in (one for name in sorted(names & plain.keys()) for one in plain[name]):
            self.take(inside, pattern)
        for name in filter(_any_other().match, names):
            for expression, pattern in others:
                if expression.match(name):
                    self.take(inside, pattern._replace(words=(name, *pattern.words[1:])))

    def take(self, inside: str, pattern: Pattern) -> None:
        """Take what fits a pattern: now, or, where that may be a crowd, in its turn."""
        taking = self._taking(inside, pattern)
        if "**" in pattern.words:
            self._deep.append(taking)
        elif "*" in "".join(pattern.words):
            self._flat.append(taking)
        else:
            deque(taking, maxlen=0)

    def take_hooks(self, inside: str, path: str) -> None:
        """Take all of a directory of hooks, in its turn, which is before all others'."""
        self._hooks.append(self._taking(inside, Pattern((*path.split("/"), "**"))))

    def take_turns(self) -> None:
        """Take what was left for its turn."""
        for waiting in (self._hooks, self._flat, self._deep):
            self._found.begin_kind()
            self._take_shares(deque(waiting))

    def _take_shares(self, waiting: deque[Iterator[str]]) -> None:
        """Let each of some patterns take its share, the nearest first, and again what is left."""
        while waiting and not self._found.is_full:
            one = waiting.popleft()
            if sum(1 for _ in islice(one, findings.SHARE)) == findings.SHARE:
                waiting.append(one)
        if waiting:
            self._found.note_more(f"{findings.FILES} such files")

    def _taking(self, inside: str, pattern: Pattern) -> Iterator[str]:
        for path in self._matching(inside, pattern.words):
            if path:
                self._found.add(path)
                if pattern.names_scripts:
                    self.naming_scripts.append((path, self._directory.full(inside)))
            yield path

    def _matching(self, inside: str, words: Sequence[str]) -> Iterator[str]:
        """Find what fits a pattern, and the links on the way; empty is a step without either."""
        head, *rest = words
        if head == "**":
            yield from self._all(inside, findings.DEPTH, set())
            return
        names = [head]
        if "*" in head:
            fits = re.compile(translate(head)).match
            names = [one for one in self._directory.children(inside) if fits(one)]
        for name in names:
            path, links = self._directory.real(name, inside, "links")
            yield from links
            kind = self._directory.kind(path)
            if kind == stat.S_IFDIR and rest:
                yield from self._matching(f"{path}/" if path else "", rest)
            elif path and kind and kind != stat.S_IFDIR and not rest:
                yield path

    def _all(self, inside: str, depth: int, been: set[str]) -> Iterator[str]:
        """Find all below a directory, likewise."""
        if inside in been:
            return
        been.add(inside)
        children = self._directory.children(inside, findings.MANY)
        yield from [""] * (1 + len(children) // findings.STEP)
        for name, kind in children.items():
            path: str | None = f"{inside}{name}"
            if kind == stat.S_IFLNK:
                path, links = self._directory.real(name, inside, "links")
                yield from links
                kind = self._directory.kind(path)  # noqa: PLW2901  (of what the link leads to)
            if kind == stat.S_IFDIR and depth:
                yield from self._all(f"{path}/" if path else "", depth - 1, been)
            elif kind == stat.S_IFDIR:
                self._found.note_more(f"{findings.DEPTH} directories in each other", path or ".")
            elif path and kind and not name.endswith(".sample"):
                yield path
