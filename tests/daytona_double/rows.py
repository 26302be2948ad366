"""The rows of the platform's tables."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.daytona_double.builds import SLEEP, BuildLog

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(kw_only=True)
class Snapshot:
    """A snapshot. Sizes are per sandbox: processors, GiB of memory, GiB of disk."""

    name: str
    image: str = ""
    state: str = "pending"
    cpu: int = 1
    memory: int = 1
    disk: int = 3
    region: str = "us"
    is_general: bool = False
    entrypoint: tuple[str, ...] = SLEEP
    dockerfile: str | None = None
    error_reason: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_used_at: datetime | None = None
    log: BuildLog = field(default_factory=BuildLog, repr=False)

    def become(self, state: str) -> None:
        """Change the state, and note when."""
        self.state = state
        self.updated_at = datetime.now(UTC)


@dataclass(kw_only=True)
class Sandbox:
    """A sandbox. Intervals are platform minutes; sizes are processors, GiB and GiB.

    Attributes:
        container: The engine's id of it; None for a row that only a list shows.
        workdir: The image's directory; empty for the user's home.
        is_stuck: Whether every attempt to delete it is refused.
        active_at: When it was last active, on the monotonic clock, in seconds.
    """

    name: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "creating"
    desired_state: str = "started"
    snapshot: str | None = None
    image: str = ""
    entrypoint: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = "us"
    user: str = "daytona"
    cpu: int = 1
    memory: int = 1
    disk: int = 3
    network_block_all: bool = False
    network_allow_list: str | None = None
    domain_allow_list: str | None = None
    is_public: bool = False
    auto_stop: int = 15
    auto_archive: int = 10080
    auto_delete: int = -1
    error_reason: str | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_activity_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    active_at: float = field(default_factory=time.monotonic)
    dockerfile: str | None = None
    log: BuildLog = field(default_factory=BuildLog, repr=False)
    container: str | None = None
    workdir: str = ""
    is_stuck: bool = False

    @property
    def is_ephemeral(self) -> bool:
        """Whether a stop destroys it."""
        return self.auto_delete == 0
