"""Linked worktrees: real ones, and files that only look like one."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from scripts import worktree
from scripts.settings import Mount

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A linked worktree of the repository `main`."""
    git = ("git", "-C", str(tmp_path / "main"), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(("git", "init", "-q", str(tmp_path / "main")), check=True)
    subprocess.run((*git, "commit", "-q", "--allow-empty", "-m", "one"), check=True)
    subprocess.run((*git, "worktree", "add", "-q", str(tmp_path / "linked")), check=True)
    return tmp_path / "linked"


@pytest.mark.parametrize("readonly", [True, False])
def test_linked_worktree(linked: Path, *, readonly: bool) -> None:
    """Needs its repository, and itself where that expects it."""
    repository = linked.parent / "main" / ".git"

    assert worktree.mounts(linked, readonly=readonly) == (
        Mount(repository, str(repository), readonly=readonly),
        Mount(linked, str(linked), readonly=readonly),
    )


def test_other_directories(linked: Path, tmp_path: Path) -> None:
    """Have all that they need."""
    (tmp_path / "plain").mkdir()

    for directory in (tmp_path / "plain", linked.parent / "main"):
        assert worktree.mounts(directory, readonly=False) == ()


@pytest.mark.parametrize("text", ["gitdir: {}", "gitdir: /etc", "", "\0", "gitdir: /nowhere"])
def test_a_hostile_pointer(
    linked: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """Shows nothing, not even another's worktree; that is said."""
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    own = linked.parent / "main/.git/worktrees/linked"
    (hostile / ".git").write_text(text.format(own), encoding="utf-8")

    assert worktree.mounts(hostile, readonly=False) == ()
    assert "git does not work" in caplog.text
