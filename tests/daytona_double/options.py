"""What one double is set to: times, limits and the version that it imitates."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Literal

ORGANIZATION = "5f0d5a3e-0000-4000-8000-000000000001"
Version = Literal["0.226", "0.190"]


@dataclass(kw_only=True)
class Options:
    """The dials of a double; those that a test turns while it runs are read at each use.

    Attributes:
        api_key: The one key that is let in.
        scopes: What the key may do, such as `write:sandboxes`; None for everything.
        minute_s: How long a platform minute lasts, in seconds; auto-stop and the like count in it.
        latency_s: How long each request waits before its answer, in seconds.
        list_lag_s: How far the list of sandboxes is behind the truth, in seconds.
        transition_s: The least time of a state change, in seconds: long enough to be polled.
        build_delay_s: The least time of each state of a build, in seconds.
        create_blocks: Answer a create only when the sandbox has started or failed.
        version: Which server's bodies to send.
        page_limit: The most rows of one page, whatever the client asks for.
        label: The value of the engine label on each container.
        regions: The known regions; the first is the default.
        max_cpu: The largest number of processors of one sandbox.
        max_memory_gib: The most memory of one sandbox, in GiB.
        max_disk_gib: The largest disk of one sandbox, in GiB.
        max_snapshots: The largest number of snapshots.
        block_s: How long after its start a sandbox that is to have no network still has one,
            in seconds; infinite if the platform takes the wish and does nothing.
        allows_blocks: Whether the organization may decide about its sandboxes' network.
        allows_namespaces: Whether an ordinary user in a sandbox can make namespaces.
        run_id: The value of the engine label that this double alone has.
    """

    api_key: str = field(repr=False)
    scopes: frozenset[str] | None = None
    minute_s: float = 60.0
    latency_s: float = 0.0
    list_lag_s: float = 0.0
    transition_s: float = 0.15
    build_delay_s: float = 0.15
    create_blocks: bool = False
    version: Version = "0.226"
    page_limit: int = 100
    label: str = "double"
    regions: tuple[str, ...] = ("us", "eu")
    max_cpu: int = 4
    max_memory_gib: int = 8
    max_disk_gib: int = 10
    max_snapshots: int = 30
    block_s: float = 0.0
    allows_blocks: bool = True
    allows_namespaces: bool = True
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def cron_s(self) -> float:
        """The time between two rounds of the platform's own housekeeping, in seconds."""
        return min(10.0, max(0.05, self.minute_s / 6))
