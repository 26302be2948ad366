"""What is taken out of our environment, and so out of that of all that we start."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from scripts.configuration import reading
from scripts.errors import ConfigError
from scripts.machine import process, shown_places

if TYPE_CHECKING:
    from tests.conftest import Project

HOSTILE = "NDDT_WORKSPACE=none\nNDDT_ENV_VARS=OPENAI_API_KEY\nNDDT_MODEL_ACCESS=env\n"
PLACES = (
    *("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
    *("CLAUDE_CONFIG_DIR", "GH_CONFIG_DIR", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "GNUPGHOME"),
    *("TMPDIR", "TMUX_TMPDIR", "GIT_CONFIG_GLOBAL"),
)


@pytest.fixture(autouse=True)
def _users(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody in a project that has a directory for each place, with a home of his own."""
    user = SimpleNamespace(pw_name="somebody", pw_dir=str(project.home))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    for name in ("NDDT_WORKSPACE", "NDDT_ENV_VARS", "NDDT_MODEL_ACCESS", "NDDT_PROVIDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(project.home))
    monkeypatch.chdir(project.directory)
    (project.directory / ".config/nddt").mkdir(parents=True)
    (project.directory / ".config/nddt/.env").write_text(HOSTILE)
    (project.directory / "nddt").mkdir()
    (project.directory / "nddt/.env").write_text(HOSTILE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("HOME", ""), ("HOME", "."), ("XDG_CONFIG_HOME", ".config"), ("XDG_CONFIG_HOME", ".")),
        ("XDG_CONFIG_HOME", "~/.config"),
    ],
)
def test_no_settings_of_the_project_are_the_users(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A path that is not absolute would be one of the directory's."""
    monkeypatch.setenv(name, value)
    if value.startswith("~"):
        (project.directory / "~").mkdir()
        (project.directory / ".config").rename(project.directory / "~/.config")
    project.write_user_file("NDDT_PERSISTENT=true\n")

    loaded = reading.from_here()

    assert (loaded.persistent, loaded.workspace) == (True, "")
    assert "OPENAI_API_KEY" not in loaded.env_vars
    assert os.environ["HOME"] == str(project.home)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("value", [".config", "../x", ""])
def test_relative_places(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
) -> None:
    """Neither nddt nor what it starts follows them; one line says so, if there was something."""
    monkeypatch.setenv(name, value)

    loaded = reading.from_here()

    is_kept = (name, value) == ("GIT_CONFIG_GLOBAL", "")  # which means none
    assert (name in loaded.process_environment) == is_kept
    seen = process.capture(("printenv", name))
    assert seen.code == (0 if is_kept else 1)
    assert caplog.messages == [
        f"{name}={value!r} is no absolute path, so it is not used — correct it"
    ] * bool(value)
    monkeypatch.setenv(name, str(project.home))
    assert reading.from_here().process_environment[name] == str(project.home)


def test_nobody_whom_the_system_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a user id of its own, without HOME."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")

    assert "HOME" not in reading.from_here().process_environment


@pytest.mark.parametrize("name", ["DOCKER_CONFIG", "GNUPGHOME"])
@pytest.mark.parametrize("where", ["project", "link", "earlier"])
def test_what_names_programs(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    """Plugins of docker, a pinentry of gpg: nothing is done where a sandbox could name them."""
    place = project.directory / ".own"
    if where == "link":
        place = project.home / "link"
        place.symlink_to(project.directory / ".own")
    if where == "earlier":
        place = project.home / "earlier/own"
        shown_places.note_shown(os.environ, (project.home / "earlier",))
    monkeypatch.setenv(name, str(place))

    with pytest.raises(ConfigError, match=f"{name} is .*, which a sandbox may change") as caught:
        reading.from_here()
    assert caught.value.exit_code == 78

    monkeypatch.setenv(name, str(project.home / ".own"))
    assert reading.from_here().process_environment[name] == str(project.home / ".own")
    assert Path(os.environ[name]) == project.home / ".own"
