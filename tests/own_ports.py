"""Ports of this machine for tests that name theirs, for several may run at once."""

from __future__ import annotations

import os

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def own_port(number: int) -> int:
    """Give the port that stands for a number from 0 to 299 in this process of pytest's alone.

    They lie below the ones that the kernel gives to clients, from 32768 on.
    """
    return 21_000 + 300 * _WORKER + number
