"""Linked worktrees and submodules: real ones, and files that only look like one."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.errors import ConfigError
from scripts.machine import bind_sources
from scripts.settings.parsing import Mount
from scripts.workspace import git_links

if TYPE_CHECKING:
    from tests.conftest import Project

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")


def git(*words: str | Path) -> None:
    """Run git."""
    subprocess.run((*GIT, *words), check=True, capture_output=True)


@dataclass(frozen=True)
class Repositories:
    """The repository `main` with the submodule libs/sub, that with `inner`, and a worktree."""

    top: Path
    project: Project

    @property
    def main(self) -> Path:
        """The repository."""
        return self.top / "main"

    @property
    def linked(self) -> Path:
        """Its linked worktree."""
        return self.top / "linked"

    def find(self, directory: Path, **options: str | bool) -> git_links.Links:
        """Ask what git needs in a directory."""
        self.project.environ.setdefault("XDG_STATE_HOME", str(self.top / "state"))
        options.setdefault("workspace", "mount")
        loaded = type(self.project)(
            directory=directory, home=self.project.home, environ=self.project.environ
        ).load(**options)
        return git_links.find_git_links(loaded)


@pytest.fixture
def made(tmp_path: Path, project: Project) -> Repositories:
    """Have them."""
    for name, other, place in (
        ("leaf", "", ""),
        ("lib", "leaf", "inner"),
        ("main", "lib", "libs/sub"),
    ):
        git("init", "-q", tmp_path / name)
        if other:
            git("-C", tmp_path / name, "submodule", "add", tmp_path / other, place)
            git("-C", tmp_path / name, "submodule", "update", "--init", "--recursive")
        git("-C", tmp_path / name, "commit", "-q", "--allow-empty", "-m", "one")
    git("-C", tmp_path / "main", "worktree", "add", "-q", tmp_path / "linked")
    return Repositories(tmp_path, project)


@pytest.mark.parametrize("readonly", [True, False])
def test_a_linked_worktree(made: Repositories, *, readonly: bool) -> None:
    """Needs its repository, and itself where that expects it."""
    repository = made.main / ".git"

    assert made.find(made.linked, readonly=readonly) == git_links.Links(
        mounts=(
            Mount(repository, str(repository), readonly=readonly),
            Mount(made.linked, str(made.linked), readonly=readonly),
        )
    )


@pytest.mark.parametrize("readonly", [True, False])
def test_a_submodule(made: Repositories, *, readonly: bool) -> None:
    """Needs its git directory alone, and files that lead there, also for its own submodules."""
    own = made.main / ".git/modules/libs/sub"

    found = made.find(made.main / "libs/sub", readonly=readonly)
    found.prepare()
    found.prepare()

    top, shown, *covers = found.mounts
    assert (top.target, top.readonly) == ("/nddt-git", True)
    assert shown == Mount(own, "/nddt-git/.git/modules/libs/sub", readonly=readonly)
    assert {one.target: one.source.read_text() for one in covers} == {
        "/workspace/.git": f"gitdir: {shown.target}\n",
        "/workspace/inner/.git": f"gitdir: {shown.target}/modules/inner\n",
    }
    assert all(one.readonly for one in covers)
    assert (top.source / "libs/sub").readlink() == Path("/workspace")
    assert (top.source / ".git/modules/libs/sub").is_dir()


def test_worktrees_and_submodules(made: Repositories) -> None:
    """A worktree of a submodule, a submodule in a worktree, and a worktree with one."""
    sub = made.main / "libs/sub"
    git("-C", sub, "worktree", "add", "-q", made.top / "other")
    git("-C", made.linked, "submodule", "update", "--init")
    own = made.main / ".git/worktrees/linked"

    of_a_submodule = made.find(made.top / "other").mounts
    in_a_worktree = made.find(made.linked / "libs/sub").mounts
    with_one = made.find(made.linked).mounts

    repository = made.main / ".git/modules/libs/sub"
    assert {one.target for one in of_a_submodule} == {str(repository), str(made.top / "other")}
    place = "/nddt-git/main/.git/worktrees/linked"
    assert Mount(own / "modules/libs/sub", f"{place}/modules/libs/sub") in in_a_worktree
    assert Mount(made.main / ".git", "/nddt-git/main/.git") in with_one
    assert bind_sources.exchangeable(with_one) is None
    assert {"/workspace/libs/sub/.git", str(made.linked)} <= {one.target for one in with_one}


def test_directories_that_have_all(made: Repositories, tmp_path: Path) -> None:
    """Nothing else is shown."""
    plain = tmp_path / "plain"
    git("init", "-q", "--separate-git-dir", tmp_path / "inside/real", tmp_path / "inside")
    (tmp_path / "inside/.git").write_text("gitdir: real\n", encoding="utf-8")
    plain.mkdir()

    for directory in (plain, made.main, tmp_path / "inside"):
        for workspace in ("mount", "sync"):
            assert made.find(directory, workspace=workspace) == git_links.Links(), directory
    assert made.find(made.linked, workspace="none") == git_links.Links()


def test_a_copy(made: Repositories) -> None:
    """Has no repository of a worktree's, which is said."""
    for directory in (made.linked, made.main / "libs/sub"):
        found = made.find(directory, workspace="sync")
        assert found.mounts == ()
        assert f"the repository of {directory} is elsewhere and not copied" in found.warning


@pytest.mark.parametrize(
    "text",
    [
        *("gitdir: {worktree}", "gitdir: {module}", "gitdir: ../main/.git/modules/libs/sub"),
        *("gitdir: ../main/.git", "gitdir: loop", "gitdir: link", "gitdir: via/modules/libs/sub"),
        *("gitdir: /etc", "", "\0", "gitdir: /nowhere", "\udcff"),
    ],
)
def test_a_hostile_pointer(made: Repositories, text: str) -> None:
    """Shows nothing, not even another's worktree or submodule; that is said."""
    hostile = made.top / "hostile"
    hostile.mkdir()
    module = made.main / ".git/modules/libs/sub"
    (hostile / "loop").symlink_to("loop")
    (hostile / "link").symlink_to(module)
    (hostile / "via").symlink_to(made.main / ".git")
    written = text.format(worktree=made.main / ".git/worktrees/linked", module=module)
    (hostile / ".git").write_text(written, encoding="utf-8", errors="surrogateescape")

    found = made.find(hostile)

    assert found.mounts == ()
    assert "not shown, so git does not work" in found.warning


@pytest.mark.parametrize("tree", ["/etc", "../../../../../victim", "../../../../libs/sub/.", ""])
def test_a_hostile_git_directory(made: Repositories, tree: str) -> None:
    """Does not lead back, or in a way that leads elsewhere in a sandbox."""
    config = made.main / ".git/modules/libs/sub/config"
    git("config", "--file", config, "core.worktree", tree)

    assert made.find(made.main / "libs/sub").mounts == ()


def test_a_module_that_is_another_directory(made: Repositories) -> None:
    """A link in place of a git directory, or of what is below it, leads nowhere."""
    (made.top / "secret").mkdir()
    (made.main / ".git/modules/libs/sub").rename(made.top / "real")
    (made.main / ".git/modules/libs/sub").symlink_to(made.top / "real")
    assert made.find(made.main / "libs/sub").mounts == ()
    (made.main / ".git/modules/libs/sub").unlink()
    (made.top / "real").rename(made.main / ".git/modules/libs/sub")
    inner = made.main / ".git/modules/libs/sub/modules/inner"
    inner.rename(made.top / "real")
    inner.symlink_to(made.top / "real")

    targets = {one.target for one in made.find(made.main / "libs/sub").mounts}

    assert "/workspace/.git" in targets
    assert "/workspace/inner/.git" not in targets


def test_more_submodules_than_are_looked_at(
    made: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Are told of; those that are found work."""
    directory = made.main / "libs/sub"
    assert made.find(directory).warning == ""

    monkeypatch.setattr(git_links, "MODULES", 1)
    found = made.find(directory)

    assert "git does not work in all submodules: " in found.warning
    assert found.warning.endswith(" has more than 1 directories")
    assert found.mounts


def test_what_cannot_be_prepared(made: Repositories) -> None:
    """Says what to do."""
    (made.top / "state").write_text("no directory")

    with pytest.raises(ConfigError, match="cannot be made") as caught:
        made.find(made.main / "libs/sub").prepare()
    assert "XDG_STATE_HOME" in caught.value.next_step
