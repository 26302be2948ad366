"""The model endpoint and its script, over real HTTP on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.demo.messages_api import (
    Answer,
    Failure,
    Request,
    Text,
    ToolUse,
    demo_reply,
    last_prompt,
)
from scripts.demo.model_endpoint import Endpoint
from tests.scripted_model import SESSION_HEADER, ScriptedModel, error, slow_text, text, tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
TOOLS = [{"name": "Write", "input_schema": {"type": "object"}}]


@pytest.fixture
def demo() -> Iterator[Endpoint]:
    """Serve the demo."""
    with Endpoint(demo_reply) as endpoint:
        endpoint.start()
        yield endpoint


def connect(endpoint: Endpoint) -> http.client.HTTPConnection:
    """Open a client that keeps its connection."""
    return http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=10)


def ask(
    client: http.client.HTTPConnection, body: Mapping[str, Any], session: str = "one"
) -> tuple[http.client.HTTPResponse, bytes]:
    """Post to /v1/messages as Claude Code does."""
    client.request("POST", "/v1/messages?beta=true", json.dumps(body), {SESSION_HEADER: session})
    response = client.getresponse()
    return response, response.read()


def conversation(prompt: str = "Say hello", *, stream: bool = False) -> dict[str, Any]:
    """Give a request like those of a conversation."""
    messages = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
    return {"model": "m", "messages": messages, "tools": TOOLS, "stream": stream}


def events(body: bytes) -> list[dict[str, Any]]:
    """Parse server-sent events, which must each be named by their type."""
    found = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert f"event: {found[-1]['type']}" == name
    return found


def said(endpoint: Endpoint, session: str = "one") -> str:
    """Ask for the next step without a stream, and give its last text."""
    with closing(connect(endpoint)) as client:
        _, body = ask(client, conversation(), session)
    return str(json.loads(body)["content"][-1]["text"])


def test_demo_says_that_no_model_was_asked(demo: Endpoint) -> None:
    """The answer names the demo and quotes the prompt's first line, cut."""
    with closing(connect(demo)) as client:
        response, body = ask(client, conversation("Explain " + "x" * 100 + "\nand more"))
    message = json.loads(body)

    assert response.status == 200
    assert message["stop_reason"] == "end_turn"
    assert "no model was asked" in message["content"][0]["text"]
    assert "“Explain " + "x" * 52 + "…”" in message["content"][0]["text"]


def test_demo_streams_the_events_of_the_api(demo: Endpoint) -> None:
    """All event kinds come in the documented order, and the deltas make up the text."""
    with closing(connect(demo)) as client:
        response, body = ask(client, conversation(stream=True))
        _, whole = ask(client, conversation())
    stream = events(body)
    deltas = [one["delta"]["text"] for one in stream if one["type"] == "content_block_delta"]

    assert response.getheader("content-type") == "text/event-stream"
    assert [
        "message_start",
        "ping",
        "content_block_start",
        *["content_block_delta"] * len(deltas),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ] == [one["type"] for one in stream]
    assert json.loads(whole)["content"][0]["text"] == "".join(deltas)
    assert stream[-2]["usage"]["output_tokens"] == 1


def test_title_request_gets_json_of_its_schema(demo: Endpoint) -> None:
    """Claude Code parses the title that it asks for."""
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    output = {"format": {"type": "json_schema", "schema": schema}}
    with closing(connect(demo)) as client:
        _, body = ask(client, {**conversation(), "tools": [], "output_config": output})

    assert json.loads(json.loads(body)["content"][0]["text"]) == {"title": "nddt demo"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", "/", 200), ("HEAD", "/api/hello", 200), ("GET", "/", 200), ("GET", "/v1/x", 404)],
)
def test_other_paths(demo: Endpoint, method: str, path: str, status: int) -> None:
    """A probe succeeds; an unknown path is the API's 404."""
    with closing(connect(demo)) as client:
        client.request(method, path)
        response = client.getresponse()
        body = response.read()

    assert status == response.status
    if status == 404:
        assert json.loads(body)["error"]["type"] == "not_found_error"


def test_models_and_token_count(demo: Endpoint) -> None:
    """Both are answered on one connection."""
    with closing(connect(demo)) as client:
        client.request("GET", "/v1/models?limit=5")
        models = json.loads(client.getresponse().read())
        client.request("POST", "/v1/messages/count_tokens", json.dumps(conversation()))
        count = json.loads(client.getresponse().read())

    assert [one["id"] for one in models["data"]] == ["nddt-demo"]
    assert count["input_tokens"] > 10


@pytest.mark.parametrize("body", ["", "no json", "[]", "{}"])
def test_request_that_is_none(demo: Endpoint, body: str) -> None:
    """It is the client's error, and the connection goes on."""
    with closing(connect(demo)) as client:
        client.request("POST", "/v1/messages", body)
        response = client.getresponse()
        failure = json.loads(response.read())
        again, _ = ask(client, conversation())

    assert response.status == 400
    assert failure["type"] == "error"
    assert failure["error"]["type"] == "invalid_request_error"
    assert again.status == 200


def test_connection_is_kept(demo: Endpoint) -> None:
    """Whole answers, streams and errors leave the connection usable, and are quick."""
    with closing(connect(demo)) as client:
        client.connect()
        address = client.sock.getsockname()
        start = time.monotonic()
        for number in range(30):
            ask(client, conversation(stream=number % 2 == 0))
        took_s = time.monotonic() - start

        assert address == client.sock.getsockname()
        assert took_s < 1  # Nagle's algorithm costs 40 ms for each of them


def test_connection_before_start_waits() -> None:
    """The address is there at once; whoever comes early is answered late."""
    with Endpoint(demo_reply) as endpoint:
        clients = [connect(endpoint) for _ in range(20)]
        for client in clients:
            client.request("HEAD", "/")
        endpoint.start()
        codes = [client.getresponse().status for client in clients]
        for client in clients:
            client.close()

    assert codes == [200] * 20


def test_close_without_start_frees_the_port() -> None:
    """A run that ends before its sandbox starts leaves nothing."""
    with Endpoint(demo_reply) as endpoint:
        pass

    with pytest.raises(ConnectionRefusedError):
        connect(endpoint).connect()


def test_close_ends_an_answer() -> None:
    """A client in the middle of a slow answer is dropped, and closing does not wait for it."""
    with ScriptedModel(slow_text(["one", "two"], 30)) as model, closing(connect(model)) as client:
        client.request("POST", "/v1/messages", json.dumps(conversation(stream=True)))
        response = client.getresponse()
        start = time.monotonic()
        model.close()

        assert time.monotonic() - start < 5
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()


def test_client_that_goes_away(capfd: pytest.CaptureFixture[str]) -> None:
    """It leaves no noise, and the next one is answered."""
    with ScriptedModel(slow_text(["x" * 100_000] * 50, 0.01), text("next")) as model:
        client = connect(model)
        client.connect()
        reset = struct.pack("ii", 1, 0)  # linger for 0 s: a reset in place of a goodbye
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        body = json.dumps(conversation(stream=True))
        client.request("POST", "/v1/messages", body, {SESSION_HEADER: "one"})
        response = client.getresponse()
        response.read(10)
        response.close()
        client.close()
        time.sleep(0.2)

        assert said(model) == "next"
    assert capfd.readouterr() == ("", "")


def test_script_is_followed_for_each_session() -> None:
    """Twenty agents at once each get the whole script; requests without tools take no step."""
    model = ScriptedModel(text("first"), error(529, times=2), text("last"))

    def talk(session: str) -> list[object]:
        seen: list[object] = []
        with closing(connect(model)) as client:
            for _ in range(5):
                ask(client, {**conversation(), "tools": []}, session)
                response, body = ask(client, conversation(), session)
                parsed = json.loads(body)
                ok = response.status == 200
                seen.append(parsed["content"][0]["text"] if ok else response.status)
        return seen

    with model, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(talk, map(str, range(20))))

    assert answers == [["first", 529, 529, "last", "The script has ended."]] * 20
    assert len(model.requests) == 200
    assert len(model.conversation) == 100
    assert {str(number) for number in range(20)} == {
        one.headers[SESSION_HEADER] for one in model.conversation
    }


def test_tool_use_is_streamed_in_parts() -> None:
    """The input arrives as pieces of JSON, the ids differ, and the agent is to run the tool."""
    arguments = {"file_path": "/workspace/ü", "content": 'a"b\n'}
    with (
        ScriptedModel(*[tool("Write", arguments, say="Now.")] * 2) as model,
        closing(connect(model)) as client,
    ):
        stream = events(ask(client, conversation(stream=True))[1])
        whole = json.loads(ask(client, conversation())[1])
    starts = [one["content_block"] for one in stream if one["type"] == "content_block_start"]
    deltas = [one["delta"] for one in stream if one["type"] == "content_block_delta"]
    parts = [one["partial_json"] for one in deltas if one["type"] == "input_json_delta"]

    assert [one["type"] for one in starts] == ["text", "tool_use"]
    assert starts[1]["input"] == {}
    assert len(parts) > 1
    assert arguments == json.loads("".join(parts))
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"
    assert arguments == whole["content"][1]["input"]
    assert whole["stop_reason"] == "tool_use"
    assert starts[1]["id"] != whole["content"][1]["id"]


def test_slow_text_arrives_in_pieces() -> None:
    """Each piece is sent when it is due, not all at the end."""
    with (
        ScriptedModel(slow_text(["one", "two"], 0.2)) as model,
        closing(connect(model)) as client,
    ):
        client.request("POST", "/v1/messages", json.dumps(conversation(stream=True)))
        response = client.getresponse()
        at_s = {
            line.decode().strip(): time.monotonic() for line in response if b"text_delta" in line
        }
    first, second = at_s.values()

    assert second - first > 0.1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")],
)
def test_errors_have_the_shape_of_the_api(status: int, kind: str) -> None:
    """Also for a stream: the error comes before it begins."""
    with (
        ScriptedModel(error(status, retry_after_s=7)) as model,
        closing(connect(model)) as client,
    ):
        response, body = ask(client, conversation(stream=True))
    failure = json.loads(body)

    assert status == response.status
    assert response.getheader("retry-after") == "7"
    assert {"type": kind, "message": f"scripted {status}"} == failure["error"]


def test_reply_may_look_at_the_request() -> None:
    """It gets the parsed body and the header names in lower case."""

    def echo(request: Request, /) -> Answer:
        return (Text((f"{request.path} {request.headers[SESSION_HEADER]}",)),)

    with Endpoint(echo) as endpoint:
        endpoint.start()

        assert said(endpoint, "three") == "/v1/messages three"


def test_last_prompt_is_what_the_user_wrote() -> None:
    """Reminders, tool results and other roles are passed over."""
    messages = [
        {"role": "user", "content": "first"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>\nnot\nthis</system-reminder>\n"},
                {"type": "text", "text": " the <system-reminder>x</system-reminder>prompt\n"},
                {"type": "text", "text": "<system-reminder>nor this</system-reminder>"},
            ],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "name": "Bash"}]},
        {"role": "user", "content": [{"type": "tool_result", "content": "out"}]},
        {"role": "system", "content": "environment"},
    ]
    request = Request(method="POST", path="/", headers={}, body={"messages": messages})

    assert last_prompt(request) == "the prompt"


@given(prompt=st.text())
def test_any_prompt_is_answered(prompt: str) -> None:
    """No text makes the demo stumble, and its answer stays short."""
    request = Request(method="POST", path="/", headers={}, body=conversation(prompt))
    answer = demo_reply(request)

    assert not isinstance(answer, Failure)
    block = answer[0]
    assert not isinstance(block, ToolUse)
    assert len("".join(block.pieces)) < 250


def test_importing_it_is_cheap() -> None:
    """The run's hot path must not wait for http.server."""
    code = (
        "import sys, scripts.demo.model_endpoint as m, scripts.demo.messages_api as a; "
        "m.Endpoint(a.demo_reply).close(); "
        "print('http.server' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )

    assert done.stdout == "False\n"
