"""More directories: where they can be shown, and where not."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from scripts import plan
from scripts.contracts.agent import Request
from scripts.errors import ConfigError
from scripts.machine import bind_sources
from scripts.workspace import mounts

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import Project

CONVERSATIONS = ".claude/projects/x"


def check(project: Project, value: str, workspace: str = "mount") -> None:
    """Check what the user wants to be shown."""
    loaded = project.load(mounts=value, workspace=workspace)
    want = plan.specification(loaded, (1000, 1000), persistent=False, pid=1)
    mounts.check_mounts(loaded, want, CONVERSATIONS)


@pytest.mark.parametrize(
    ("target", "workspace"),
    [
        ("/shown", "mount"),
        ("/home/nddt/project", "mount"),
        ("/home/nddt/.claudette", "mount"),
        ("/tmp/x", "mount"),
        ("/workspace/sub", "mount"),
        ("/workspace/other", "none"),
        ("/workspaces", "sync"),
    ],
)
def test_good_places(project: Project, target: str, workspace: str) -> None:
    """They are free."""
    (project.directory / "sub").mkdir()

    check(project, f"{project.home}:{target}", workspace)


@pytest.mark.parametrize(
    "target",
    [
        *("/home", "/home/nddt", "/home/nddt/.claude", "/home/nddt/.claude/projects/x/y"),
        *("/home/nddt/.claude/agents", "/tmp", "/tmp/nddt/x", "/dev/shm", "/nddt-git/x"),
    ],
)
def test_places_of_the_sandbox(project: Project, target: str) -> None:
    """What is written there would be written on this machine."""
    with pytest.raises(ConfigError, match=f"at {target}, where the sandbox keeps files") as caught:
        check(project, f"{project.home}:{target}")

    assert caught.value.exit_code == 78
    assert str(caught.value).startswith("nddt: NDDT_MOUNTS (option) shows ")


@pytest.mark.parametrize("workspace", ["mount", "sync"])
def test_a_place_that_would_be_made_here(project: Project, workspace: str) -> None:
    """Neither the engine nor a copy makes one in the user's directory, or in one shown."""
    with pytest.raises(ConfigError, match="/workspace/sub"):
        check(project, f"{project.home}:/workspace/sub", workspace)
    with pytest.raises(ConfigError, match=f"there is no {project.home}/a/b") as caught:
        check(project, f"{project.home}:/x,{project.directory}:/x/a/b")
    assert caught.value.next_step == "make that directory first"
    (project.home / "a/b").mkdir(parents=True)

    check(project, f"{project.home}:/x,{project.directory}:/x/a/b")


@pytest.mark.parametrize("name", ["missing", "file", "closed/in"])
def test_what_is_no_directory(
    project: Project, without_privilege: Callable[[], AbstractContextManager[None]], name: str
) -> None:
    """Nothing, a file, or what one may not look into."""
    (project.home / "file").touch()
    (project.home / "closed/in").mkdir(parents=True)
    (project.home / "closed").chmod(0)
    loaded = project.load(mounts=f"{project.home}/{name}:/x", workspace="none")
    want = plan.specification(loaded, (1000, 1000), persistent=False, pid=1)

    with without_privilege(), pytest.raises(ConfigError, match=f"{name} which is no directory"):
        mounts.check_mounts(loaded, want, CONVERSATIONS)


# -- what the sandbox could exchange ----------------------------------------------------------


@pytest.mark.parametrize("workspace", ["mount", "sync"])
@pytest.mark.parametrize("path", ["data", "data/deep", "out", "../link/data", "../link/out"])
@pytest.mark.parametrize("how", ["", ":ro"])
def test_what_is_in_the_directory(project: Project, path: str, workspace: str, how: str) -> None:
    """Or is named by way of it: the next session could have any directory there."""
    (project.directory / "data/deep").mkdir(parents=True)
    (project.home / "elsewhere").mkdir()
    (project.directory / "out").symlink_to(project.home / "elsewhere")
    (project.directory.parent / "link").symlink_to(project.directory)

    with pytest.raises(ConfigError, match="could put a link to any directory") as caught:
        check(project, f"{project.directory}/{path}:/x{how}", workspace)
    assert caught.value.next_step.startswith("take it away")


def test_what_is_in_a_directory_that_is_only_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cannot be exchanged; nor can the directory itself, shown once more."""
    (project.directory / "data").mkdir()
    check(project, f"{project.directory}:/x")
    monkeypatch.setitem(project.environ, "NDDT_WORKSPACE_READONLY", "true")

    check(project, f"{project.directory}/data:/x")


def test_one_mount_in_another(project: Project) -> None:
    """Is refused where that can be changed."""
    (project.home / "a/b").mkdir(parents=True)

    check(project, f"{project.home}/a:/a:ro,{project.home}/a/b:/b")
    with pytest.raises(ConfigError, match=f"{project.home}/a/b which is in") as caught:
        check(project, f"{project.home}/a:/a,{project.home}/a/b:/b:ro")

    assert f"show {project.home}/a with :ro" in caught.value.next_step


def test_the_directory_in_a_mount(project: Project) -> None:
    """Is no better."""
    above = project.directory.parent
    check(project, f"{above}:/above:ro")
    check(project, f"{above}:/above", workspace="none")

    with pytest.raises(ConfigError, match=f"with {project.directory} in it") as caught:
        check(project, f"{above}:/above")

    assert caught.value.next_step == "add :ro to it"


def git(*words: str | Path) -> None:
    """Run git."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(("git", *identity, *words), check=True, capture_output=True)


def planned(project: Project, directory: Path, **options: str) -> plan.Plan:
    """Plan a session in a directory."""
    there = replace(project, directory=directory)
    loaded = there.load_for_provider(**options)
    return plan.make(
        loaded,
        Request(),
        provider=project.provider,
        terminal=False,
        pid=1,
        command=("true",),
    )


def test_a_worktree_in_its_repository(project: Project) -> None:
    """A bare one: git does not work, rather than that the directory could be exchanged."""
    bare, tree = project.home / "bare.git", project.home / "bare.git/tree"
    git("init", "-q", project.directory)
    git("-C", project.directory, "commit", "-q", "--allow-empty", "-m", "one")
    git("clone", "-q", "--bare", project.directory, bare)
    git("-C", bare, "worktree", "add", "-q", tree)
    git("-C", bare, "worktree", "add", "-q", project.home / "beside")

    inside, beside = planned(project, tree), planned(project, project.home / "beside")

    assert bare not in {one.source for one in inside.sandbox.binds}
    assert "git does not work" in inside.git.warning
    assert bare in {one.source for one in beside.sandbox.binds}
    assert bind_sources.exchangeable(beside.sandbox.binds) is None


def test_a_home_directory_with_the_conversations_in_it(project: Project) -> None:
    """They are copied, where the sandbox could have another directory shown in their place."""
    ordinary, home = planned(project, project.directory), planned(project, project.home)

    assert ordinary.conversations.is_shown
    assert not home.conversations.is_shown
    assert [one.source for one in home.sandbox.binds] == [project.home]


def test_a_state_directory_by_way_of_a_link(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is shown as what it is."""
    (project.home / "real").mkdir()
    (project.home / "state").symlink_to("real")
    monkeypatch.setitem(project.environ, "XDG_STATE_HOME", str(project.home / "state"))

    made = planned(project, project.directory)
    made.prepare()

    bind_sources.check_sources(made.sandbox.binds, "")
    assert made.writable_directories == (project.directory,)
