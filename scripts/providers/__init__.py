"""Providers: one module or folder each. A new one is a word here, and its module."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from scripts.contracts.provider import Provider

NAMES = ("docker", "daytona")


def get(name: str) -> Provider:
    """Load a provider's module."""
    return cast("Provider", importlib.import_module(f"scripts.providers.{name}"))
