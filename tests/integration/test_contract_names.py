"""Names that mean harm: of directories, branches, remotes and labels. Nothing of them is run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER

if TYPE_CHECKING:
    from tests.integration.contract import Caller, Outside

DIRECTORY = "$(touch ran)`touch ran`;touch ran\n'\"\x1b]0;owned\x07,target=etc:ro"
BRANCH = "$(touch${IFS}ran);touch${IFS}ran|`touch${IFS}ran`'\"&"
REMOTE = "https://github.com/a/$(touch ran);touch ran"


def git(directory: Path, *words: str) -> None:
    """Do something in a repository."""
    subprocess.run(("git", *words), cwd=directory, check=True, capture_output=True)


@pytest.fixture
def hostile(nddt: Caller) -> Caller:
    """Somebody in a repository with such names."""
    directory = nddt.directory / DIRECTORY
    directory.mkdir()
    git(directory, "init", "--quiet", "--initial-branch", BRANCH)
    git(directory, "remote", "add", "origin", REMOTE)
    git(directory, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-mx")
    git(directory, "tag", BRANCH)
    return nddt.to(directory)


@pytest.mark.parametrize("how", ["mount", "sync"])
@pytest.mark.parametrize("persistent", ["false", "true"])
def test_a_repository(hostile: Caller, outside: Outside, how: str, persistent: str) -> None:
    """Its names arrive as they are, wherever they are used; a terminal obeys none of them."""
    if (hostile.provider, how) == ("daytona", "mount"):
        pytest.skip("Daytona cannot see a directory of this machine")
    settings = {"NDDT_WORKSPACE": how, "NDDT_PERSISTENT": persistent}
    caller = hostile.having(**settings, GH_TOKEN="gh-test-token", NDDT_MODEL_ACCESS="tunnel")
    look = "git branch --show-current; git remote get-url origin; echo new >new; ls"

    done = caller("shell", "--verbose", "--command", look)
    listed = caller("list")

    assert (done.code, done.lines) == (0, [BRANCH, REMOTE, "new"]), done.said
    assert (caller.directory / "new").read_text() == "new\n"
    if persistent == "true":
        assert r"\x1b]0;owned\x07" in listed.stdout.decode()
        assert caller("cleanup", "--name", *outside.sandboxes(), "--yes").code == 0
    assert "\x1b" not in done.said + listed.stdout.decode() + listed.said
    home = Path(caller.environ["HOME"])
    for place in (hostile.directory, hostile.directory.parent, home, Path.cwd()):
        assert not (place / "ran").exists()


@ON_DOCKER
def test_a_label(nddt: Caller) -> None:
    """Of somebody else's container, which says that it is one of nddt's."""
    words = "\x1b]0;owned\x07\nnddt: all is well"
    labels = {"nddt": "persistent", "nddt.owner": words, "nddt.workspace": words}
    arguments = [word for item in labels.items() for word in ("--label", "=".join(item))]
    built = nddt("docker.build-image")
    assert built.code == 0, built.said
    made = subprocess.run(
        ("docker", "create", *arguments, built.lines[-1]),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    try:
        listed = nddt("list", "--all-owners")
        refused = nddt("cleanup", "--all", "--yes")
        kept = subprocess.run(("docker", "inspect", made), check=False, capture_output=True)
    finally:
        subprocess.run(("docker", "rm", made), check=True, capture_output=True)

    assert listed.code == 0, listed.said
    shown = listed.stdout.decode()
    assert r"\x1b]0;owned\x07\nnddt: all is well" in shown
    assert "\x1b" not in shown + listed.said + refused.said
    assert kept.returncode == 0
