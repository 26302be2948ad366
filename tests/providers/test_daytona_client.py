"""Daytona's generated client: it says what the SDK says, and what comes back is understood."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import daytona as daytona_sdk
import pytest

from scripts.contracts.image import AGENT_STAGE, Recipe
from scripts.contracts.sandbox import Specification
from scripts.errors import NddtError
from scripts.providers import daytona
from scripts.providers.daytona import build_log, creation, snapshots
from scripts.providers.daytona.api import Api
from scripts.providers.daytona.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.conftest import Project

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SLOW_S = 20
"""More than any answer of the server's takes."""


@dataclass
class Answer:
    """What a server says, and what it was asked."""

    status: int = 500
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    holds: threading.Event = field(default_factory=threading.Event)
    """Set as soon as a silent answer may end."""
    url: str = ""


@pytest.fixture
def server() -> Iterator[Answer]:
    """A server that says the same to everybody; below /silent, half a line and no more."""
    answer = Answer()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen = {name.lower(): value for name, value in self.headers.items()}
            path = self.path.replace("?force=false", "")
            answer.asked.append((f"{self.command} {path}", seen, json.loads(body or "null")))
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body.encode())
            if self.path.startswith("/silent"):
                self.wfile.flush()
                answer.holds.wait(SLOW_S)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  (the library's names)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        answer.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield answer
        answer.holds.set()
        http.shutdown()


def api_of(project: Project, url: str, **more: str) -> Api:
    """Make a client of a server."""
    known = {"DAYTONA_API_KEY": "mine", "DAYTONA_API_URL": url, **more}
    project.environ.update(known)
    return Api(project.load())


def wish(*, persistent: bool = False) -> Specification:
    """Specify a sandbox."""
    labels = {"nddt": "ephemeral", "nddt.pid": "1"}
    return Specification(
        name="box", persistent=persistent, workspace=None, user="nddt", labels=labels
    )


# -- what is said ---------------------------------------------------------------------------


@contextmanager
def refused() -> Iterator[None]:
    """Have a server refuse what it is asked."""
    with pytest.raises(Exception, match="no"):
        yield


def test_it_says_what_the_sdk_says(project: Project, server: Answer, tmp_path: Path) -> None:
    """The same requests with the same headers and bodies, but for a label of the SDK's own."""
    server.status, server.body = 400, '{"message": "no"}'
    config = daytona_sdk.DaytonaConfig(
        api_key="mine", api_url=server.url, target="eu", use_deprecated_polling=True
    )
    sdk = daytona_sdk.Daytona(config)
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN true\n", encoding="utf-8")
    api = api_of(project, server.url, DAYTONA_REGION="eu")
    want = wish()
    size = (2, 4, 8)

    parameters = daytona_sdk.CreateSandboxFromSnapshotParams(
        name="box", snapshot="snap", auto_stop_interval=15, ephemeral=True
    )
    wanted = daytona_sdk.CreateSnapshotParams(
        name="snap",
        image=daytona_sdk.Image.from_dockerfile(str(tmp_path / "Dockerfile")),
        resources=daytona_sdk.Resources(cpu=2, memory=4, disk=8),
    )
    with refused():
        sdk.get("a b/c")
    with refused():
        list(sdk.list())
    with refused():
        sdk.create(parameters)
    with refused():
        sdk.snapshot.create(wanted)
    recipe = Recipe(
        dockerfile=f"FROM debian\nRUN true\n{AGENT_STAGE}\n",
        base="debian",
        arguments={"NODE_VERSION": "22"},
        proxies={},
        agent="some",
        title="Some",
        package="some",
        program="some",
        conversations="some",
    )
    theirs = server.asked[:]
    server.asked.clear()
    with refused():
        api.call("get", api.sandboxes.get_sandbox, "a b/c")
    with refused():
        api.call("list", api.sandboxes.list_sandboxes)
    with refused():
        creation.create_running(api, want, "snap")
    with refused():
        snapshots.build_snapshot(api, "snap", recipe, "", size)

    ours = server.asked[:3] + [one for one in server.asked if one[0] == "POST /snapshots"]
    for _, headers, body in (theirs[2], ours[2]):
        headers["content-length"] = ""
        body["labels"] = body["volumes"] = {}
    assert ours == theirs
    said = theirs[0][1]
    assert said["authorization"] == "Bearer mine"
    assert said["user-agent"] == f"sdk-python/{said['x-daytona-sdk-version']}"


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({}, None),
        ({"DAYTONA_TARGET": "eu"}, "eu"),
        ({"DAYTONA_TARGET": "eu", "DAYTONA_REGION": "us"}, "us"),
        ({"DAYTONA_TARGET": ""}, None),
    ],
    ids=["nothing", "target", "both", "empty"],
)
def test_the_region(project: Project, variables: dict[str, str], region: str | None) -> None:
    """It is nddt's setting, else the SDK's variable of the environment."""
    assert api_of(project, "http://127.0.0.1:9/api", **variables).region == region


def test_one_client_of_a_command(project: Project) -> None:
    """Other keys and addresses are other accounts."""
    url = "http://127.0.0.1:9/api"
    first = api_of(project, url)

    assert api_of(project, url).client is first.client
    assert api_of(project, url, DAYTONA_API_KEY="other").client is not first.client
    assert api_of(project, f"{url}/x").client is not first.client


# -- what comes back ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "words", "code"),
    [
        (401, '{"message": "Unauthorized"}', "", "DAYTONA_API_KEY (from: environment)", 77),
        (402, '{"message": "Pay first"}', "", "Pay first", 73),
        (403, '{"message": "Forbidden resource"}', "", "lacks the permission some:scope", 77),
        (403, '{"message": "Organization is suspended: x"}', "", "is suspended", 69),
        (404, '{"message": "Cannot GET /sandbox"}', "", "is not Daytona's API", 78),
        (409, '{"message": "Name is taken"}', "", "Name is taken", 75),
        (400, '{"message": "Total CPU limit exceeded"}', "", "has no room", 75),
        (400, '{"message": ["a must be b", "c"]}', "", "a must be b", 73),
        (400, '{"error": "Bad thing"}', "", "Bad thing", 73),
        (422, '{"message": "pause is unsupported"}', "", "pause is unsupported", 73),
        (429, '{"message": "ThrottlerException"}', "", "too many requests", 75),
        (500, '{"message": "An unexpected error"}', "", "500 An unexpected error", 69),
        (502, "", "", "502 Bad Gateway", 69),
        (503, "<html><title>Away</title></html>", "", "a page titled 'Away'", 69),
        (200, '{"id": "1"}', "version", "another version than the SDK", 78),
        (200, '{"id": ', "unreadable", "is not Daytona's API", 69),
        (200, "[]", "unreadable", "is not Daytona's API", 69),
    ],
    ids=lambda one: str(one)[:20] if isinstance(one, str) else None,
)
def test_a_refusal(
    project: Project,
    server: Answer,
    status: int,
    body: str,
    kind: str,
    words: str,
    code: int,
) -> None:
    """Its status, the server's own sentence, and what the user makes of it."""
    server.status, server.body = status, body
    server.headers = {"Retry-After-sandbox": "7"}
    api = api_of(project, server.url)

    with pytest.raises(NddtError) as said, api.explained("some:scope"):
        api.call("look", api.sandboxes.get_sandbox, "x", within_s=2, repeat=False)

    cause = said.value.__cause__
    assert isinstance(cause, Refusal)
    assert (cause.status, cause.kind) == (None if status == 200 else status, kind)
    assert words in said.value.message
    assert "\n" not in said.value.message
    assert "HTTPHeaderDict" not in said.value.message
    assert said.value.exit_code == code
    if kind == "":
        assert cause.retry_after_s == 7


def test_a_server_that_is_not_there(project: Project) -> None:
    """Nothing has been sent, which is tried again twice."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        api = api_of(project, f"http://127.0.0.1:{taken.getsockname()[1]}")

        with pytest.raises(NddtError) as said, api.explained():
            api.call("look", api.sandboxes.get_sandbox, "x")

    assert isinstance(said.value.__cause__, Refusal)
    assert said.value.__cause__.kind == "offline"
    assert "Connection refused" in said.value.message


def test_a_server_that_says_nothing(project: Project, server: Answer) -> None:
    """A deadline is one of the whole call, in whatever pieces an answer comes."""
    server.status, server.body = 200, "{"
    api = api_of(project, f"{server.url}/silent")
    began = time.monotonic()

    with pytest.raises(Refusal) as said:
        api.call("look", api.sandboxes.get_sandbox, "x", within_s=0.3)

    assert said.value.kind == "late"
    assert time.monotonic() - began < SLOW_S / 2


# -- the log of a build ---------------------------------------------------------------------


def test_a_log(server: Answer) -> None:
    """All lines that are there when the build has ended; the key is shown to nobody else."""
    server.status, server.body = 200, "one\ntwo\r\nth\xffree"
    shown: list[str] = []

    with build_log.followed(lambda: server.url, {"Authorization": "Bearer mine"}, shown.append):
        pass

    assert shown == ["one", "two", "th\xffree"]
    (line, headers, _) = server.asked[0]
    assert line == "GET /?follow=true"
    assert headers["authorization"] == "Bearer mine"


def test_a_log_elsewhere(server: Answer) -> None:
    """Where its address leads, the key does not go."""
    server.status, server.headers = 302, {"Location": "/there"}
    shown: list[str] = []

    with build_log.followed(lambda: server.url, {"Authorization": "Bearer mine"}, shown.append):
        pass

    assert ["authorization" in headers for _, headers, _ in server.asked][:2] == [True, False]


def test_a_log_of_a_silent_builder(
    server: Answer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The build's end is not waited for twice; what comes later is not shown."""
    monkeypatch.setattr(build_log, "REST_S", 0.2)
    server.status, server.body = 200, "one\n"
    shown: list[str] = []

    with build_log.followed(lambda: f"{server.url}/silent", {}, shown.append):
        pass
    server.holds.set()

    assert shown == ["one"]
    assert not caplog.records


@pytest.mark.parametrize("address", ["404", "nobody", "file:///etc/hostname", "unknown"])
def test_a_log_that_cannot_be_read(
    server: Answer, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so, and the build goes on."""
    server.status = 404
    known = {"404": server.url, "nobody": "http://127.0.0.1:9"}
    shown: list[str] = []

    def look_up() -> str:
        if address == "unknown":
            raise Refusal("find the log", 404, "no log")
        return known.get(address, address)

    with build_log.followed(look_up, {}, shown.append):
        pass

    assert not shown
    (record,) = caplog.records
    assert "the log of the build cannot be read: " in record.getMessage()


def test_the_module_is_the_provider() -> None:
    """What is split into modules does not hide a function of the protocol."""
    assert callable(daytona.sandboxes)
    assert callable(daytona.build)
