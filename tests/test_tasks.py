"""The tasks and the texts about them: complete, alike, and cheap to load."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import scripts
import tasks
from scripts import agents, providers
from scripts.cli import NddtTask
from scripts.commands import settings as commands
from scripts.configuration import reading
from scripts.configuration.declared import declared
from scripts.settings import env_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from invoke.collection import Collection
    from invoke.parser.argument import Argument

ROOT = Path(__file__).parent.parent
DECLARED = {item["variable"]: item for item in declared()}
VARIABLE = r"\b(?:NDDT|DAYTONA)_[A-Z_]*[A-Z]\b"


def walk(namespace: Collection, prefix: str = "") -> Iterator[tuple[str, NddtTask]]:
    """Give each task with its full name."""
    for name, task in namespace.tasks.items():
        assert isinstance(task, NddtTask)
        yield prefix + name, task
    for name, collection in namespace.collections.items():
        yield from walk(collection, f"{prefix}{name}.")


TASKS = dict(walk(tasks.ns))


@cache
def options(task: NddtTask) -> tuple[Argument, ...]:
    """Give a task's options; asking for them twice loses their help texts (invoke 3.0)."""
    return tuple(task.get_arguments())


each_task = pytest.mark.parametrize(
    "task", [pytest.param(task, id=name) for name, task in TASKS.items()]
)


def document(name: str) -> str:
    """Read a document."""
    return (ROOT / name).read_text(encoding="utf-8")


# -- tasks ----------------------------------------------------------------------------------


def test_tasks_of_each_provider() -> None:
    """They are the same ones, and the root's follow the settings."""
    common = {
        "build-image",
        "create-sandbox",
        "attach",
        "shell",
        "list",
        "start",
        "stop",
        "cleanup",
    }

    assert set(tasks.ns.collections) == {*providers.NAMES, "test", "network"}
    for name in providers.NAMES:
        assert common - set(tasks.ns.collections[name].tasks) == set(), name
    assert {"run", "attach", "shell", "list", "stop", "cleanup", "setup", "lint"} <= {
        *tasks.ns.tasks
    }


def test_tasks_that_test() -> None:
    """The collection's own name runs all tests."""
    group = tasks.ns.collections["test"]

    assert group.default
    assert "daytona-double" in group.tasks


@each_task
def test_docstring(task: NddtTask) -> None:
    """Is the line of `nddt --list`."""
    text = task.__doc__ or ""

    assert re.fullmatch(r"[A-Z][^\n]*\.", text)
    assert len(text) <= 60


@each_task
def test_each_option_has_a_help_text(task: NddtTask) -> None:
    """Which is a sentence."""
    helped = {option.name: option.help or "" for option in options(task)}

    assert [name for name, text in helped.items() if not re.fullmatch(r".+\.", text)] == []


@each_task
def test_no_short_flags(task: NddtTask) -> None:
    """They would depend on the order of the parameters."""
    names = [name for option in options(task) for name in option.names]

    assert [name for name in names if len(name) == 1] == []


@each_task
def test_no_positional_arguments(task: NddtTask) -> None:
    """Invoke would demand them always; only these do without an option's name."""
    always = {"cp": ["source", "target"], "allow": ["host"], "deny": ["host"]}

    assert always.get(task.name, []) == [
        option.name for option in options(task) if option.positional
    ]


@each_task
def test_variables_in_help_texts_exist(task: NddtTask) -> None:
    """A renamed setting is renamed there, too."""
    text = " ".join(option.help or "" for option in options(task))

    assert set(re.findall(VARIABLE, text)) <= set(DECLARED)


def test_one_option_has_one_meaning() -> None:
    """The same name has the same text wherever it is."""
    texts: dict[str, set[str]] = {}
    for task in TASKS.values():
        for option in options(task):
            texts.setdefault(str(option.name), set()).add(str(option.help))

    assert {name: some for name, some in texts.items() if len(some) > 1} == {}


def test_import_loads_nothing_costly() -> None:
    """`nddt --list` and completion run it each time."""
    code = "import sys; sys.dont_write_bytecode = True; import tasks; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "scripts" in loaded
    assert loaded & {"docker", "sh", "daytona_api_client", "daytona", "dotenv", "requests"} == set()


@pytest.mark.parametrize("name", [*providers.NAMES, *agents.NAMES])
def test_provider_or_agent_is_a_setting(name: str) -> None:
    """What is in the list can be chosen."""
    variable = "NDDT_PROVIDER" if name in providers.NAMES else "NDDT_AGENT"

    assert DECLARED[variable]["parse"](name) == name


# -- settings -------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", DECLARED)
def test_setting(variable: str) -> None:
    """Is explained in a sentence, and its default is allowed."""
    item = DECLARED[variable]

    assert re.fullmatch(VARIABLE, variable)
    assert re.fullmatch(r"[A-Z].*\.", item["text"])
    item["parse"](item["default"])


@pytest.mark.parametrize("variable", DECLARED)
def test_env_example_has_the_setting(variable: str) -> None:
    """With its text above and its default."""
    item = DECLARED[variable]
    lines = document(".env.example").splitlines()
    wanted = f"# {variable}={item['default']}"

    assert lines.count(wanted) == 1
    start = end = lines.index(wanted)
    while start and lines[start - 1].startswith("# "):
        start -= 1
    assert " ".join(line.removeprefix("# ") for line in lines[start:end]) == item["text"]


def test_env_example_has_nothing_else(tmp_path: Path) -> None:
    """As it is, it sets nothing; no variable in it is unknown."""
    text = document(".env.example")
    file = tmp_path / ".env"
    file.write_text(text, encoding="utf-8")

    found = env_file.read_env_file(file)
    assert found
    assert found.parse() == ({}, {})
    assert set(re.findall(rf"^# ({VARIABLE})=", text, re.MULTILINE)) == set(DECLARED)


def test_env_example_can_be_used_as_it_is(tmp_path: Path) -> None:
    """Without the signs of comments its lines are settings."""
    text = re.sub(rf"^# ({VARIABLE}=)", r"\1", document(".env.example"), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(text, encoding="utf-8")

    loaded = reading.load(tmp_path, {"HOME": str(tmp_path)}, {})

    assert {name for name, source in loaded.sources.items() if source == "default"} <= {
        *(
            name
            for name, item in DECLARED.items()
            if not item["order"].is_comparable or not item["default"]
        ),
        # This one is for the environment alone.
        "NDDT_ENV_FILE",
    }


# -- versions and values --------------------------------------------------------------------


def test_version_is_one() -> None:
    """And the changelog says what is in it."""
    project = tomllib.loads(document("pyproject.toml"))["project"]

    assert project["version"] == scripts.__version__
    assert re.search(
        rf"^## \[?{re.escape(scripts.__version__)}\b", document("CHANGELOG.md"), re.MULTILINE
    )


def test_config_shows_lists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As they would be written."""
    monkeypatch.chdir(tmp_path)
    values = {"NDDT_ENV_VARS": "A,B", "NDDT_PORTS": "80,81", "NDDT_MOUNTS": "/a:/b,/c:/d:ro"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    commands.show_settings(profile=None, about_security=False)

    shown = capsys.readouterr().out.splitlines()
    assert {f"{name}={value}  # environment" for name, value in values.items()} <= set(shown)
