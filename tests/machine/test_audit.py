"""The audit log: a line for each action, whatever happens, and never in the way."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.errors import EndedBySignalError, UnavailableError
from scripts.machine import audit
from tests.configuration.test_reading import messages

if TYPE_CHECKING:
    from tests.conftest import Project

ROOT = Path(__file__).parents[2]


def lines(file: Path) -> list[dict[str, Any]]:
    """Read a log."""
    return [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()]


def default(project: Project) -> Path:
    """Give the log that nobody has chosen."""
    return project.home / ".local/state/nddt/audit.log"


def act(project: Project, action: str = "run", *, error: BaseException | None = None) -> None:
    """Do something that is recorded."""
    with audit.recorded(action):
        audit.about(project.load())
        audit.sandbox("one")
        audit.sandbox("two")
        audit.sandbox("one")
        if error:
            raise error


def test_line(project: Project) -> None:
    """Says what, when, where, by whom and how it ended, for its owner's eyes alone."""
    project.environ.update(ANTHROPIC_API_KEY="hidden", DAYTONA_API_KEY="hidden")
    project.environ["NDDT_PROVIDER"] = "daytona"

    act(project)

    file = default(project)
    (line,) = lines(file)
    assert line.pop("time").endswith("+00:00")
    assert 0 <= line.pop("seconds") < 60
    assert line == {
        "action": "run",
        "user": project.load().owner,
        "provider": "daytona",
        "sandboxes": ["one", "two"],
        "workspace": str(project.directory),
        "exit": 0,
    }
    assert "hidden" not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("not there"), 69),
        (EndedBySignalError(15), 143),
        (KeyboardInterrupt(), 130),
        (SystemExit(3), 3),
        (SystemExit("text"), 1),
        (ValueError("a mistake of ours"), 1),
    ],
)
def test_failure(project: Project, error: BaseException, code: int) -> None:
    """Has the exit code of the command, and goes on its way."""
    with pytest.raises(type(error)) as caught:
        act(project, error=error)

    assert caught.value is error
    assert [line["exit"] for line in lines(default(project))] == [code]


def test_what_is_about_nothing_is_not_written(project: Project) -> None:
    """A look at the settings, or what failed before they were read."""
    with audit.recorded("config"):
        audit.sandbox("one")
    audit.about(project.load())  # nothing is recorded here

    assert not default(project).exists()


@given(name=st.text(), value=st.text())
def test_any_text_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: str
) -> None:
    """Of ASCII, so that no terminal obeys it."""
    file = tmp_path_factory.getbasetemp() / "any.log"
    file.unlink(missing_ok=True)
    with audit.recorded("x") as record:
        record.sandboxes.append(name)
        audit.note(file=value)
        audit.about(_settings(file))

    (line,) = lines(file)
    assert (line["sandboxes"], line["file"]) == ([name], value)
    assert all(32 <= byte < 127 for byte in file.read_bytes()[:-1])


def _settings(file: Path) -> Any:  # noqa: ANN401
    from scripts.configuration import reading  # noqa: PLC0415

    return reading.load(file.parent, {"HOME": "/", "NDDT_LOG": str(file)}, {})


# -- the file -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("directory", "Is a directory"),
        ("below a file", "File exists"),
        ("pipe", "No such device or address"),
        ("/dev/full", "No space left on device"),
    ],
)
def test_a_log_that_cannot_be_written(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, problem: str
) -> None:
    """Is worth one warning, and stops nothing."""
    path = tmp_path / "log"
    if kind == "directory":
        path.mkdir()
    elif kind == "below a file":
        path.touch()
        path /= "log"
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path(kind)
    project.environ["NDDT_LOG"] = str(path)

    act(project)

    hint = "set NDDT_LOG to a file that can, or to /dev/null"
    assert messages(caplog) == [f"the log {path} cannot be written: {problem} — {hint}"]


@pytest.mark.parametrize(
    "link", ["log -> victim", "sub -> .", "sub/log -> ../victim", "log -> /dev/null"]
)
def test_a_log_where_a_sandbox_works(
    project: Project, caplog: pytest.LogCaptureFixture, link: str
) -> None:
    """Is written by no link that one could have left; elsewhere a link is the user's."""
    name, target = link.split(" -> ")
    victim = project.directory / "victim"
    victim.write_text("")
    (project.directory / name).parent.mkdir(exist_ok=True)
    (project.directory / name).symlink_to(target)
    path = project.directory / (name if name.endswith("log") else f"{name}/log")
    for workspace in ("mount", "sync"):
        project.environ.update({"NDDT_LOG": str(path), "NDDT_WORKSPACE": workspace})
        act(project)
    assert len(messages(caplog)) == 2
    assert all("cannot be written: " in one for one in messages(caplog))
    assert victim.read_text() == ""
    assert not (project.directory / "log").is_file() or path.parent == project.directory

    project.environ["NDDT_LOG"] = str(project.directory / "own/log")
    act(project)
    assert len(lines(project.directory / "own/log")) == 1

    project.environ.update({"NDDT_LOG": str(path), "NDDT_WORKSPACE": "none"})
    act(project)
    assert len(messages(caplog)) == 2


def test_no_log(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Goes to /dev/null."""
    project.environ["NDDT_LOG"] = "/dev/null"

    act(project)

    assert messages(caplog) == []
    assert not default(project).exists()


# -- the tasks ------------------------------------------------------------------------------


def test_tasks(project: Project) -> None:
    """Each writes its line; one that only looks writes none."""
    project.write("NDDT_COMMAND='echo hidden'\nNDDT_TIMEOUT=9\n")
    environ = {**project.environ, "DOCKER_HOST": "unix:///nowhere", "XDG_CONFIG_HOME": "/nowhere"}
    log = default(project)

    def nddt(*words: str) -> int:
        argv = (str(ROOT / "nddt"), *words)
        done = subprocess.run(
            argv, cwd=project.directory, env=environ, check=False, capture_output=True
        )
        return done.returncode

    assert nddt("config") == nddt("trust", "--dry", "--yes") == 0
    assert not log.exists()
    assert nddt("trust", "--yes") == nddt("trust", "--revoke") == 0
    assert nddt("run", "--dry", "--demo", "--prompt", "hidden") == 0
    assert nddt("network.allow", "example.org") == 0
    assert nddt("stop", "--name", "no-such") == 69

    found = [(line["action"], line.get("consent"), line["exit"]) for line in lines(log)]
    assert found[:2] == [("trust", "given", 0), ("trust", "revoked", 0)]
    assert found[2:] == [("allow", None, 0), ("stop", None, 69)]
    assert lines(log)[2]["host"] == "example.org"
    assert lines(log)[3]["sandboxes"] == ["no-such"]
    assert "hidden" not in log.read_text()
