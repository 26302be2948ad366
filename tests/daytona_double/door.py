"""What every HTTP request passes: the log, the latency, the faults, the key, the scopes."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from tests.daytona_double.errors import ApiError, body
from tests.daytona_double.faults import Fault
from tests.daytona_double.log import Request

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

    from tests.daytona_double.cloud import Cloud

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# The fault that a handler may have to bring about itself.
FAULT = web.RequestKey("fault", Fault)

# Method and start of the path: the scope. Anything else needs none.
_SCOPES = (
    ("POST", "/sandbox", "write:sandboxes"),
    ("PUT", "/sandbox", "write:sandboxes"),
    ("DELETE", "/sandbox", "delete:sandboxes"),
    ("POST", "/snapshots", "write:snapshots"),
    ("DELETE", "/snapshots", "delete:snapshots"),
)
_PAGE = (
    "<html>\n<head><title>{status}</title></head>\n<body>\n<center><h1>{status}</h1></center>\n"
    "<hr><center>gateway</center>\n" + "<p>please try again later</p>\n" * 40 + "</body>\n</html>\n"
)


class Door:
    """The middleware in front of all routes."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def middleware(self) -> Middleware:
        """Give it in the form that the server takes."""

        @web.middleware
        async def pass_through(request: web.Request, handler: Handler) -> web.StreamResponse:
            kept = self._cloud.log.add(await _logged(request))
            epoch, index, logged = kept
            status = None
            try:
                response = await self._answer(request, handler, logged)
                dropped = request.transport is None or request.transport.is_closing()
                status = None if dropped else response.status
                return response
            finally:
                self._cloud.log.answered(epoch, index, status)

        return pass_through

    async def _answer(
        self, request: web.Request, handler: Handler, logged: Request
    ) -> web.StreamResponse:
        await asyncio.sleep(self._cloud.options.latency_s)
        fault = self._cloud.faults.take(logged.number, logged.line) if logged.number else None
        if fault:
            request[FAULT] = fault
        if fault and fault.before and (response := await self._instead(request, fault, logged)):
            return response
        try:
            self._let_in(request, logged)
            response = await handler(request)
        except ApiError as error:
            response = _error(request, error)
        except web.HTTPException as error:
            # Neither an unknown path nor a wrong method has a handler; the platform says the same.
            problem = f"Cannot {request.method} {request.path}"
            response = _error(
                request, ApiError(404 if error.status == 405 else error.status, problem)
            )
        if fault and fault.kind in {"cut_json", "state"}:
            return _changed(response, fault)
        if fault and not fault.before:
            return await self._instead(request, fault, logged) or response
        return response

    async def _instead(
        self, request: web.Request, fault: Fault, logged: Request
    ) -> web.StreamResponse | None:
        if fault.kind in {"hang", "slow"}:
            await asyncio.sleep(10**6 if fault.seconds is None else fault.seconds)
        if fault.kind == "auto_stop":
            await self._cloud.sandboxes.stop_all()
        if fault.kind in {"drop", "hang"}:
            if request.transport:
                request.transport.abort()
            return web.Response()
        if fault.kind == "html":
            page = _PAGE.format(status=fault.status)
            return web.Response(status=fault.status, text=page, content_type="text/html")
        if fault.kind == "status":
            message = fault.message.replace("{name}", _name(logged))
            return _error(request, ApiError(fault.status, message, fault.headers))
        return None

    def _let_in(self, request: web.Request, logged: Request) -> None:
        if request.match_info.http_exception is not None or logged.path.startswith("/socket.io"):
            return
        key = request.headers.get("Authorization", "")
        if not hmac.compare_digest(key.encode(), f"Bearer {self._cloud.options.api_key}".encode()):
            is_toolbox = logged.path.startswith("/toolbox")
            problem = "authentication failed: Bearer token is invalid"
            raise ApiError(401, problem if is_toolbox else "Invalid credentials")
        scopes = self._cloud.options.scopes
        for method, start, scope in _SCOPES:
            if scopes is not None and logged.line.startswith(f"{method} {start}"):
                is_login = logged.path.endswith("/ssh-access")
                if ("write:sandboxes" if is_login else scope) not in scopes:
                    raise ApiError(403, "Access denied")


async def _logged(request: web.Request) -> Request:
    is_json = request.content_type == "application/json" and request.can_read_body
    text = await request.text() if is_json else ""
    try:
        content = json.loads(text) if text else None
    except ValueError:
        content = None
    return Request(
        number=0,
        method=request.method,
        path=request.path.removeprefix("/api"),
        query={key: tuple(request.query.getall(key)) for key in request.query},
        json=content,
        headers=dict(request.headers),
    )


def _name(logged: Request) -> str:
    # The object that a request is about: named in its body, else in its path.
    named = logged.json.get("name") if isinstance(logged.json, dict) else None
    return named or ([*logged.path.split("/"), "", ""])[2]


def _error(request: web.Request, error: ApiError) -> web.Response:
    if not error.message:
        return web.Response(status=error.status, headers=error.headers)
    content = body(error, request.method, request.path)
    return web.json_response(content, status=error.status, headers=error.headers)


def _changed(response: web.StreamResponse, fault: Fault) -> web.StreamResponse:
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return response
    if fault.kind == "cut_json":
        text = response.body[: len(response.body) // 2]
    else:
        content = json.loads(response.body or b"null")
        rows = content.get("items", [content]) if isinstance(content, dict) else []
        for row in rows:
            row["state"] = fault.message
        text = json.dumps(content).encode()
    return web.Response(status=response.status, body=text, content_type="application/json")
