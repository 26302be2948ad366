"""A small Anthropic Messages endpoint on loopback, for the demo and for tests.

Requests, answers, stream events and errors have the shapes that
https://docs.anthropic.com/en/api/messages, …/messages-streaming and …/errors describe.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.server import BaseHTTPRequestHandler, HTTPServer

    _Connection = Any  # socketserver has room for datagrams in this type

_BACKLOG = 128  # connections that may wait for `start`
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_QUOTE_CHARACTERS = 60
_MODEL = "nddt-demo"
_USAGE = {"input_tokens": 1, "output_tokens": 1}  # the agent adds up what they would cost


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client sent: the path without its query, header names in lower case, the JSON body.

    The body is empty if there was none or if it was no JSON object.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Text:
    """A text block, sent in pieces with so many seconds before each."""

    pieces: tuple[str, ...]
    delay_s: float = 0.0

    def content(self) -> dict[str, Any]:
        """Give the whole block."""
        return {"type": "text", "text": "".join(self.pieces)}

    def empty(self) -> dict[str, Any]:
        """Give the block as a stream starts it."""
        return {"type": "text", "text": ""}

    def deltas(self) -> Iterator[dict[str, Any]]:
        """Give what turns an empty block into this one, at the pace asked for."""
        for piece in self.pieces:
            time.sleep(self.delay_s)
            yield {"type": "text_delta", "text": piece}


@dataclass(frozen=True)
class ToolUse:
    """A block that asks the client to run one of its tools."""

    name: str
    input: Mapping[str, Any]

    def content(self) -> dict[str, Any]:
        """Give the whole block."""
        return self.empty() | {"input": dict(self.input)}

    def empty(self) -> dict[str, Any]:
        """Give the block as a stream starts it; its id is new, for none may come twice."""
        return {"type": "tool_use", "id": _new_id("toolu"), "name": self.name, "input": {}}

    def deltas(self) -> Iterator[dict[str, Any]]:
        """Give what turns an empty input into this one, cut as the API cuts it: anywhere."""
        text = json.dumps(self.input)
        for part in (text[: len(text) // 2], text[len(text) // 2 :]):
            yield {"type": "input_json_delta", "partial_json": part}


@dataclass(frozen=True)
class Failure:
    """An error in place of an answer: HTTP status, the API's name for it, a text for people."""

    status: int
    kind: str
    message: str
    retry_after_s: int | None = None


Blocks = tuple[Text | ToolUse, ...]
Answer = Blocks | Failure


class Reply(Protocol):
    """Decides what to answer to `POST /v1/messages`; called from several threads at once."""

    def __call__(self, request: Request, /) -> Answer:
        """Give the blocks of an answer, or an error."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What goes back: a whole body, or the events of a stream, made while they are read."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""


def respond(request: Request, reply: Reply) -> Response:
    """Answer one request."""
    match request.method, request.path:
        case ("HEAD", _) | ("GET", "/"):  # Claude Code asks HEAD /api/hello when it starts
            return Response()
        case "GET", "/v1/models":
            return _json(_models())
        case "POST", "/v1/messages/count_tokens":
            # About four characters make a token.
            return _json({"input_tokens": len(json.dumps(request.body)) // 4})
        case "POST", "/v1/messages" if "messages" not in request.body:
            failure = Failure(400, "invalid_request_error", "messages: Field required")
        case "POST", "/v1/messages":
            return _answered(request.body, reply(request))
        case _:
            failure = Failure(404, "not_found_error", f"{request.method} {request.path}")
    return _failed(failure)


def demo_reply(request: Request, /) -> Answer:
    """Answer without a model, and say so."""
    if not is_conversation(request):
        return side_answer(request)
    prompt = last_prompt(request)
    line = prompt.partition("\n")[0][:_QUOTE_CHARACTERS].rstrip()
    quote = line if line == prompt else f"{line}…"
    return (
        Text(
            (
                "This is nddt's demo endpoint: no model was asked. ",
                "Image, sandbox, forwarding and agent work; ",
                f"your prompt arrived as “{quote}”.",
            )
        ),
    )


def is_conversation(request: Request) -> bool:
    """Tell the user's conversation from what Claude Code asks for itself, such as a title.

    Only the conversation comes with tools (seen with 2.1.330).
    """
    return bool(request.body.get("tools"))


def side_answer(request: Request) -> Answer:
    """Answer what Claude Code asks for itself: by the JSON schema it gives, else in two words.

    The safety check of its auto mode finds no verdict in those, and refuses the action.
    """
    schema = request.body.get("output_config", {}).get("format", {}).get("schema", {})
    said = "nddt demo"
    filled = dict.fromkeys(schema.get("properties", ()), said)
    return (Text((json.dumps(filled) if filled else said,)),)


def last_prompt(request: Request) -> str:
    """Give the last text that the user wrote, without what Claude Code adds to it."""
    for message in reversed(request.body["messages"]):
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in reversed(blocks if message["role"] == "user" else ()):
            text = _REMINDER.sub("", block.get("text", "")).strip()
            if text:
                return text
    return ""


def _new_id(prefix: str) -> str:
    return f"{prefix}_{os.urandom(12).hex()}"


def _json(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    headers = {"content-type": "application/json", **(headers or {})}
    return Response(status=status, headers=headers, body=json.dumps(body).encode())


def _models() -> dict[str, Any]:
    model = {"type": "model", "id": _MODEL, "display_name": "nddt demo, no model"}
    model["created_at"] = "2025-01-01T00:00:00Z"
    return {"data": [model], "has_more": False, "first_id": _MODEL, "last_id": _MODEL}


def _failed(failure: Failure) -> Response:
    error = {"type": failure.kind, "message": failure.message}
    body = {"type": "error", "error": error, "request_id": _new_id("req")}
    wait_s = failure.retry_after_s
    headers = {} if wait_s is None else {"retry-after": str(wait_s)}
    return _json(body, failure.status, headers)


def _answered(body: Mapping[str, Any], answer: Answer) -> Response:
    if isinstance(answer, Failure):
        return _failed(answer)
    message = {
        "id": _new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": body.get("model", _MODEL),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _USAGE,
    }
    if body.get("stream"):
        headers = {"content-type": "text/event-stream", "cache-control": "no-cache"}
        return Response(headers=headers, body=_events(message, answer))
    for block in answer:
        for _ in block.deltas():
            pass  # it takes its time here too
    content = [block.content() for block in answer]
    return _json(message | {"content": content, "stop_reason": _stop_reason(answer)})


def _stop_reason(blocks: Blocks) -> str:
    return "tool_use" if any(isinstance(block, ToolUse) for block in blocks) else "end_turn"


def _events(message: Mapping[str, Any], blocks: Blocks) -> Iterator[bytes]:
    yield _event("message_start", message=message)
    yield _event("ping")
    for index, block in enumerate(blocks):
        yield _event("content_block_start", index=index, content_block=block.empty())
        for delta in block.deltas():
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    end = {"stop_reason": _stop_reason(blocks), "stop_sequence": None}
    yield _event("message_delta", delta=end, usage=_USAGE)
    yield _event("message_stop")


def _event(kind: str, **data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


class Endpoint:
    """An HTTP server on a free loopback port, for as long as its `with` block lasts.

    It has its address at once and takes connections, which wait for `start`.

    Args:
        reply: Decides what to answer.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._address: tuple[str, int] = self._listener.getsockname()
        self._connections: set[_Connection] = set()
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def url(self) -> str:
        """The address, as ANTHROPIC_BASE_URL takes it."""
        return "http://{}:{}".format(*self._address)

    def start(self) -> None:
        """Answer from now on, in threads that keep nobody from exiting."""
        self._thread = threading.Thread(target=self._serve, name="nddt model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and drop the clients, also in the middle of an answer."""
        self._closing = True
        if self._thread:
            with suppress(OSError):  # it may have ended by itself
                socket.create_connection(self._address, timeout=1).close()  # wakes it
            self._thread.join()
        self._listener.close()
        for connection in tuple(self._connections):
            with suppress(OSError):  # the client may have gone
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        server = _server(self._listener, self._reply, self._connections)
        while not self._closing:
            server.handle_request()


def _server(listener: socket.socket, reply: Reply, connections: set[_Connection]) -> HTTPServer:
    # It takes 35 ms to import, which a run would wait for before its sandbox starts.
    from http.server import ThreadingHTTPServer  # noqa: PLC0415

    class Server(ThreadingHTTPServer):
        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            connection, peer = super().get_request()
            connections.add(connection)
            return connection, peer

        def close_request(self, request: _Connection) -> None:
            connections.discard(request)
            super().close_request(request)

        def handle_error(self, request: _Connection, client_address: tuple[str, int]) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a client may leave
                super().handle_error(request, client_address)

    server = Server(listener.getsockname(), _handler(reply), bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    return server


def _handler(reply: Reply) -> type[BaseHTTPRequestHandler]:
    from http.server import BaseHTTPRequestHandler  # noqa: PLC0415

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "nddt"
        sys_version = ""
        disable_nagle_algorithm = True  # else a body waits 40 ms for the head's acknowledgement

        def answer(self) -> None:
            response = respond(self.received(), reply)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            if isinstance(response.body, bytes):
                self.send_header("content-length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body)
                return
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in response.body:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def received(self) -> Request:
            parsed: object = None
            with suppress(ValueError):
                parsed = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
            return Request(
                method=self.command,
                path=self.path.partition("?")[0],
                headers={name.lower(): value for name, value in self.headers.items()},
                body=parsed if isinstance(parsed, dict) else {},
            )

        def log_message(self, *_: object) -> None:
            pass

    return Handler
