"""The double as tests use it, from any thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiohttp import web

from tests.daytona_double import containers, engine
from tests.daytona_double.api import Api
from tests.daytona_double.cloud import Cloud
from tests.daytona_double.door import Door
from tests.daytona_double.gateway import Gateway
from tests.daytona_double.log import Log, Request, SshEvent
from tests.daytona_double.options import Options
from tests.daytona_double.rows import Snapshot
from tests.daytona_double.toolbox import Toolbox
from tests.daytona_double.views import (
    Row,
    SandboxView,
    SnapshotView,
    sandbox_of,
    sandbox_view,
    snapshot_view,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from tests.daytona_double.faults import Fault
    from tests.daytona_double.rows import Sandbox

T = TypeVar("T")


async def _end_tasks() -> None:
    # aiohttp forgets a request whose client has gone, though its handler goes on.
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


class DaytonaDouble:
    """A Daytona platform on this machine; it listens from its construction until `close`.

    Attributes:
        options: Its dials; assigning to them works while it runs.
    """

    def __init__(
        self,
        *,
        api_key: str = "dtn_test_0000000000000000000000000000000000000000000000000000000000000000",
        port: int = 0,
        ssh_port: int = 0,
        listener: Callable[[Request], None] | None = None,
        **options: Any,  # noqa: ANN401  # fields of Options
    ) -> None:
        self.options = Options(api_key=api_key, **options)
        self._log = Log(listener)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._cloud, self._gateway, self._runner = self._await(self._open(port, ssh_port))

    async def _open(self, port: int, ssh_port: int) -> tuple[Cloud, Gateway, web.AppRunner]:
        cloud = Cloud(self.options, self._log)
        gateway = Gateway(cloud)
        app = web.Application(middlewares=[Door(cloud).middleware()], client_max_size=1 << 30)
        Api(cloud).add_routes(app.router)
        Toolbox(cloud).add_routes(app.router)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        cloud.port = runner.addresses[0][1]
        cloud.ssh_port = await gateway.open(ssh_port)
        cloud.tasks.start(cloud.sandboxes.keep_house())
        return cloud, gateway, runner

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._await(call())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and remove all containers; built images stay for the next double."""
        if self._loop.is_closed():
            return
        self._await(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut_down(self) -> None:
        await self._gateway.close()
        await self._cloud.tasks.close()
        await self._runner.cleanup()
        await _end_tasks()
        await engine.remove_containers(self.options.run_id)

    def forget_images(self) -> None:
        """Remove the images of its snapshots."""
        if self._cloud.snapshots.images:
            self._await(engine.run("rmi", "--force", *self._cloud.snapshots.images))

    # -- what a client needs ------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The API's URL."""
        return f"{self._cloud.origin}/api"

    @property
    def api_key(self) -> str:
        """The key that is let in."""
        return self.options.api_key

    @property
    def environ(self) -> dict[str, str]:
        """The variables to export."""
        return {
            "NDDT_PROVIDER": "daytona",
            "DAYTONA_API_KEY": self.api_key,
            "DAYTONA_API_URL": self.url,
        }

    # -- what clients did ---------------------------------------------------------------------

    def requests(self) -> tuple[Request, ...]:
        """Give the HTTP requests since they were last forgotten, oldest first."""
        return self._log.requests()

    def ssh_events(self) -> tuple[SshEvent, ...]:
        """Give what happened at the gateway since it was last forgotten, oldest first."""
        return self._log.events()

    def forget_requests(self) -> None:
        """Forget requests and gateway events; faults count from 1 again."""
        self._log.forget()

    # -- what goes wrong ----------------------------------------------------------------------

    def fail(self, fault: Fault) -> None:
        """Let something go wrong."""
        self._cloud.faults.add(fault)

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self._cloud.faults.clear()

    def cut_connections(self) -> None:
        """Break every SSH connection; what runs in the sandboxes goes on."""
        self._call(self._gateway.cut)

    def change_host_key(self) -> None:
        """Give the gateway another host key."""
        self._call(self._gateway.change_key)

    def pause_gateway(self) -> None:
        """Refuse SSH connections; open ones stay."""
        self._await(self._gateway.pause())

    def resume_gateway(self) -> None:
        """Accept SSH connections again, on the same port."""
        self._await(self._gateway.open(self._cloud.ssh_port))

    def expire_tokens(self, name: str) -> None:
        """Let the SSH tokens of a sandbox open nothing any more."""
        self._call(lambda: self._cloud.tokens.revoke(self._cloud.sandboxes.find(name).id))

    # -- the truth, and changes to it ---------------------------------------------------------

    def sandboxes(self) -> dict[str, SandboxView]:
        """Give all sandboxes by name."""
        return self._call(
            lambda: {r.name: sandbox_view(r) for r in self._cloud.sandboxes.rows.values()}
        )

    def snapshots(self) -> dict[str, SnapshotView]:
        """Give all snapshots by name."""
        rows = self._cloud.snapshots.rows
        return self._call(lambda: {r.name: snapshot_view(r) for r in rows.values()})

    def container_of(self, name: str) -> str:
        """Give the engine's id of a sandbox's container."""
        container = self._call(lambda: self._cloud.sandboxes.find(name).container)
        if container is None:
            raise LookupError(f"{name} has no container")
        return container

    def add_sandboxes(self, rows: Iterable[Row]) -> None:
        """Add sandboxes that have no containers."""

        def add() -> None:
            for row in rows:
                self._cloud.sandboxes.add(sandbox_of(row))

        self._call(add)

    def add_snapshot(self, name: str, state: str = "active", **fields: Any) -> str:  # noqa: ANN401
        """Add a snapshot as it is; gives its id.

        Args:
            name: Its name.
            state: Its state, any word.
            fields: Further fields of a `Snapshot`, such as `image` or `is_general`.
        """
        row = Snapshot(name=name, state=state, **fields)
        self._call(lambda: self._cloud.snapshots.rows.update({row.id: row}))
        return row.id

    def set_state(self, name: str, state: str) -> None:
        """Change the state of a sandbox, or else of a snapshot, and nothing more."""

        def change() -> None:
            row = self._cloud.sandboxes.by_name(name)
            if row:
                row.state = state
                self._cloud.sandboxes.publish(row)
            else:
                self._cloud.snapshots.find(name).become(state)

        self._call(change)

    def stop_behind_back(self, name: str) -> None:
        """Stop a sandbox without any request, at once."""
        self._await(self._behind_back(name, containers.stop, "stopped"))

    def remove_behind_back(self, name: str) -> None:
        """Remove a sandbox without any request, at once."""
        self._await(self._behind_back(name, containers.remove, "destroyed"))

    async def _behind_back(
        self, name: str, work: Callable[[Sandbox], Awaitable[None]], state: str
    ) -> None:
        row = self._cloud.sandboxes.find(name)
        row.state = row.desired_state = state
        await work(row)
        self._cloud.sandboxes.publish(row)
        if state == "destroyed":
            self._cloud.sandboxes.forget(row)
