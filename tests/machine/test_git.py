"""The door to git: a repository that is somebody else's runs nothing, and keeps nobody waiting."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.brings import git_config
from scripts.errors import ConfigError, DataError
from scripts.keyless import github_access, remotes
from scripts.machine import git, git_places, git_settings
from scripts.workspace import changed_files, git_links
from scripts.workspace.copies import answering, tree
from tests.keyless.test_model_access import KEY, key_in_git, made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Project

ROOT = Path(__file__).parents[2]
HERE = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")


def run(directory: Path, *words: str) -> str:
    """Run git as its user does."""
    argv = ("git", *HERE, "-C", str(directory), *words)
    return subprocess.run(argv, check=True, capture_output=True, encoding="utf-8").stdout


def test_nobody_else_calls_git() -> None:
    """No argument list anywhere else begins with its name."""
    door = ROOT / "scripts/machine/git.py"
    found = []
    for file in (*ROOT.glob("scripts/**/*.py"), ROOT / "tasks.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Tuple | ast.List) or len(node.elts) < 2 or file == door:
                continue
            first, second = node.elts[:2]
            word = str(first.value) if isinstance(first, ast.Constant) else ""
            is_git = word.split(" ")[0] == "git" and "| nddt" not in word  # an example
            if is_git and isinstance(second, ast.Constant | ast.Starred):
                found.append(f"{file.name}:{node.lineno}")

    assert found == []


# -- what a repository would have git run -----------------------------------------------------

HOSTILE = {
    "alias.ls-files": "!{}",
    "core.alternateRefsCommand": "{}",
    "core.askPass": "{}",
    "core.editor": "{}",
    "core.fsmonitor": "{}",
    "core.gitProxy": "{}",
    "core.hooksPath": "{}.d",
    "core.pager": "{}",
    "core.sshCommand": "{}",
    "credential.helper": "!{}",
    "diff.external": "{}",
    "diff.evil.command": "{}",
    "diff.evil.textconv": "{}",
    "filter.evil.clean": "{}",
    "filter.evil.process": "{}",
    "filter.evil.required": "true",
    "filter.evil.smudge": "{}",
    "gpg.program": "{}",
    "interactive.diffFilter": "{}",
    "merge.evil.driver": "{}",
    "pager.config": "{}",
    "pager.diff": "{}",
    "pager.ls-files": "{}",
    "remote.origin.uploadpack": "{}",
    "remote.origin.vcs": "evil",
    "uploadpack.packObjectsHook": "{}",
}


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A program that leaves a trace; there is none in the end."""
    program, trace = tmp_path / "evil", tmp_path / "trace"
    program.write_text(f"#!/bin/sh\necho $0 $* >>{trace}\n")
    program.chmod(0o755)
    hooks = tmp_path / "evil.d"
    hooks.mkdir()
    for name in ("fsmonitor-watchman", "post-index-change", "post-checkout", "pre-commit"):
        (hooks / name).symlink_to(program)
    yield program
    assert not trace.exists(), trace.read_text()


def hostile(project: Project, program: Path) -> None:
    """Have a repository that names a program wherever one can."""
    top = project.directory
    run(top.parent, "init", "-q", str(top))
    (top / ".env").write_text("A=1\n")
    (top / "a.txt").write_text("a")
    run(top, "add", ".")
    run(top, "commit", "-qm", "one")
    (top / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    (top / "a.txt").write_text("b")
    (top / "bin").mkdir()
    shutil.copy(program, top / "bin/git")
    for name, value in HOSTILE.items():
        run(top, "config", name, value.format(program))
    (top / ".git/included").write_text(f"[core]\n\tfsmonitor = {program}\n")
    run(top, "config", "include.path", "included")


def test_the_trap_works(project: Project, tmp_path: Path) -> None:
    """It catches git itself, so what follows says something."""
    program, trace = tmp_path / "evil", tmp_path / "trace"
    program.write_text(f"#!/bin/sh\necho $0 >>{trace}\n")
    program.chmod(0o755)
    hostile(project, program)

    subprocess.run(("git", "-C", project.directory, "status"), check=False, capture_output=True)

    assert trace.exists()


def test_nothing_of_the_repository_runs(
    project: Project, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked of it, from where it is, with a PATH that leads into it."""
    hostile(project, canary)
    top = project.directory
    monkeypatch.chdir(top)
    monkeypatch.setenv("PATH", f"./bin:bin:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_DIR", str(top / ".git"))
    monkeypatch.setenv("GIT_SSH_COMMAND", str(canary))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(canary))

    assert ".git/index" in tree.entries(str(top))
    assert git.is_tracked(str(top / ".env"))
    assert not git.is_tracked(str(top / "bin/git"))
    assert git_config.read_git_settings(top, project.environ) is not None
    assert ("core.fsmonitor", str(canary)) in git_settings.configured(
        git_places.repository_of(str(top))
    )
    loaded = project.load(workspace="mount")
    assert git_links.find_git_links(loaded) == git_links.Links()
    assert github_access._remotes(loaded, "github.com") == ()
    changed_files.look((top,))
    for side in ("here", "sandbox"):
        (top / side).mkdir()
        (top / side / "a.txt").write_text(side)
        shutil.copy(top / ".gitattributes", top / side)
    assert b"+sandbox" in git.difference(str(top), "here", "sandbox")


def test_looking_for_keys_runs_nothing(project: Project, canary: Path) -> None:
    """A file of the repository's was run at each start with a copy."""
    key_in_git(project)
    run(project.directory, "config", "core.fsmonitor", str(canary))

    with pytest.raises(ConfigError, match="which the sandbox sees"):
        made(project, NDDT_MODEL_ACCESS="tunnel")
    assert KEY


def test_nothing_is_fetched_for_a_copy(project: Project, canary: Path) -> None:
    """Of a repository whose index only it can read, with trees that somebody else has."""
    top = project.directory
    run(top.parent, "init", "-q", "--object-format=sha256", str(top))
    for name in ("in", "out"):
        (top / name).mkdir()
        (top / name / "kept.log").write_text(name)
    run(top, "add", ".")
    run(top, "commit", "-qm", "one")
    missing = run(top, "rev-parse", "HEAD:out").strip()
    run(top, "sparse-checkout", "set", "--cone", "--sparse-index", "in")
    (top / ".git/objects" / missing[:2] / missing[2:]).unlink()
    (top / ".gitignore").write_text("*.log\n")
    (top / "in/more.log").write_text("x")
    (top / "out").mkdir()
    (top / "out/more.log").write_text("x")  # has git look for the directory's tree
    run(top, "config", "extensions.partialClone", "origin")
    run(top, "config", "remote.origin.promisor", "true")
    run(top, "config", "remote.origin.url", str(top))
    run(top, "config", "remote.origin.uploadpack", str(canary))

    found = tree.entries(str(top))

    assert "in/kept.log" in found
    assert not {"in/more.log", "out/more.log"} & set(found)
    assert found[".git/index"].stamp.startswith("index ")


def test_a_split_index(project: Project) -> None:
    """Is whole with the file that it is split into."""
    top = project.directory
    run(top.parent, "init", "-q", str(top))
    (top / "kept.log").write_text("x")
    run(top, "add", ".")
    run(top, "update-index", "--split-index")
    (top / ".gitignore").write_text("*.log\n")

    assert "kept.log" in tree.entries(str(top))
    assert git.is_tracked(str(top / "kept.log"))


def test_what_cannot_be_told_counts_as_tracked(project: Project) -> None:
    """So that no key is in a copy by mistake."""
    top = project.directory
    run(top.parent, "init", "-q", str(top))
    assert not git.is_tracked(str(top / ".env"))
    (top / ".git/index").write_bytes(b"DIRC" + b"\xff" * 100)

    assert git.is_tracked(str(top / ".env"))
    assert ".git/index" in tree.entries(str(top))


# -- what would keep it waiting ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [".gitignore", ".nddtignore", "sub/.gitignore", "repository/.git/HEAD"]
)
def test_a_pipe_in_a_tree(project: Project, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Is found, and told of."""
    monkeypatch.setattr(git, "LIMIT_S", 0.5)
    (project.directory / "sub").mkdir()
    (project.directory / "sub/x").write_text("x")
    run(project.directory, "init", "-q", "repository")
    (project.directory / "repository/x").write_text("x")
    (project.directory / name).unlink(missing_ok=True)
    os.mkfifo(project.directory / name)

    with pytest.raises(
        DataError, match=rf"waits for ever at .*{name}', which is no file"
    ) as caught:
        tree.entries(str(project.directory))
    assert caught.value.next_step == "remove it"

    # In a sandbox's copy, nddt can do that.
    wish = {"do": "entries", "unless": "", "identity": "x", "exchange": ""}
    rows = answering.answer(str(project.directory), wish, lambda _: b"", lambda: b"")
    assert b'["sub/x"' in b"".join(rows)
    assert not (project.directory / name).exists()


@pytest.mark.parametrize("name", ["config", "HEAD", "index", "info/exclude", "commondir"])
def test_a_pipe_in_a_repository(project: Project, name: str) -> None:
    """Is not opened."""
    top = project.directory
    run(top.parent, "init", "-q", str(top))
    (top / ".git" / name).unlink(missing_ok=True)
    os.mkfifo(top / ".git" / name)
    (project.home / ".gitconfig").write_text('[includeIf "onbranch:x"]\n\tpath = x\n')

    assert git_config.read_git_settings(top, project.environ)
    assert git_links.find_git_links(project.load(workspace="mount")) == git_links.Links()
    assert github_access._remotes(project.load(), "github.com") == ()
    assert git.is_tracked(str(top / ".env")) == (name == "index")
    tree.entries(str(top))
    changed_files.look((top,))


def test_a_pipe_that_is_included(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the repository it is not opened, and by the user's own settings not for long."""
    top = project.directory
    run(top.parent, "init", "-q", str(top))
    os.mkfifo(top / "pipe")
    run(top, "remote", "add", "origin", "https://github.com/me/mine")
    run(top, "config", "include.path", "../pipe")
    monkeypatch.setattr(git, "LIMIT_S", 0.5)

    assert github_access._remotes(project.load(), "github.com") == ("me/mine",)
    (project.home / ".gitconfig").write_text(f"[include]\n\tpath = {top}/pipe\n")
    assert git_config.read_git_settings(top, project.environ) is None


@pytest.mark.parametrize("content", [b"gitdir: a\0b", b"gitdir: \xff\xfe", b"x" * 9000, b"", b"\0"])
def test_a_pointer_to_nowhere(project: Project, content: bytes) -> None:
    """Leads nowhere."""
    (project.directory / ".git").write_bytes(content)
    (project.directory / "a").write_text("a")

    assert "a" in tree.entries(str(project.directory))
    assert "elsewhere" in git_links.find_git_links(project.load(workspace="mount")).warning
    assert git_config.read_git_settings(project.directory, project.environ) is not None
    assert not git.is_tracked(str(project.directory / "a"))


def test_an_endless_answer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is cut off."""
    monkeypatch.setattr(git, "OUTPUT", 1000)
    with pytest.raises(DataError, match="more than"):
        git_settings.parse(b"[a]\n" + b"\tb = c\n" * 10_000)
    assert project


def test_nothing_but_reading_is_asked_for() -> None:
    """Another command would have to be looked at first."""
    with pytest.raises(ValueError, match="commit"):
        git.ask("commit", (), os.devnull)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is somebody else's")
def test_a_repository_of_somebody_else_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is none, as for git: no token is used for the remotes that it names."""
    around, mine = tmp_path / "around", tmp_path / "around/mine"
    mine.mkdir(parents=True)
    run(around, "init", "-q")
    run(around, "remote", "add", "origin", "https://github.com/theirs/x.git")
    (mine / ".env").write_text("x")
    run(around, "add", "mine/.env")
    monkeypatch.chdir(around)
    assert git_places.repository_of(str(mine)) == str(around / ".git")
    assert remotes.now(mine) == ("github.com/theirs/x",)
    assert git.is_tracked(str(mine / ".env"))

    os.chown(around / ".git", 65534, 65534)
    with pytest.raises(subprocess.CalledProcessError):
        run(mine, "status")
    assert git_places.repository_of(str(mine)) == ""
    assert remotes.now(mine) == ()
    assert not git.is_tracked(str(mine / ".env"))

    (around / ".git").rename(tmp_path / "theirs")
    (around / ".git").write_text(f"gitdir: {tmp_path}/theirs\n")
    assert git_places.repository_of(str(mine)) == ""

    os.chown(mine, 65534, 65534)
    assert git_places.repository_of(str(mine)) == str(tmp_path / "theirs")


def test_no_repository_is_not_that_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose remotes say nothing about another directory."""
    (tmp_path / "a").mkdir()
    run(tmp_path / "a", "init", "-q")
    run(tmp_path / "a", "remote", "add", "origin", "https://github.com/a/x.git")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")

    assert git_places.repository_of(str(tmp_path / "b")) == ""
    assert remotes.now(tmp_path / "b") == ()
