"""Snapshots: named images, built for real from the text of a Dockerfile."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.daytona_double import engine
from tests.daytona_double.builds import SLEEP, BuildLog, entrypoint_of, image_tag
from tests.daytona_double.errors import ApiError
from tests.daytona_double.rows import Snapshot
from tests.one_at_a_time import one_task_at_a_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.daytona_double.options import Options
    from tests.daytona_double.tasks import Tasks

_NAME = re.compile(r"[a-zA-Z0-9_.\-:]+(/[a-zA-Z0-9_.\-:]+)*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def _whole_number(body: Mapping[str, Any], key: str, default: int) -> int:
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ApiError(400, f"{key} must not be less than 1")
    return value


class Snapshots:
    """All snapshots of the organization, and the general ones."""

    def __init__(self, options: Options, tasks: Tasks) -> None:
        self._options = options
        self._tasks = tasks
        self.rows: dict[str, Snapshot] = {}
        self.images: set[str] = set()

    def find(self, id_or_name: str) -> Snapshot:
        """Look one up.

        Raises:
            ApiError: 404.
        """
        for row in self.rows.values():
            if id_or_name in {row.id, row.name}:
                return row
        raise ApiError(404, f"Snapshot with name {id_or_name} not found")

    def by_id(self, uuid_text: str) -> Snapshot:
        """Look one up for a route that takes no names.

        Raises:
            ApiError: 400 for what is not a UUID, 404.
        """
        if not _UUID.fullmatch(uuid_text):
            raise ApiError(400, "Validation failed (uuid is expected)")
        if uuid_text not in self.rows:
            raise ApiError(404, f"Snapshot {uuid_text} not found")
        return self.rows[uuid_text]

    def usable(self, name: str, region: str) -> Snapshot:
        """Give the snapshot that a sandbox is to be made from.

        Raises:
            ApiError: 400, also where it does not exist.
        """
        try:
            row = self.find(name)
        except ApiError:
            hint = "Did you add it through the Daytona Dashboard?"
            raise ApiError(400, f"Snapshot {name} not found. {hint}") from None
        if row.state != "active":
            raise ApiError(400, f"Snapshot {name} is {row.state}")
        if row.region != region and not row.is_general:
            raise ApiError(400, f"Snapshot {name} is not available in region {region}")
        row.last_used_at = datetime.now(UTC)
        return row

    def create(self, body: Mapping[str, Any], failure: str | None = None) -> Snapshot:
        """Begin to make a snapshot, as `POST /snapshots` asks.

        Args:
            body: The request.
            failure: What the builder shall print before it fails; None to build.

        Raises:
            ApiError: The platform refuses.
        """
        row = self._row(body)
        info = body.get("buildInfo")
        if info:
            row.dockerfile = info["dockerfileContent"]
            row.entrypoint = entrypoint_of(info["dockerfileContent"])
            row.image = image_tag(info["dockerfileContent"])
        else:
            row.image = self._pulled_image(body)
            row.entrypoint = tuple(body.get("entrypoint") or SLEEP)
        self.rows[row.id] = row
        self._tasks.start(self._make(row, failure))
        return row

    def _row(self, body: Mapping[str, Any]) -> Snapshot:
        name = body.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ApiError(400, "name must be a valid snapshot name")
        region = body.get("regionId") or self._options.regions[0]
        if region not in self._options.regions:
            raise ApiError(404, "Region not found")
        if any(row.name == name for row in self.rows.values()):
            problem = f'Snapshot with name "{name}" already exists for this organization'
            raise ApiError(409, problem)
        own = sum(1 for row in self.rows.values() if not row.is_general)
        if own >= self._options.max_snapshots:
            limit = self._options.max_snapshots
            raise ApiError(400, f"Snapshot quota exceeded. Maximum allowed: {limit}")
        row = Snapshot(
            name=name,
            region=region,
            cpu=_whole_number(body, "cpu", 1),
            memory=_whole_number(body, "memory", 1),
            disk=_whole_number(body, "disk", 3),
        )
        check_sizes(self._options, row.cpu, row.memory, row.disk)
        return row

    @staticmethod
    def _pulled_image(body: Mapping[str, Any]) -> str:
        image = body.get("imageName") or ""
        last = image.rpartition("/")[2]
        if "@sha256:" not in last and ":" not in last:
            raise ApiError(400, 'Image name must include a tag (e.g., "ubuntu:22.04") or digest')
        if last.endswith(":latest"):
            raise ApiError(400, 'Images with tag ":latest" are not allowed')
        return str(image)

    async def _make(self, row: Snapshot, failure: str | None) -> None:
        await asyncio.sleep(self._options.build_delay_s)
        row.become("building" if row.dockerfile else "pulling")
        await asyncio.sleep(self._options.build_delay_s)
        try:
            if failure is not None:
                await row.log.add(failure.encode())
                raise engine.EngineError(failure.strip().splitlines()[-1])  # noqa: TRY301
            if row.dockerfile:
                await self.build(row.dockerfile, row.log)
            await engine.image_workdir(row.image)  # fails where there is no such image
            row.become("active")
        except engine.EngineError as error:
            row.error_reason = str(error)
            row.become("build_failed" if row.dockerfile else "error")
        finally:
            await row.log.end()

    async def build(self, dockerfile: str, log: BuildLog) -> str:
        """Build a Dockerfile unless this machine has its image; gives the image.

        Raises:
            EngineError: The build failed.
        """
        tag = image_tag(dockerfile)
        self.images.add(tag)
        async with one_task_at_a_time(tag):
            try:
                await engine.image_workdir(tag)
                await log.add(f"Using the image of an earlier build of {tag}\n".encode())
            except engine.EngineError:
                async for chunk in engine.build(dockerfile, tag):
                    await log.add(chunk)
        return tag

    def remove(self, row: Snapshot) -> None:
        """Begin to remove a snapshot: its name stays taken until the next round of the cron.

        Raises:
            ApiError: It is a general one.
        """
        if row.is_general:
            raise ApiError(403, "You cannot delete a general snapshot")
        row.become("removing")
        self._tasks.start(self._remove(row))

    async def _remove(self, row: Snapshot) -> None:
        await asyncio.sleep(self._options.cron_s)
        self.rows.pop(row.id, None)

    def activate(self, row: Snapshot) -> None:
        """Make an unused snapshot usable again.

        Raises:
            ApiError: It is not inactive.
        """
        if row.state != "inactive":
            raise ApiError(400, f"Snapshot {row.name} is {row.state}")
        row.become("pulling")
        self._tasks.start(self._make(row, None))


def check_sizes(options: Options, cpu: int, memory: int, disk: int) -> None:
    """Refuse a sandbox that is larger than one may be.

    Raises:
        ApiError: 400, as the platform words it.
    """
    for what, size, limit, unit in (
        ("CPU", cpu, options.max_cpu, ""),
        ("Memory", memory, options.max_memory_gib, "GB"),
        ("Disk", disk, options.max_disk_gib, "GB"),
    ):
        if size > limit:
            most = f"exceeds maximum allowed per sandbox ({limit}{unit})."
            raise ApiError(400, f"{what} request {size}{unit} {most}")
