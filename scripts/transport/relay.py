"""Runs in the sandbox: keeps a session going while connections to it come and go.

The client (`durable.py`) sends this text through an SSH session and talks to it on the
session's stdin and stdout. The first such session leaves a *keeper* behind, which runs the
session's script and listens on a socket; each session is a *connector* that only joins its
stdin and stdout to that socket. What the program prints stays with the keeper until the client
has acknowledged it, and what the client sends is counted, so either side can go on after a
broken connection exactly where it stopped.

Only Python's standard library and what is sent along (`SENT`) is here, because the text must run
in any sandbox.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import threading

from scripts.transport import frames, relay_keeper
from scripts.transport.frames import CHUNK, ENDING_S, GONE, HEAD, OPENING, frame
from scripts.transport.relay_keeper import Keeper

SENT = (frames, relay_keeper)
"""Modules that are sent along."""


def _read_exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            sys.exit(1)
        data += more
    return data


def _connect(path: str) -> socket.socket | None:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        return None
    return client


def _leave_keeper(place: str, umask: int) -> None:
    """Start a keeper that listens at once and outlives this process."""
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{place}.sock")
    listener.bind(f"{place}.sock")
    listener.listen(8)
    if os.fork():
        listener.close()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    try:
        Keeper(place, listener, umask).serve()
    finally:
        for ending in ("sock", "sh", "pid", "lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{place}.{ending}")
        remove = 'rm -rf -- "$0.d" "/tmp/nddt/${0#./}"-*'  # see inside.place
        subprocess.call(("sh", "-c", remove, place))
        os._exit(0)


def _join(client: socket.socket) -> None:
    """Copy both ways until one side ends."""
    threading.Thread(target=_copy_out, args=(client,), daemon=True).start()
    with contextlib.suppress(OSError):
        while True:
            data = os.read(0, CHUNK)
            if not data:
                break
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)  # the keeper answers by closing
    threading.Event().wait(ENDING_S + 2)


def _copy_out(client: socket.socket) -> None:
    listens = True
    while True:
        try:
            data = client.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            os._exit(0)
        try:
            view = memoryview(data) if listens else memoryview(b"")
            while view:
                view = view[os.write(1, view) :]
        except OSError:  # the client is gone; but what it has said last must arrive
            listens = False


def main(session: str) -> None:
    """Connect stdin and stdout to a session, which is started if it is new."""
    run = os.environ["NDDT_RUN"]
    umask = os.umask(0o077)
    os.chdir(run)  # the path of a socket must be short
    place = f"./{session}"
    head = _read_exactly(HEAD.size)
    opening = _read_exactly(HEAD.unpack(head)[1])
    client = _connect(f"{place}.sock")
    if client is None and OPENING.unpack_from(opening)[3]:
        os.write(1, frame(GONE))
        return
    if client is None:
        # A first connection may have broken with its relay on the way here, too.
        lock = os.open(f"{place}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = _connect(f"{place}.sock")
        if client is None:
            _leave_keeper(place, umask)
            client = _connect(f"{place}.sock")
        fcntl.flock(lock, fcntl.LOCK_UN)
    if client is None:
        sys.exit("the session could not be started")
    client.sendall(head + opening)
    _join(client)
