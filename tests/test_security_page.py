"""SECURITY.md: each promise names the tests that attack it, and they are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [
    line
    for line in PAGE.partition("## What holds")[2]
    .partition("## What does not hold")[0]
    .splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| Promise"))
]


@cache
def _tests(file: str) -> set[str]:
    """Read the names of the tests that `./nddt test` runs."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {
        one.name
        for one in ast.walk(tree)
        if isinstance(one, ast.FunctionDef)
        and "pytest.mark.exhaustive" not in map(ast.unparse, one.decorator_list)
    }


@pytest.mark.parametrize("row", ROWS, ids=[row[2:40] for row in ROWS])
def test_each_promise_is_attacked(row: str) -> None:
    """By tests of these names; `::name` is in the file that was named last."""
    promise, tests = (cell.strip() for cell in row.strip("|").split("|"))
    named = re.findall(r"`([^`]*)::(test_\w+)`", tests)

    assert promise
    assert named
    file = ""
    for one, name in named:
        file = one or file
        assert name in _tests(file), f"{file}::{name}"


def test_there_are_promises() -> None:
    """Else nothing above has been looked at."""
    assert len(ROWS) > 20
