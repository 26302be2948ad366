"""An SSH agent for sandboxes: this machine's agent, with which one can only list and sign.

The protocol is draft-ietf-sshm-ssh-agent: messages of a length, a type and strings.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from scripts.errors import ConfigError, UnavailableError
from scripts.machine import socket_server

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

log = logging.getLogger("nddt")

FAILURE, LIST, LISTED, SIGN = 5, 11, 12, 13
LENGTH = struct.Struct(">I")
MAX_BYTES = 256 * 1024
"""The longest message that OpenSSH's agent takes (AGENT_MAX_LEN in its authfd.c)."""
REFUSED = bytes([FAILURE])


@dataclass(frozen=True)
class Key:
    """A key that an agent has."""

    blob: bytes
    """Its public part."""
    comment: str

    @property
    def fingerprint(self) -> str:
        """What `ssh-add -l` calls it."""
        return fingerprint(self.blob)

    def __str__(self) -> str:
        return f"{self.fingerprint} {self.comment}"


def fingerprint(blob: bytes) -> str:
    """Compute the fingerprint of a public key."""
    digest = base64.b64encode(hashlib.sha256(blob).digest())
    return f"SHA256:{digest.decode().rstrip('=')}"


def public_fingerprint(line: str) -> str:
    """Compute the fingerprint of a public key as it is written: type, base64, comment."""
    return fingerprint(base64.b64decode(line.split()[1]))


class Named(Protocol):
    """What NDDT_SSH_KEYS can name."""

    @property
    def fingerprint(self) -> str:
        """Of the public part."""

    @property
    def comment(self) -> str:
        """What its owner calls it."""


N = TypeVar("N", bound=Named)


def named(keys: Iterable[N], names: Sequence[str], where: str) -> tuple[N, ...]:
    """Pick the keys with these comments or fingerprints; all of them without names.

    Args:
        keys: What there is.
        names: Comments or fingerprints of the ones that may be used.
        where: Who has them, for the error.

    Raises:
        ConfigError: There is none of such a name.
    """
    there = tuple(keys)
    for name in names:
        if not any(name in {one.comment, one.fingerprint} for one in there):
            shown = ", ".join(map(str, there)) or "no key at all"
            problem = f"NDDT_SSH_KEYS names {name!r}, which {where} does not have"
            raise ConfigError(problem, f"there is: {shown}")
    return tuple(
        one for one in there if not names or {one.comment, one.fingerprint}.intersection(names)
    )


def keys(path: str) -> tuple[Key, ...]:
    """List the keys of the agent at a socket.

    Raises:
        UnavailableError: It does not answer.
    """
    try:
        with socket_server.connected(path) as agent:
            return tuple(_parsed(_asked(agent, bytes([LIST]))))
    except (OSError, ValueError, struct.error) as error:
        raise UnavailableError(
            f"the SSH agent at {path} does not answer: {error}",
            'start one: eval "$(ssh-agent)" && ssh-add',
        ) from error


def serve_ssh_agent(
    path: Path, upstream: str, allowed: frozenset[bytes] | None
) -> AbstractContextManager[None]:
    """Be an agent at a socket until the block's end.

    Args:
        path: Where; its directory is a private one, made if missing.
        upstream: The socket of the agent with the keys.
        allowed: The public parts of the only keys that can be used; None for all.
    """

    def serve(client: socket.socket) -> None:
        while message := _received(client):
            client.sendall(_message(_answer(message, upstream, allowed)))

    return socket_server.serve_clients(path, lambda: serve, name="an SSH agent")


def _answer(message: bytes, upstream: str, allowed: frozenset[bytes] | None) -> bytes:
    """Ask the agent what may be asked, and answer everything else with a failure."""
    try:
        if message == bytes([LIST]):
            with socket_server.connected(upstream) as agent:
                found = _parsed(_asked(agent, message))
            return _listed([one for one in found if allowed is None or one.blob in allowed])
        if message[0] == SIGN:
            blob, _ = _string(message, 1)
            log.debug("the sandbox signs with the SSH key %s", fingerprint(blob))
            if allowed is None or blob in allowed:
                with socket_server.connected(upstream) as agent:
                    return _asked(agent, message)
    except (OSError, ValueError, struct.error):
        pass
    return REFUSED


# -- messages -------------------------------------------------------------------------------


def _asked(agent: socket.socket, message: bytes) -> bytes:
    agent.sendall(_message(message))
    answer = _received(agent)
    if not answer:
        raise ValueError("it hung up")
    return answer


def _message(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


def _received(peer: socket.socket) -> bytes:
    """Receive one message; empty at the end of the connection."""
    head = _exactly(peer, LENGTH.size)
    if not head:
        return b""
    (length,) = LENGTH.unpack(head)
    if not 0 < length <= MAX_BYTES:
        raise ValueError("its message has no sensible length")
    return _exactly(peer, length)


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            return b""
        data += more
    return data


def _string(data: bytes, start: int) -> tuple[bytes, int]:
    """Read the string that begins there, and where it ends."""
    (length,) = LENGTH.unpack_from(data, start)
    end = start + LENGTH.size + length
    if end > len(data):
        raise ValueError("its message is too short")
    return data[start + LENGTH.size : end], end


def _parsed(answer: bytes) -> Iterator[Key]:
    if answer[0] != LISTED:
        raise ValueError("it lists no keys")
    (count,) = LENGTH.unpack_from(answer, 1)
    place = 1 + LENGTH.size
    for _ in range(count):
        blob, place = _string(answer, place)
        comment, place = _string(answer, place)
        yield Key(blob, comment.decode(errors="replace"))


def _listed(found: Sequence[Key]) -> bytes:
    strings = (text for one in found for text in (one.blob, one.comment.encode()))
    return bytes([LISTED]) + LENGTH.pack(len(found)) + b"".join(map(_message, strings))
