"""Rows as JSON, in the shapes of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.daytona_double.errors import iso
from tests.daytona_double.options import ORGANIZATION

if TYPE_CHECKING:
    from tests.daytona_double.options import Version
    from tests.daytona_double.rows import Sandbox, Snapshot


def list_item(row: Sandbox, version: Version, toolbox_url: str) -> dict[str, Any]:
    """Give a sandbox as a list shows it: no environment, no network lists."""
    body = {
        "id": row.id,
        "organizationId": ORGANIZATION,
        "name": row.name,
        "user": row.user,
        "labels": dict(row.labels),
        "public": row.is_public,
        "target": row.target,
        "cpu": row.cpu,
        "gpu": 0,
        "memory": row.memory,
        "disk": row.disk,
        "state": row.state,
        "desiredState": row.desired_state,
        "snapshot": row.snapshot,
        "errorReason": row.error_reason,
        "recoverable": False,
        "backupState": "None",
        "autoStopInterval": row.auto_stop,
        "autoArchiveInterval": row.auto_archive,
        "autoDeleteInterval": row.auto_delete,
        "createdAt": iso(row.created_at),
        "updatedAt": iso(row.updated_at),
        "lastActivityAt": iso(row.last_activity_at),
        "toolboxProxyUrl": toolbox_url,
    }
    if version != "0.190":
        body["networkBlockAll"] = row.network_block_all
    return body


def sandbox(row: Sandbox, version: Version, toolbox_url: str) -> dict[str, Any]:
    """Give a sandbox as a request for one shows it."""
    body = {
        **list_item(row, version, toolbox_url),
        "env": dict(row.env),
        "networkBlockAll": row.network_block_all,
        "networkAllowList": row.network_allow_list,
        "domainAllowList": row.domain_allow_list,
        "volumes": [],
    }
    if row.dockerfile:
        body["buildInfo"] = {
            "snapshotRef": row.image or "pending",
            "createdAt": iso(row.created_at),
            "updatedAt": iso(row.updated_at),
            "dockerfileContent": row.dockerfile,
            "contextHashes": [],
        }
    if version != "0.190":
        body["kvm"] = False
        body["sandboxClass"] = "container"
    return body


def snapshot(row: Snapshot) -> dict[str, Any]:
    """Give a snapshot."""
    body = {
        "id": row.id,
        "organizationId": ORGANIZATION,
        "general": row.is_general,
        "name": row.name,
        "imageName": row.image,
        "state": row.state,
        "size": 0.1 if row.state == "active" else None,
        "entrypoint": list(row.entrypoint),
        "cpu": row.cpu,
        "gpu": 0,
        "mem": row.memory,
        "disk": row.disk,
        "errorReason": row.error_reason,
        "createdAt": iso(row.created_at),
        "updatedAt": iso(row.updated_at),
        "lastUsedAt": iso(row.last_used_at) if row.last_used_at else None,
        "regionIds": [row.region],
        "sourceSandboxId": None,
    }
    if row.dockerfile:
        body["buildInfo"] = {
            "snapshotRef": row.image,
            "createdAt": iso(row.created_at),
            "updatedAt": iso(row.updated_at),
            "dockerfileContent": row.dockerfile,
            "contextHashes": [],
        }
    return body
