"""The proxy, by a real socket; what it leads to is on loopback, which only here is allowed."""

from __future__ import annotations

import re
import select
import socket
import tempfile
import threading
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.machine import socket_server
from scripts.machine.http_server import HEAD_BYTES, RefusedError
from scripts.network import addresses, proxy
from scripts.network.decisions import Decisions
from scripts.network.gate import Gate, Target, Upstream, target_of
from scripts.settings.allowlist import Allowlist, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


class Origin(BaseHTTPRequestHandler):
    """Says what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Redirect, or say."""
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "http://blocked.test/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/same":
            self.send_response(304)
            self.send_header("ETag", "x")
            self.end_headers()
            return
        if self.path == "/stream":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"until the end")
            self.close_connection = True
            return
        self.say(b"")

    def do_HEAD(self) -> None:
        """Say how much there is."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()

    def do_POST(self) -> None:
        """Say the body, too."""
        self.say(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def say(self, body: bytes) -> None:
        """Answer with the head of the request and a body."""
        text = f"{self.requestline}\n{self.headers}".encode() + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Keep-Alive", "timeout=5")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def origin() -> Iterator[int]:
    """Give the port of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def gate(tmp_path: Path, origin: int) -> Gate:
    """Give a gate for which every name is on loopback and that is public; one name is allowed."""
    rules = (rule(f"allowed.test:{origin}"), rule(f"private.test:{origin}"))
    return Gate(
        allowed=Allowlist(rules, tmp_path / "allowed"),
        decisions=Decisions(tmp_path / "log"),
        look_up=lambda name, _: ("10.0.0.1",) if name == "private.test" else ("127.0.0.1",),
        is_public=lambda address: address == "127.0.0.1",
    )


@contextmanager
def served(gate: Gate) -> Iterator[Path]:
    """Have a proxy, and tell its socket."""
    with tempfile.TemporaryDirectory(prefix="n", dir="/tmp") as made:
        path = Path(made, "net", "proxy")
        begin = partial(partial, proxy.serve, gate=gate)
        with socket_server.serve_clients(path, begin, name="the proxy"):
            yield path


def connected(path: Path) -> socket.socket:
    """Connect to it."""
    peer = socket_server.connected(str(path))
    peer.settimeout(10)
    return peer


def said(port: Path, *requests: str) -> str:
    """Send all of it at once, and give all that comes back."""
    with closing(connected(port)) as peer:
        peer.sendall("".join(requests).replace("\n", "\r\n").encode())
        peer.shutdown(socket.SHUT_WR)
        answer = b""
        while data := peer.recv(65536):
            answer += data
    return answer.decode().replace("\r\n", "\n")


def said_or_nothing(port: Path, request: str) -> str:
    """Give what comes back, if the request is taken."""
    try:
        return said(port, request)
    except OSError:
        return ""


def get(url: str, *headers: str) -> str:
    """Write a request for a proxy."""
    return "\n".join((f"GET {url} HTTP/1.1", *(headers or ("Host: x",)), "", ""))


def notes(gate: Gate) -> list[tuple[str, str]]:
    """Give what has been decided, and about what."""
    return [(what, where) for _, what, where, _ in gate.decisions.read()]


def test_plain_requests(gate: Gate, origin: int) -> None:
    """Reach an allowed host, which sees a request for itself and nothing of the way."""
    headers = ("Host: x", "Proxy-Authorization: Basic YTpi", "Connection: X-Hop", "X-Hop: 1")
    with served(gate) as port:
        answer = said(port, get(f"http://allowed.test:{origin}/a?b=c", *headers, "X-Far: 2"))

    assert answer.startswith("HTTP/1.1 200")
    assert "GET /a?b=c HTTP/1.1" in answer
    assert f"host: allowed.test:{origin}" in answer.lower()
    assert "x-far: 2" in answer
    assert "proxy-authorization" not in answer
    assert "x-hop" not in answer
    assert "keep-alive" not in answer.lower()
    assert notes(gate) == [("allowed", f"allowed.test:{origin}")]


def test_the_header_does_not_decide(gate: Gate, origin: int) -> None:
    """What a request names does, and the header says the same as it leaves."""
    with served(gate) as port:
        blocked = said(port, get("http://blocked.test/", f"Host: allowed.test:{origin}"))
        changed = said(port, get(f"http://allowed.test:{origin}/", "Host: blocked.test"))

    assert blocked.startswith("HTTP/1.1 403")
    assert "nddt network.allow blocked.test\n" in blocked
    assert changed.startswith("HTTP/1.1 200")
    assert "blocked.test" not in changed


def test_each_request_counts(gate: Gate, origin: int) -> None:
    """Also behind an allowed one on the same connection."""
    allowed = get(f"http://allowed.test:{origin}/1")
    with served(gate) as port:
        answer = said(port, allowed, allowed, get("http://blocked.test/"), allowed)

    assert answer.count("HTTP/1.1 200") == 2
    assert answer.count("HTTP/1.1 403") == 1
    assert [what for what, _ in notes(gate)] == ["allowed", "allowed", "blocked"]


def test_a_body_is_no_request(gate: Gate, origin: int) -> None:
    """It goes where its head does, in one piece or in chunks."""
    hidden = f"GET http://blocked.test/ HTTP/1.1\nHost: allowed.test:{origin}\n\n"
    size = len(hidden.replace("\n", "\r\n"))
    url = f"http://allowed.test:{origin}/"
    both = f"POST {url} HTTP/1.1\nHost: x\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n"
    with served(gate) as port:
        one = said(port, f"POST {url} HTTP/1.1\nHost: x\nContent-Length: {size}\n\n{hidden}")
        two = said(port, both)

    assert one.startswith("HTTP/1.1 200")
    assert "GET http://blocked.test/" in one
    assert "content-length: 5" not in two
    assert {what for what, _ in notes(gate)} == {"allowed"}


def test_answers_without_a_body_or_a_length(gate: Gate, origin: int) -> None:
    """Are told apart, so that the next one is found."""
    url = f"http://allowed.test:{origin}"
    last = get(f"{url}/stream", "Host: x", "Connection: close")
    with served(gate) as port:
        head = f"HEAD {url}/ HTTP/1.1\nHost: x\n\n"
        answer = said(port, head, get(f"{url}/same"), get(f"{url}/stream"), last)

    assert re.findall(r"HTTP/1\.1 (\d+)", answer) == ["200", "304", "200", "200"]
    assert answer.count("until the end") == 2


def test_a_redirect(gate: Gate, origin: int) -> None:
    """Is the client's to follow, and is looked at then."""
    with served(gate) as port:
        first = said(port, get(f"http://allowed.test:{origin}/redirect"))
        second = said(port, get("http://blocked.test/"))

    assert first.startswith("HTTP/1.1 302")
    assert second.startswith("HTTP/1.1 403")


def test_tunnels(gate: Gate, origin: int) -> None:
    """Lead to an allowed host, both ways, until both are done."""
    inner = "GET /x HTTP/1.1\nHost: y\nConnection: close\n\n"
    with served(gate) as port:
        answer = said(port, f"CONNECT allowed.test:{origin} HTTP/1.1\nHost: z\n\n", inner)

    head, _, rest = answer.partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "GET /x HTTP/1.1" in rest


def test_names_that_are_not_public(gate: Gate, origin: int) -> None:
    """Are blocked though they are allowed: what was looked up is what counts."""
    with served(gate) as port:
        tunnel = said(port, f"CONNECT private.test:{origin} HTTP/1.1\nHost: z\n\n")
        plain = said(port, get(f"http://private.test:{origin}/"))

    assert tunnel.startswith("HTTP/1.1 403")
    assert plain.startswith("HTTP/1.1 403")
    assert {what for what, _ in notes(gate)} == {"blocked"}


def test_the_real_rules_about_addresses(gate: Gate, origin: int) -> None:
    """Let nothing of this machine's be reached, by whatever name."""
    strict = replace(gate, is_public=addresses.is_public)
    with served(strict) as port:
        answer = said(port, f"CONNECT allowed.test:{origin} HTTP/1.1\nHost: z\n\n")

    assert answer.startswith("HTTP/1.1 403")


def test_an_address_is_looked_up_once(gate: Gate, origin: int) -> None:
    """A name that has another address at the next question is of no use."""
    answers = iter((("127.0.0.1", "10.0.0.1"), ("10.0.0.1",)))
    asked = []

    def look_up(name: str, _port: int) -> tuple[str, ...]:
        asked.append(name)
        return next(answers)

    rebinding = replace(gate, look_up=look_up)
    with served(rebinding) as port:
        answer = said(port, get(f"http://allowed.test:{origin}/"))

    assert answer.startswith("HTTP/1.1 200")
    assert asked == ["allowed.test"]


@pytest.mark.parametrize(
    ("method", "text", "status"),
    [
        ("CONNECT", "127.0.0.1:443", 403),
        ("CONNECT", "[::1]:443", 403),
        ("CONNECT", "[2606:4700::1111]:443", 403),
        ("CONNECT", "2130706433:443", 403),
        ("CONNECT", "0x7f000001:443", 403),
        ("CONNECT", "0177.0.0.1:443", 403),
        ("CONNECT", "127.1:443", 403),
        ("CONNECT", "127.0.0.1.:443", 403),
        ("CONNECT", "allowed.test", 400),
        ("CONNECT", "allowed.test:0", 400),
        ("CONNECT", "allowed.test:99999", 400),
        ("CONNECT", "a@allowed.test:443", 400),
        ("CONNECT", "allowed.test:443/x", 400),
        ("CONNECT", "http://allowed.test:443", 400),
        ("GET", "http://10.0.0.1/", 403),
        ("GET", "http://[::1]/", 403),
        ("GET", "http://169.254.169.254/latest/meta-data/", 403),
        ("GET", "http://allowed.test@10.0.0.1/", 403),
        ("GET", "http://a:b@allowed.test/", 400),
        ("GET", "https://allowed.test/", 400),
        ("GET", "ftp://allowed.test/", 400),
        ("GET", "http:///x", 400),
        ("GET", "http://allowed.test\\@blocked.test/", 400),
        ("GET", "/path", 400),
        ("GET", "*", 400),
    ],
)
def test_what_is_no_target(method: str, text: str, status: int) -> None:
    """Is refused before any name is looked up."""
    with pytest.raises(RefusedError) as caught:
        target_of(method, text)

    assert caught.value.status == status


def test_what_is_a_target() -> None:
    """Is a name and a port, however it is written."""
    tunnel = target_of("CONNECT", "Example.ORG.:443")
    plain = target_of("GET", "HTTP://example.org")
    asked = target_of("GET", "http://example.org?a")
    with_port = target_of("POST", "http://example.org:8080/a?b=c")

    assert tunnel == Target(name="example.org", port=443, is_tunnel=True)
    assert plain == Target(name="example.org", port=80, is_tunnel=False, path="/")
    assert asked.path == "/?a"
    assert (with_port.authority, with_port.path) == ("example.org:8080", "/a?b=c")


@pytest.mark.parametrize("nonsense", ["\x16\x03\x01\n\n", "GET\n\n", "GET / HTTP/9.9\n\n"])
def test_nonsense(gate: Gate, nonsense: str) -> None:
    """Is answered with an error, and nothing else happens."""
    with served(gate) as port:
        answer = said(port, nonsense)

    assert answer.startswith("HTTP/1.1 4")


def test_a_head_without_end(gate: Gate) -> None:
    """Is not kept in memory."""
    with served(gate) as port:
        answer = said(port, f"GET http://allowed.test/ HTTP/1.1\nX: {'a' * HEAD_BYTES}")

    assert answer.startswith("HTTP/1.1 431")


def test_too_many_clients(gate: Gate, origin: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until one has gone."""
    monkeypatch.setattr(socket_server, "MOST_CLIENTS", 1)
    request = get(f"http://allowed.test:{origin}/", "Host: x", "Connection: close")
    with served(gate) as port, closing(connected(port)) as first:
        first.sendall(b"GET ")
        with closing(connected(port)) as second:
            second.sendall(request.replace("\n", "\r\n").encode())
            assert not select.select([second], [], [], 0.3)[0]
            first.close()
            assert second.recv(12) == b"HTTP/1.1 200"


def test_what_is_refused_is_shown_harmless(gate: Gate) -> None:
    """The log is read at a terminal."""
    with served(gate) as port:
        said(port, "CONNECT \x7f\xffevil HTTP/1.1\nHost: z\n\n", "")

    assert all(line.isprintable() for _, line in notes(gate))


# -- a proxy of this machine's --------------------------------------------------------------


class UpstreamProxy(BaseHTTPRequestHandler):
    """Leads every tunnel to one port, and says what else it was asked."""

    leads_to = 0
    seen: list[str]

    def do_CONNECT(self) -> None:
        """Lead it there."""
        self.seen.append(f"{self.path} {self.headers['Proxy-Authorization']}")
        if self.leads_to == 0:
            self.send_error(403)
            return
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(("127.0.0.1", self.leads_to)) as peer:
            back = threading.Thread(target=proxy._copy, args=(peer, self.connection))
            back.start()
            proxy._copy(self.connection, peer)
            back.join()
        self.close_connection = True

    def do_GET(self) -> None:
        """Say it."""
        self.seen.append(f"{self.path} {self.headers['Proxy-Authorization']}")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def upstream(origin: int) -> Iterator[tuple[str, list[str]]]:
    """Give the address of this machine's proxy, and what it has seen."""
    seen: list[str] = []
    kind = type("Here", (UpstreamProxy,), {"leads_to": origin, "seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:p%40ss@127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def test_this_machines_proxy(gate: Gate, origin: int, upstream: tuple[str, list[str]]) -> None:
    """Is used for what is allowed, with its password, which nobody inside sees."""
    url, seen = upstream
    behind = replace(gate, proxies={"HTTP_PROXY": url, "HTTPS_PROXY": url})
    inner = "GET /x HTTP/1.1\nHost: y\nConnection: close\n\n"
    with served(behind) as port:
        tunnel = said(port, f"CONNECT allowed.test:{origin} HTTP/1.1\nHost: z\n\n", inner)
        plain = said(port, get(f"http://allowed.test:{origin}/a"))
        blocked = said(port, "CONNECT blocked.test:443 HTTP/1.1\nHost: z\n\n")
        private = said(port, f"CONNECT private.test:{origin} HTTP/1.1\nHost: z\n\n")

    assert "GET /x HTTP/1.1" in tunnel
    assert plain.startswith("HTTP/1.1 204")
    assert blocked.startswith("HTTP/1.1 403")
    assert private.startswith("HTTP/1.1 403")
    words = "Basic bWU6cEBzcw=="
    to = f"allowed.test:{origin}"
    assert seen == [f"{to} {words}", f"http://{to}/a {words}"]


def test_this_machines_proxy_knows_more_names(
    gate: Gate, origin: int, upstream: tuple[str, list[str]]
) -> None:
    """As where only it may ask the internet's name servers."""

    def look_up(name: str, _port: int) -> tuple[str, ...]:
        raise OSError(name)

    behind = replace(gate, proxies={"HTTP_PROXY": upstream[0]}, look_up=look_up)
    with served(behind) as port:
        answer = said(port, get(f"http://allowed.test:{origin}/"))

    assert answer.startswith("HTTP/1.1 204")


def test_this_machines_proxy_says_no(
    gate: Gate, origin: int, upstream: tuple[str, list[str]]
) -> None:
    """Which the client hears; nothing goes past it."""
    refusing = type("Refusing", (UpstreamProxy,), {"seen": upstream[1]})
    with ThreadingHTTPServer(("127.0.0.1", 0), refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        behind = replace(gate, proxies={"HTTPS_PROXY": f"127.0.0.1:{server.server_address[1]}"})
        with served(behind) as port:
            answer = said(port, f"CONNECT allowed.test:{origin} HTTP/1.1\nHost: z\n\n")
        server.shutdown()

    assert answer.startswith("HTTP/1.1 502")
    assert "this machine's proxy says 403" in answer
    assert len(upstream[1]) == 1


@pytest.mark.parametrize("none", ["*", "allowed.test", ".test", "*.test", "a.org, TEST"])
def test_hosts_that_need_no_proxy(
    gate: Gate, origin: int, upstream: tuple[str, list[str]], none: str
) -> None:
    """Are reached directly."""
    behind = replace(gate, proxies={"HTTP_PROXY": upstream[0], "NO_PROXY": none})
    with served(behind) as port:
        answer = said(port, get(f"http://allowed.test:{origin}/"))

    assert answer.startswith("HTTP/1.1 200")
    assert upstream[1] == []


def test_what_is_no_http_proxy() -> None:
    """Is not used."""
    assert Upstream.read("socks5://127.0.0.1:1080") is None
    assert Upstream.read("http://[") is None
