"""What can go wrong between a client and the platform, on any request that a test picks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal[
    "status",  # answer with `status`, `message` and `headers`
    "html",  # answer with `status` and a page of HTML
    "cut_json",  # answer with the first half of the body
    "drop",  # close the connection without an answer
    "hang",  # wait `seconds`, or for ever if None, then close the connection
    "slow",  # wait `seconds`, then go on as always
    "sandbox_error",  # the sandbox that this request creates or starts ends in state `error`
    "build_failed",  # the snapshot that this request creates ends in state `build_failed`
    "state",  # the body says that the state is `message`
    "auto_stop",  # all sandboxes have been stopped for inactivity just before this request
    "ssh_drop",  # this SSH connection breaks after `after_bytes`
    "ssh_expired",  # this SSH connection's token has just expired
    "host_key",  # the gateway has a new key from this SSH connection on
]
_SSH_KINDS = {"ssh_drop", "ssh_expired", "host_key"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: What happens.
        match: When: the number of a request since the log was forgotten, from 1, or a pattern of
            its method and path such as `POST /sandbox` or `* /sandbox/*/start`, where `*` is any
            text. For SSH kinds the number of a connection, or any pattern.
        times: How often, or None for ever.
        before: Whether it happens instead of the work (True) or once the work is done (False).
        status: The HTTP status, for `status` and `html`.
        message: The error's text; `{name}` is the object that the request is about.
        headers: Headers of the answer.
        seconds: How long to wait, for `hang` and `slow`; None is for ever.
        after_bytes: How much passes in both directions, for `ssh_drop`.
    """

    kind: Kind
    match: str | int = "* *"
    times: int | None = 1
    before: bool = True
    status: int = 200
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    after_bytes: int = 0

    @property
    def is_ssh(self) -> bool:
        """Whether it happens at the gateway, not in the API."""
        return self.kind in _SSH_KINDS

    def hits(self, number: int, line: str) -> bool:
        """Tell whether it happens to the request with this number, method and path."""
        if isinstance(self.match, int):
            return number == self.match
        return fnmatchcase(line, self.match)


class Faults:
    """The faults that are still to come; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let it happen from now on."""
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        with self._lock:
            self._waiting.clear()

    def take(self, number: int, line: str, *, is_ssh: bool = False) -> Fault | None:
        """Give the first fault that this request meets, and count it as happened."""
        with self._lock:
            for place, fault in enumerate(self._waiting):
                if fault.is_ssh == is_ssh and fault.hits(number, line):
                    if fault.times is not None:
                        self._waiting[place] = replace(fault, times=fault.times - 1)
                    self._waiting = [f for f in self._waiting if f.times != 0]
                    return fault
        return None


def _status(status: int, message: str, **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(kind="status", status=status, message=message, headers=named)


_TIER = (
    "\nTo increase concurrency limits, upgrade your organization's Tier by visiting "
    "https://app.daytona.io/dashboard/limits."
)
_ARCHIVE = "\nConsider archiving your unused Sandboxes to free up available storage."

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "401": _status(401, "Invalid credentials"),
        "403 scope": _status(403, "Access denied"),
        "403 suspended": _status(403, "Organization is suspended: Payment method required"),
        "404": _status(404, "Sandbox with ID or name {name} not found"),
        "409 name": _status(409, "Sandbox with name {name} already exists"),
        "409 change": _status(409, "Sandbox state change in progress"),
        "409 modified": _status(409, "Sandbox was modified by another operation"),
        "429 suffixed": _status(
            429,
            "ThrottlerException: Too Many Requests",
            X_RateLimit_Limit_authenticated="10000",
            X_RateLimit_Remaining_authenticated="0",
            X_RateLimit_Reset_authenticated="2",
            Retry_After_authenticated="2",
        ),
        "429 plain": _status(429, "ThrottlerException: Too Many Requests", Retry_After="2"),
        "400 cpu": _status(400, f"Total CPU limit exceeded. Maximum allowed: 10.{_TIER}"),
        "400 memory": _status(400, f"Total memory limit exceeded. Maximum allowed: 10GiB.{_TIER}"),
        "400 disk": _status(
            400, f"Total disk limit exceeded. Maximum allowed: 30GiB.{_ARCHIVE}{_TIER}"
        ),
        "400 snapshots": _status(400, "Snapshot quota exceeded. Maximum allowed: 30"),
        "400 runners": _status(400, "No available runners"),
        "400 start": _status(400, "Sandbox failed to start: the runner did not answer"),
        "500": _status(500, "An unexpected error occurred."),
        "502 html": Fault(kind="html", status=502),
        "503": _status(503, "Temporary authentication service error"),
        "504 html": Fault(kind="html", status=504),
        "200 html": Fault(kind="html", status=200),
        "cut json": Fault(kind="cut_json", before=False),
        "drop": Fault(kind="drop"),
        "accept then drop": Fault(kind="drop", before=False),
        "hang": Fault(kind="hang"),
        "accept then hang": Fault(kind="hang", before=False),
        "slow": Fault(kind="slow", seconds=2),
        "sandbox error": Fault(kind="sandbox_error", message="the runner ran out of disk space"),
        "build failed": Fault(kind="build_failed", message="E: Unable to locate package no-such\n"),
        "state removing": Fault(kind="state", message="removing"),
        "state inactive": Fault(kind="state", message="inactive"),
        "state unknown": Fault(kind="state", message="hibernating"),
        "auto-stop": Fault(kind="auto_stop"),
        "toolbox 400": replace(
            _status(
                400,
                "bad request: failed to resolve container IP after 3 attempts: "
                "no IP address found. Is the Sandbox started?",
            ),
            match="* /toolbox/*",
        ),
        "toolbox 502": Fault(kind="status", status=502, match="* /toolbox/*"),
        "ssh drop": Fault(kind="ssh_drop", after_bytes=4096),
        "ssh expired": Fault(kind="ssh_expired"),
        "ssh host key": Fault(kind="host_key"),
    }
)


def fault(name: str, at: str | int | None = None, times: int | None = 1) -> Fault:
    """Give a fault of the catalogue, placed.

    Args:
        name: A key of `FAULTS`.
        at: The request, as in `Fault.match`; None for where the catalogue has it.
        times: How often, or None for ever.
    """
    known = FAULTS[name]
    return replace(known, match=known.match if at is None else at, times=times)
