"""The part of the Anthropic Messages API that answers without a model; no network here.

Requests, answers, stream events and errors have the shapes that
https://docs.anthropic.com/en/api/messages, …/messages-streaming and …/errors describe.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        """Return the whole block."""
        return {"type": "text", "text": "".join(self.pieces)}

    def empty(self) -> dict[str, Any]:
        """Return the block as a stream starts it."""
        return {"type": "text", "text": ""}

    def deltas(self) -> Iterator[dict[str, Any]]:
        """Return what turns an empty block into this one, at the pace asked for."""
        for piece in self.pieces:
            time.sleep(self.delay_s)
            yield {"type": "text_delta", "text": piece}


@dataclass(frozen=True)
class ToolUse:
    """A block that asks the client to run one of its tools."""

    name: str
    input: Mapping[str, Any]

    def content(self) -> dict[str, Any]:
        """Return the whole block."""
        return self.empty() | {"input": dict(self.input)}

    def empty(self) -> dict[str, Any]:
        """Return the block as a stream starts it; its id is new, for none may come twice."""
        return {"type": "tool_use", "id": _new_id("toolu"), "name": self.name, "input": {}}

    def deltas(self) -> Iterator[dict[str, Any]]:
        """Return what turns an empty input into this one, cut as the API cuts it: anywhere."""
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
        """Build the blocks of an answer, or an error."""


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
    """Return the last text that the user wrote, without what Claude Code adds to it."""
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
