"""Files by which programs of this machine can be made to run something: noticed and restored."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts import naming
from scripts.errors import DataError
from scripts.workspace import (
    acted_on,
    change_records,
    changed_files,
    findings,
    protected,
    restoring,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

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
        sandbox = "docker-x" if goes_on else ""
        return protected.watched(self.environ, self.directory, (self.directory,), sandbox)

    def check(self) -> None:
        """Type any command there."""
        protected.tell_of_changes(self.environ, self.directory)

    def changed(self) -> list[str]:
        """Give what has been recorded, in words."""
        return [str(one) for one in change_records.recorded(self.environ, self.directory)]

    def restore(self) -> int:
        """Undo it."""
        return restoring.restore(self.environ, self.directory)


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
    *(".git/modules/a/b/c/d/config", ".git/modules/a/modules/b/modules/c/hooks/pre-push"),
    *(".git/rebase-merge/git-rebase-todo", ".git/worktrees/w/rebase-merge/git-rebase-todo"),
    *(".git/sequencer/todo", ".git/hooks/sub/x", ".husky/_/h", "lefthook-local.yml"),
    *("lefthook.toml", ".lefthook-local.json", ".config/lefthook.yml", ".config/mise/config.toml"),
    *("mise.local.toml", ".mise/tasks/x", ".tool-versions", ".python-version"),
    *(".helix/languages.toml", ".idea/workspace.xml", ".idea/watcherTasks.xml", ".run/x.run.xml"),
    *(".claude/commands/x.md", ".claude/agents/a/x.md", ".claude/skills/a/b/SKILL.md", "CLAUDE.md"),
    *(".claude/hooks/a/x", ".opencode/plugin/x.ts", ".roo/mcp.json", ".kiro/hooks/x"),
    *(".aider.conf.yml", ".cargo/config.toml", ".dir-locals-2.el", ".lvimrc", ".Rprofile"),
    *(".gdbinit", ".pdbrc", ".ghci", ".irbrc", ".pylintrc", ".pnpmfile.cjs", ".hg/hgrc"),
    *(".jj/repo/config.toml", ".simple-git-hooks.json", ".overcommit.yml", ".eslintrc.cjs"),
    *(".yarn/releases/yarn.cjs", "rust-toolchain.toml", "sitecustomize.py", ".ssh/authorized_keys"),
    *("tasks.py", "tasks/__init__.py", "invoke.yaml", ".venv/bin/python", "venv/bin/activate"),
    *(".venv/lib/python3.12/site-packages/x.pth", "deep/.venv/bin/x", "venv/pyvenv.cfg"),
    *(".worktrees/x/.envrc", "AGENTS.md", ".devcontainer/setup.sh", ".github/prompts/x.md"),
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
    assert f"{path} ({verb}) — nddt protected shows it" in caplog.text

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


def test_what_nddt_is_made_of(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is, or below: what comes back from a copy of its clone is told of."""
    monkeypatch.setattr(naming, "ROOT", project.directory / "tools" / "clone")
    made = ("nddt", "requirements.lock", "scripts/a/b.py", "scripts/c.txt", "tasks.py")
    with project.watched():
        for name in (*made, "README.md", "tests/x.py"):
            project.write(f"tools/clone/{name}", "x")
        for name in ("nddt", "scripts/a/b.py", "deep/tasks.py", "requirements.lock"):
            project.write(name, "x")

    assert project.changed() == [f"tools/clone/{name} (added)" for name in made]


def configured(project: Project) -> str:
    """Have the directory's hooks elsewhere."""
    project.git("config", "core.hooksPath", "tools/hooks")
    return "tools/hooks/pre-commit"


def absolute(project: Project) -> str:
    """Have it so by an absolute path."""
    project.git("config", "core.hooksPath", str(project.directory / "tools"))
    return "tools/x"


def own(project: Project) -> str:
    """Have the user's own settings name a directory of hooks in each repository."""
    home = project.directory.parent / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[core]\n\thooksPath = our-hooks\n")
    project.environ["HOME"] = str(home)
    return "our-hooks/pre-commit"


def own_file(project: Project) -> str:
    """Have the user keep his settings here."""
    home = project.directory.parent / "home"
    home.mkdir()
    project.write("dotfiles/gitconfig", "[user]\n\tname = Ada\n")
    (home / ".gitconfig").symlink_to(project.directory / "dotfiles/gitconfig")
    project.environ["HOME"] = str(home)
    return "dotfiles/gitconfig"


def included(project: Project) -> str:
    """Have a further configuration, which is not there yet."""
    project.git("config", "include.path", "../shared.gitconfig")
    return "shared.gitconfig"


def included_twice(project: Project) -> str:
    """Have hooks that only an included configuration names, on a condition."""
    project.git("config", "includeIf.onbranch:main.path", "../shared.gitconfig")
    project.write("shared.gitconfig", "[core]\n\thooksPath = ../hooks of us\n".replace("../", ""))
    return "hooks of us/pre-commit"


def filtered(project: Project) -> str:
    """Have a script that git runs at each look."""
    project.write("tools/clean.sh", "cat\n")
    project.git("config", "filter.x.clean", "sh ./tools/clean.sh %f")
    return "tools/clean.sh"


def bare(project: Project) -> str:
    """Have a repository without a working tree."""
    project.git("init", "-q", "--bare", "data/deep/store")
    return "data/deep/store/config"


def bare_hidden(project: Project) -> str:
    """Have it in a hidden directory."""
    project.git("init", "-q", "--bare", ".x/y")
    return ".x/y/hooks/post-update"


def elsewhere(project: Project) -> str:
    """Have a git directory that only a pointer names."""
    project.git("init", "-q", "--separate-git-dir", "sub-git", "sub")
    (project.directory / "sub-git/refs").rename(project.directory / "refs")
    return "sub-git/config"


def submodule(project: Project) -> str:
    """Have a real submodule in one, with hooks where it says."""
    for name in ("inner", "outer"):
        project.git("init", "-q", name)
    git = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    project.git(*git, "-C", "inner", "commit", "-q", "--allow-empty", "-m", "one")
    project.git(*git, "-C", "outer", "submodule", "add", "-q", f"{project.directory}/inner", "a/b")
    project.git(*git, "-C", "outer", "commit", "-qm", "one")
    project.git(*git, "submodule", "add", "-q", f"{project.directory}/outer", "libs/c")
    project.git(*git, "submodule", "update", "-q", "--init", "--recursive")
    project.git("-C", "libs/c/a/b", "config", "core.hooksPath", "githooks/here")
    return "libs/c/a/b/githooks/here/pre-commit"


def named(project: Project) -> str:
    """Have a script that runs when a container is made."""
    project.write(".devcontainer/devcontainer.json", '{"initializeCommand": "bin/up --x"}')
    project.write("bin/up", "true\n", 0o755)
    return "bin/up"


def named_in_a_hook(project: Project) -> str:
    """Have a script that an agent's hook runs."""
    command = '"$CLAUDE_PROJECT_DIR"/lint/check.py'
    project.write(".claude/settings.json", json.dumps({"hooks": {"Stop": [{"command": command}]}}))
    project.write("lint/check.py", "pass\n")
    return "lint/check.py"


MADE = (
    *(
        configured,
        absolute,
        own,
        own_file,
        included,
        included_twice,
        filtered,
        bare,
        bare_hidden,
        elsewhere,
    ),
    *(submodule, named, named_in_a_hook),
)


@pytest.mark.parametrize("make", MADE)
def test_what_a_configuration_leads_to(project: Project, make: Callable[[Project], str]) -> None:
    """Is noticed like what has a name of its own."""
    path = make(project)
    before = project.read(path)
    with project.watched():
        project.write(path, "[core]\n\tfsmonitor = evil\n", 0o755)

    assert project.changed() == [f"{path} ({'changed' if before else 'added'})"]

    project.restore()

    assert project.read(path) == before


def test_a_stopped_rebase(project: Project) -> None:
    """Goes on with what is in its list, a command for instance."""
    git = ("-c", "user.name=a", "-c", "user.email=a@b")
    project.git(*git, "commit", "-q", "--allow-empty", "-m", "one")
    project.git("worktree", "add", "-q", "tree")
    with project.watched(), pytest.raises(subprocess.CalledProcessError):
        project.git(*git, "-C", "tree", "rebase", "-x", "false", "--root")

    assert ".git/worktrees/tree/rebase-merge/git-rebase-todo (added)" in project.changed()


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

    (change, evil) = change_records.recorded(project.environ, project.directory)
    lines = [*restoring.difference(change), *restoring.difference(evil)]
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
    change_records.accept(project.environ, project.directory)
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
    protected.check_ended(project.environ, "docker-x")
    assert not list(project.directory.parent.glob("state/nddt/protected/*/*-*.json"))


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
    monkeypatch.setattr("scripts.machine.console.can_ask", lambda: True)
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
    project.write(".envrc", "x" * (changed_files.LIMIT + 1))
    with project.watched():
        project.write(".envrc", "y" * (changed_files.LIMIT + 1))

    with pytest.raises(DataError, match="1 of 1 files"):
        project.restore()


def test_only_the_nearest_directories_are_looked_at(project: Project) -> None:
    """It has to be quick in any directory."""
    for number in range(findings.DIRECTORIES):
        project.write(f"d{number:04}/e/.envrc", "x")

    found = [
        path for _, path in changed_files.look((project.directory,)) if path.endswith(".envrc")
    ]

    assert found == [".envrc"]


def test_more_than_is_looked_at_is_a_change(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is hidden by a crowd."""
    monkeypatch.setattr(findings, "CROWD", 20)
    monkeypatch.setattr(findings, "FILES", 20)
    with project.watched():
        for number in range(21):
            project.write(f".vscode/{number}.json", "x")
        for number in range(21):
            project.write(f".husky/a{number // 4}/{number}", "x")

    assert {".vscode (added)", "… (added)"} <= set(project.changed())
    with pytest.raises(DataError, match="could not be restored"):
        project.restore()


@pytest.mark.parametrize(
    ("where", "name", "more"),
    [
        pytest.param(".git/modules/", "HEAD", "200 directories in {}/.git/modules", id="modules"),
        pytest.param(
            ".git/modules/a/", "x", "200 directories in {}/.git/modules", id="their-names"
        ),
        pytest.param(".git/worktrees/", "gitdir", "200 repositories in {}", id="worktrees"),
        pytest.param("", "HEAD", "200 repositories in {}", id="bare-repositories"),
    ],
)
def test_more_than_is_looked_at_is_said_once(
    project: Project, caplog: pytest.LogCaptureFixture, where: str, name: str, more: str
) -> None:
    """Also where nothing has changed: a hook of the last one is not seen."""
    for number in range(findings.REPOSITORIES + 1):
        project.write(f"{where}m{number}/{name}", "x")
        project.write(f"{where}m{number}/refs/x", "x")
    for _ in range(2):
        with project.watched():
            pass

    said = [one for one in caplog.messages if "is not all watched" in one]
    assert said
    assert len(set(said)) == len(said)
    assert any(one.startswith(f"more than {more.format(project.directory)}: ") for one in said)
    assert project.changed() == []


def test_as_much_as_is_looked_at(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Is no reason to say anything."""
    for number in range(findings.REPOSITORIES - 1):
        project.write(f".git/modules/m{number}/HEAD", "x")
    with project.watched():
        project.write(f".git/modules/m{findings.REPOSITORIES - 2}/hooks/pre-push", "x")

    assert "is not all watched" not in caplog.text
    assert len(project.changed()) == 1


def test_what_is_deep_is_a_change(project: Project) -> None:
    """Where nobody looks, something may be."""
    deep = "/".join(["a"] * (findings.DEPTH + 2))
    with project.watched():
        project.write(f".claude/skills/{deep}/x", "x")

    assert len(project.changed()) == 1


def test_names_are_found_in_a_crowd(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is exact needs no listing."""
    monkeypatch.setattr(findings, "CROWD", 20)
    for number in range(21):
        project.write(f"{number}", "x")
    with project.watched():
        project.write(".envrc", "evil")
        project.write(HOOK, "evil")

    assert project.changed() == [".envrc (changed)", f"{HOOK} (added)"]


def test_nobody_is_kept_busy(project: Project) -> None:
    """By many names, repositories in repositories, and settings that are long."""
    words = " ".join(f"./{number}.sh" for number in range(60_000))
    for directory in range(20):
        project.write(f"d{directory}/.mcp.json", words)
    include = "".join(f"[include]\n\tpath = c{n}\n" for n in range(2000))
    for number in range(50):
        project.write(f".git/c{number}", include)
    section = f'[credential "{".credential" * 50_000}"]\n\tx = y\n'
    project.write(".git/config", include + section)
    deep = "/".join(["modules/x"] * 60)
    project.write(f".git/{deep}/HEAD", "x")
    here = "d0/" + "e/" * 500
    (project.directory / here).mkdir(parents=True)
    names = " ".join(f"./{here}{number}.sh" for number in range(4000))
    project.write("d1/.git/config", f'[alias]\n\tx = "!{names}"\n')
    project.write("d2/.git/commondir", "e/" * 400_000)
    for number in range(900):
        (project.directory / f"d3/.claude/{number}.md").parent.mkdir(exist_ok=True)
        (project.directory / f"d3/.claude/{number}.md").symlink_to("../../d0/" + "e/../" * 700)
    began = time.process_time()

    found = changed_files.look((project.directory,))

    assert time.process_time() - began < 5
    assert found[str(project.directory), "…"].kind == "!"


def test_what_was_undone_by_hand_is_told_of_again(project: Project) -> None:
    """If it is done once more."""
    for _ in range(2):
        project.write(".envrc", "mine")
        change_records.accept(project.environ, project.directory)
    with project.watched():
        project.write(".envrc", "evil")
    project.write(".envrc", "mine")
    with project.watched():
        assert project.changed() == []
        project.write(".envrc", "evil")

    assert project.changed() == [".envrc (changed)"]


def test_a_tree_that_is_changed_meanwhile(project: Project) -> None:
    """No link is followed to restore something."""
    outside = project.directory.parent / "outside"
    outside.mkdir()
    project.write(".vscode/tasks.json", "mine")
    with project.watched():
        (project.directory / ".vscode/tasks.json").unlink()
    shutil.rmtree(project.directory / ".vscode")
    (project.directory / ".vscode").symlink_to(outside)

    with pytest.raises(DataError, match="1 of 1 files"):
        project.restore()
    assert list(outside.iterdir()) == []


# -- what goes on after a session ---------------------------------------------------------------


def test_what_goes_on_is_told_of_by_any_command(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, against what the session left; and it can be undone."""
    with project.watched(goes_on=True):
        project.write("a", "b")
    project.check()
    assert caplog.text == ""
    project.write(".vscode/tasks.json", "evil")
    project.git("config", "core.fsmonitor", "evil")

    project.check()
    project.check()

    (told,) = caplog.messages
    assert "since the last session here, by what went on in a sandbox or by yourself: " in told
    assert ".git/config (changed), .vscode/tasks.json (added) — nddt protected shows it" in told
    assert project.restore() == 2
    assert project.read(".vscode/tasks.json") is None
    caplog.clear()
    project.check()
    assert (project.changed(), caplog.text) == ([], "")


def test_what_is_accepted_is_the_new_measure(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be the user's own."""
    with project.watched(goes_on=True):
        pass
    project.write(".envrc", "mine")
    project.check()
    change_records.accept(project.environ, project.directory)
    caplog.clear()

    project.check()

    assert (project.changed(), caplog.text) == ([], "")


def test_a_sandbox_that_ends(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Is looked at a last time, from wherever it is ended."""
    with project.watched(goes_on=True):
        pass
    project.write(HOOK, "evil")

    protected.check_ended(project.environ, "docker-other")
    assert caplog.text == ""
    protected.check_ended(project.environ, "docker-x")

    assert f"{HOOK} (added)" in caplog.text
    assert project.changed() == [f"{HOOK} (added)"]
    project.write(".envrc", "mine")
    project.check()
    assert project.changed() == [f"{HOOK} (added)"]


def test_a_session_that_is_killed(project: Project) -> None:
    """Was the last to know what there was, and the next command goes on from there."""
    code = (
        "import os, sys; from pathlib import Path; from scripts.workspace import protected\n"
        f"with protected.watched({project.environ!r}, *[Path({str(project.directory)!r})] * 1, "
        f"(Path({str(project.directory)!r}),), 'docker-x'):\n"
        f"    Path({str(project.directory / '.envrc')!r}).write_text('evil')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run((sys.executable, "-c", code), check=False)

    project.check()

    assert project.changed() == [".envrc (changed)"]
    project.write(HOOK, "evil")
    project.check()
    assert project.changed() == [".envrc (changed)", f"{HOOK} (added)"]


def test_a_session_that_goes_on_is_not_told_of_by_others(project: Project) -> None:
    """It will do so itself."""
    with project.watched(goes_on=True):
        project.write(HOOK, "evil")
        project.check()
        assert project.changed() == []

    assert project.changed() == [f"{HOOK} (added)"]


def test_the_next_session_goes_on_from_what_was_left(project: Project) -> None:
    """Not from what it finds."""
    with project.watched(goes_on=True):
        pass
    project.write(HOOK, "evil")
    with project.watched(goes_on=True):
        project.write(".envrc", "evil")

    assert sorted(project.changed()) == [".envrc (changed)", f"{HOOK} (added)"]
    assert project.restore() == 2
    assert project.read(HOOK) is None


# -- what is reached by way of something else ---------------------------------------------------


def seen(root: Path) -> set[str]:
    """Look at a directory, and name what is acted on."""
    return {path for _, path in changed_files.look((root,), acted_on.own_settings(os.environ))}


def git(*words: str | Path, cwd: Path) -> None:
    """Run the user's git."""
    subprocess.run(("git", *words), cwd=cwd, check=True, capture_output=True)


def script(path: Path) -> Path:
    """Write one that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch '{path}.ran'\n")
    path.chmod(0o755)
    return path


def commit(tree: Path) -> None:
    """Have the user commit, which runs hooks."""
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    git(*who, "commit", "-q", "--allow-empty", "-m", "x", cwd=tree)


def test_what_a_link_leads_to(tmp_path: Path) -> None:
    """A hook that is kept in the tree, an agent's settings, and a directory of rules."""
    git("init", "-q", cwd=tmp_path)
    hook = script(tmp_path / "tools/pre-commit.sh")
    (tmp_path / ".git/hooks").mkdir(exist_ok=True)
    (tmp_path / ".git/hooks/pre-commit").symlink_to("../../tools/pre-commit.sh")
    (tmp_path / ".envrc").symlink_to("env/one")
    (tmp_path / "env").mkdir()
    (tmp_path / "env/one").symlink_to("two")
    (tmp_path / "env/two").write_text("x")
    (tmp_path / "rules/deep").mkdir(parents=True)
    (tmp_path / "rules/deep/a.md").write_text("x")
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude/rules").symlink_to("../rules")
    (tmp_path / ".mcp.json").symlink_to(tmp_path / ".mcp.json")
    (tmp_path / ".npmrc").symlink_to("../outside")

    commit(tmp_path)

    assert Path(f"{hook}.ran").exists()
    wanted = {"tools/pre-commit.sh", "env/one", "env/two", "rules/deep/a.md", ".npmrc"}
    assert seen(tmp_path) >= wanted


def test_hooks_of_a_repository_around_it(tmp_path: Path) -> None:
    """The directory is a part of one, whose hooks lead into it."""
    git("init", "-q", cwd=tmp_path)
    part = tmp_path / "front"
    hook = script(part / "hooks/pre-commit")
    (part / "more").write_text("[core]\n")
    git("config", "core.hooksPath", "front/hooks", cwd=tmp_path)
    git("config", "include.path", "../front/more", cwd=tmp_path)
    git("config", "alias.x", "!front/x.sh", cwd=tmp_path)
    script(part / "x.sh")

    commit(part)

    assert Path(f"{hook}.ran").exists()
    assert seen(part) >= {"hooks/pre-commit", "more", "x.sh"}


def test_hooks_of_a_linked_worktree(tmp_path: Path) -> None:
    """A relative path means the worktree, though it stands in the repository elsewhere."""
    (tmp_path / "main").mkdir()
    git("init", "-q", cwd=tmp_path / "main")
    commit(tmp_path / "main")
    git("worktree", "add", "-q", tmp_path / "linked", cwd=tmp_path / "main")
    git("config", "core.hooksPath", "hooks", cwd=tmp_path / "main")
    hook = script(tmp_path / "linked/hooks/pre-commit")

    commit(tmp_path / "linked")

    assert Path(f"{hook}.ran").exists()
    assert "hooks/pre-commit" in seen(tmp_path / "linked")


@pytest.mark.parametrize("value", ["~/dot/hooks", "{home}/dot/hooks"])
def test_hooks_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """However it is written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    dot = tmp_path / "dot"
    script(dot / "hooks/pre-commit")
    git("init", "-q", cwd=dot)
    git("config", "core.hooksPath", value.format(home=tmp_path), cwd=dot)

    assert "hooks/pre-commit" in seen(dot)


def test_a_bare_repository_with_its_objects_elsewhere(tmp_path: Path) -> None:
    """For git it is one: `git status` in it runs what its configuration says."""
    inside = tmp_path / "s"
    for name in ("objects", "refs"):
        (inside / "d" / name).mkdir(parents=True)
    (inside / "HEAD").write_text("ref: refs/heads/none\n")
    (inside / "commondir").write_text("d\n")
    ran = tmp_path / "ran"
    (inside / "d/config").write_text(
        f'[core]\nrepositoryformatversion=1\nfsmonitor="touch {ran}; false"\n'
        "[extensions]\nworktreeConfig=true\n"
    )
    (inside / "config.worktree").write_text(f"[core]\nbare=false\nworktree={inside}\n")
    git("status", cwd=inside)
    assert ran.exists()

    assert seen(tmp_path) >= {"s/d/config", "s/config.worktree", "s/commondir"}


def test_a_directory_called_objects(tmp_path: Path) -> None:
    """Is looked into, whatever is beside it."""
    (tmp_path / "refs").mkdir()
    (tmp_path / "HEAD").touch()
    (tmp_path / "objects/x/.vscode").mkdir(parents=True)
    (tmp_path / "objects/x/.vscode/tasks.json").write_text("{}")

    assert "objects/x/.vscode/tasks.json" in seen(tmp_path)


def test_settings_in_another_order(tmp_path: Path) -> None:
    """Are others: of two the last one counts."""
    git("init", "-q", cwd=tmp_path)
    config = tmp_path / ".git/config"
    first, second = "[core]\nhooksPath = a\n", "[core]\nhooksPath = b\n"
    config.write_text(first + second)
    before = changed_files.look((tmp_path,))
    config.write_text(second + first)

    (change,) = changed_files.changes(before, changed_files.look((tmp_path,)))

    assert change.path == ".git/config"


Case = tuple[Path, set[str], Path | None]
"""What is looked at, what has to be seen in it, and the script that git runs."""


def hooked(top: Path, tree: Path, value: str) -> Path:
    """Make a repository whose hooks are elsewhere, and one that is run by a commit."""
    top.mkdir(exist_ok=True)
    git("init", "-q", cwd=top)
    git("config", "core.hooksPath", value, cwd=top)
    return script(tree / "pre-commit")


def write(file: Path, text: str) -> Path:
    """Write a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def link_on_the_way(top: Path) -> Case:
    """A hook is a link by way of another one."""
    hooked(top, top / "real", ".git/hooks")
    (top / "by").symlink_to("real")
    (top / ".git/hooks").mkdir(exist_ok=True)
    (top / ".git/hooks/pre-commit").symlink_to("../../by/pre-commit")
    return top, {"by", "real/pre-commit"}, top / "real/pre-commit"


def linked_configuration(top: Path) -> Case:
    """What a repository's configuration says is in another file."""
    hook = hooked(top, top / "hk", "hk")
    (top / ".git/config").rename(top / "conf")
    (top / ".git/config").symlink_to("../conf")
    return top, {".git/config", "conf", "hk/pre-commit"}, hook


def linked_repository(top: Path) -> Case:
    """Likewise of all that is git's."""
    hook = hooked(top, top / "hk", "hk")
    (top / ".git").rename(top / "g")
    (top / ".git").symlink_to(top / "g")
    return top, {".git", "g/config", "hk/pre-commit"}, hook


def linked_list(top: Path) -> Case:
    """A script is named by a file behind a link."""
    write(top / "env/rc", "source tools/x.sh\n")
    (top / ".envrc").symlink_to("env/rc")
    script(top / "tools/x.sh")
    return top, {".envrc", "env/rc", "tools/x.sh"}, None


def own_hooks(top: Path) -> Case:
    """The user keeps those of all repositories in one that has none itself."""
    write(top / "home/.gitconfig", "[core]\n\thooksPath = ~/dot/hooks\n")
    (top / "r").mkdir()
    git("init", "-q", cwd=top / "r")
    commit(top / "r")  # nothing is there yet
    return top / "home/dot", {"hooks/pre-commit"}, script(top / "home/dot/hooks/pre-commit")


def own_linked_hooks(top: Path) -> Case:
    """Likewise, by a link in the home directory."""
    case = own_hooks(top)
    (top / "home/hooks").symlink_to("dot/hooks")
    write(top / "home/.gitconfig", "[core]\n\thooksPath = ~/hooks\n")
    return case


def own_include(top: Path) -> Case:
    """The user's settings include more on a condition, with hooks."""
    case = own_hooks(top)
    condition = f'[includeIf "gitdir:{top}/r/"]\n\tpath = dot/more\n'
    write(top / "home/.gitconfig", condition)
    write(top / "home/dot/more", "[core]\n\thooksPath = ~/dot/hooks\n")
    return case[0], case[1] | {"more"}, case[2]


def home_in_a_program(top: Path) -> Case:
    """A program is named by $HOME."""
    tree = top / "home/dot"
    tree.mkdir(parents=True)
    git("init", "-q", cwd=tree)
    git("config", "core.fsmonitor", "$HOME/dot/x", cwd=tree)
    git("config", "credential.helper", "!~/dot/y --z", cwd=tree)
    script(tree / "y")
    return tree, {"x", "y"}, script(tree / "x")


def around_with_spaces(top: Path) -> Case:
    """Hooks of a repository around the directory, in one with a space in its name."""
    return top / "f", {"my hooks/pre-commit"}, hooked(top, top / "f/my hooks", "f/my hooks")


def around_what_is_none(top: Path) -> Case:
    """A directory `.git` that is no repository does not hide the one around."""
    hook = hooked(top, top / "f/hk", "f/hk")
    (top / "f/.git").mkdir()
    return top / "f", {"hk/pre-commit"}, hook


def around_by_own(top: Path) -> Case:
    """The user's settings say where in each repository hooks are."""
    hook = hooked(top, top / "f/hk", "unused")
    git("config", "--unset", "core.hooksPath", cwd=top)
    write(top / "home/.gitconfig", "[core]\n\thooksPath = f/hk\n")
    return top / "f", {"hk/pre-commit"}, hook


def around_included(top: Path) -> Case:
    """The repository around includes a file that says so."""
    hook = hooked(top, top / "f/hk", "unused")
    write(top / "more", "[core]\n\thooksPath = f/hk\n")
    git("config", "include.path", "../more", cwd=top)
    return top / "f", {"hk/pre-commit"}, hook


def around_by_a_link(top: Path) -> Case:
    """Its hook is a link into the directory."""
    hook = hooked(top, top / "f/t", ".git/hooks")
    (top / ".git/hooks").mkdir(exist_ok=True)
    (top / ".git/hooks/pre-commit").symlink_to("../../f/t/pre-commit")
    return top / "f", {"t/pre-commit"}, hook


def worktree_inside(top: Path) -> Case:
    """A linked worktree and its repository are both in the directory."""
    hook = hooked(top, top / ".wt/x/hk", "hk")
    return worktree(top, top / ".wt/x"), {".wt/x/hk/pre-commit"}, hook


def worktree_of_another(top: Path) -> Case:
    """Only the worktree is, and not at its top."""
    hooked(top / "r", top / "r/unused", "hk")
    (top / "in").mkdir()
    worktree(top / "r", top / "in/w")
    return top / "in", {"w/hk/pre-commit"}, script(top / "in/w/hk/pre-commit")


def worktree(top: Path, tree: Path) -> Path:
    """Make a linked worktree, in a place where there may be something."""
    commit(top)
    git("worktree", "add", "-q", top / "new", cwd=top)
    git("worktree", "move", top / "new", top / "moved", cwd=top)
    (top / "moved/.git").rename(tree / ".git") if tree.exists() else (top / "moved").rename(tree)
    git("worktree", "repair", tree, cwd=top)
    return top


def common_elsewhere(top: Path) -> Case:
    """An ordinary `.git` whose configuration, hooks and objects are in another place."""
    git("init", "-q", cwd=top)
    hook = script(top / "c/hooks/pre-commit")
    for name in ("objects", "refs", "config"):
        (top / ".git" / name).rename(top / "c" / name)
    write(top / ".git/commondir", "../c\n")
    return top, {".git/commondir", "c/config", "c/hooks/pre-commit"}, hook


def whole_directory(top: Path) -> Case:
    """Hooks are among all other files."""
    return top, {"pre-commit"}, hooked(top, top, str(top))


@pytest.mark.parametrize(
    "make",
    [
        *(link_on_the_way, linked_configuration, linked_repository, linked_list),
        *(own_hooks, own_linked_hooks, own_include, home_in_a_program),
        *(around_with_spaces, around_what_is_none, around_by_own, around_included),
        *(around_by_a_link, worktree_inside, worktree_of_another, common_elsewhere),
        whole_directory,
    ],
)
def test_what_git_really_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Case]
) -> None:
    """Whatever the way to it, it is seen."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    root, wanted, runs = make(tmp_path)
    if runs:
        trees = [one.parent for one in (tmp_path, *tmp_path.rglob("*")) if one.name == ".git"]
        for tree in {root, *trees}:
            with contextlib.suppress(subprocess.CalledProcessError):
                commit(tree)
        assert Path(f"{runs}.ran").exists()

    assert seen(root) >= wanted


def test_a_repository_by_a_link_and_a_pointer_to_it(tmp_path: Path) -> None:
    """`git status` runs what a configuration behind a link says."""
    for name in ("objects", "refs"):
        (tmp_path / "e" / name).mkdir(parents=True)
    write(tmp_path / "s/HEAD", "ref: refs/heads/none\n")
    write(tmp_path / "s/commondir", "by\n")
    (tmp_path / "s/by").symlink_to("../e")
    worktree = f"[core]\nbare=false\nworktree={tmp_path}/s\n"
    write(tmp_path / "s/config.worktree", worktree)
    write(
        tmp_path / "e/config",
        f'[core]\nrepositoryformatversion=1\nfsmonitor="touch {tmp_path}/ran; false"\n'
        "[extensions]\nworktreeConfig=true\n",
    )
    git("status", cwd=tmp_path / "s")
    assert (tmp_path / "ran").exists()

    assert seen(tmp_path) >= {"s/commondir", "s/by", "s/config.worktree", "e/config"}


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    """A link out of the directory, or around in it, is all that is seen; it takes no time."""
    write(tmp_path / "out/x/tasks.json", "{}")
    root = tmp_path / "in"
    root.mkdir()
    (root / ".vscode").symlink_to("../out/x")
    (root / ".claude").symlink_to(tmp_path / "out")
    (root / ".envrc").symlink_to(".envrc")
    (root / ".agents").mkdir()
    for name in "abcdefgh":
        (root / ".agents" / name).symlink_to("..")
    (root / ".git").symlink_to("/net/host.example/r")
    (root / "way").symlink_to("x/../" * 800 + ".npmrc")
    (root / "x").symlink_to(".")
    (root / ".npmrc").symlink_to("way")
    began = time.process_time()

    found = seen(root)

    assert time.process_time() - began < 5
    assert {".vscode", ".claude", ".envrc", ".npmrc", ".agents/a", ".git"} <= found
    assert not [one for one in found if "tasks.json" in one or "out" in one]


def test_objects_are_looked_into(tmp_path: Path) -> None:
    """Also where names are like those of git's own store."""
    write(tmp_path / "objects/ab/.vscode/tasks.json", "{}")
    (tmp_path / "refs").mkdir()
    write(tmp_path / "HEAD", "ref: refs/heads/none\n")

    assert "objects/ab/.vscode/tasks.json" in seen(tmp_path)


def test_a_crowd_hides_nothing_that_has_a_name(project: Project) -> None:
    """Nor what other patterns find, also once it has been accepted."""
    for directory in (".agents", ".amp", ".claude/commands"):
        for number in range(findings.MANY - 1):
            project.write(f"{directory}/{number}", "x")
    for number in range(findings.FILES):
        project.write(f".augment/{number // 500}/{number}", "x")
    for number in range(210):
        project.write(f".git/worktrees/{number}/gitdir", "/x/.git\n")
    project.write("z/.git/config", "[core]\n")
    with project.watched():
        pass
    change_records.accept(project.environ, project.directory)
    paths = {
        *(".envrc", ".vscode/tasks.json", HOOK, ".git/config", "z/.envrc", "z/.git/config"),
        *(".claude/hooks/x", ".vscode/x.json", ".windsurf/rules/x"),
    }
    with project.watched():
        for path in paths:
            project.write(path, "[core]\n\tfsmonitor = evil\n", 0o755)

    changed = {one.path for one in change_records.recorded(project.environ, project.directory)}
    assert changed >= paths


def test_a_long_list_of_scripts_hides_no_other(project: Project) -> None:
    """One file has not all the words that are looked at."""
    project.write(".envrc", " ".join(f"{number}.sh" for number in range(findings.WORDS)))
    project.write(".mcp.json", '{"command": "tools/x.sh"}')
    project.write("tools/x.sh", "x")
    project.git("config", "core.hooksPath", "hk")
    with project.watched():
        project.write("tools/x.sh", "evil")
        project.write("hk/pre-commit", "evil")

    assert project.changed() == ["hk/pre-commit (added)", "tools/x.sh (changed)"]


def test_a_place_that_is_gone(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Is told of once; others are looked at, and it is itself when it is back."""
    other = project.directory.parent / "other"
    write(other / ".envrc", "mine")
    places = (project.directory, other)
    with protected.watched(project.environ, project.directory, places, "docker-x"):
        pass
    other.rename(other.with_name("away"))
    project.write(".envrc", "evil")

    project.check()
    project.check()

    assert [f"{other} is not there any more" in one for one in caplog.messages] == [True, False]
    assert project.changed() == [".envrc (changed)"]
    change_records.accept(project.environ, project.directory)
    other.with_name("away").rename(other)
    write(other / ".envrc", "evil")
    project.check()
    (change,) = change_records.recorded(project.environ, project.directory)
    assert (change.root, str(change)) == (str(other), ".envrc (changed)")


def test_it_is_quick(tmp_path: Path) -> None:
    """Some 5,000 files take less than is noticed: twice what is aimed at, for slow machines."""
    git("init", "-q", cwd=tmp_path)
    for number in range(5000):
        write(tmp_path / f"{number % 10}/{number // 20}/{number}.py", "x")
    seen(tmp_path)
    took = []
    for _ in range(5):
        began = time.process_time()
        seen(tmp_path)
        took.append(time.process_time() - began)

    assert min(took) < 0.1
