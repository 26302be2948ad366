"""Names: their format, and that different things have different ones."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeGuard

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import __version__, naming
from scripts.settings import parsing

DOCKER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
DOCKER_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
paths = st.text(characters, min_size=1).map(lambda text: Path("/", text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("My Project", "my-project", id="words"),
        pytest.param("__a--b..c__", "a-b-c", id="signs"),
        pytest.param("Grüße", "grue", id="accents"),
        pytest.param("日本", "x", id="nothing-left"),
        pytest.param("", "x", id="empty"),
        pytest.param("a" * 30, "a" * 20, id="long"),
        pytest.param("a" * 19 + " b", "a" * 19, id="cut-at-a-dash"),
    ],
)
def test_slug(text: str, expected: str) -> None:
    """Keeps what can be kept."""
    assert naming.slug(text) == expected


@given(text=st.text(), length=st.integers(1, 40))
def test_slug_of_any_text(text: str, length: int) -> None:
    """Begins and ends with a letter or digit, and is not too long."""
    slug = naming.slug(text, length)

    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)
    assert len(slug) <= length


def test_ephemeral_name() -> None:
    """Is made of the time and the process."""
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    assert naming.ephemeral_name(now, 4711) == "nddt-20260102-030405-4711"


def test_persistent_name() -> None:
    """Is made of the directory's name and path."""
    name = naming.persistent_name(Path("/home/me/My Project"))

    assert re.fullmatch(r"nddt-my-project-[0-9a-f]{8}", name)
    assert name == naming.persistent_name(Path("/home/me/My Project"))


def test_persistent_name_without_a_directory() -> None:
    """Is always the same."""
    assert naming.persistent_name(None) == "nddt-workspace"


@given(path=paths)
def test_persistent_name_of_any_directory(path: Path) -> None:
    """Is one that Docker and NDDT_NAME take."""
    name = naming.persistent_name(path)

    assert DOCKER_NAME.fullmatch(name)
    assert parsing.NAME.fullmatch(name)
    assert not name.endswith("-")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("/a/project", "/b/project", id="parent"),
        pytest.param("/a/project", "/a/Project", id="case"),
        pytest.param("/a/日本", "/a/中国", id="same-slug"),
        pytest.param("/", "/x", id="root"),
        pytest.param("/a\udc80", "/a\udc81", id="not-utf-8"),
    ],
)
def test_names_of_different_directories(one: str, other: str) -> None:
    """Differ, even where the slug does not."""
    assert naming.persistent_name(Path(one)) != naming.persistent_name(Path(other))


@given(parts=st.lists(st.text()), others=st.lists(st.text()))
def test_digest_of_different_texts(parts: list[str], others: list[str]) -> None:
    """Differs."""
    same = naming.digest(parts, 64) == naming.digest(others, 64)

    assert same == (parts == others)


@given(text=st.text(min_size=1), cut=st.integers(0, 10))
def test_digest_knows_borders(text: str, cut: int) -> None:
    """Where one text ends and the next begins counts."""
    kinds = {(text,), (text, ""), ("", text), (text[:cut], text[cut:])}

    assert len({naming.digest(parts, 16) for parts in kinds}) == len(kinds)


@pytest.mark.parametrize("length", [1, 8, 16, 64])
def test_digest_has_its_length(length: int) -> None:
    """In hex digits."""
    assert re.fullmatch(rf"[0-9a-f]{{{length}}}", naming.digest(["a"], length))


@pytest.mark.parametrize("version", ["latest", "2.1.330"])
def test_image_tag(version: str) -> None:
    """Is one that Docker takes."""
    tag = naming.image_tag("claude", version, "0123456789")

    assert tag == f"claude-{version}-0123456789"
    assert DOCKER_TAG.fullmatch(tag)


def test_labels() -> None:
    """Are texts, all of them under our name."""
    labels = naming.labels(owner="me@here", workspace="/w", mode="persistent", created=5, pid=7)

    assert labels == {
        "nddt": "persistent",
        "nddt.version": __version__,
        "nddt.owner": "me@here",
        "nddt.workspace": "/w",
        "nddt.created": "5",
        "nddt.pid": "7",
    }


def test_labels_of_a_copy_without_a_network() -> None:
    """Say so."""
    labels = naming.labels(
        owner="", workspace="", mode="", created=5, pid=7, is_synced=True, is_offline=True
    )

    assert (labels["nddt.sync"], labels["nddt.offline"]) == ("true", "true")


def test_labels_of_an_image() -> None:
    """Are the same ones; it belongs to no directory."""
    labels = naming.image_labels("me@here")

    assert (labels["nddt"], labels["nddt.owner"], labels["nddt.workspace"]) == (
        "image",
        "me@here",
        "",
    )


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("17", 17),
        ("", 0),
        ("x", 0),
        ("-1", 0),
        ("\N{ARABIC-INDIC DIGIT ONE}", 0),
        ("1\n", 0),
        ("9" * 10, (1 << 31) - 1),
        ("9" * 5000, 0),
    ],
)
def test_number(label: str, expected: int) -> None:
    """Is one that the system has, whatever somebody has written."""
    assert naming.number(label) == expected


def test_no_message_spells_the_program_by_hand() -> None:
    """`said` does: what stands in one is typed, where `inv` runs the code of the directory."""
    root = Path(naming.__file__).parent
    by_hand = re.compile(r"\binv [a-z{%-]|(?<!&& )\./nddt\b")  # after a cd it is the one there
    for file in root.rglob("*.py"):
        tree = ast.parse(file.read_text())
        docs = {
            ast.get_docstring(one, clean=False) for one in ast.walk(tree) if _has_docstring(one)
        }
        texts = (one.value for one in ast.walk(tree) if isinstance(one, ast.Constant))
        found = [one for one in texts if isinstance(one, str) and by_hand.search(one)]

        assert set(found) <= docs or file.name == "measurements.py", file


def _has_docstring(node: ast.AST) -> TypeGuard[ast.Module | ast.ClassDef | ast.FunctionDef]:
    return isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
