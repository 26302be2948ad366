"""Directories that a sandbox may change: which entries of PATH lead into them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.configuration import reading
from scripts.machine import shown_places
from scripts.workspace import protected


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with a project, links around it, and what this process has of both."""
    for name in ("project/.venv/bin", "project/deep/bin", ".local/bin", "other/bin", "beside/bin"):
        (tmp_path / "home" / name).mkdir(parents=True)
    home = tmp_path / "home"
    (home / "by-link").symlink_to("project")
    (home / "bin").symlink_to("project/.venv/bin")
    (home / "project/out").symlink_to("../beside")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


def left(top: Path, monkeypatch: pytest.MonkeyPatch, *places: str, **options: str) -> list[str]:
    """Load the settings with these places of the home directory on PATH; tell which are left."""
    path = ":".join([*(str(top / one) for one in places), "/usr/bin"])
    monkeypatch.setenv("PATH", path)
    loaded = reading.from_here(**options)
    assert loaded.process_environment["PATH"] == os.environ["PATH"]
    found = os.environ["PATH"].removesuffix("/usr/bin").split(":")[:-1]
    return [os.path.relpath(one, top) for one in found]


def test_what_leads_into_the_directory(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own path, by a link to it or in it, and where nothing is yet; all else stays."""
    monkeypatch.chdir(top / "project")
    places = (".venv/bin", "none/bin", "out/bin", "../by-link/deep/bin", "../bin", ".")
    others = (".local/bin", "beside/bin", "project-of-another-name/bin", "none")

    assert left(top, monkeypatch, *(f"project/{one}" for one in places), *others) == [*others]


def test_the_repository_around_it(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory deep in it has the environment of its root activated."""
    monkeypatch.chdir(top / "project/deep")
    assert left(top, monkeypatch, "project/.venv/bin") == ["project/.venv/bin"]

    (top / "project/.git").write_text("gitdir: /none")

    assert left(top, monkeypatch, "project/.venv/bin", ".local/bin") == [".local/bin"]


def test_a_mount(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can be changed, and from the very command on that shows it."""
    monkeypatch.chdir(top / "project")
    other = f"{top / 'other'}:/other"

    assert left(top, monkeypatch, "other/bin", mounts=f"{other}:ro") == ["other/bin"]
    assert left(top, monkeypatch, "other/bin", "beside/bin", mounts=other) == ["beside/bin"]


def test_what_another_sandbox_was_shown(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later command, wherever it is given, runs nothing of what an earlier one showed."""
    monkeypatch.chdir(top / "beside")
    environ = dict(os.environ)
    with protected.watched(environ, top / "project", (top / "project",)):
        assert left(top, monkeypatch, "project/.venv/bin") == []
    protected.begin(environ, top / "other", (top / "other",), "docker-x")

    assert left(top, monkeypatch, "project/.venv/bin", "other/bin", ".local/bin") == [".local/bin"]


def test_the_home_directory(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of the user's own stay, whatever was agreed to: such a sandbox is none anyway."""
    shown_places.note_shown(os.environ, (top, top.parent, Path("/")))
    for here in (top, top.parent, Path("/")):
        reading._here.cache_clear()
        monkeypatch.chdir(here)
        assert left(top, monkeypatch, ".local/bin", "bin") == [".local/bin", "bin"]


def test_the_last_ones_are_remembered(top: Path) -> None:
    """So many, each once, whatever their names are made of."""
    names = [top / f"{number}\n\udcff" for number in range(shown_places.MOST + 10)]
    for part in (names[:150], names[100:], names[-1:]):
        shown_places.note_shown(os.environ, part)

    assert shown_places._noted(os.environ) == [str(one) for one in names[10:]]


def test_a_file_that_cannot_be_read(top: Path) -> None:
    """Counts as none, and is written anew."""
    file = shown_places._file(os.environ)
    file.parent.mkdir(parents=True)
    for content in ("", "[", "1", "{}"):
        file.write_text(content)
        assert shown_places._noted(os.environ) == []
        shown_places.note_shown(os.environ, (top,))
        assert shown_places._noted(os.environ) == [str(top)]


def test_all_of_path_is_in_it(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the system's own places are left."""
    monkeypatch.chdir(top / "project")
    monkeypatch.setenv("PATH", str(top / "project/.venv/bin"))

    assert reading.from_here().process_environment["PATH"] == os.defpath
