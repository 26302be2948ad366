"""More directories: where they can be shown, and where not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts import mounts, plan
from scripts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.conftest import Project

CONVERSATIONS = ".claude/projects/x"


def check(project: Project, value: str, workspace: str = "mount") -> None:
    """Check what the user wants to be shown."""
    loaded = project.load(mounts=value, workspace=workspace)
    want = plan.specification(loaded, (1000, 1000), persistent=False, pid=1)
    mounts.check(loaded, want, CONVERSATIONS)


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
        mounts.check(loaded, want, CONVERSATIONS)
