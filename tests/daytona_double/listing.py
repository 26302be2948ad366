"""The list of sandboxes, which is answered from an index that lags behind."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING

from tests.daytona_double.errors import ApiError

if TYPE_CHECKING:
    from tests.daytona_double.options import Options
    from tests.daytona_double.rows import Sandbox

Query = Mapping[str, Sequence[str]]


class Index:
    """What a list shows: each row as it was `list_lag_s` ago."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # For each id, oldest first: since when, on the monotonic clock, and the row; None: gone.
        self._versions: dict[str, list[tuple[float, Sandbox | None]]] = defaultdict(list)

    def put(self, row: Sandbox) -> None:
        """Take in a row as it is now."""
        self._versions[row.id].append((time.monotonic(), copy(row)))

    def drop(self, row: Sandbox) -> None:
        """Take in that a row is gone."""
        self._versions[row.id].append((time.monotonic(), None))

    def rows(self) -> list[Sandbox]:
        """Give the rows that a list shows now, newest first."""
        horizon = time.monotonic() - self._options.list_lag_s
        shown = []
        for versions in self._versions.values():
            seen = [row for since, row in versions if since <= horizon]
            if seen and seen[-1] is not None:
                shown.append(seen[-1])
        return sorted(shown, key=lambda row: (row.created_at, row.id), reverse=True)

    def page(self, query: Query) -> tuple[list[Sandbox], str | None]:
        """Answer a list request: one page of rows, and the cursor of the next page.

        Raises:
            ApiError: A parameter makes no sense.
        """
        rows = [row for row in self.rows() if _matches(row, query)]
        size = min(_limit(query), self._options.page_limit)
        if cursor := _first(query, "cursor"):
            # A cursor names the last row that was given: rows that come or go meanwhile neither
            # repeat nor skip one.
            rows = [row for row in rows if (row.created_at.isoformat(), row.id) < _place(cursor)]
        page = rows[:size]
        return page, _cursor(page[-1]) if len(rows) > size else None


def _first(query: Query, key: str) -> str | None:
    values = query.get(key)
    return values[0] if values else None


def _limit(query: Query) -> int:
    text = _first(query, "limit") or "100"
    if not text.isdecimal() or not 1 <= int(text) <= 200:
        raise ApiError(400, "limit must be between 1 and 200")
    return int(text)


def _cursor(row: Sandbox) -> str:
    place = json.dumps([row.created_at.isoformat(), row.id])
    return base64.urlsafe_b64encode(place.encode()).decode()


def _place(cursor: str) -> tuple[str, str]:
    try:
        created_at, row_id = json.loads(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError):
        raise ApiError(400, "cursor is not valid") from None
    return created_at, row_id


def _matches(row: Sandbox, query: Query) -> bool:
    labels = _labels(_first(query, "labels"))
    return (
        all(row.labels.get(key) == value for key, value in labels.items())
        and row.name.lower().startswith((_first(query, "name") or "").lower())
        and row.id.lower().startswith((_first(query, "id") or "").lower())
        and ("states" not in query or row.state in query["states"])
        and ("snapshots" not in query or row.snapshot in query["snapshots"])
        and ("regionIds" not in query or row.target in query["regionIds"])
    )


def _labels(text: str | None) -> dict[str, str]:
    if not text:
        return {}
    try:
        labels = json.loads(text)
    except ValueError:
        labels = None
    if not isinstance(labels, dict):
        raise ApiError(400, "labels must be a valid JSON object")
    return labels
