"""Places and names that are the same in every sandbox, as the Dockerfile makes them."""

from __future__ import annotations

WORKSPACE = "/workspace"
"""The directory that a sandbox shows, or its copy; where every session begins."""
USER = "nddt"
"""The user inside, unless that is root."""
ROOT = "root"


def home(user: str) -> str:
    """Name the home directory of a user inside."""
    return "/root" if user == ROOT else f"/home/{user}"
