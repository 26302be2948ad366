"""The reverse proxy, over real sockets: what passes, how soon, and what does not come back."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.errors import ConfigError
from scripts.keyless import outward, reverse_proxy
from scripts.keyless.eraser import Eraser
from scripts.keyless.outward import Outward
from scripts.keyless.reverse_proxy import Asked, Sent
from scripts.machine import socket_server
from scripts.machine.http_server import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase
    from pathlib import Path

    from tests.conftest import Project

SECRET = "a-secret-of-this-machine"
DIRECT = Outward(proxies={}, ca_certs="")


class Client(http.client.HTTPConnection):
    """A client of a proxy at a socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("sandbox", timeout=20)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))

    def said(
        self, method: str, target: str, body: object = None, **headers: str
    ) -> tuple[int, str]:
        """Ask, and give status and body."""
        self.request(method, target, body, headers)  # type: ignore[arg-type]
        answer = self.getresponse()
        return answer.status, answer.read().decode()


@dataclass(kw_only=True)
class Upstream:
    """A server that answers as it is asked to by the path, and remembers what it was sent."""

    url: str = ""
    heads: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    received: int = 0
    began: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def read(self, stream: BufferedIOBase, head: dict[str, str]) -> None:
        """Read a request's body."""
        left = int(head.get("content-length", 0))
        while left:
            left -= self._took(stream.read(min(left, 1 << 16)))
        if head.get("transfer-encoding") == "chunked":
            while size := int(stream.readline(), 16):
                self._took(stream.read(size))
                stream.readline()
            stream.readline()

    def _took(self, piece: bytes) -> int:
        self.received += len(piece)
        self.began.set()
        return len(piece)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """Give what serves."""
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                head = {name.lower(): value for name, value in self.headers.items()}
                upstream.heads.append((self.requestline, head))
                upstream.read(self.rfile, head)
                self.send_response(200)
                if self.path.startswith("/stream"):
                    self.send_header("transfer-encoding", "chunked")
                    self.end_headers()
                    for piece in (b"data: one\n\n", SECRET[:9].encode(), SECRET[9:].encode()):
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                        if piece.startswith(b"data"):
                            upstream.go_on.wait(20)
                    self.wfile.write(b"0\r\n\r\n")
                    return
                if self.path.startswith("/encoded"):
                    self.send_header("content-encoding", "gzip")
                body = f"{self.requestline}\n{self.headers}".encode()
                self.send_header("x-seen", head["x-key"])
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """Serve on loopback."""
    made = Upstream()
    with ThreadingHTTPServer(("127.0.0.1", 0), made.handler()) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        made.go_on.set()
        server.shutdown()


@contextlib.contextmanager
def proxied(path: Path, url: str, way: Outward = DIRECT) -> Iterator[Client]:
    """Have a proxy that sends everything but /no there, with the secret."""

    def decide(asked: Asked) -> Sent:
        if asked.path == "/no":
            raise RefusedError(403, f"no {SECRET}")
        return Sent(origin=url, target=asked.target, headers={"x-key": SECRET})

    with (
        reverse_proxy.serve_reverse_proxy(path, decide, (SECRET, "none"), way),
        contextlib.closing(Client(path)) as client,
    ):
        yield client


def spoken(path: Path, text: str) -> int:
    """Send bytes that no client's library would, and read the answer's status."""
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(20)
        made.connect(str(path))
        made.sendall(text.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").encode())
        return int(made.makefile("rb").read().split()[1])


@pytest.fixture
def client(runtime: Path, upstream: Upstream) -> Iterator[Client]:
    """Have a client of a proxy of that server."""
    with proxied(runtime / "p" / "proxy", upstream.url) as made:
        yield made


# -- what passes ----------------------------------------------------------------------------


def test_the_secret_is_put_in_and_erased(client: Client, upstream: Upstream) -> None:
    """The server gets it in place of the client's; an echo of it is illegible, word for word."""
    status, body = client.said("POST", "/a?b=%20c", b"x", **{"X-Key": "mine", "X-Other": "1"})

    assert status == 200
    (line, head) = upstream.heads[0]
    assert line == "POST /a?b=%20c HTTP/1.1"
    assert (head["x-key"], head["x-other"]) == (SECRET, "1")
    assert SECRET not in body
    assert f"x-key: {'*' * len(SECRET)}" in body
    assert "none" not in head


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_connection_is_good_for_many_requests(client: Client, method: str) -> None:
    """Refused ones, too; the header of an answer is looked at as well."""
    body = b"x" * 100 if method == "POST" else None
    for _ in range(3):
        client.request(method, "/a", body)
        answer = client.getresponse()
        answer.read()
        assert (answer.status, answer.headers["x-seen"]) == (200, "*" * len(SECRET))
        status, text = client.said(method, "/no", body)
        assert (status, SECRET in text) == (403, False)


@pytest.mark.parametrize(
    "target",
    [
        *("/a;x", "/a;", "/a/b;x/c", "/a?", "/a??b", "/a?b;c?d", "//a", "/a//b", "/a/", "*"),
        *("/./a", "/a/../b", "/%2e%2e/a", "/a%00", "/a%zz", "/%", "/a\\b", "/a|b^c`{}[]", "/A%2Fb"),
        *("http://other/a", "//other@x/a", "/a:b@c", "other:443", "/a?u=http://x/y;z"),
    ],
)
def test_what_is_decided_about_is_what_is_sent(
    runtime: Path, upstream: Upstream, target: str
) -> None:
    """Byte for byte, to the server that was decided about."""
    targets: list[str] = []

    def decide(asked: Asked) -> Sent:
        targets.append(asked.target)
        return Sent(origin=upstream.url, target=asked.target, headers={"x-key": SECRET})

    with reverse_proxy.serve_reverse_proxy(runtime / "p" / "proxy", decide, (SECRET,), DIRECT):
        status = spoken(runtime / "p" / "proxy", f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")

    assert status == 200
    assert targets == [target]
    assert [line for line, _ in upstream.heads] == [f"GET {target} HTTP/1.1"]


@pytest.mark.parametrize("target", ["/a#x", "/a?b#x", "/a#", "#/a"])
def test_a_fragment_goes_nowhere(runtime: Path, upstream: Upstream, target: str) -> None:
    """It is no part of a request, and some cut it off."""
    with proxied(runtime / "p" / "proxy", upstream.url):
        status = spoken(runtime / "p" / "proxy", f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")

    assert (status, upstream.heads) == (400, [])


@pytest.mark.parametrize(
    "header",
    [
        *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL"),
        *("X-Rewrite-URL", "X-Forwarded-Host", "X-Forwarded-Prefix", "Forwarded"),
    ],
)
def test_no_header_means_another_request(client: Client, upstream: Upstream, header: str) -> None:
    """Than the one that was decided about."""
    client.said("GET", "/a", **{header: "DELETE", "X-Other": "1"})

    head = upstream.heads[0][1]
    assert (header.lower() in head, head["x-other"]) == (False, "1")


def test_headers_of_the_connection_stay(client: Client, upstream: Upstream) -> None:
    """And what they name; nobody learns where the client thinks it is, or in what encodings."""
    client.said(
        "GET",
        "/",
        **{"Connection": "X-Gone, x-key", "X-Gone": "1", "Cookie": "a=b", "Accept-Encoding": "br"},
    )

    head = upstream.heads[0][1]
    assert head["host"] == upstream.url.removeprefix("http://")
    assert (head["accept-encoding"], head["x-key"]) == ("identity", SECRET)
    assert {"connection", "x-gone", "cookie"}.isdisjoint(head)


def test_an_answer_passes_as_it_comes(client: Client, upstream: Upstream) -> None:
    """An event is there before the next one; a secret in two pieces is found."""
    client.request("POST", "/stream", b"x")
    answer = client.getresponse()

    assert answer.read1(11) == b"data: one\n\n"
    upstream.go_on.set()
    assert answer.read() == b"*" * len(SECRET)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_request_passes_as_it_comes(client: Client, upstream: Upstream, chunked: bool) -> None:  # noqa: FBT001
    """Its beginning is there before its end; 50 MB arrive."""
    piece, many = b"x" * (1 << 20), 50

    def body() -> Iterator[bytes]:
        for number in range(many):
            if number == many - 1:
                assert upstream.began.wait(20)
            yield piece

    client.putrequest("POST", "/a")
    if chunked:
        client.putheader("transfer-encoding", "chunked")
    else:
        client.putheader("content-length", str(len(piece) * many))
    client.endheaders(body(), encode_chunked=chunked)
    answer = client.getresponse()
    answer.read()

    assert (answer.status, upstream.received) == (200, len(piece) * many)


def test_who_waits_for_leave_gets_it(client: Client, upstream: Upstream) -> None:
    """`Expect: 100-continue`, as curl says it before a long body."""
    client.putrequest("POST", "/a")
    client.putheader("content-length", "3")
    client.putheader("expect", "100-continue")
    client.endheaders()
    assert client.sock.recv(100).startswith(b"HTTP/1.1 100 ")
    client.send(b"abc")
    answer = client.getresponse()
    answer.read()

    assert (answer.status, upstream.received) == (200, 3)
    assert "expect" not in upstream.heads[0][1]


# -- what does not --------------------------------------------------------------------------


def test_an_encoded_answer_is_not_passed_on(client: Client) -> None:
    """Nobody could see what is in it."""
    status, body = client.said("GET", "/encoded")

    assert (status, body) == (502, "nddt: the answer is encoded, so nobody can look at it\n")


@pytest.mark.parametrize(
    "answer",
    [
        "200 OK\r\n{key}: 1\r\ncontent-length: 2\r\n\r\nhi",
        "200 OK\r\nX-{KEY}-y: 1\r\ncontent-length: 2\r\n\r\nhi",
        "200 OK {key}\r\ncontent-length: 2\r\n\r\nhi",
        "302 Found\r\nlocation: https://x/?k={key}\r\ncontent-length: 2\r\n\r\nhi",
        "200 OK\r\nset-cookie: a={key}\r\nset-cookie: {key}=b\r\ncontent-length: 2\r\n\r\nhi",
        "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;{key}=1\r\nhi\r\n0\r\n{key}: {key}\r\n\r\n",
        "103 Hints\r\nlink: {key}\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        "101 {key}\r\nupgrade: websocket\r\nconnection: upgrade\r\nx: {key}\r\n\r\n{key}",
        "200 OK\r\ncontent-length: 2\r\n\r\nhi{key}",
        "200 OK\r\n{key}\r\n\r\n",
        "200 OK\r\nx: 1\r\n {key}\r\ncontent-length: 2\r\n\r\nhi",
        "200 OK\r\ncontent-length: {key}\r\n\r\n",
        "{key} OK\r\n\r\n",
    ],
)
def test_a_secret_in_an_odd_place_does_not_come_back(runtime: Path, answer: str) -> None:
    """Whatever part of an answer it is in, in capitals or not; the client gets some answer."""
    said = f"HTTP/1.1 {answer.format(key=SECRET, KEY=SECRET.upper())}".encode()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                with contextlib.suppress(OSError), server.accept()[0] as client:
                    client.recv(10_000)
                    client.sendall(said)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with proxied(runtime / "p" / "proxy", url) as client:
            client.connect()
            head = b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n"
            client.sock.sendall(head + b"connection: upgrade, close\r\n\r\n")
            got = b""
            while piece := client.sock.recv(10_000):
                got += piece

    assert got.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 302 ", b"HTTP/1.1 502 "))
    assert SECRET.encode() not in got.lower()


def test_no_part_of_an_answer_is_asked_for(client: Client, upstream: Upstream) -> None:
    """It could end in the middle of a secret, and another one begin there."""
    client.said("GET", "/", **{"Range": "bytes=0-9", "If-Range": "x"})

    assert {"range", "if-range"}.isdisjoint(upstream.heads[0][1])


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"POST /a HTTP/1.1\r\nhost: a\r\nbad header: 1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
def test_what_is_no_clear_request_is_refused(
    client: Client, upstream: Upstream, raw: bytes
) -> None:
    """Nothing of it goes on."""
    client.connect()
    with contextlib.suppress(OSError):
        client.sock.sendall(raw)
    answer = client.sock.recv(1000)

    assert answer.startswith(b"HTTP/1.1 4")
    assert upstream.heads == []


def test_one_request_is_one_request(client: Client, upstream: Upstream) -> None:
    """With both lengths, what follows the body by one of them is no second request unseen."""
    smuggled = b"0\r\n\r\nPOST /no HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
    head = (
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: %d\r\n\r\n"
    )
    client.connect()
    client.sock.sendall(head % len(smuggled) + smuggled)
    client.sock.settimeout(5)
    answers = b""
    with contextlib.suppress(TimeoutError):
        while piece := client.sock.recv(10_000):
            answers += piece

    assert [line for line, _ in upstream.heads if "/no" in line] == []
    assert len(upstream.heads) <= 1
    assert SECRET.encode() not in answers


def test_a_server_that_is_not_there(runtime: Path) -> None:
    """Is a bad gateway, and the next request is answered as well."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
    with proxied(runtime / "p" / "proxy", url) as client:
        for _ in range(2):
            status, body = client.said("POST", "/a", b"x")
            assert status == 502
            assert body.startswith("nddt: 127.0.0.1 does not answer: ConnectError")


# -- who listens ----------------------------------------------------------------------------


def test_nothing_is_left(runtime: Path, upstream: Upstream) -> None:
    """Neither a file nor a client's connection; the directory was private."""
    path = runtime / "p" / "proxy"
    with proxied(path, upstream.url) as client:
        assert path.parent.stat().st_mode & 0o777 == 0o700
        client.said("GET", "/")
        open_one = client.sock
        assert open_one
    assert list(runtime.iterdir()) == []


def test_the_last_one_to_come_is_asked_and_then_another(runtime: Path, upstream: Upstream) -> None:
    """Two processes at one path: what ends in one goes on in the other."""
    path = runtime / "p" / "proxy"
    with proxied(path, upstream.url) as client:
        pid = os.fork()
        if pid == 0:  # the other process has no threads of ours
            with contextlib.suppress(BaseException), proxied(path, upstream.url):
                os.kill(os.getppid(), 0)
            os._exit(0)
        os.waitpid(pid, 0)
        assert client.said("GET", "/")[0] == 200


# -- the way out ----------------------------------------------------------------------------


def test_by_this_machines_proxy(runtime: Path, upstream: Upstream) -> None:
    """A server that is not exempt; with the proxy's password, and the whole address."""
    host = upstream.url.removeprefix("http://")
    way = Outward(
        proxies={"HTTP_PROXY": f"http://me:it%27s@{host}", "NO_PROXY": "b.test"}, ca_certs=""
    )
    with proxied(runtime / "p" / "proxy", "http://a.test", way) as client:
        assert client.said("GET", "/x")[0] == 200
    (line, head) = upstream.heads[0]
    assert (line, head["host"]) == ("GET http://a.test/x HTTP/1.1", "a.test")
    assert head["proxy-authorization"] == "Basic bWU6aXQncw=="


def test_certificates(runtime: Path, upstream: Upstream, tmp_path: Path) -> None:
    """A server for which no authority of this machine's vouches gets nothing."""
    key, cert = tmp_path / "key", tmp_path / "cert"
    make = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    more = ("-nodes", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    words = (*make, *more, "-keyout", str(key), "-out", str(cert))
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), upstream.handler()) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_address[1]}"
        known = Outward(proxies={}, ca_certs=cert.read_text())
        with proxied(runtime / "p" / "proxy", url, known) as client:
            assert client.said("GET", "/")[0] == 200
        upstream.heads.clear()
        with proxied(runtime / "p" / "proxy", url) as client:
            status, text = client.said("GET", "/")
            assert status == 502
            assert "certificate verify failed" in text
        server.shutdown()
    assert upstream.heads == []


def test_a_proxy_of_another_kind(project: Project) -> None:
    """Is refused before anything begins."""
    project.environ["HTTPS_PROXY"] = "socks5://me:hidden@127.0.0.1:1080"

    with pytest.raises(ConfigError, match="a key goes by HTTP alone") as caught:
        outward.outward(project.load())
    assert "hidden" not in str(caught.value)


def test_a_project_chooses_no_authority(project: Project, tmp_path: Path) -> None:
    """Only the user says whose certificates count where a key is shown."""
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n")
    usual = outward.outward(project.load()).ca_certs
    project.write(f"NDDT_CA_CERTS={file}\n")
    assert outward.outward(project.load()).ca_certs == usual

    project.environ["NDDT_CA_CERTS"] = str(file)
    assert outward.outward(project.load()).ca_certs == file.read_text()


# -- erasing --------------------------------------------------------------------------------


@given(
    before=st.binary(max_size=60),
    after=st.binary(max_size=60),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_a_secret_is_erased_however_it_is_cut(before: bytes, after: bytes, cuts: list[int]) -> None:
    """And nothing else; the length stays."""
    secret = SECRET.encode()
    data = before + secret + after + secret[:-1]
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    eraser = Eraser([secret, secret[:5]])

    fed = [eraser.feed(data[a:b]) for a, b in itertools.pairwise(places)]

    assert b"".join(fed) + eraser.end() == data.replace(secret, b"*" * len(secret))


def test_what_has_not_begun_a_secret_is_not_held() -> None:
    """An event passes at once."""
    eraser = Eraser([SECRET.encode()])

    assert eraser.feed(b"data: none\n\n") == b"data: none\n\n"
    assert eraser.feed(b"data: a-se") == b"data: "
    assert eraser.feed(b"nsible one") == b"a-sensible one"


@pytest.mark.parametrize("warm_up_tls", [False, True])
def test_certificates_that_nobody_can_read(runtime: Path, *, warm_up_tls: bool) -> None:
    """Are an answer, not a wait without end."""
    way = Outward(
        proxies={}, ca_certs="-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    )

    def decide(asked: Asked) -> Sent:
        return Sent(origin="https://a.test", target=asked.target, headers={})

    path = runtime / "p" / "proxy"
    with (
        reverse_proxy.serve_reverse_proxy(path, decide, (), way, warm_up_tls=warm_up_tls),
        socket_server.connected(str(path)) as client,
    ):
        client.settimeout(30)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = client.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 502")
    assert b"certificates of this machine cannot be used" in answer
