"""Profiles: what the settings of a sandbox's walls are where they are not set one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

STANDARD = "standard"
"""Daily work needs no change: the network is open, and keys stay here where they can."""

_CLOSED = {"NDDT_MODEL_ACCESS": "tunnel", "NDDT_READONLY_ROOT": "true"}

PROFILES: Mapping[str, Mapping[str, str]] = {
    "open": {"NDDT_MODEL_ACCESS": "env", "NDDT_PIDS": "0"},
    STANDARD: {},
    "strict": {"NDDT_NETWORK": "allowlist", **_CLOSED},
    "airgap": {"NDDT_NETWORK": "none", **_CLOSED},
}
"""Setting → its value, as it would be written; what is not here has its default."""
