"""Sandboxes: their states, and the containers that they are."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.daytona_double import containers, engine
from tests.daytona_double.errors import ApiError
from tests.daytona_double.rows import Sandbox
from tests.daytona_double.snapshots import check_sizes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.daytona_double.listing import Index
    from tests.daytona_double.options import Options
    from tests.daytona_double.snapshots import Snapshots
    from tests.daytona_double.tasks import Tasks

_PENDING = {
    "creating", "building_snapshot", "pulling_snapshot", "starting", "stopping", "archiving",
    "restoring", "resizing", "snapshotting",
}  # fmt: skip


class Sandboxes:
    """All sandboxes of the organization."""

    def __init__(self, options: Options, snapshots: Snapshots, index: Index, tasks: Tasks) -> None:
        self._options = options
        self._snapshots = snapshots
        self._index = index
        self._tasks = tasks
        self.rows: dict[str, Sandbox] = {}

    def find(self, id_or_name: str) -> Sandbox:
        """Look one up; one that is being destroyed has lost its name.

        Raises:
            ApiError: 404.
        """
        row = self.rows.get(id_or_name) or self.by_name(id_or_name)
        if row is None:
            raise ApiError(404, f"Sandbox with ID or name {id_or_name} not found")
        return row

    def by_name(self, name: str) -> Sandbox | None:
        """Look one up by its name."""
        for row in self.rows.values():
            if row.name == name and row.desired_state != "destroyed":
                return row
        return None

    def add(self, row: Sandbox) -> None:
        """Take in a row as it is."""
        self.rows[row.id] = row
        self.publish(row)

    def publish(self, row: Sandbox) -> None:
        """Tell the list of sandboxes about a change."""
        row.updated_at = datetime.now(UTC)
        self._index.put(row)

    def touch(self, row: Sandbox) -> None:
        """Note activity, which puts off the auto-stop."""
        row.active_at = time.monotonic()
        row.last_activity_at = datetime.now(UTC)

    # -- changes of state -------------------------------------------------------------------

    def create(self, body: Mapping[str, Any], failure: str | None = None) -> asyncio.Task[None]:
        """Begin to make a sandbox, as `POST /sandbox` asks; `find` has the row by its name.

        Args:
            body: The request, with a name.
            failure: Why it shall end in `error`; None to start it.

        Raises:
            ApiError: The platform refuses.
        """
        row = self._row(body)
        work = self._boot if failure is None else _failing(failure)
        self.add(row)
        return self._begin(row, row.state, "started", work)

    def _row(self, body: Mapping[str, Any]) -> Sandbox:
        target = body.get("target") or self._options.regions[0]
        if target not in self._options.regions:
            raise ApiError(404, "Region not found")
        if self.by_name(body["name"]):
            raise ApiError(409, f"Sandbox with name {body['name']} already exists")
        for key in ("env", "labels"):
            values = body.get(key) or {}
            if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
                raise ApiError(400, f"{key} must be an object of strings")
        if body.get("networkBlockAll") and not self._options.allows_blocks:
            problem = "Network access is restricted and cannot be overridden at the sandbox level"
            raise ApiError(400, problem)
        if body.get("volumes"):
            raise ApiError(400, "Volumes are not available")
        row = Sandbox(
            name=body["name"],
            env=dict(body.get("env") or {}),
            labels=dict(body.get("labels") or {}),
            target=target,
            user=body.get("user") or "daytona",
            network_block_all=bool(body.get("networkBlockAll")),
            network_allow_list=body.get("networkAllowList"),
            domain_allow_list=body.get("domainAllowList"),
            is_public=bool(body.get("public")),
            auto_stop=body.get("autoStopInterval", 15),
            auto_archive=body.get("autoArchiveInterval", 10080),
            auto_delete=body.get("autoDeleteInterval", -1),
        )
        self._choose_image(row, body)
        return row

    def _choose_image(self, row: Sandbox, body: Mapping[str, Any]) -> None:
        sizes = [body.get(key) for key in ("cpu", "memory", "disk")]
        if info := body.get("buildInfo"):
            row.cpu, row.memory, row.disk = (
                size or default for size, default in zip(sizes, (1, 1, 3), strict=True)
            )
            check_sizes(self._options, row.cpu, row.memory, row.disk)
            row.dockerfile = info["dockerfileContent"]
            row.state = "pending_build"
            return
        if any(size is not None for size in sizes):
            problem = "Cannot specify Sandbox resources when using a snapshot"
            raise ApiError(400, problem)
        snapshot = self._snapshots.usable(body.get("snapshot") or "default", row.target)
        row.snapshot = snapshot.name
        row.image = snapshot.image
        row.entrypoint = snapshot.entrypoint
        row.cpu, row.memory, row.disk = snapshot.cpu, snapshot.memory, snapshot.disk

    async def _boot(self, row: Sandbox) -> None:
        if row.dockerfile:
            row.state = "building_snapshot"
            self.publish(row)
            try:
                row.image = await self._snapshots.build(row.dockerfile, row.log)
            finally:
                await row.log.end()
            row.state = "creating"
            self.publish(row)
        await containers.create(row, self._options)
        if row.network_block_all and 0 < self._options.block_s < float("inf"):
            self._tasks.start(containers.block_later(row, self._options))

    def start(self, row: Sandbox, failure: str | None = None) -> None:
        """Begin to start a sandbox; a started one stays as it is.

        Args:
            row: The sandbox.
            failure: Why it shall end in `error`; None to start it.

        Raises:
            ApiError: It is in a state from which it cannot start.
        """
        if row.state == "started":
            return
        self._refuse_pending(row)
        if row.state in {"error", "build_failed"}:
            raise ApiError(400, "Sandbox is in an errored state")
        if row.state not in {"stopped", "archived"}:
            raise ApiError(400, "Sandbox is not in valid state")
        through = "starting" if row.state == "stopped" else "restoring"
        work = containers.start if failure is None else _failing(failure)
        self._begin(row, through, "started", work)

    def stop(self, row: Sandbox) -> asyncio.Task[None]:
        """Begin to stop a sandbox, which destroys an ephemeral one; gives what to wait for.

        Raises:
            ApiError: It is not started.
        """
        self._refuse_pending(row)
        if row.state != "started":
            raise ApiError(400, "Sandbox is not in a stoppable state")
        if row.is_ephemeral:
            return self._destroy(row)
        return self._begin(row, "stopping", "stopped", containers.stop)

    def archive(self, row: Sandbox) -> None:
        """Begin to archive a stopped sandbox.

        Raises:
            ApiError: It is ephemeral or not stopped.
        """
        self._refuse_pending(row)
        if row.is_ephemeral:
            raise ApiError(400, "Ephemeral sandboxes cannot be archived")
        if row.state != "stopped":
            raise ApiError(400, "Sandbox is not stopped")
        self._begin(row, "archiving", "archived", _nothing)

    def delete(self, row: Sandbox) -> None:
        """Begin to destroy a sandbox.

        Raises:
            ApiError: 409 while another change is under way.
        """
        self._refuse_pending(row)
        self._destroy(row)

    def _destroy(self, row: Sandbox) -> asyncio.Task[None]:
        row.name = f"DESTROYED_{row.name}_{int(time.time() * 1000)}"
        return self._begin(row, "destroying", "destroyed", containers.remove)

    def _refuse_pending(self, row: Sandbox) -> None:
        if row.is_stuck or row.state in _PENDING or row.desired_state == "destroyed":
            raise ApiError(409, "Sandbox state change in progress")

    def _begin(
        self, row: Sandbox, through: str, to: str, work: Callable[[Sandbox], Awaitable[None]]
    ) -> asyncio.Task[None]:
        row.state = through
        row.desired_state = to
        row.error_reason = None
        self.touch(row)
        self.publish(row)
        return self._tasks.start(self._carry_out(row, to, work))

    async def _carry_out(
        self, row: Sandbox, to: str, work: Callable[[Sandbox], Awaitable[None]]
    ) -> None:
        await asyncio.sleep(self._options.transition_s)
        if row.desired_state != to:
            return  # it was deleted while its build waited
        try:
            await work(row)
        except engine.EngineError as error:
            failed_build = row.state == "building_snapshot"
            row.state = "build_failed" if failed_build else "error"
            row.error_reason = str(error)
        else:
            row.state = to
        if row.id not in self.rows:
            # It was taken away behind everyone's back, before it had a container.
            await containers.remove(row)
            return
        self.touch(row)
        self.publish(row)
        if row.state == "destroyed":
            self.forget(row)

    def forget(self, row: Sandbox) -> None:
        """Take a row away, from the list too."""
        self.rows.pop(row.id, None)
        self._index.drop(row)

    # -- the platform's own rounds ------------------------------------------------------------

    async def keep_house(self) -> None:
        """Stop, archive and delete what has been idle for its interval, for ever."""
        while True:
            await asyncio.sleep(self._options.cron_s)
            for row in list(self.rows.values()):
                if row.container and not row.is_stuck:
                    self._look_after(row)

    def _look_after(self, row: Sandbox) -> None:
        idle = (time.monotonic() - row.active_at) / self._options.minute_s
        if row.state == "started" and 0 < row.auto_stop <= idle:
            self.stop(row)
        elif row.state in {"stopped", "archived"} and 0 <= row.auto_delete <= idle:
            self.delete(row)
        elif row.state == "stopped" and row.auto_archive <= idle:
            self.archive(row)

    async def stop_all(self) -> None:
        """Stop every sandbox as inactivity does, and wait until that is done."""
        started = [r for r in self.rows.values() if r.state == "started" and r.container]
        await asyncio.gather(*(self.stop(row) for row in started))


async def _nothing(_row: Sandbox) -> None:
    """Archiving moves data that the engine leaves where it is."""


def _failing(reason: str) -> Callable[[Sandbox], Awaitable[None]]:
    async def fail(_row: Sandbox) -> None:
        raise engine.EngineError(reason)

    return fail
