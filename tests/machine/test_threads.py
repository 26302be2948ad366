"""What serves a sandbox, and what the sandbox sends: none of it is a traceback on a terminal."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from functools import partial
from typing import TYPE_CHECKING, Self

import pytest

from scripts.brings import gpg_agent, ssh_agent
from scripts.keyless import reverse_proxy
from scripts.keyless.kept_keys import Gate
from scripts.keyless.outward import Outward
from scripts.machine import threads
from scripts.network import fence, proxy
from scripts.network import gate as gates
from scripts.network.decisions import Decisions
from scripts.settings import allowlist

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.0 200 \xe9\r\nX-\xe9: \xff\r\n\r\nbody",
    b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\nX: a\r\n b\r\n\r\nok",
    b"HTTP/1.1 103 E\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    *(
        b"\xff\xfe",
        b"",
        b"OK hi\nOK\nD x\nOK\n",
        b"ERR x\n",
        b"\0\0\0\5\x0c\0\0\0\xff",
        b"\0\0\0\1\x0e",
    ),
)
"""Of servers and agents that are hostile, too."""
TO_THE_MODEL = (
    b"POST /m HTTP/1.1\r\nHost: x\r\nX-Api-Key: PLACE\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /m HTTP/1.1\r\nHost: x\r\nX-Api-Key: PLACE\r\n\r\n",
    b"HEAD /m HTTP/1.1\r\nHost: x\r\nX-Api-Key: nope\r\n\r\n",
)
TO_HOSTS = (
    b"GET http://ok.example:%d/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT ok.example:%d HTTP/1.1\r\nHost: x\r\n\r\nEARLY",
    b"POST http://ok.example:%d/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
)
TO_SSH = (
    struct.pack(">IB", 1, 11),
    struct.pack(">IBI", 50, 13, 3) + b"abc" + bytes(42),
    bytes(4),
)
TO_GPG = (
    b"RESET\nSIGKEY " + b"A" * 40 + b"\nSETHASH 8 " + b"A" * 64 + b"\nPKSIGN\n",
    b"OPTION x\nHAVEKEY --list=1\nSETKEYDESC \x1b[31m\n",
    b"X" * 1200 + b"\n",
)
INSERTED = (
    *(b"\r\n", b"\x00", b"Content-Length: 9\r\n", b"%0a", b"Connection: x\r\n", b"\xff\xfe"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"\x00\r\n\r\n"),
)


def changed(chance: random.Random, text: bytes) -> bytes:
    """Change something here and there."""
    made = bytearray(text)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        at = chance.randrange(len(made)) if made else 0
        kind = chance.randrange(3)
        if kind == 0:
            made[at : at + 1] = chance.choice(b"\x00\r\n:; \xff%/\\{}Aa09").to_bytes()
        elif kind == 1:
            del made[at : at + chance.randrange(1, 9)]
        else:
            made[at:at] = chance.choice(INSERTED)
    return bytes(made)


class Hostile:
    """Answers anybody with something at hand, at a port and at a socket."""

    def __init__(self, path: Path) -> None:
        self.path, self.answer = path, b""
        self._listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self._listeners[1].bind(str(path))
        self._listeners[1].listen()
        self.port = int(self._listeners[0].getsockname()[1])

    def __enter__(self) -> Self:
        for one in self._listeners:
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._listeners:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    client.settimeout(0.2)
                    client.sendall(self.answer)
                    client.recv(1 << 16)


@contextlib.contextmanager
def served(runtime: Path, hostile: Hostile) -> Iterator[list[tuple[Path, Sequence[bytes]]]]:
    """Have all that serves a sandbox: where each is, and what it is asked."""
    model = Gate(
        route=lambda asked: (f"http://127.0.0.1:{hostile.port}", asked.target),
        headers={("x-api-key", "PLACE"): "a-key-that-stays-here"},
    )
    hosts = gates.Gate(
        allowed=allowlist.Allowlist([allowlist.rule(f"ok.example:{hostile.port}")], runtime / "no"),
        decisions=Decisions(runtime / "log"),
        look_up=lambda *_: ("127.0.0.1",),
        is_public=lambda _: True,
    )
    places = [runtime / name / "s" for name in ("model", "ssh", "gpg")]
    with (
        reverse_proxy.serve_reverse_proxy(places[0], model, (), Outward(proxies={}, ca_certs="")),
        ssh_agent.serve_ssh_agent(places[1], str(hostile.path), None),
        gpg_agent.serve_gpg_agent(places[2], str(hostile.path), {"A" * 40: "a key"}),
        fence.listening(runtime / "net", lambda: partial(proxy.serve, gate=hosts)),
    ):
        to_hosts = [one % hostile.port for one in TO_HOSTS]
        kinds = (TO_THE_MODEL, TO_SSH, TO_GPG, to_hosts)
        yield list(zip((*places, runtime / "net" / "proxy"), kinds, strict=True))


def said(path: Path, text: bytes) -> bytes:
    """Say something to a socket, and read what there is of an answer."""
    got = b""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.settimeout(2)
        client.connect(str(path))
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        while piece := client.recv(1 << 16):
            got += piece
    return got


@pytest.fixture
def uncaught(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what no thread has caught, or caught only at the last."""
    found: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda hooked: found.append(repr(hooked)))
    monkeypatch.setattr(threads.log, "debug", lambda text, *_: found.append(text % _))
    return found


def test_whatever_a_sandbox_sends(runtime: Path, uncaught: list[str]) -> None:
    """Each server knows what to do with it, and is there afterwards."""
    chance = random.Random(20)  # noqa: S311
    with Hostile(runtime / "hostile") as hostile, served(runtime, hostile) as all_of_them:
        for _ in range(240):
            path, kinds = chance.choice(all_of_them)
            hostile.answer = chance.choice(ANSWERS)
            said(path, b"".join(changed(chance, chance.choice(kinds)) for _ in range(2)))
        assert [one for one in uncaught if "broke off" in one or "exc_value" in one] == []
        answers = [said(path, kinds[0]) for path, kinds in all_of_them]
        assert all(answers), answers


@pytest.mark.parametrize("second", [b"\x00\r\n\r\n", b"GET\r\n\r\n", b"X: y\r\n\r\n"])
def test_what_is_no_request_after_one_without_a_body(
    runtime: Path, uncaught: list[str], second: bytes
) -> None:
    """It is answered by itself, not as the one before it."""
    with Hostile(runtime / "hostile") as hostile, served(runtime, hostile) as all_of_them:
        got = said(all_of_them[0][0], TO_THE_MODEL[2] + second)

    assert got.startswith(b"HTTP/1.1 401 ")
    assert b"HTTP/1.1 400 " in got
    assert got.endswith(b"nddt: this is not HTTP\n")
    assert [one for one in uncaught if "broke off" in one or "exc_value" in one] == []


def test_what_nobody_expects_is_no_traceback(
    capfd: pytest.CaptureFixture[str], uncaught: list[str]
) -> None:
    """It ends the thread alone; `--verbose` tells."""
    threads.start_thread(os.stat, "/nonexistent/x", name="one").join(10)
    threads.start_thread(lambda: 1 / 0, name="another").join(10)

    assert capfd.readouterr().err == ""
    assert len(uncaught) == 2
    assert uncaught[1].startswith("another broke off: ZeroDivisionError")
