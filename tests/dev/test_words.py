"""The words of docstrings and of functions: verbs that say what is done, and to what."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
EMPTY = re.compile(r'"""Gives? (?!up )|\bSee (there|above)\b')
"""What says nothing: to give is what each function does."""
MOST_OF_A_NAME = 3
"""Modules in which a search for a function's name may find one."""
PROTOCOLS = {"agents", "providers", "words"}
"""Rooms whose modules answer the same questions by the same names."""
ACTS = {"ask", "confirm", "sleep", "wait", "unlink", "rmtree", "rmdir", "write", "terminate"}
"""Calls of functions that do more than look."""


def test_each_docstring_says_what_is_done() -> None:
    """By a verb that shows the cost: read, build, ask, look up, make, start, name, list."""
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in (*ROOT.glob("scripts/**/*.py"), ROOT / "tasks.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if EMPTY.search(line)
    ]

    assert found == []


def _trees() -> dict[Path, ast.Module]:
    files = (ROOT / "scripts").rglob("*.py")
    return {one.relative_to(ROOT / "scripts"): ast.parse(one.read_text("utf-8")) for one in files}


def test_a_search_for_a_function_finds_it() -> None:
    """Among few: what it is done to is in its name."""
    found = defaultdict(list)
    for file, tree in _trees().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and file.parts[0] not in PROTOCOLS:
                found[node.name].append(str(file))

    shared = {name: files for name, files in found.items() if len(files) > MOST_OF_A_NAME}
    public = {name for name in shared if not name.startswith("_")}
    assert public <= {"main"}, shared


def test_a_question_only_looks() -> None:
    """`is_…` and `has_…` wait for nobody, ask nobody and change nothing."""
    found = []
    for file, tree in _trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or not re.match(r"_?(is|has)_", node.name):
                continue
            calls = (one.func for one in ast.walk(node) if isinstance(one, ast.Call))
            names = {
                one.attr if isinstance(one, ast.Attribute) else ast.unparse(one) for one in calls
            }
            found += (
                [f"{file}: {node.name} calls {', '.join(wrong)}"] if (wrong := names & ACTS) else []
            )

    assert found == []
