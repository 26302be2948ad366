"""Git in directories whose repository is elsewhere, and in a directory that cannot be changed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.contract import Caller
    from tests.scripted_model import ScriptedModel

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
COMMIT = "git -c user.name=b -c user.email=b@c commit -qm"


def git(directory: Path, *words: str | Path) -> str:
    """Run git on this machine."""
    argv = (*GIT, "-C", directory, *words)
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def main(nddt: Caller) -> Path:
    """A repository with a submodule that has one, too, and a linked worktree of it, `linked`."""
    top = nddt.directory
    for name, other, place in (("leaf", "", ""), ("lib", "leaf", "in"), ("main", "lib", "a/sub")):
        (top / name).mkdir()
        git(top / name, "init", "-q")
        if other:
            git(top / name, "submodule", "add", top / other, place)
            git(top / name, "submodule", "update", "--init", "--recursive")
        git(top / name, "commit", "-q", "--allow-empty", "-m", "one")
    git(top / "main", "worktree", "add", "-q", top / "linked")
    git(top / "linked", "submodule", "update", "--init", "--recursive")
    return top / "main"


def check_commit(caller: Caller, directory: Path) -> None:
    """Check that git sees what is there, and that what is committed inside is committed here."""
    work = (
        "git status --short; git submodule status >/dev/null; mkdir d; cd d; echo 2 >two; "
        f"git add two && {COMMIT} two; git rev-parse --show-toplevel; git status --short"
    )

    done = caller.to(directory)("shell", "--command", work)

    assert (done.code, done.stdout, done.said) == (0, b"/workspace\n", "")
    assert git(directory, "log", "--format=%s", "-1", "--stat") == (
        "two\n\n d/two | 1 +\n 1 file changed, 1 insertion(+)\n"
    )
    assert git(directory, "status", "--short") == ""


@ON_DOCKER
def test_a_linked_worktree(nddt: Caller, main: Path) -> None:
    """Git works in it, and does not take it for one that is gone."""
    linked = nddt.directory / "linked"
    check_commit(nddt, linked)
    prune = "git worktree prune --expire now; git worktree list | wc -l"

    done = nddt.to(linked)("shell", "--command", prune)

    assert (done.code, done.stdout, done.said) == (0, b"2\n", "")
    assert len(git(main, "worktree", "list").splitlines()) == 2


@ON_DOCKER
def test_submodules(nddt: Caller, main: Path) -> None:
    """Git works in a directory with some, in one, and in those that it has."""
    for directory in (main, main / "a/sub", main / "a/sub/in"):
        check_commit(nddt, directory)
    kept = nddt.having(NDDT_PERSISTENT="true").to(main / "a/sub")
    work = f"cd in; echo 3 >three; git add three; {COMMIT} three; cd ..; git status --short"
    for command, shown in ((work, b" M in\n"), ("git -C in log --format=%s -1", b"three\n")):
        done = kept("shell", "--command", command)
        assert (done.code, done.stdout) == (0, shown), done.said
        assert kept(kept.task("stop")).code == 0
    assert kept("cleanup", "--yes").code == 0
    assert git(main / "a/sub/in", "log", "--format=%s", "-1") == "three\n"


@ON_DOCKER
def test_worktrees_and_submodules(nddt: Caller, main: Path) -> None:
    """A worktree of a submodule, a submodule in a worktree, and the submodules of that."""
    git(main / "a/sub", "worktree", "add", "-q", nddt.directory / "other")

    for name in ("other", "linked/a/sub", "linked/a/sub/in"):
        check_commit(nddt, nddt.directory / name)
    inside = "cd a/sub; git rev-parse --show-toplevel; git status --short"
    done = nddt.to(nddt.directory / "linked")("shell", "--command", inside)
    assert (done.code, done.stdout) == (0, b"/workspace/a/sub\n M in\n"), done.said


@ON_DOCKER
def test_git_in_what_cannot_be_changed(nddt: Caller, main: Path) -> None:
    """It shows what is there, and commits nothing."""
    for directory in (main, nddt.directory / "linked", main / "a/sub"):
        (directory / "new").touch()
        before = git(directory, "rev-parse", "HEAD")
        caller = nddt.to(directory).having(NDDT_WORKSPACE_READONLY="true")

        done = caller("shell", "--command", f"git status --short; {COMMIT} x --allow-empty")

        assert done.stdout == b"?? new\n", done.said
        assert done.code != 0
        assert "Read-only" in done.said
        assert git(directory, "rev-parse", "HEAD") == before


@ON_DOCKER
def test_a_conversation_about_what_cannot_be_changed(
    nddt: Caller, model: Callable[..., ScriptedModel]
) -> None:
    """It is kept, and goes on."""
    scripted = model()
    caller = nddt.having(NDDT_WORKSPACE_READONLY="true", ANTHROPIC_BASE_URL=scripted.url)

    first = caller("run", "--prompt", "My number is 4711.")
    second = caller("run", "--prompt", "What is it?", "--continue")

    assert (first.code, second.code) == (0, 0), first.said + second.said
    assert "My number is 4711." in str(scripted.conversation[-1].body["messages"])
    assert list(nddt.directory.iterdir()) == []


def test_a_hostile_pointer(nddt: Caller, main: Path) -> None:
    """Shows nothing of another's repository, and says that git does not work."""
    hostile = nddt.directory / "hostile"
    hostile.mkdir()
    (hostile / ".git").write_text(f"gitdir: {main}/.git/modules/a/sub\n", encoding="utf-8")
    workspace = "mount" if nddt.provider == "docker" else "sync"
    caller = nddt.to(hostile).having(NDDT_WORKSPACE=workspace)

    done = caller("shell", "--command", f"git status; ls -d {main} /nddt-git")

    assert done.code == 2, done.said
    assert done.stdout == b""
    assert "so git does not work in the sandbox" in done.said.splitlines()[0]


@pytest.mark.parametrize("name", ["linked", "main/a/sub"])
def test_a_copy_without_its_repository(nddt: Caller, main: Path, name: str) -> None:
    """Files come and go, git does not work, which is said once, and nothing of it is changed."""
    directory = main.parent / name
    pointer = (directory / ".git").read_text()
    (directory / "old").write_text("old")
    state = nddt.directory.parent.parent / "home" / "state"
    caller = nddt.to(directory).having(NDDT_WORKSPACE="sync", XDG_STATE_HOME=str(state))

    done = caller("shell", "--command", "cat old; echo new >new; git status")

    assert (done.code, done.stdout) == (128, b"old"), done.said
    assert done.said.count("elsewhere and not copied, so git does not work in the sandbox") == 1
    assert (directory / ".git").read_text() == pointer
    assert git(directory, "status", "--short") == "?? new\n?? old\n"


def test_a_copy_with_submodules(nddt: Caller, main: Path) -> None:
    """Git works in them, and commits come back."""
    state = nddt.directory.parent.parent / "home" / "state"
    caller = nddt.to(main).having(NDDT_WORKSPACE="sync", XDG_STATE_HOME=str(state))
    work = f"cd a/sub; echo 2 >two; git add two; {COMMIT} two; cd ../..; git status --short"

    done = caller("shell", "--command", work)

    assert (done.code, done.stdout) == (0, b" M a/sub\n"), done.said
    assert "git does not work" not in done.said
    assert git(main / "a/sub", "log", "--format=%s", "-1") == "two\n"
    assert git(main, "status", "--short") == " M a/sub\n"
