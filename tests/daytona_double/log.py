"""The log of what clients asked for."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# One sandbox or one snapshot, and nothing below it.
_ONE = re.compile(r"/(sandbox|snapshots)/[^/]+")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request.

    Attributes:
        number: Its place since the log was last forgotten, from 1; 0 for the event socket, which
            the SDK asks for in a thread of its own, at any time.
        method: `GET`, `POST` and so on.
        path: The path without `/api`; toolbox requests begin with `/toolbox`.
        query: Each query parameter's values.
        json: The body, if it was JSON.
        headers: The headers as they came.
        status: The answer's status; None while there is none, and if the connection was dropped.
        is_poll: Whether this GET of one sandbox or snapshot repeats the counted request before it.
        time: When it came, in seconds of the epoch.
    """

    number: int
    method: str
    path: str
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    status: int | None = None
    is_poll: bool = False
    time: float = field(default_factory=time.time)

    @property
    def line(self) -> str:
        """Method and path, which faults are matched against."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, kw_only=True)
class SshEvent:
    """One thing that a client did at the gateway.

    Attributes:
        kind: `connect`, `refused`, `exec`, `shell`, `pty` or `forward`.
        sandbox: The sandbox's name; empty if the token was not known.
        detail: The command, or the host and port.
        time: When, in seconds of the epoch.
    """

    kind: str
    sandbox: str
    detail: str = ""
    time: float = field(default_factory=time.time)


class Log:
    """Requests and gateway events in the order in which they came; safe to use from any thread."""

    def __init__(self, listener: Callable[[Request], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._listener = listener
        self._requests: list[Request] = []
        self._events: list[SshEvent] = []
        self._epoch = 0

    def add(self, request: Request) -> tuple[int, int, Request]:
        """Number a request and keep it; gives what `answered` needs, and the request as kept."""
        with self._lock:
            counted = [r for r in self._requests if r.number]
            is_socket = request.path.startswith("/socket.io")
            is_poll = (
                request.method == "GET"
                and bool(_ONE.fullmatch(request.path))
                and bool(counted)
                and counted[-1].line == request.line
            )
            number = 0 if is_socket else len(counted) + 1
            request = replace(request, number=number, is_poll=is_poll)
            self._requests.append(request)
            return self._epoch, len(self._requests) - 1, request

    def answered(self, epoch: int, index: int, status: int | None) -> None:
        """Write down how a request ended, unless it has been forgotten since."""
        with self._lock:
            if epoch != self._epoch:
                return
            request = replace(self._requests[index], status=status)
            self._requests[index] = request
        if self._listener:
            self._listener(request)

    def requests(self) -> tuple[Request, ...]:
        """Give all requests since they were last forgotten."""
        with self._lock:
            return tuple(self._requests)

    def note(self, event: SshEvent) -> int:
        """Keep a gateway event; gives how many of its kind there are now."""
        with self._lock:
            self._events.append(event)
            return sum(1 for e in self._events if e.kind == event.kind)

    def events(self) -> tuple[SshEvent, ...]:
        """Give all gateway events since they were last forgotten."""
        with self._lock:
            return tuple(self._events)

    def forget(self) -> None:
        """Forget everything, and count from 1 again."""
        with self._lock:
            self._epoch += 1
            self._requests.clear()
            self._events.clear()
