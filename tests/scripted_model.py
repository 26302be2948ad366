"""A model that follows a script, for tests that run the real agent.

Each conversation, told apart by Claude Code's session id, gets the script from its beginning.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.demo.messages_api import (
    Answer,
    Failure,
    Request,
    Text,
    ToolUse,
    is_conversation,
    side_answer,
)
from scripts.demo.model_endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

SESSION_HEADER = "x-claude-code-session-id"
_KINDS = {429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"}


@dataclass(frozen=True)
class Step:
    """What the model answers, and how many times in a row."""

    answer: Answer
    times: int = 1


def text(content: str) -> Step:
    """Say something, which ends the agent's turn."""
    return Step((Text((content,)),))


def slow_text(pieces: Iterable[str], delay_s: float) -> Step:
    """Say something in pieces, each after so many seconds."""
    return Step((Text(tuple(pieces), delay_s),))


def tool(name: str, arguments: dict[str, Any], *, say: str = "") -> Step:
    """Ask the agent to run one of its tools, such as Write or Bash, after a few words or none."""
    words = (Text((say,)),) if say else ()
    return Step((*words, ToolUse(name, arguments)))


def error(status: int, *, times: int = 1, retry_after_s: int | None = None) -> Step:
    """Fail so many times in a row with 429, 500 or 529."""
    return Step(Failure(status, _KINDS[status], f"scripted {status}", retry_after_s), times)


class ScriptedModel(Endpoint):
    """An endpoint that answers the conversation by a script, and all else harmlessly.

    After its last step it says so in a text, which ends the agent's turn.

    Args:
        steps: What `text`, `tool`, `slow_text` and `error` give, in order.
    """

    def __init__(self, *steps: Step) -> None:
        self._answers = tuple(step.answer for step in steps for _ in range(step.times))
        self._positions: defaultdict[str, int] = defaultdict(int)
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        super().__init__(self._next)
        self.start()

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests for a message so far, Claude Code's own ones too."""
        with self._lock:
            return tuple(self._requests)

    @property
    def conversation(self) -> tuple[Request, ...]:
        """The requests so far that took a step."""
        return tuple(request for request in self.requests if is_conversation(request))

    def _next(self, request: Request, /) -> Answer:
        with self._lock:
            self._requests.append(request)
            if not is_conversation(request):
                return side_answer(request)
            session = request.headers.get(SESSION_HEADER, "")
            position = self._positions[session]
            self._positions[session] += 1
        if position < len(self._answers):
            return self._answers[position]
        return text("The script has ended.").answer
