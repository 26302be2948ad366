"""The current directory: the caller's, looked up once, and never changed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.configuration import reading

if TYPE_CHECKING:
    from tests.conftest import Project

ROOT = Path(__file__).parents[2]
PROGRAMS = {"relay.py", "keeping.py"}
"""Processes of their own, which leave it once, before they do anything else."""
SOURCES = [ROOT / "tasks.py", *(ROOT / "scripts").rglob("*.py")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: str(one.relative_to(ROOT)))
def test_nobody_changes_it(source: Path) -> None:
    """It is the whole process's: what another thread shows a sandbox would be another one."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    found = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in {"chdir", "fchdir", "chroot"})
        or (isinstance(node, ast.alias) and node.name in {"chdir", "fchdir", "chroot"})
    ]

    assert not found or source.name in PROGRAMS


def test_all_tasks_of_a_command_are_about_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of it meanwhile."""
    monkeypatch.chdir(project.directory)
    first = reading.from_here()

    monkeypatch.chdir("/")

    assert reading.from_here().directory == first.directory == project.directory


HOSTILE = {
    "DAYTONA_ORGANIZATION_ID": "theirs",
    "DAYTONA_TARGET": "mars",
    "DAYTONA_JWT_TOKEN": "theirs",
    "DAYTONA_OTEL_ENABLED": "true",
    "DAYTONA_API_URL": "http://hostile.example/api",
}


MAKE = """
import gc, os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from scripts.configuration import reading
from scripts.providers.daytona.api import Api

moves = []
real = os.chdir
os.chdir = lambda path: (moves.append(path), real(path))
loaded = reading.load(Path("/"), dict(os.environ), {})
with ThreadPoolExecutor(4) as pool:
    made = list(pool.map(lambda _: Api(loaded), range(8)))
from daytona_api_client.api.sandbox_api import SandboxApi
from pydantic import BaseModel
clients = {one.client for one in made}
(client,) = clients
said = client.default_headers
organization = said.get("X-Daytona-Organization-ID")
print(moves, gc.isenabled(), dict(BaseModel.model_config), "daytona" in sys.modules)
print(client.configuration.host, said["Authorization"], organization, {one.region for one in made})
"""
MADE = """\
[] True {} False
https://app.daytona.io/api Bearer mine None {None}
"""


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_the_client_of_daytona(project: Project, kind: str) -> None:
    """Wanted by many threads at once, it is one; it reads nothing of a project's.

    Nothing of the process's is changed for that.
    """
    for name in (".env", ".env.local"):
        file = project.directory / name
        if kind == "file":
            text = "".join(f"{key}={value}\n" for key, value in HOSTILE.items())
            file.write_text(text, encoding="utf-8")
        else:
            os.mkfifo(file)
    known = {"DAYTONA_API_KEY": "mine", "XDG_RUNTIME_DIR": str(project.home)}

    done = subprocess.run(
        (sys.executable, "-c", MAKE),
        cwd=project.directory,
        env={**project.environ, **known, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.stdout, done.stderr) == (MADE, "")
