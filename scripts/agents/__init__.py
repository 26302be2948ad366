"""Agents: one module each. A new one is a word here, and its module."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from scripts.contracts.agent import Agent

NAMES = ("claude", "bash")


def get(name: str) -> Agent:
    """Load an agent's module."""
    return cast("Agent", importlib.import_module(f"scripts.agents.{name}"))
