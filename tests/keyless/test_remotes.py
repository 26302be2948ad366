"""Which repositories remotes name, and which of them were there at a directory's first use."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from scripts.keyless import remotes
from scripts.settings.parsing import Mount

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

MINE, PAYROLL = "github.com/me/mine", "github.com/me/payroll"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://github.com/me/mine.git", MINE),
        ("https://x:secret@github.com/me/mine", MINE),
        ("https://GitHub.com/me/my.lib/", "github.com/me/my.lib"),
        ("git@github.com:me/mine.git", MINE),
        ("ssh://git@github.com/me/mine.git", MINE),
        ("https://localhost:8443/me/mine", "localhost:8443/me/mine"),
        ("https://github.com.example/me/mine", "github.com.example/me/mine"),
        ("https://example/github.com/me/mine", None),
        ("https://github.com/me/..", None),
        ("https://github.com/me", None),
        ("https://github.com/me/mine\n", None),
        ("/srv/me/mine.git", None),
        ("ext::sh -c x", None),
    ],
)
def test_repository(url: str, expected: str | None) -> None:
    """Of any host, in any form of an address."""
    assert remotes.repository(url) == expected


def repository(directory: Path, *urls: str) -> Path:
    """Make a repository with one commit, and these remotes."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (
        ("init", "-q"),
        (*who, "commit", "-q", "--allow-empty", "-m", "x"),
        *(("remote", "add", f"r{number}", url) for number, url in enumerate(urls)),
    ):
        directory.mkdir(exist_ok=True, parents=True)
        subprocess.run(("git", "-C", directory, *words), check=True)
    return directory


def add(directory: Path, repository: str) -> None:
    """Have one more remote."""
    words = ("git", "-C", directory, "remote", "add", "new", f"https://{repository}")
    subprocess.run(words, check=True)


class Home:
    """Where directories are used."""

    def __init__(self, project: Project, place: Path) -> None:
        project.environ["XDG_STATE_HOME"] = str(place / "state")
        self.place = place
        self._project = project

    def use(self, directory: Path, *mounts: Mount) -> None:
        """Show a directory to a sandbox."""
        chosen = replace(self._project.load_for_provider(), directory=directory, mounts=mounts)
        remotes.note_first_use(chosen)

    def counts(self, directory: Path) -> tuple[list[str], list[str]]:
        """Tell which repositories count, and which came later."""
        return remotes.sorted_out(self._project.environ, directory)


@pytest.fixture
def home(project: Project, tmp_path: Path) -> Home:
    """An empty one."""
    return Home(project, tmp_path / "home")


def test_the_first_use_counts(home: Home) -> None:
    """Whatever comes later, and also where there was no repository yet."""
    one = repository(home.place / "one", f"https://{MINE}")
    assert home.counts(one) == ([MINE], [])
    home.use(one)
    add(one, PAYROLL)
    home.use(one)
    assert home.counts(one) == ([MINE], [PAYROLL])

    remotes.agree_to_remotes(home._project.environ, one, [PAYROLL])
    assert home.counts(one) == ([MINE, PAYROLL], [])

    (home.place / "empty").mkdir()
    home.use(home.place / "empty")
    repository(home.place / "empty", f"https://{PAYROLL}")
    assert home.counts(home.place / "empty") == ([], [PAYROLL])


@pytest.mark.parametrize("how", ["directory", "mount", "link"])
def test_what_lies_in_a_used_directory_was_used(home: Home, how: str) -> None:
    """A sandbox could have added remotes to it, or made it."""
    inner = repository(home.place / "all" / "inner", f"https://{MINE}")
    outer = home.place / "all"
    if how == "link":
        (home.place / "link").symlink_to(outer)
        home.use(home.place / "link")
    elif how == "mount":
        (home.place / "other").mkdir()
        home.use(home.place / "other", Mount(outer, "/x", readonly=False))
    else:
        home.use(outer)
    add(inner, PAYROLL)

    assert home.counts(inner) == ([], [MINE, PAYROLL])
    home.use(inner)
    assert home.counts(inner) == ([], [MINE, PAYROLL])


def test_a_mount_to_read_is_no_use(home: Home) -> None:
    """Nothing could be added there."""
    one = repository(home.place / "one", f"https://{MINE}")
    (home.place / "other").mkdir()
    home.use(home.place / "other", Mount(one, "/x", readonly=True))
    assert home.counts(one) == ([MINE], [])


def test_a_worktree_and_its_repository_are_one(home: Home) -> None:
    """A sandbox that is shown one has the other's configuration, too."""
    main = repository(home.place / "main", f"https://{MINE}")
    for name in ("a", "b"):
        words = ("git", "-C", main, "worktree", "add", "-q", home.place / name)
        subprocess.run(words, check=True)
    assert home.counts(home.place / "a") == ([MINE], [])
    home.use(home.place / "a")
    add(main, PAYROLL)

    for directory in (home.place / "a", home.place / "b", main):
        assert home.counts(directory) == ([MINE], [PAYROLL])


def test_a_pointer_to_another_repository_opens_nothing(home: Home) -> None:
    """Not even to one whose remotes count where they are."""
    payroll = repository(home.place / "payroll", f"https://{PAYROLL}")
    home.use(payroll)
    one = repository(home.place / "one", f"https://{MINE}")
    home.use(one)
    shutil.rmtree(one / ".git")
    for directory in (one, one / "new"):
        directory.mkdir(exist_ok=True)
        (directory / ".git").write_text(f"gitdir: {payroll}/.git\n")
        assert home.counts(directory) == ([], [PAYROLL])
