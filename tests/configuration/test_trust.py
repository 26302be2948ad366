"""Consent to a project's .env: to this content in this place, and to nothing else."""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.commands import settings as commands
from scripts.configuration import reading, trust
from scripts.configuration.declared import value as value_of
from scripts.errors import ConfigError, UsageError
from scripts.machine import console
from scripts.settings import env_file
from tests.configuration.test_reading import GOOD, HOW, OWN, messages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Project

STEERING = {
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:5432",
    "ANTHROPIC_BEDROCK_BASE_URL": "https://hostile.example",
    "GH_HOST": "hostile.example",
    "PATH": "/workspace",
    "LD_PRELOAD": "/workspace/x.so",
    "DOCKER_HOST": "tcp://hostile.example:2375",
    "DAYTONA_API_KEY": "theirs",
    "HTTPS_PROXY": "http://hostile.example",
    "https_proxy": "http://hostile.example",
}


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Be in the project, as a task is."""
    log = logging.getLogger("nddt")
    before = log.level
    monkeypatch.chdir(project.directory)
    for name in {*OWN, *STEERING, "NDDT_ENV_FILE", "XDG_CONFIG_HOME", "XDG_STATE_HOME"} - {"PATH"}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(project.home))
    yield project
    log.setLevel(before)


# -- what counts ----------------------------------------------------------------------------


@pytest.mark.parametrize("variable", OWN)
def test_consent_makes_a_setting_count(
    project: Project, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    """Until a single byte of the file changes, which is said; and again when it is as before."""
    value = GOOD.get(variable, "https://mine.example")
    text = f"{variable}={value}\n"
    project.write(text)
    project.agree()

    assert project.load().sources[variable] == f"{project.env_file}, line 1"
    assert messages(caplog) == []

    project.write(f"{text}#")
    changed = project.load()
    project.write(text)

    assert changed.sources[variable] == "default"
    if value_of(project.load(), OWN[variable]) != value_of(changed, OWN[variable]):
        said = f"{project.env_file} has changed since you agreed to it, so not used: {variable}"
        assert messages(caplog)[0].startswith(said)
    assert project.load().sources[variable] == f"{project.env_file}, line 1"


@pytest.mark.parametrize("name", STEERING)
def test_consent_lets_a_variable_into_the_sandbox(
    project: Project, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Where the key goes, what is loaded; the environment that we run in never changes."""
    del project.environ["PATH"]
    project.environ["NDDT_ENV_VARS"] = (
        "ANTHROPIC_*,GH_*,PATH,LD_*,DOCKER_*,DAYTONA_*,HTTPS_*,https_*"
    )
    before = dict(project.environ)
    project.write(f"A=1\n{name}={STEERING[name]}\n")

    hostile = project.load()
    project.agree()
    agreed = project.load()

    assert (name in hostile.environment, hostile.environment["A"]) == (False, "1")
    assert f"{name} (line 2)" in messages(caplog)[0]
    assert agreed.environment[name] == STEERING[name]
    assert len(messages(caplog)) == 1
    assert dict(hostile.process_environment) == dict(agreed.process_environment) == before


def test_variables_that_no_sandbox_gets_are_no_matter(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """An application's own .env is full of them; and the environment's win anyway."""
    project.environ["ANTHROPIC_BASE_URL"] = "https://mine.example"
    project.write("".join(f"{name}={value}\n" for name, value in STEERING.items()))
    project.environ["DAYTONA_API_KEY"] = "mine"

    loaded = project.load()

    assert messages(caplog) == []
    assert loaded.environment["ANTHROPIC_BASE_URL"] == "https://mine.example"


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("NDDT_WORKSPACE_READONLY", "yes", "no"),
        ("NDDT_GIT_CONFIG", "0", "1"),
        ("NDDT_GPG_FORWARD", "False", "True"),
    ],
)
def test_a_project_can_take_away(
    project: Project, caplog: pytest.LogCaptureFixture, name: str, value: str, other: str
) -> None:
    """Without consent, whatever the user's file says, but not the other way round."""
    project.write(f"{name}={value}\n")
    project.write_user_file(f"{name}={other}\n")
    taken = project.load()
    project.write(f"{name}={other}\n")
    project.write_user_file(f"{name}={value}\n")
    given_back = project.load()

    assert taken.sources[name] == f"{project.env_file}, line 1"
    assert given_back.sources[name] == f"{project.user_file}, line 1"
    assert len(messages(caplog)) == 1


def test_what_changes_nothing_is_not_said(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that counts anyway, or that an option or the environment has the say about."""
    project.environ["NDDT_COMMAND"] = "mine"
    project.write("NDDT_BASE_IMAGE=debian:trixie-slim\nNDDT_NAME=theirs\nNDDT_COMMAND=theirs\n")

    project.load(name="mine")

    assert messages(caplog) == []


def test_all_is_said_in_one_line(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """With the next step."""
    project.write("NDDT_SSH_FORWARD=bad\nNDDT_TIMEOUT=80\nANTHROPIC_BASE_URL=x\nNDDT_PORTS=80\n")

    assert (project.load().timeout_s, project.load().ports) == (80, ())
    caplog.clear()
    project.load()
    names = "NDDT_SSH_FORWARD (line 1), ANTHROPIC_BASE_URL (line 3), NDDT_PORTS (line 4)"
    said = f"{project.env_file} is not agreed to, so not used: {names} — {HOW}"
    assert messages(caplog) == [said]


def test_variables_of_a_project_do_not_fill_in_the_users_configuration(project: Project) -> None:
    """A server of the user's could be another one then."""
    project.write("API_URL=theirs\n")

    hostile = project.load()
    project.agree()

    assert ("API_URL" in hostile.environment, "API_URL" in hostile.own_environment) == (True, False)
    assert project.load().own_environment["API_URL"] == "theirs"


# -- which file -----------------------------------------------------------------------------


_contents = st.binary(max_size=50).map(lambda one: one.replace(b"\0", b"0"))


@given(content=_contents, other=_contents)
def test_only_the_exact_content_counts(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, other: bytes
) -> None:
    """Every byte of it."""
    file = tmp_path_factory.getbasetemp() / "any.env"
    environ = {"HOME": str(file.parent)}
    file.write_bytes(content)
    first = env_file.read_env_file(file)
    file.write_bytes(other)
    second = env_file.read_env_file(file)
    assert first
    assert second

    trust.agree_to_env_file(environ, first)

    assert trust.is_agreed(environ, second) == (content == other)


@pytest.mark.parametrize("kind", ["copy", "link", "hard link", "linked directory"])
def test_another_place(project: Project, tmp_path: Path, kind: str) -> None:
    """Is another project, whose directory would be shown, too; no link makes it the same."""
    project.write("NDDT_SSH_FORWARD=agent\n")
    project.agree()
    other = tmp_path / "other"
    other.mkdir()
    environ = dict(project.environ)
    if kind == "copy":
        (other / ".env").write_bytes(project.env_file.read_bytes())
    elif kind == "link":
        (other / ".env").symlink_to("../project/.env")
    elif kind == "hard link":
        os.link(project.env_file, other / ".env")
    else:
        (other / "sub").symlink_to("../project")
        environ["NDDT_ENV_FILE"] = "sub/.env"

    assert project.load().ssh_forward == "agent"
    assert reading.load(other, environ, {}).ssh_forward == ""


def test_the_file_that_changes_while_it_is_looked_at(project: Project) -> None:
    """Consent is for what was shown."""
    project.write("NDDT_NAME=harmless\n")
    shown = env_file.read_env_file(project.env_file)
    project.write("NDDT_SSH_FORWARD=keys\n")
    assert shown

    trust.agree_to_env_file(project.environ, shown)

    assert project.load().ssh_forward == ""


def test_the_note_is_private(project: Project) -> None:
    """And says what it is about, as sha256sum does."""
    project.environ["XDG_STATE_HOME"] = str(project.home / "state")
    project.write("NDDT_NAME=x1\n")
    project.agree()

    (note,) = (project.home / "state/nddt/trust").iterdir()

    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(note.parent.stat().st_mode) == 0o700
    assert note.read_text().endswith(f"  {project.env_file}\n")


def test_a_note_that_cannot_be_written(project: Project) -> None:
    """Is an error of ours, as is one that cannot be taken back."""
    project.environ["XDG_STATE_HOME"] = str(project.home / "file")
    (project.home / "file").touch()
    project.write("NDDT_NAME=x1\n")

    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        project.agree()
    with pytest.raises(ConfigError, match="cannot be taken back: Not a directory"):
        trust.revoke(project.environ, project.env_file)
    assert project.load().name == ""


def test_the_users_own_file_that_others_can_write(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts in full, so that is said."""
    project.write_user_file("A=1\n")
    project.user_file.chmod(0o666)

    project.load()

    said = f"{project.user_file} can be changed by others — it decides what a sandbox gets"
    assert messages(caplog) == [said]


# -- the task -------------------------------------------------------------------------------


HOMOGRAPH = "https://\u0430nthropic.example"
"""Its first letter is Cyrillic."""
FILE = {
    "NDDT_TIMEOUT=80": "NDDT_TIMEOUT=80  # line 1, counts as it is",
    "NDDT_PORTS=80": "NDDT_PORTS=80  # line 2",
    "NDDT_COMMAND='a\x1b[2J'": r"'NDDT_COMMAND=a\x1b[2J'  # line 3",
    "DAYTONA_API_KEY=hidden": "DAYTONA_API_KEY=***  # line 4",
    "DOCKER_AUTH=hidden": "DOCKER_AUTH=***  # line 5",
    "SSH_ASKPASS=/workspace/x": "SSH_ASKPASS=/workspace/x  # line 6",
    "ANTHROPIC_BASE_URL=http://me:hidden@127.0.0.1:1": (
        "ANTHROPIC_BASE_URL=http://***@127.0.0.1:1  # line 7"
    ),
    f"OPENAI_BASE_URL={HOMOGRAPH}": (r"'OPENAI_BASE_URL=https://\u0430nthropic.example'  # line 8"),
    "AWS_ENDPOINT_URL_SECRETS_MANAGER=https://a.example": (
        "AWS_ENDPOINT_URL_SECRETS_MANAGER=https://a.example  # line 9"
    ),
    "NDDT_GPG_FORWARD=no": "NDDT_GPG_FORWARD=no  # line 10, counts as it is",
    "DOCKER_A_KEY='sh -c evil'": "DOCKER_A_KEY=sh -c evil  # line 11",
    "DOCKER_A_TOKEN='$(evil)'": "DOCKER_A_TOKEN=$(evil)  # line 12",
    "MINE=1": "",
}
"""Line of a project's file → as it is shown before it is agreed to."""


def test_the_task(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Shows what would count, asks, and can be taken back."""
    here.write("\n".join(FILE))
    with pytest.raises(UsageError, match="not done without your consent"):
        commands.trust_project(revoked=False, yes=False, dry=False)
    assert capsys.readouterr().out.splitlines() == [one for one in FILE.values() if one]
    commands.trust_project(revoked=False, yes=True, dry=True)
    assert here.load().command == ""
    commands.trust_project(revoked=False, yes=True, dry=False)
    assert here.load().command == "a\x1b[2J"
    commands.trust_project(revoked=False, yes=False, dry=False)  # asks no more
    commands.trust_project(revoked=True, yes=False, dry=True)
    assert here.load().command == "a\x1b[2J"
    commands.trust_project(revoked=True, yes=False, dry=False)
    assert here.load().command == ""


def test_the_task_shows_what_the_file_itself_names(
    here: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the file is; what the user names already is not news."""
    (here.directory / "sub").mkdir()
    monkeypatch.setenv("NDDT_ENV_FILE", "sub/team.env")
    here.write_user_file("NDDT_ENV_VARS=MINE\n")
    (here.directory / "sub/team.env").write_text("NDDT_ENV_VARS=MINE,X_*\nMINE=1\nX_A=2\nY=3\n")

    commands.trust_project(revoked=False, yes=True, dry=True)

    shown = ["NDDT_ENV_VARS=MINE,X_*  # line 1", "X_A=2  # line 3"]
    assert capsys.readouterr().out.splitlines() == shown


def test_the_question_is_for_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name of a directory in it is not obeyed."""
    monkeypatch.setattr(console, "can_ask", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    assert console.ask("Let all of /a\x1b[2J\u202e\n/.env count?")
    assert capsys.readouterr().err == r"nddt: Let all of /a\x1b[2J\u202e\n/.env count? [y/N] "


def test_the_task_where_there_is_no_file(here: Project) -> None:
    """Says so."""
    with pytest.raises(UsageError, match=r"there is no .*/project/\.env"):
        commands.trust_project(revoked=False, yes=True, dry=False)

    assert not (here.home / ".local").exists()


def test_the_task_says_whose_file_it_is(here: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Before it asks."""
    (here.directory / "linked").write_text("NDDT_NAME=x1\n")
    (here.directory / "linked").chmod(0o666)
    here.env_file.symlink_to("linked")

    with pytest.raises(UsageError, match="not done without your consent"):
        commands.trust_project(revoked=False, yes=False, dry=False)

    said = [f"{here.env_file} {what}" for what in ("can be changed by others", "is a link")]
    assert messages(caplog) == said
