"""Which room may import which, who does, and how long everything is: `./nddt lint --rooms`."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEVELS: tuple[tuple[str, ...], ...] = (
    ("scripts",),
    ("machine",),
    ("settings",),
    ("demo", "transport"),
    ("contracts",),
    ("agents", "providers"),
    ("brings", "configuration", "keyless", "network", "workspace"),
    ("plan",),
    ("run",),
    ("commands", "cli"),
    ("dev", "quick_start"),
    ("words",),
)
"""Rooms, the lowest first; one may import what stands below it, and none of its own row."""
MOST_LINES = 350
"""Of a module."""
MOST_IN_TASKS = 250
"""Lines of tasks.py."""
MOST_IN_FUNCTION = 40
"""Lines of a function, without its docstring, unless a comment `# long: …` beside it says why."""


@dataclass(frozen=True)
class House:
    """The modules of nddt, as they stand below a directory."""

    root: Path

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Dotted name → file."""
        files = sorted((*self.root.glob("scripts/**/*.py"), self.root / "tasks.py"))
        names = (".".join(one.relative_to(self.root).with_suffix("").parts) for one in files)
        return {
            name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)
        }

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Module → what it imports, also for types alone, and in functions."""
        return {name: set(self._imported(name)) - {name} for name in self.modules}

    def _imported(self, name: str) -> Iterator[str]:
        for node in ast.walk(ast.parse(self.modules[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for one in node.names:
                    full = f"{node.module}.{one.name}"
                    yield from (full,) if full in self.modules else ()
                    yield from (node.module,) if full not in self.modules else ()
            elif isinstance(node, ast.Import):
                yield from (one.name for one in node.names)

    def inner(self, name: str) -> set[str]:
        """Name the modules of ours that a module imports."""
        return {one for one in self.imports[name] if one in self.modules}

    def floors(self) -> dict[str, int]:
        """Count, for each module, the longest way down: 0 for one that imports none of ours.

        Raises:
            ValueError: There is a circle; its text names it.
        """
        found: dict[str, int] = {}
        way: list[str] = []

        def visit(name: str) -> int:
            if name in way:
                raise ValueError(" → ".join((*way[way.index(name) :], name)))
            if name not in found:
                way.append(name)
                found[name] = max((visit(one) + 1 for one in sorted(self.inner(name))), default=0)
                way.pop()
            return found[name]

        for name in self.modules:
            visit(name)
        return found

    def wrong_ways(self) -> list[str]:
        """List the imports of what does not stand below."""
        level = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
        return [
            f"{name} imports {one}"
            for name in self.modules
            for one in sorted(self.inner(name))
            if room(name) != room(one) and level[room(one)] >= level[room(name)]
        ]

    def lengths(self) -> dict[str, int]:
        """Count the lines of each module."""
        return {name: len(_read(file).splitlines()) for name, file in self.modules.items()}

    def long_functions(self) -> dict[str, int]:
        """Count the lines of each function that is too long, and has no reason beside it."""
        found = {}
        for name, file in self.modules.items():
            text = _read(file)
            lines = text.splitlines()
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef) and "# long: " not in lines[node.lineno - 1]:
                    size = _length(node)
                    if size > MOST_IN_FUNCTION:
                        found[f"{name}.{node.name}"] = size
        return found

    def faults(self) -> list[str]:
        """List all that breaks a rule, a line each."""
        found = [f"{one}, which does not stand below it" for one in self.wrong_ways()]
        try:
            self.floors()
        except ValueError as error:
            found.append(f"a circle of imports: {error}")
        return found

    def too_long(self) -> list[str]:
        """List all that is longer than is good to read, a line each."""
        found = []
        for name, size in self.lengths().items():
            most = MOST_IN_TASKS if name == "tasks" else MOST_LINES
            if size > most:
                found.append(f"{name} has {size} lines; {most} are allowed")
        return found + [
            f"{name} has {size} lines; {MOST_IN_FUNCTION} are allowed"
            for name, size in self.long_functions().items()
        ]

    def table(self) -> list[tuple[str, ...]]:
        """Make a row for each room: how much is in it, and what it imports."""
        rows = defaultdict(list)
        for name in self.modules:
            rows[room(name)].append(name)
        lengths, floors = self.lengths(), self.floors()
        order = [one for row in LEVELS for one in row]
        return [
            ("ROOM", "MODULES", "LINES", "CODE", "FLOORS", "IMPORTS"),
            *(
                (
                    one,
                    str(len(rows[one])),
                    str(sum(lengths[name] for name in rows[one])),
                    str(sum(_code_lines(_read(self.modules[name])) for name in rows[one])),
                    f"{min(floors[n] for n in rows[one])}-{max(floors[n] for n in rows[one])}",
                    " ".join(self._rooms_below(rows[one], order)),
                )
                for one in order
            ),
        ]

    def _rooms_below(self, names: list[str], order: list[str]) -> list[str]:
        used = {room(inner) for name in names for inner in self.inner(name)} - {room(names[0])}
        return sorted(used, key=order.index)


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _length(node: ast.FunctionDef) -> int:
    """Count the lines of a function without its signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def _code_lines(text: str) -> int:
    """Count the lines that are neither blank nor a comment nor part of a docstring."""
    strings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    return sum(
        1
        for number, line in enumerate(text.splitlines(), 1)
        if number not in strings and line.strip() and not line.lstrip().startswith("#")
    )


def room(name: str) -> str:
    """Name the room of a module: `scripts` for the small reusable ones beside the folders."""
    parts = ["scripts", "words"] if name == "tasks" else name.split(".")
    alone = {one for row in LEVELS for one in row}
    return parts[1] if len(parts) > 1 and parts[1] in alone else parts[0]
