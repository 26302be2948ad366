"""Where things are in a sandbox is said once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts import sandbox_places

ROOT = Path(__file__).parents[1]
TEXTS = {"scripts/settings/fields.py": "explanations of settings"}
"""File → why it has the directory's name all the same."""


def written(path: Path) -> list[str]:
    """List the strings of a module, also the parts of longer ones, but for docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone
    ]


def test_no_other_module_names_the_directory() -> None:
    """But where a sentence for people does."""
    modules = {str(path.relative_to(ROOT)): path for path in ROOT.glob("scripts/**/*.py")}
    found = {
        name
        for name, path in modules.items()
        if any(sandbox_places.WORKSPACE in text for text in written(path))
    }

    assert found == {"scripts/sandbox_places.py", *TEXTS}


def test_the_dockerfile_makes_them() -> None:
    """The directory, and the user with a home."""
    text = (ROOT / "dockerfiles/sandbox.Dockerfile").read_text(encoding="utf-8")

    assert f"mkdir -p {sandbox_places.WORKSPACE};" in text
    assert f"WORKDIR {sandbox_places.WORKSPACE}\n" in text
    place = sandbox_places.home(sandbox_places.USER)
    assert f"--home-dir {place} --create-home --shell /bin/bash {sandbox_places.USER};" in text


@pytest.mark.parametrize(("user", "place"), [("root", "/root"), ("nddt", "/home/nddt")])
def test_home(user: str, place: str) -> None:
    """Of root it is elsewhere."""
    assert sandbox_places.home(user) == place
