"""Measurements against docker and invoke by hand, side by side."""

from __future__ import annotations


def bench(*, runs: str, as_json: bool, yes: bool) -> None: ...
