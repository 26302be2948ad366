"""The toolbox of a sandbox: commands and files over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from aiohttp import MultipartWriter, web

from tests.daytona_double import containers, engine
from tests.daytona_double.errors import ApiError, body

if TYPE_CHECKING:
    from tests.daytona_double.cloud import Cloud
    from tests.daytona_double.rows import Sandbox

# A shell reads the command from its standard input, as the platform's daemon does it: a program
# that reads its own standard input eats the rest of the script.
_SHELL = "exec 2>&1; for s in zsh bash; do command -v $s >/dev/null && exec $s; done; exec sh"
_WRITE = 'mkdir -p -- "$(dirname -- "$1")" && cat >"$1"'
_STAT = 'stat --printf "%F\\n%s\\n%y\\n%A\\n%a\\n%U\\n%G" -- "$1"'
_NOT_RUNNING = (
    "bad request: failed to resolve container IP after 3 attempts: "
    "no IP address found. Is the Sandbox started?"
)


class Toolbox:
    """The routes under `/toolbox`."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put every route in place."""
        one = "/toolbox/{sandbox}"
        for method, path, handler in (
            ("POST", "/process/execute", self._execute),
            ("POST", "/files/bulk-upload", self._upload),
            ("POST", "/files/bulk-download", self._download),
            ("POST", "/files/folder", self._folder),
            ("GET", "/files/info", self._info),
            ("GET", "/user-home-dir", self._home),
            ("GET", "/work-dir", self._workdir),
        ):
            router.add_route(method, one + path, handler)

    def _sandbox(self, request: web.Request) -> Sandbox:
        row = self._cloud.sandboxes.rows.get(request.match_info["sandbox"])
        if row is None or not row.container:
            raise ApiError(404, "sandbox container not found")
        if row.state != "started":
            raise ApiError(400, _NOT_RUNNING)
        self._cloud.sandboxes.touch(row)
        return row

    async def _execute(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        wish = await request.json()
        if not wish.get("command"):
            raise ApiError(400, "bad request: command is required")
        limit = wish.get("timeout")
        shell = ["/bin/sh", "-c", _SHELL]
        if limit:
            shell = ["timeout", "--signal", "KILL", str(limit), *shell]
        began = time.monotonic()
        code, output = await _exec(
            sandbox, *shell,
            stdin=wish["command"].encode(), cwd=wish.get("cwd"), envs=wish.get("envs") or {},
        )  # fmt: skip
        if limit and code == 137 and time.monotonic() - began >= limit:
            raise ApiError(408, "command execution timeout")
        return web.json_response({"exitCode": code, "result": output.decode(errors="replace")})

    async def _upload(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        paths: dict[str, str] = {}
        files, errors = [], []
        async for part in await request.multipart():
            index, _, what = (part.name or "").partition(".")  # type: ignore[union-attr]
            if what == "path":
                paths[index] = await part.text()  # type: ignore[union-attr]
                continue
            path = paths.get(index) or part.filename or ""  # type: ignore[union-attr]
            content = bytes(await part.read())  # type: ignore[union-attr]
            code, output = await _exec(
                sandbox, "/bin/sh", "-c", _WRITE + " 2>&1", "sh", path, stdin=content
            )
            if code:
                errors.append(f"{path}: {output.decode(errors='replace').strip()}")
            else:
                files.append({"path": path, "bytes": len(content)})
        if errors:
            return web.json_response({"errors": errors, "files": files}, status=400)
        return web.json_response({"files": files})

    async def _download(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        answer = MultipartWriter("form-data")
        for path in (await request.json()).get("paths") or []:
            code, output = await _exec(sandbox, "/bin/sh", "-c", 'cat -- "$1"', "sh", path)
            if code:
                problem = body(ApiError(404, f"file not found: {path}"), "POST", request.path)
                part = answer.append(json.dumps(problem), {"Content-Type": "application/json"})
            else:
                part = answer.append(output, {"Content-Type": "application/octet-stream"})
            part.set_content_disposition(
                "form-data", name="error" if code else "file", filename=path, quote_fields=False
            )
        return web.Response(body=answer)

    async def _folder(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        mode = request.query.get("mode") or "755"
        path = request.query.get("path") or ""
        code, output = await _exec(
            sandbox, "/bin/sh", "-c", 'mkdir -p -m "$1" -- "$2" 2>&1', "sh", mode, path
        )
        if code:
            raise ApiError(400, f"bad request: {output.decode(errors='replace').strip()}")
        return web.Response(status=201)

    async def _info(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        path = request.query.get("path") or ""
        code, output = await _exec(sandbox, "/bin/sh", "-c", _STAT, "sh", path)
        if code:
            raise ApiError(404, f"file not found: {path}")
        return web.json_response(_file_info(path, output.decode().split("\n")))

    async def _home(self, request: web.Request) -> web.Response:
        return await self._directory(request, 'printf %s "$HOME"')

    async def _workdir(self, request: web.Request) -> web.Response:
        return await self._directory(request, "pwd")

    async def _directory(self, request: web.Request, script: str) -> web.Response:
        _, output = await _exec(self._sandbox(request), "/bin/sh", "-c", script)
        return web.json_response({"dir": output.decode().strip()})


def _file_info(path: str, fields: list[str]) -> dict[str, Any]:
    kind, size, changed, mode, permissions, owner, group = fields
    return {
        "name": path.rstrip("/").rpartition("/")[2],
        "isDir": kind == "directory",
        "size": int(size),
        "modTime": changed,
        "mode": mode,
        "permissions": permissions.rjust(4, "0"),
        "owner": owner,
        "group": group,
    }


async def _exec(
    sandbox: Sandbox,
    *command: str,
    stdin: bytes = b"",
    cwd: str | None = None,
    envs: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Run a command in a sandbox and give its exit code and standard output.

    Args:
        sandbox: Where.
        command: What to run.
        stdin: What it can read.
        cwd: Its directory; the sandbox's own if None.
        envs: Variables to add.
    """
    names = tuple(word for name in envs or {} for word in ("--env", name))
    process = await engine.start(
        *containers.exec_arguments(sandbox, *command, options=names, cwd=cwd),
        env=envs,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(stdin)
    return process.returncode or 0, output
