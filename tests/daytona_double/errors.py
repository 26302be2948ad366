"""A refusal by the platform, and the two shapes in which it is told."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The toolbox names its errors, the API spells the status out.
_TOOLBOX_CODES = {400: "BAD_REQUEST", 401: "UNAUTHORIZED", 404: "NOT_FOUND", 408: "REQUEST_TIMEOUT"}


class ApiError(Exception):
    """An answer that is not a success.

    Attributes:
        status: The HTTP status.
        message: The text of the body.
        headers: Headers to add.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


def body(error: ApiError, method: str, path: str) -> dict[str, object]:
    """Tell an error as the API or, under `/toolbox`, as the toolbox does.

    Args:
        error: What happened.
        method: The request's method.
        path: The request's whole path.
    """
    common = {
        "statusCode": error.status,
        "message": error.message,
        "timestamp": now(),
        "path": path,
    }
    if path.startswith("/toolbox"):
        fallback = re.sub(r"\W", "_", HTTPStatus(error.status).phrase).upper()
        return {**common, "code": _TOOLBOX_CODES.get(error.status, fallback), "method": method}
    return {**common, "error": HTTPStatus(error.status).phrase}


def now() -> str:
    """Give the time as the API writes it: ISO 8601, milliseconds, UTC."""
    return iso(datetime.now(UTC))


def iso(when: datetime) -> str:
    """Write a time as the API does."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
