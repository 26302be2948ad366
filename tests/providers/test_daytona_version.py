"""What npm of this machine is asked, with the real one: it heeds nothing of a directory."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, cast

import pytest

from scripts.providers import daytona

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.contracts.image import Recipe
    from tests.conftest import Project

PACKAGE = "@anthropic-ai/claude-code"


@contextmanager
def registry(version: str) -> Iterator[tuple[str, list[str]]]:
    """Serve one package's one version; tell the address, and the credentials that come."""
    asked: list[str] = []
    dist = {"tarball": "http://127.0.0.1/x", "shasum": "0" * 40}
    manifest = {"name": PACKAGE, "version": version, "dist": dist}
    answer = {"name": PACKAGE, "dist-tags": {"latest": version}, "versions": {version: manifest}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"//127.0.0.1:{server.server_port}/", asked
        server.shutdown()


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
@pytest.mark.parametrize("where", [".", "deep"])
def test_a_projects_npmrc_chooses_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """No registry, no key of the user's for it, and no place of a log; the user's own does."""
    here = project.directory / where
    here.mkdir(exist_ok=True)
    (project.directory / "package.json").write_text("{}")
    logs = project.home / "logs"
    project.environ["ANTHROPIC_API_KEY"] = "sk-ant-secret"
    monkeypatch.chdir(here)
    with registry("6.6.6") as (theirs, stolen), registry("2.1.330") as (ours, asked):
        (project.home / ".npmrc").write_text(
            f"registry=http:{ours}\n{ours}:_authToken=mine\nfund=false\nupdate-notifier=false\n"
        )
        (project.directory / ".npmrc").write_text(
            f"@anthropic-ai:registry=http:{theirs}\nregistry=http:{theirs}\n"
            f"{theirs}:_authToken=${{ANTHROPIC_API_KEY}}\nlogs-dir={logs}\n"
        )

        # Only where npm does not answer are these used.
        recipe, build_tools = cast("Recipe", None), pytest.fail
        found = daytona.look_up(project.load(), recipe, f"{PACKAGE}@latest", build_tools)

    assert (found, set(asked), stolen) == ("2.1.330", {"Bearer mine"}, [])
    assert not logs.exists()
