"""A double of the Daytona platform: its HTTP API and SSH gateway, on a real engine.

It takes the official SDK and OpenSSH for what they are, refuses what the platform refuses, runs
each sandbox as a container, and lets a test say what goes wrong, and when. All traffic is on
loopback. `python -m tests.daytona_double` runs one by hand.
"""

from __future__ import annotations

from tests.daytona_double.double import DaytonaDouble
from tests.daytona_double.faults import FAULTS, Fault, fault
from tests.daytona_double.log import Request, SshEvent
from tests.daytona_double.views import Row, SandboxView, SnapshotView

__all__ = [
    "FAULTS",
    "DaytonaDouble",
    "Fault",
    "Request",
    "Row",
    "SandboxView",
    "SnapshotView",
    "SshEvent",
    "fault",
]
