"""What came of a call that has failed, and whether trying again may help."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

from scripts.machine import foreign_json

PAUSES_S = (0.2, 0.5, 1, 2, 4)
"""Waits between attempts; the last one again and again."""
OFFLINE_ATTEMPTS = 2
"""How often a server that cannot be reached is tried again."""
_NOT_SENT = re.compile(r"NewConnectionError|NameResolutionError|ConnectTimeoutError")
"""Why urllib3 gives up before it has sent anything."""
OTHER_VERSION = re.compile(r"validation errors? for (\w+) (\w+) (?:Field required|Input should be)")
"""How the client complains of an answer that lacks what it expects."""


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818  (most are no error of ours)
    """What came of a call that has failed."""

    doing: str
    status: int | None
    """HTTP status; None if there was no answer, or none that the client could read."""
    text: str
    """What the server said, in a line."""
    kind: str = ""
    """Without a status: `offline` (nothing sent), `network`, `late`, `version`, `unreadable`."""
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.doing}: {self.status or self.kind} {self.text}"

    @classmethod
    def of(cls, error: Exception, doing: str) -> Refusal:
        """Classify what the client has raised, of however many classes that is."""
        if isinstance(error, TimeoutError):
            return cls(doing, None, "no answer", "late")
        status = getattr(error, "status", None) or None  # 0: it has not got as far as that
        headers = {str(k).lower(): v for k, v in (getattr(error, "headers", None) or {}).items()}
        said = getattr(error, "body", None) or (status and getattr(error, "reason", None))
        text = _line(str(said or error))
        if status is not None:
            return cls(doing, int(status), text, retry_after_s=_retry_after(headers))
        chain, one = "", error
        while one is not None:
            chain += f" {type(one).__module__}.{type(one).__name__}: {one}"
            one = one.__cause__ or one.__context__  # type: ignore[assignment]
        unreadable = "pydantic" in chain or "JSONDecodeError" in chain or "deserializ" in chain
        if OTHER_VERSION.search(text):
            return cls(doing, None, text, "version")
        if _NOT_SENT.search(chain):
            return cls(doing, None, text, "offline")
        return cls(doing, None, text, "unreadable" if unreadable else "network")

    @property
    def is_unsure(self) -> bool:
        """Whether it is unknown if the server has done what it was asked."""
        if self.status is None:
            return self.kind != "offline"
        return self.status >= 500 or self.status == 408

    @property
    def is_busy(self) -> bool:
        """Whether another change of the same thing has to end first."""
        return self.status == 409 and bool(re.search(r"in progress|modified by", self.text))

    def pause_s(self, attempt: int, *, repeat: bool) -> float | None:
        """Count the seconds after which to try again; None if that is of no use."""
        usual_s = PAUSES_S[min(attempt, len(PAUSES_S) - 1)]
        if self.status == 429:
            return self.retry_after_s if self.retry_after_s is not None else usual_s
        if self.kind == "offline":
            return usual_s if attempt < OFFLINE_ATTEMPTS else None
        lasting = self.kind in {"late", "version"}
        again = self.is_busy or (self.is_unsure and repeat and not lasting)
        return usual_s if again else None


def _line(text: str) -> str:
    """Cut a message to what fits into a line: it may be a whole HTML page, or a traceback."""
    if re.search(r"<(!doctype|html|head|body)\b", text, re.IGNORECASE):
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = f"a page{f' titled {title[1].strip()!r}' if title else ''} in place of an answer"
    with contextlib.suppress(ValueError, TypeError, KeyError):
        said = foreign_json.parse(text, what="it")
        text = str(said["message"] if "message" in said else said["error"])
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:299]}…"


def _retry_after(headers: dict[str, Any]) -> float | None:
    """Read Retry-After, which Daytona's limiter suffixes with the name of the limit."""
    for name, value in headers.items():
        if name.startswith("retry-after"):
            with contextlib.suppress(ValueError, TypeError):
                return max(0.1, float(str(value)))
    return None
