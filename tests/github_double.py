"""A double of a GitHub Enterprise server: real repositories over https, and an API that echoes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class GitHub:
    """A server on loopback, known by a certificate of its own.

    Args:
        directory: An empty one, for the repositories and the certificate.
        token: The only one that is let in.
    """

    def __init__(self, directory: Path, token: str) -> None:
        self.directory = directory
        self.certificate = directory / "cert.pem"
        self.requests: list[str] = []
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        self.authorized = {f"Basic {basic}", f"token {token}", f"Bearer {token}"}
        self.host = ""

    def repository(self, name: str) -> Path:
        """Make a repository with one commit."""
        path = self.directory / f"{name}.git"
        git = ("git", "-C", str(path), "-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(("git", "init", "-q", "--bare", "-b", "main", str(path)), check=True)
        tree = subprocess.run((*git, "mktree"), check=True, capture_output=True, input=b"").stdout
        words = (*git, "commit-tree", "-m", "first", tree.decode().strip())
        commit = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run((*git, "update-ref", "refs/heads/main", commit), check=True)
        return path

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the block's end."""
        key = self.directory / "key.pem"
        make = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        more = ("-nodes", "-subj", "/CN=x", "-addext", "subjectAltName=DNS:localhost")
        files = ("-days", "2", "-keyout", str(key), "-out", str(self.certificate))
        subprocess.run((*make, *more, *files), check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        with ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) as server:
            self.host = f"localhost:{server.server_address[1]}"
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield
            server.shutdown()

    def git(self, environ: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Have git answer, as a web server's CGI program."""
        known = {"GIT_PROJECT_ROOT": str(self.directory), "GIT_HTTP_EXPORT_ALL": "1"}
        done = subprocess.run(
            ("git", "http-backend"),
            env={"PATH": os.environ["PATH"], "REMOTE_USER": "me", **known, **environ},
            input=body,
            capture_output=True,
            check=True,
        )
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return int(headers.pop("Status", "200").split()[0]), headers, rest


def _handler(github: GitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            path, _, query = self.path.partition("?")
            github.requests.append(f"{self.command} {self.path}")
            if self.headers.get("authorization") not in github.authorized:
                self._say(401, {"www-authenticate": 'Basic realm="x"'}, b"who are you")
            elif ".git/" in path:
                environ = {
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("content-type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
                }
                self._say(*github.git(environ, body))
            else:
                seen = {"path": path, "seen": str(self.headers), "body": body.decode()}
                answer = json.dumps(seen).encode()
                self._say(200, {"content-type": "application/json"}, answer)

        do_GET = do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
