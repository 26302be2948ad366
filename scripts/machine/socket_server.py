"""A server at a socket of this machine, to which ssh leads from a sandbox.

Several processes may want the same place, as two terminals at one conversation do. Each listens
at a socket of its own, and the place is a link: to the last that came, and when that has gone, or
was killed, to one that is still there. The last one out removes it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

from scripts.machine import files, state, threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Serve = Callable[[socket.socket], None]
    """Speaks with a client until that or itself wants no more; may raise an OSError or a
    ValueError, which end the conversation."""

MOST_CLIENTS = 256
"""How many are served at a time; the others wait. All of them are one sandbox's."""
LOOK_S = 1.0
"""How often one looks whether whoever the place leads to was killed."""
_numbers = itertools.count()


@contextlib.contextmanager
def serve_clients(
    path: Path, begin: Callable[[], Serve], *, name: str, within_s: float | None = None
) -> Iterator[None]:
    """Serve each client of a socket in a thread of its own, until the block's end.

    Then all are let go, also in the middle of an answer.

    Args:
        path: Where; its directory is a private one, made if missing, and removed by the last.
        begin: Called with the first client, to prepare what is costly, and returns what serves.
        name: What serves, for `--verbose`.
        within_s: After so many seconds there need be no client for that.
    """
    clients: set[socket.socket] = set()
    ended = threading.Event()
    with _listening(path) as (listener, own):
        place = _Place(path, own)
        threads.start_thread(_accept, listener, begin, within_s, place, clients, ended, name=name)
        try:
            yield
        finally:
            ended.set()
            with contextlib.suppress(OSError):  # macOS has no such thing for a listening socket
                listener.shutdown(socket.SHUT_RDWR)
            for one in tuple(clients):
                with contextlib.suppress(OSError):  # it is gone
                    one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[tuple[socket.socket, str]]:
    own = path.with_name(f"{path.name}-{os.getpid()}-{next(_numbers)}")
    place = _Place(path, own.name)
    with socket.socket(socket.AF_UNIX) as listener:
        with files.lock(path.parent):
            place.sweep()
            listener.bind(str(own))
            listener.listen(MOST_CLIENTS)
            files.link(path, own.name)
        try:
            yield listener, own.name
        finally:
            with contextlib.suppress(OSError), files.lock(path.parent):  # all may be gone
                own.unlink(missing_ok=True)
                place.hand_over()


class _Place:
    """Where clients connect: a link to one of the sockets beside it.

    Args:
        path: The link.
        own: The name of our socket, which has our process id in it.
    """

    def __init__(self, path: Path, own: str) -> None:
        self._path, self._own = path, own

    def _pid(self, name: str) -> int:
        """Read which process has made a socket; 0 if it is none of ours."""
        pid = name.removeprefix(f"{self._path.name}-").partition("-")[0]
        return int(pid) if pid.isdecimal() else 0

    def _others(self) -> Iterator[Path]:
        for one in self._path.parent.glob(f"{self._path.name}-*-*"):
            if self._pid(one.name):
                yield one

    def sweep(self) -> None:
        """Remove what killed processes have left."""
        for one in self._others():
            if not state.is_alive(self._pid(one.name)):
                one.unlink(missing_ok=True)

    def hand_over(self) -> None:
        """Let the place lead to another one, or remove it."""
        self.sweep()
        if self._path.readlink().name != self._own:
            return
        for other in self._others():
            files.link(self._path, other.name)
            return
        self._path.unlink()

    def take_over(self) -> None:
        """Have the place, if whoever has it was killed."""
        now = self._path.readlink().name
        if now == self._own or state.is_alive(self._pid(now)):
            return
        with files.lock(self._path.parent):
            self.sweep()
            if self._path.readlink().name == now:
                files.link(self._path, self._own)


def _accept(
    listener: socket.socket,
    begin: Callable[[], Serve],
    within_s: float | None,
    place: _Place,
    clients: set[socket.socket],
    ended: threading.Event,
) -> None:
    until = time.monotonic() + within_s if within_s is not None else float("inf")
    while not _has_client(listener, place, min(LOOK_S, max(0, until - time.monotonic()))):
        if time.monotonic() >= until:
            break
    if ended.is_set():
        return
    try:
        serve = begin()
    except BaseException:
        listener.close()  # or whoever connects would wait for ever
        raise
    name, room = threading.current_thread().name, threading.BoundedSemaphore(MOST_CLIENTS)

    def attend(client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError, ValueError):  # gone, or talks nonsense
                serve(client)
        finally:
            clients.discard(client)
            room.release()

    with contextlib.suppress(OSError, ValueError):  # it has been closed
        while True:
            room.acquire()
            while not _has_client(listener, place, LOOK_S):
                pass
            client, _ = listener.accept()
            clients.add(client)
            if ended.is_set():
                client.shutdown(socket.SHUT_RDWR)
            threads.start_thread(attend, client, name=f"a client of {name}")


def _has_client(listener: socket.socket, place: _Place, within_s: float) -> bool:
    """Wait for a client, and have the place meanwhile if nobody else has it any more."""
    if select.select([listener], [], [], within_s)[0]:
        return True
    with contextlib.suppress(OSError):  # all is gone
        place.take_over()
    return False


def connected(path: str) -> socket.socket:
    """Connect to a socket.

    Raises:
        OSError: Nobody listens.
    """
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except BaseException:
        client.close()
        raise
    return client
