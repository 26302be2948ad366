"""Which git settings come along, and that git reads what is written."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scripts.brings import git_config

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

COME = (
    ("user.name", "Ada"),
    ("alias.lg", "log --graph"),
    ("init.defaultbranch", "main"),
    ("pull.rebase", None),
    ("push.autosetupremote", "true"),
    ("merge.conflictstyle", "zdiff3"),
    ("diff.algorithm", "histogram"),
    ("color.diff.meta", "yellow"),
    ("core.autocrlf", "input"),
    ("branch.sort", "-committerdate"),
)
STAY = (
    ("credential.helper", "store"),
    ("credential.https://example.org.helper", "!cat /token"),
    ("core.hookspath", "/hooks"),
    ("core.fsmonitor", "/monitor"),
    ("core.sshcommand", "ssh -i /key"),
    ("core.editor", "code --wait"),
    ("core.excludesfile", "~/.gitignore"),
    ("include.path", "/more"),
    ("includeif.gitdir:~/x/.path", "/more"),
    ("url.git@github.com:.insteadof", "https://github.com/"),
    ("url.git@github.com:.pushinsteadof", "https://github.com/"),
    ("gpg.program", "/gpg"),
    ("gpg.ssh.program", "/opt/sign"),
    ("diff.external", "difft"),
    ("diff.tool", "meld"),
    ("diff.pdf.textconv", "pdftotext"),
    ("merge.tool", "meld"),
    ("merge.ours.driver", "true"),
    ("mergetool.meld.cmd", "meld"),
    ("commit.template", "~/template"),
    ("alias.x", "!rm -rf /"),
    ("alias.y", " !rm -rf /"),
    ("filter.secret.clean", "decrypt"),
    ("http.proxy", "http://user:password@proxy"),
    ("http.https://example.org.extraheader", "Authorization: secret"),
    ("commit.gpgsign", "true"),
    ("tag.gpgsign", "true"),
    ("user.signingkey", "ABCD"),
    ("safe.directory", "*"),
    ("sendemail.smtppass", "secret"),
)


def test_choice() -> None:
    """Takes what is about git itself, and nothing that names a program or file of this machine."""
    assert git_config.chosen((*COME, *STAY), None) == COME


def test_choice_with_a_key_to_sign_with() -> None:
    """Signs what is signed here."""
    entries = (("commit.gpgsign", "true"), ("gpg.program", "/gpg"))
    key = (("user.signingkey", "ABCD"),)

    assert git_config.chosen(entries, key) == (("commit.gpgsign", "true"), *key)


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), (None, True), ("1", True), ("false", False)]
)
def test_is_signing(value: str | None, expected: bool) -> None:  # noqa: FBT001
    """Knows git's words for no."""
    assert git_config.is_signing((("commit.gpgsign", value), ("user.name", "x"))) == expected


def test_last() -> None:
    """Is the value that counts."""
    entries = (("a.b", "1"), ("a.b", None), ("a.c", "2"), ("a.c", "3"))
    assert [git_config.last(entries, name) for name in ("a.b", "a.c", "a.d")] == ["", "3", None]


# -- what git makes of it -------------------------------------------------------------------

_WORD = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
_TEXT = st.text(max_size=20).map(lambda text: text.replace("\0", ""))
_SUBSECTION = st.none() | _TEXT.map(lambda text: text.replace("\n", ""))
_ENTRY = st.tuples(_WORD, _SUBSECTION, _WORD, st.none() | _TEXT)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(found=st.lists(_ENTRY, max_size=8))
def test_git_reads_what_is_written(
    tmp_path: Path, found: list[tuple[str, str | None, str, str | None]]
) -> None:
    """Whatever is in names and values."""
    entries = [
        (f"{section}.{key}" if middle is None else f"{section}.{middle}.{key}", value)
        for section, middle, key, value in found
        if section not in {"include", "includeif"}
    ]
    file = tmp_path / "config"
    file.write_bytes(git_config.written(entries).encode())

    done = subprocess.run(
        ("git", "config", "--file", file, "--list", "-z"), check=True, capture_output=True
    )

    expected = [name if value is None else f"{name}\n{value}" for name, value in entries]
    assert done.stdout.decode().split("\0")[:-1] == expected


def test_read(project: Project) -> None:
    """Gives the user's own settings, with what they include for this directory; no repository's."""
    (project.home / ".gitconfig").write_text(
        "[user]\n\tname = Ada\n[pull]\n\trebase\n"
        f'[includeIf "gitdir:{project.directory}/"]\n\tpath = work\n'
    )
    (project.home / "work").write_text("[user]\n\temail = ada@work.example\n")
    subprocess.run(("git", "init", "-q", project.directory), check=True)
    subprocess.run(("git", "-C", project.directory, "config", "user.name", "Somebody"), check=True)
    environ = {**project.environ, "GIT_CONFIG_COUNT": "0", "GIT_CONFIG_NOSYSTEM": "1"}

    found = git_config.read_git_settings(project.directory, environ)

    assert found is not None
    wanted = {"user.name", "user.email", "pull.rebase"}
    assert [one for one in found if one[0] in wanted] == [
        ("user.name", "Ada"),
        ("pull.rebase", None),
        ("user.email", "ada@work.example"),
    ]


CONDITIONS = (
    *("gitdir:/", "gitdir:~/", "gitdir:~/work/**", "gitdir:work/", "gitdir:~/work/*/.git"),
    *("gitdir:~/w?rk/", "gitdir:~/w[a-o]rk/", "gitdir:~/w[!a-o]rk/", "gitdir:~/WORK/"),
    *("gitdir/i:~/WORK/", "gitdir:~/other/", "gitdir:./work/", "gitdir:work/a.b/.git"),
    *("gitdir:~/work/a?b/", "gitdir:~/work", "gitdir:~/*/", "gitdir:~/**/.git", "gitdir:**/a.b/**"),
    *("onbranch:main", "onbranch:topic/", "onbranch:topic/**", "onbranch:t*", "onbranch:*/x"),
    *("hasconfig:remote.*.url:https://host.example/**", "hasconfig:remote.*.url:https://*/**"),
    *("hasconfig:remote.*.url:git@**", "nonsense:x", "gitdir:~/link/", "gitdir:~/work\\\\/"),
)


def test_conditions(project: Project) -> None:
    """Are true where they are for git itself, which is not asked in a repository."""
    directory = project.home / "work/a.b"
    directory.parent.mkdir()
    subprocess.run(("git", "init", "-q", "-b", "topic/x", directory), check=True)
    words = ("remote", "add", "origin", "https://host.example/me/mine")
    subprocess.run(("git", "-C", directory, *words), check=True)
    (project.home / "link").symlink_to("work")
    (project.home / ".gitconfig").write_text(
        "".join(
            f'[includeIf "{one}"]\n\tpath = included{number}\n'
            for number, one in enumerate(CONDITIONS)
        )
    )
    for number in range(len(CONDITIONS)):
        (project.home / f"included{number}").write_text(f"[user]\n\tname = {number}\n")
    asked = subprocess.run(
        ("git", "config", "--includes", "--get-all", "user.name"),
        cwd=directory,
        env=project.environ,
        capture_output=True,
        check=True,
    )

    found = git_config.read_git_settings(directory, project.environ)

    names = [value for name, value in found or () if name == "user.name"]
    assert names == asked.stdout.decode().split()


def test_a_broken_file_brings_nothing(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """And says so to who watches."""
    (project.home / ".gitconfig").write_text("[user\n")
    with caplog.at_level("INFO", "nddt"):
        assert git_config.read_git_settings(project.directory, project.environ) is None
    assert "no settings of git come along: fatal: bad config line 1" in caplog.text


def test_without_git(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing comes along, and that is no error."""
    monkeypatch.setenv("PATH", str(project.home))
    with caplog.at_level("INFO", "nddt"):
        assert git_config.read_git_settings(project.directory, project.environ) is None
    assert "git is not installed" in caplog.text


@pytest.mark.parametrize("name", ["GH_TOKEN", "GITHUB_TOKEN"])
def test_a_token_is_told_to_git(tmp_path: Path, name: str) -> None:
    """Out of the environment; it is in no file."""
    (file,) = git_config.bring_git_settings((), (name,)).files.values()
    config = tmp_path / "config"
    config.write_bytes(file.content)

    def filled(url: str) -> str:
        return subprocess.run(
            ("git", "credential", "fill"),
            input=f"url={url}\n\n",
            env={"GIT_CONFIG_SYSTEM": str(config), "HOME": "/nowhere", name: "gh-secret",
                 "PATH": "/usr/bin:/bin", "GIT_TERMINAL_PROMPT": "0"},
            check=False,
            capture_output=True,
            text=True,
        ).stdout  # fmt: skip

    assert "username=x-access-token\npassword=gh-secret\n" in filled("https://github.com/a/b.git")
    assert "gh-secret" not in filled("https://github.com.example.org/a")
    assert "gh-secret" not in filled("http://github.com/a")


@pytest.mark.parametrize("place", ["usual", "named", "by a link"])
def test_what_the_user_ignores_everywhere(project: Project, tmp_path: Path, place: str) -> None:
    """Is ignored in the sandbox, too."""
    file = project.home / (".config/git/ignore" if place == "usual" else ".ignored")
    file.parent.mkdir(parents=True, exist_ok=True)
    if place == "by a link":
        (project.home / "dotfiles").write_text("*.swp\n")
        file.symlink_to("dotfiles")
    else:
        file.write_text("*.swp\n")
    entries = () if place == "usual" else (("core.excludesfile", "~/.ignored"),)
    session, repository = tmp_path / "a session", tmp_path / "repository"
    session.mkdir()
    subprocess.run(("git", "init", "-q", repository), check=True)
    (repository / "a.swp").touch()

    made = git_config.bring_git_settings((("safe.directory", "*"),), ()) + git_config.ignored(
        entries, project.environ
    )

    for name, one in made.files.items():
        session.joinpath(name.removeprefix("session/")).write_bytes(one.content)
    shown = subprocess.run(
        ("sh", "-ec", "; ".join((*made.before, 'git -C "$0" status --short')), repository),
        env={"NDDT_SESSION": str(session), "HOME": "/nowhere", "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
    ).stdout
    assert shown == b""


@pytest.mark.parametrize("what", ["nothing", "a link to a link", "a pipe", "too much"])
def test_a_list_that_does_not_come_along(project: Project, what: str) -> None:
    """Nothing else of this machine comes in its place."""
    file = project.home / ".ignored"
    if what == "a link to a link":
        (project.home / "second").symlink_to("/etc/passwd")
        file.symlink_to("second")
    elif what == "a pipe":
        os.mkfifo(file)
    elif what == "too much":
        file.write_bytes(bytes(2 << 20))

    assert not git_config.ignored((("core.excludesfile", "~/.ignored"),), project.environ).files


def test_nothing_to_bring() -> None:
    """Makes no file."""
    assert not git_config.bring_git_settings((), ("ANTHROPIC_API_KEY",)).files
