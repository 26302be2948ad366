"""The routes of the API."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.daytona_double import bodies
from tests.daytona_double.door import FAULT
from tests.daytona_double.errors import ApiError

if TYPE_CHECKING:
    from tests.daytona_double.builds import BuildLog
    from tests.daytona_double.cloud import Cloud
    from tests.daytona_double.rows import Sandbox


class Api:
    """Sandboxes, snapshots and SSH tokens over HTTP."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put every route under `/api` in place."""
        one = "/api/sandbox/{sandbox}"
        for method, path, handler in (
            ("POST", "/api/sandbox", self._create),
            ("GET", "/api/sandbox", self._list),
            ("GET", one, self._get),
            ("DELETE", one, self._delete),
            ("POST", one + "/{verb:start|stop|archive}", self._change),
            ("POST", one + "/last-activity", self._activity),
            ("POST", one + "/{which:autostop|autoarchive|autodelete}/{minutes}", self._interval),
            ("PUT", one + "/labels", self._labels),
            ("POST", one + "/ssh-access", self._grant),
            ("DELETE", one + "/ssh-access", self._revoke),
            ("GET", one + "/ports/{port}/preview-url", self._preview),
            ("GET", one + "/ports/{port}/signed-preview-url", self._signed_preview),
            ("GET", one + "/build-logs-url", self._sandbox_logs),
            ("POST", "/api/snapshots", self._create_snapshot),
            ("GET", "/api/snapshots", self._list_snapshots),
            ("GET", "/api/snapshots/{snapshot}", self._get_snapshot),
            ("DELETE", "/api/snapshots/{snapshot}", self._delete_snapshot),
            ("POST", "/api/snapshots/{snapshot}/activate", self._activate),
            ("GET", "/api/snapshots/{snapshot}/build-logs-url", self._snapshot_logs),
            ("GET", "/api/object-storage/push-access", self._storage),
            ("GET", "/logs/{id}", self._logs),
        ):
            router.add_route(method, path, handler)

    def _sandbox(self, request: web.Request) -> Sandbox:
        return self._cloud.sandboxes.find(request.match_info["sandbox"])

    def _shown(self, row: Sandbox, status: int = 200) -> web.Response:
        return web.json_response(self._cloud.sandbox_body(row), status=status)

    # -- sandboxes ------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.Response:
        wish = await _json(request)
        wish["name"] = wish.get("name") or str(uuid.uuid4())
        done = self._cloud.sandboxes.create(wish, _failure(request, "sandbox_error"))
        row = self._cloud.sandboxes.find(wish["name"])
        if self._cloud.options.create_blocks:
            # The client may go away; the sandbox goes on.
            await asyncio.shield(done)
            if row.error_reason:
                raise ApiError(400, f"Sandbox failed to start: {row.error_reason}")
        return self._shown(row)

    async def _list(self, request: web.Request) -> web.Response:
        query = {key: request.query.getall(key) for key in request.query}
        rows, cursor = self._cloud.index.page(query)
        items = [self._cloud.list_item(row) for row in rows]
        return web.json_response({"items": items, "nextCursor": cursor})

    async def _get(self, request: web.Request) -> web.Response:
        return self._shown(self._sandbox(request))

    async def _delete(self, request: web.Request) -> web.Response:
        row = self._sandbox(request)
        self._cloud.sandboxes.delete(row)
        self._cloud.tokens.revoke(row.id)
        return self._shown(row)

    async def _change(self, request: web.Request) -> web.Response:
        row = self._sandbox(request)
        verb = request.match_info["verb"]
        if verb == "start":
            self._cloud.sandboxes.start(row, _failure(request, "sandbox_error"))
        elif verb == "stop":
            self._cloud.sandboxes.stop(row)
        else:
            self._cloud.sandboxes.archive(row)
        return self._shown(row)

    async def _activity(self, request: web.Request) -> web.Response:
        self._cloud.sandboxes.touch(self._sandbox(request))
        return web.Response(status=201)

    async def _interval(self, request: web.Request) -> web.Response:
        row = self._sandbox(request)
        which = request.match_info["which"]
        minutes = _integer(request.match_info["minutes"], "interval")
        if minutes < (-1 if which == "autodelete" else 0):
            raise ApiError(400, "interval must not be negative")
        field = {
            "autostop": "auto_stop",
            "autoarchive": "auto_archive",
            "autodelete": "auto_delete",
        }[which]
        setattr(row, field, minutes)
        self._cloud.sandboxes.publish(row)
        return self._shown(row, 201)

    async def _labels(self, request: web.Request) -> web.Response:
        row = self._sandbox(request)
        labels = (await _json(request)).get("labels")
        if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
            raise ApiError(400, "labels must be an object of strings")
        row.labels = labels
        self._cloud.sandboxes.publish(row)
        return self._shown(row)

    async def _grant(self, request: web.Request) -> web.Response:
        row = self._sandbox(request)
        try:
            minutes = float(request.query.get("expiresInMinutes", "60"))
        except ValueError:
            raise ApiError(400, "expiresInMinutes must be a number") from None
        return web.json_response(self._cloud.token_body(self._cloud.tokens.grant(row.id, minutes)))

    async def _revoke(self, request: web.Request) -> web.Response:
        row = self._sandbox(request)
        self._cloud.tokens.revoke(row.id, request.query.get("token"))
        return self._shown(row)

    async def _preview(self, request: web.Request) -> web.Response:
        row = self._sandbox(request)
        port = _integer(request.match_info["port"], "port")
        if not 1 <= port <= 65535:
            raise ApiError(400, "Invalid port")
        url = f"http://{port}-{row.id}.localhost:{self._cloud.port}"
        return web.json_response({"sandboxId": row.id, "url": url, "token": row.id[:8]})

    async def _signed_preview(self, request: web.Request) -> web.Response:
        row = self._sandbox(request)
        port = _integer(request.match_info["port"], "port")
        seconds = _integer(request.query.get("expiresInSeconds", "60"), "expiresInSeconds")
        if not 1 <= port <= 65535:
            raise ApiError(400, "Invalid port")
        if not 1 <= seconds <= 86400:
            raise ApiError(400, "expiresInSeconds must be between 1 and 86400")
        token = secrets.token_hex(8)
        url = f"http://{port}-{token}.localhost:{self._cloud.port}"
        return web.json_response({"sandboxId": row.id, "port": port, "token": token, "url": url})

    # -- snapshots ------------------------------------------------------------------------------

    async def _create_snapshot(self, request: web.Request) -> web.Response:
        failure = _failure(request, "build_failed")
        row = self._cloud.snapshots.create(await _json(request), failure)
        return web.json_response(bodies.snapshot(row))

    async def _list_snapshots(self, request: web.Request) -> web.Response:
        page = _integer(request.query.get("page", "1"), "page")
        limit = _integer(request.query.get("limit", "100"), "limit")
        if page < 1 or not 1 <= limit <= 200:
            raise ApiError(400, "page must be at least 1, limit between 1 and 200")
        limit = min(limit, self._cloud.options.page_limit)
        rows = list(self._cloud.snapshots.rows.values())
        shown = rows[(page - 1) * limit : page * limit]
        return web.json_response(
            {
                "items": [bodies.snapshot(row) for row in shown],
                "total": len(rows),
                "page": page,
                "totalPages": -(-len(rows) // limit),
            }
        )

    async def _get_snapshot(self, request: web.Request) -> web.Response:
        row = self._cloud.snapshots.find(request.match_info["snapshot"])
        return web.json_response(bodies.snapshot(row))

    async def _delete_snapshot(self, request: web.Request) -> web.Response:
        self._cloud.snapshots.remove(self._cloud.snapshots.by_id(request.match_info["snapshot"]))
        return web.Response()

    async def _activate(self, request: web.Request) -> web.Response:
        row = self._cloud.snapshots.by_id(request.match_info["snapshot"])
        self._cloud.snapshots.activate(row)
        return web.json_response(bodies.snapshot(row))

    # -- build logs and storage -------------------------------------------------------------------

    async def _snapshot_logs(self, request: web.Request) -> web.Response:
        row = self._cloud.snapshots.find(request.match_info["snapshot"])
        return web.json_response({"url": f"{self._cloud.origin}/logs/{row.id}"})

    async def _sandbox_logs(self, request: web.Request) -> web.Response:
        row = self._sandbox(request)
        return web.json_response({"url": f"{self._cloud.origin}/logs/{row.id}"})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        log = self._log_of(request.match_info["id"])
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        async for chunk in log.follow(to_the_end=request.query.get("follow") == "true"):
            await response.write(chunk)
        await response.write_eof()
        return response

    def _log_of(self, row_id: str) -> BuildLog:
        row = self._cloud.snapshots.rows.get(row_id) or self._cloud.sandboxes.rows.get(row_id)
        if row is None:
            raise ApiError(404, f"Build logs of {row_id} not found")
        return row.log

    async def _storage(self, _request: web.Request) -> web.Response:
        raise ApiError(503, "Object storage is not configured")


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        content = await request.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ApiError(400, "Unexpected token in JSON")
    return content


def _integer(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ApiError(400, f"{what} must be a number") from None


def _failure(request: web.Request, kind: str) -> str | None:
    fault = request.get(FAULT)
    return fault.message if fault and fault.kind == kind else None
