"""Files by which programs of this machine can be made to run something: noticed and restored."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from scripts import protected
from scripts.errors import DataError
from scripts.providers import Specification
from scripts.settings import Mount

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

HOOK = ".git/hooks/pre-commit"


@dataclass(frozen=True)
class Project:
    """A directory with a repository, and the state that belongs to it."""

    directory: Path
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file as the sandbox could."""
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def read(self, path: str) -> str | None:
        """Give a file's text; None if there is none."""
        file = self.directory / path
        return file.read_text() if file.exists() else None

    def git(self, *words: str) -> None:
        """Run git there."""
        subprocess.run(("git", *words), cwd=self.directory, check=True, capture_output=True)

    def watched(self, *, goes_on: bool = False) -> AbstractContextManager[None]:
        """Have a session there."""
        return protected.watched(self.environ, self.directory, (self.directory,), lambda _: goes_on)

    def changed(self) -> list[str]:
        """Give what has been recorded, in words."""
        return [str(one) for one in protected.recorded(self.environ, self.directory)]

    def restore(self) -> int:
        """Undo it."""
        return protected.restore(self.environ, self.directory)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A new repository with an .envrc."""
    made = Project(tmp_path / "project", {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": "/x"})
    made.directory.mkdir()
    made.git("init", "-q")
    made.write(".envrc", "export A=1\n")
    return made


PATHS = (
    *(HOOK, ".git/config", ".git/config.worktree", ".git/info/attributes", ".envrc", ".mcp.json"),
    *(".vscode/tasks.json", "x.code-workspace", ".idea/runConfigurations/x.xml", ".husky/x"),
    *(".claude/settings.json", ".claude/settings.local.json", ".claude/hooks/x", ".npmrc"),
    *(".git/modules/a/config", ".git/modules/libs/b/hooks/pre-commit", "deep/er/.git/config"),
    *("deep/er/.envrc", "deep/.vscode/settings.json", ".git/worktrees/w/gitdir"),
)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_added_changed_or_removed(
    project: Project, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Each is noticed, told of with the way to undo it, and undone."""
    original = project.read(path)
    with project.watched():
        project.write(path, "[core]\n\tfsmonitor = evil\n", 0o755)
    verb = "added" if original is None else "changed"
    assert project.changed() == [f"{path} ({verb})"]
    assert f"{path} ({verb}) — inv protected shows it" in caplog.text

    assert project.restore() == 1

    assert project.read(path) == original
    assert project.changed() == []
    project.write(path, "mine", 0o600)
    with project.watched():
        (project.directory / path).unlink()
    assert project.changed() == [f"{path} (removed)"]
    project.restore()
    assert project.read(path) == "mine"
    assert (project.directory / path).stat().st_mode & 0o777 == 0o600


def test_ordinary_work_is_not_told_of(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Files, commits, branches, new remotes, and the samples of hooks."""
    with project.watched():
        project.write("Makefile", "all:\n")
        project.write(f"{HOOK}.sample", "x")
        project.write("node_modules/x/.envrc", "x")
        project.git("add", "Makefile")
        project.git("-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "x")
        project.git("remote", "add", "origin", "https://host.example/x")
        project.git("branch", "other")
        project.git("config", "branch.other.remote", "origin")
        project.git("config", "branch.other.merge", "refs/heads/other")

    assert (project.changed(), caplog.text) == ([], "")


@pytest.mark.parametrize(
    "words",
    [
        ("core.fsmonitor", "evil"),
        ("core.hooksPath", "evil"),
        ("include.path", "evil"),
        ("alias.st", "!evil"),
        ("remote.origin.url", "https://evil.example"),
        ("remote.new.uploadpack", "evil"),
        ("remote.new.url", "ext::evil"),
        ("branch.main.remote", "ext::evil"),
        ("filter.x.clean", "evil"),
    ],
)
def test_what_git_would_run(project: Project, words: tuple[str, str]) -> None:
    """Is told of, also beside what is not."""
    project.git("remote", "add", "origin", "https://host.example/x")
    with project.watched():
        project.git("config", *words)
        project.git("config", "branch.other.merge", "refs/heads/other")

    assert project.changed() == [".git/config (changed)"]


def test_links_are_not_followed(project: Project, tmp_path: Path) -> None:
    """A link in the place of a directory is one, and nothing is read or written through it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "tasks.json").write_text("of this machine")
    project.write(".vscode/tasks.json", "mine")
    with project.watched():
        (project.directory / ".vscode/tasks.json").unlink()
        (project.directory / ".vscode").rmdir()
        (project.directory / ".vscode").symlink_to(outside)
        (project.directory / ".envrc").unlink()
        (project.directory / ".envrc").symlink_to(outside / "tasks.json")
        os.mkfifo(project.directory / ".npmrc")
    assert project.changed() == [
        ".envrc (changed)",
        ".npmrc (added)",
        ".vscode (added)",
        ".vscode/tasks.json (removed)",
    ]

    assert project.restore() == 4

    assert project.read(".vscode/tasks.json") == "mine"
    assert project.read(".envrc") == "export A=1\n"
    assert not (project.directory / ".vscode").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["tasks.json"]
    assert (outside / "tasks.json").read_text() == "of this machine"


def test_names_and_contents_are_shown_as_they_are(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """What would move the cursor or end a line does not."""
    with project.watched():
        project.write(".husky/\x1b[2J\nnddt: all is well", "\x1b]0;owned\x07\r\n")
        project.write(".envrc", "export A=2\n")

    (change, evil) = protected.recorded(project.environ, project.directory)
    lines = [*protected.difference(change), *protected.difference(evil)]
    shown = "\n".join((caplog.messages[0], *lines))
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert ".husky/\\x1b[2J\\nnddt: all is well (added)" in shown
    assert "-export A=1\n+export A=2" in shown


def test_what_is_found_anew_is_told_once(project: Project) -> None:
    """Over several sessions, the first state is the one to go back to."""
    for text in ("one", "two"):
        with project.watched():
            project.write(".envrc", text)
    with project.watched():
        pass
    assert project.changed() == [".envrc (changed)"]

    project.restore()

    assert project.read(".envrc") == "export A=1\n"


def test_what_has_changed_once_more_is_left(project: Project) -> None:
    """It may be the user's own work."""
    with project.watched():
        project.write(".envrc", "evil")
        project.write(HOOK, "evil")
    project.write(".envrc", "mine")

    with pytest.raises(DataError, match="1 of 2 files could not be restored"):
        project.restore()

    assert project.read(".envrc") == "mine"
    assert project.read(HOOK) is None
    assert project.changed() == [".envrc (changed)"]
    protected.accept(project.environ, project.directory)
    assert project.changed() == []


def test_a_session_that_is_killed_or_goes_on_is_told_of_by_the_next(project: Project) -> None:
    """With the state before it, and if that was nothing."""
    (project.directory / ".envrc").unlink()
    shutil.rmtree(project.directory / ".git")
    with project.watched(goes_on=True):
        pass
    project.write(HOOK, "evil")

    with project.watched():
        pass

    assert project.changed() == [f"{HOOK} (added)"]
    assert not list(project.directory.parent.glob("state/nddt/protected/*/before*"))


def test_what_goes_on_is_not_forgotten_by_what_is_short(project: Project) -> None:
    """A copy meanwhile leaves the session's state as it is."""
    with project.watched(goes_on=True):
        pass
    with protected.watched(project.environ, project.directory, (project.directory,)):
        pass
    project.write(HOOK, "evil")

    with project.watched():
        pass

    assert project.changed() == [f"{HOOK} (added)"]


def test_a_yes_is_about_what_is_shown(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an earlier session has changed, and was left, stays."""
    with project.watched():
        project.write(".envrc", "export B=2\n")
    monkeypatch.setattr("scripts.console.can_ask", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with project.watched():
        project.write(HOOK, "evil")

    assert "Restore them?" in capsys.readouterr().err
    assert project.read(HOOK) is None
    assert project.read(".envrc") == "export B=2\n"
    assert project.changed() == [".envrc (changed)"]


def test_every_way_out(project: Project) -> None:
    """An error is passed on, and told of all the same."""

    def session() -> None:
        with project.watched():
            project.write(HOOK, "evil")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session()

    assert project.changed() == [f"{HOOK} (added)"]


def test_what_is_remembered_is_private(project: Project) -> None:
    """Such files may hold tokens."""
    with project.watched():
        project.write(".npmrc", "token")

    (place,) = (project.directory.parent / "state/nddt/protected").iterdir()
    assert place.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in place.iterdir()] == [0o600]


def test_a_large_file(project: Project) -> None:
    """Is told of, and not restored."""
    project.write(".envrc", "x" * (protected.LIMIT + 1))
    with project.watched():
        project.write(".envrc", "y" * (protected.LIMIT + 1))

    with pytest.raises(DataError, match="1 of 1 files"):
        project.restore()


def test_hooks_are_covered(project: Project) -> None:
    """Of the directory's repository, and of one that is shown itself; not through a link."""
    hooks = project.directory / ".git/hooks"
    own = Mount(project.directory / ".git", "/x/.git")
    want = Specification(
        name="x",
        persistent=False,
        workspace=project.directory,
        mounts=(own,),
        user="root",
        labels={},
    )
    expected = [
        Mount(hooks, "/x/.git/hooks", readonly=True),
        Mount(hooks, "/workspace/.git/hooks", readonly=True),
    ]

    assert list(protected.covers(want)) == expected
    assert protected.covers(replace(want, is_readonly=True, mounts=())) == ()
    assert protected.covers(replace(want, is_synced=True, mounts=())) == ()
    taken = Mount(project.directory, "/workspace/.git/hooks")
    assert list(protected.covers(replace(want, mounts=(taken,)))) == [
        Mount(hooks, "/workspace/.git/hooks/.git/hooks", readonly=True)
    ]
    hooks.rename(project.directory / "hooks")
    hooks.symlink_to("../hooks")
    assert protected.covers(replace(want, mounts=())) == ()


def test_only_the_nearest_directories_are_looked_at(project: Project) -> None:
    """It has to be quick in any directory."""
    for number in range(protected.DIRECTORIES):
        project.write(f"d{number:04}/e/.envrc", "x")

    found = [path for _, path in protected.look((project.directory,)) if path.endswith(".envrc")]

    assert found == [".envrc"]
