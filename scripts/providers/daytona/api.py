"""Daytona's API through its SDK: one client, a deadline for every call, errors in our words.

What the SDK and the platform do in each case was seen with SDK 0.226.1; SDK 0.190.0, which
servers of that version need, has all that is used here.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import re
import time
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any

from scripts import state
from scripts.errors import (
    CannotCreateError,
    ConfigError,
    CredentialsError,
    NddtError,
    TryAgainError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.settings import Settings

log = logging.getLogger("nddt")

ANSWER_S = 30
"""Seconds in which a question must be answered, with all attempts."""
HOSTED = "https://app.daytona.io/api"
KEYS = "https://app.daytona.io/dashboard/keys"
SELF_HOSTED_SDK = "0.190.0"
"""The SDK that understands servers of the open-source release."""
PAUSES_S = (0.2, 0.5, 1, 2, 4)
"""Waits between attempts; the last one again and again."""
LIMITED_S = 30
"""How long we wait for a limiter to let us through."""
OFFLINE_ATTEMPTS = 2
"""How often a server that cannot be reached is tried again."""
_QUOTA = re.compile(
    r"limit exceeded|exceeds maximum|quota exceeded|No available runners", re.IGNORECASE
)
_OTHER_VERSION = re.compile(
    r"validation errors? for (\w+) (\w+) (?:Field required|Input should be)"
)
"""How the SDK complains of an answer that lacks what it expects."""
_NOT_SENT = re.compile(r"NewConnectionError|NameResolutionError|ConnectTimeoutError")
"""Why urllib3 gives up before it has sent anything."""


class NoRoomError(TryAgainError):
    """A quota of the organization is used up."""


class Api:
    """The SDK's client for one account.

    Raises:
        CredentialsError: There is no key.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.daytona_api_key:
            raise CredentialsError(
                "DAYTONA_API_KEY is not set",
                f"make a key at {KEYS} and put it into ~/.config/nddt/.env or the environment",
            )
        self.settings = settings
        self.client = _client(settings)

    def call(
        self,
        doing: str,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401  (the function's)
        within_s: float = ANSWER_S,
        repeat: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Call a function of the SDK, again if that makes sense.

        Args:
            doing: What it is for: `create a sandbox`.
            function: Of the SDK.
            args: Its arguments.
            within_s: Seconds after which it has failed.
            repeat: Whether it may be called again when it is unknown what has become of it.
            options: More of its arguments.

        Raises:
            Refusal: It has failed.
        """
        began = time.monotonic()
        deadline = began + within_s
        attempt = 0
        while True:
            left_s = max(0.1, deadline - time.monotonic())
            try:
                return _within(left_s, function, *args, **options)
            except Exception as error:  # noqa: BLE001  (the SDK raises of many kinds)
                failed = Refusal.of(error, doing)
            pause_s = failed.pause_s(attempt, repeat=repeat)
            limit = min(deadline, began + LIMITED_S) if failed.status == 429 else deadline
            if pause_s is None or time.monotonic() + pause_s > limit:
                raise failed
            log.debug("Daytona: %s; again in %.1f s", failed, pause_s)
            time.sleep(pause_s)
            attempt += 1

    @contextlib.contextmanager
    def explained(self, scope: str = "") -> Iterator[None]:
        """Turn a Refusal into a failure that the user can do something about.

        Args:
            scope: The permission that the key needs for this.
        """
        try:
            yield
        except Refusal as error:
            raise explain(error, self.settings, scope) from error


def _client(settings: Settings) -> Any:  # noqa: ANN401  (the SDK is loaded only here)
    with _quick_imports():
        from daytona import Daytona, DaytonaConfig  # noqa: PLC0415  (700 ms)

    options: dict[str, Any] = {
        "api_key": settings.daytona_api_key,
        "api_url": settings.daytona_api_url,
        "target": settings.daytona_region or None,
        "organization_id": settings.daytona_organization or None,
    }
    if "use_deprecated_polling" in DaytonaConfig.model_fields:
        # Else a thread holds a second connection, for runs that mostly last seconds.
        options["use_deprecated_polling"] = True
    # What is not given, it would read from .env and .env.local where we are: a project's.
    with contextlib.chdir(state.runtime_directory(settings.process_environment)):
        return Daytona(DaytonaConfig(**options))


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Save a third of the time that the SDK's thousands of classes take.

    Most of its models are never used, so that each is only built when it is (see `defer_build`
    in pydantic's ConfigDict); and there is no garbage among them to look for.
    """
    from pydantic import BaseModel  # noqa: PLC0415  (the SDK's own requirement)

    usual = BaseModel.model_config
    BaseModel.model_config = {**usual, "defer_build": True}
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        BaseModel.model_config = usual


def _within(seconds: float, function: Callable[..., Any], *args: Any, **options: Any) -> Any:  # noqa: ANN401
    """Call a function in a thread that nobody waits for any longer.

    Not every function of the SDK has a time limit of its own, and theirs do not end a wait for
    a server that sends nothing. A signal ends our wait at once.
    """
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(function(*args, **options))
        except BaseException as error:  # noqa: BLE001  (it belongs to whoever waits)
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    return future.result(seconds)


# -- failures -------------------------------------------------------------------------------


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818  (most are no error of ours)
    """What came of a call that has failed."""

    doing: str
    status: int | None
    """HTTP status; None if there was no answer, or none that the SDK could read."""
    text: str
    """What the server said, in one line or few."""
    kind: str = ""
    """Without a status: `offline` (nothing sent), `network`, `late`, `version`, `unreadable`."""
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.doing}: {self.status or self.kind} {self.text}"

    @classmethod
    def of(cls, error: Exception, doing: str) -> Refusal:
        """Classify what the SDK has raised; it knows more classes than there are reasons."""
        if isinstance(error, TimeoutError):
            return cls(doing, None, "no answer", "late")
        status = getattr(error, "status_code", None) or getattr(error, "status", None)
        headers = {str(k).lower(): v for k, v in (getattr(error, "headers", None) or {}).items()}
        text = _line(str(error))
        if status is not None:
            return cls(doing, int(status), text, retry_after_s=_retry_after(headers))
        chain, one = "", error
        while one is not None:
            chain += f" {type(one).__module__}.{type(one).__name__}: {one}"
            one = one.__cause__ or one.__context__  # type: ignore[assignment]
        unreadable = "pydantic" in chain or "JSONDecodeError" in chain or "deserializ" in chain
        if _OTHER_VERSION.search(text):
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
        """Give the seconds after which to try again; None if that is of no use."""
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
        text = str(json.loads(text)["message"])
    text = re.sub(r"^(Failed to|Failure during)[^:]{0,60}: ", "", text)
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:299]}…"


def _retry_after(headers: dict[str, Any]) -> float | None:
    """Read Retry-After, which Daytona's limiter suffixes with the name of the limit."""
    for name, value in headers.items():
        if name.startswith("retry-after"):
            with contextlib.suppress(ValueError, TypeError):
                return max(0.1, float(str(value)))
    return None


def explain(error: Refusal, settings: Settings, scope: str) -> NddtError:
    """Say what is wrong and what to do about it."""
    if error.status is None:
        return _no_answer(error, settings)
    if error.status == 401:
        source = settings.sources["DAYTONA_API_KEY"]
        return CredentialsError(
            f"Daytona does not accept DAYTONA_API_KEY (from: {source})",
            f"see whether it has expired, or make a new one: {KEYS}",
        )
    if error.status == 403:
        return _forbidden(error, settings, scope)
    if error.status in {400, 402, 409, 422, 429}:
        return _refused(error)
    if error.status == 404 and "Cannot " in error.text:
        return ConfigError(
            f"{settings.daytona_api_url} is not Daytona's API: {error.text}",
            "correct DAYTONA_API_URL; it ends in /api",
        )
    known = "try again; Daytona's status page tells whether it is known"
    return UnavailableError(
        f"Daytona could not {error.doing}: {error.status} {error.text}",
        known if error.status >= 500 else "see --verbose",
    )


def _no_answer(error: Refusal, settings: Settings) -> NddtError:
    url = settings.daytona_api_url
    if error.kind == "late":
        return UnavailableError(
            f"Daytona did not answer in time when asked to {error.doing}", "try again"
        )
    if error.kind in {"network", "offline"}:
        return UnavailableError(
            f"Daytona cannot be reached at {url}: {_reason(error.text)}",
            "check the network, and DAYTONA_API_URL",
        )
    found = _OTHER_VERSION.search(error.text)
    if found:
        return ConfigError(
            f"the server at {url} is of another version than the SDK {_sdk_version()}: it gives "
            f"no {found[2]} of a {found[1]}",
            f"for a self-hosted server run: {_python()} -m pip install daytona=={SELF_HOSTED_SDK}",
        )
    return UnavailableError(
        f"{url} answered what is not Daytona's API: {error.text[:120]}",
        "check DAYTONA_API_URL, then try again",
    )


def _reason(text: str) -> str:
    """Find the cause in urllib3's chain of exceptions."""
    found = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)|(Name or service not known)", text)
    if found:
        return found[1] or found[2]
    return "certificate not accepted" if "CERTIFICATE_VERIFY" in text else text[:100]


def _sdk_version() -> str:
    from importlib.metadata import version  # noqa: PLC0415

    return version("daytona")


def _python() -> str:
    import sys  # noqa: PLC0415

    return sys.executable


def _forbidden(error: Refusal, settings: Settings, scope: str) -> NddtError:
    if "suspended" in error.text:
        return UnavailableError(error.text, "see the billing page of Daytona's dashboard")
    if "Region" in error.text:
        return _region(error)
    source = settings.sources["DAYTONA_API_KEY"]
    lacks = f"lacks the permission {scope}" if scope else f"may not {error.doing}"
    return CredentialsError(
        f"DAYTONA_API_KEY (from: {source}) {lacks}: {error.text}",
        f"make a key that has it: {KEYS}",
    )


def _region(error: Refusal) -> ConfigError:
    return ConfigError(error.text, "set DAYTONA_REGION to one that your organization has")


def _refused(error: Refusal) -> NddtError:
    if error.status == 429:
        return TryAgainError(
            "Daytona gets too many requests of your organization", "try again in a minute"
        )
    if _QUOTA.search(error.text):
        return NoRoomError(
            f"Daytona has no room: {error.text}",
            "remove what you do not need: inv daytona.list, inv daytona.cleanup",
        )
    if "region" in error.text.lower():
        return _region(error)
    if error.status == 409:
        return TryAgainError(f"Daytona could not {error.doing}: {error.text}", "try again")
    return CannotCreateError(f"Daytona could not {error.doing}: {error.text}", "see --verbose")
