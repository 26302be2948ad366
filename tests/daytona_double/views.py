"""Sandboxes and snapshots as tests see and add them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.daytona_double.rows import Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.daytona_double.rows import Snapshot


@dataclass(frozen=True, kw_only=True)
class SandboxView:
    """A sandbox as it is, not as a list shows it. Intervals are platform minutes."""

    id: str
    name: str
    state: str
    desired_state: str
    snapshot: str | None
    labels: Mapping[str, str]
    env: Mapping[str, str] = field(repr=False)
    created: datetime
    auto_stop_minutes: int
    auto_archive_minutes: int
    auto_delete_minutes: int
    error_reason: str | None
    container: str | None


@dataclass(frozen=True, kw_only=True)
class SnapshotView:
    """A snapshot as it is. Sizes are processors, GiB and GiB."""

    id: str
    name: str
    state: str
    image: str
    dockerfile: str | None
    cpu: int
    memory: int
    disk: int
    error_reason: str | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A sandbox without a container, for lists. A stuck one can never be deleted."""

    name: str
    state: str = "stopped"
    desired_state: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    created: datetime | None = None
    snapshot: str | None = None
    is_stuck: bool = False


def sandbox_view(row: Sandbox) -> SandboxView:
    """Show a sandbox."""
    return SandboxView(
        id=row.id,
        name=row.name,
        state=row.state,
        desired_state=row.desired_state,
        snapshot=row.snapshot,
        labels=dict(row.labels),
        env=dict(row.env),
        created=row.created_at,
        auto_stop_minutes=row.auto_stop,
        auto_archive_minutes=row.auto_archive,
        auto_delete_minutes=row.auto_delete,
        error_reason=row.error_reason,
        container=row.container,
    )


def snapshot_view(row: Snapshot) -> SnapshotView:
    """Show a snapshot."""
    return SnapshotView(
        id=row.id,
        name=row.name,
        state=row.state,
        image=row.image,
        dockerfile=row.dockerfile,
        cpu=row.cpu,
        memory=row.memory,
        disk=row.disk,
        error_reason=row.error_reason,
    )


def sandbox_of(row: Row) -> Sandbox:
    """Make a sandbox without a container."""
    steady = {"destroying": "destroyed", "error": "started", "creating": "started"}
    return Sandbox(
        name=row.name,
        state=row.state,
        desired_state=row.desired_state or steady.get(row.state, row.state),
        labels=dict(row.labels),
        snapshot=row.snapshot,
        created_at=row.created or datetime.now(UTC),
        is_stuck=row.is_stuck,
    )
