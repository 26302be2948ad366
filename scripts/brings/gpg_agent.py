"""A GPG agent for sandboxes: this machine's agent, with which one can only list and sign.

gpg speaks Assuan with it: lines of at most 1000 bytes, with a command each (gpg-agent(1), "Agent
Protocol" in GnuPG's manual). No line of the sandbox's goes on to the real agent. For a signature
that gets lines of our own, made from a key that may sign, the number of a hash, and the hash.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote_plus

from scripts.machine import socket_server

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

log = logging.getLogger("nddt")

MAX_LINE = 1000
"""Bytes of a line, without its end (ASSUAN_LINELENGTH in libassuan)."""
MAX_ANSWER = 64 * 1024
"""Bytes of a signature as the agent sends it; RSA's with 16384 bits has 6 KiB at most."""
ANSWER_S = 600
"""How long the agent may take: somebody may have to type a passphrase or to touch a card."""
HASHES: Mapping[int, int] = {2: 20, 3: 20, 8: 32, 9: 48, 10: 64, 11: 28}
"""Hashes of OpenPGP's (RFC 4880, 9.4), without MD5, and how many bytes they have."""

GRIP = "[0-9A-F]{40}"
"""What names a key to the agent, whatever uses it."""

# An error's number: 4 << 24 for the agent as its source, and a code of libgpg-error's.
OK = b"OK\n"
NO_KEY = b"ERR 67108881 No secret key <nddt>\n"
NO_AGENT = b"ERR 67108941 No agent running <nddt>\n"
INCOMPLETE = b"ERR 67109139 Unknown IPC command <nddt>\n"
FORBIDDEN = b"ERR 67109115 Forbidden <nddt>\n"
"""What gpg knows from an agent's extra socket, and takes for a no to this one thing alone."""


def serve_gpg_agent(
    path: Path, upstream: str, keys: Mapping[str, str]
) -> AbstractContextManager[None]:
    """Be an agent at a socket until the block's end.

    Args:
        path: Where; its directory is a private one, made if missing.
        upstream: The socket of the agent with the keys.
        keys: Keygrips, in upper case, of the only keys that are listed and sign; and what the
            agent says to its user about each when it asks for a passphrase.
    """

    def serve(client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            client.sendall(b"OK Pleased to meet you\n")
            for answer in _Conversation(upstream, keys).answers(lines):
                client.sendall(answer)

    return socket_server.serve_clients(path, lambda: serve, name="a GPG agent")


class _Conversation:
    """What a client has said so far, and the answers to it."""

    def __init__(self, upstream: str, keys: Mapping[str, str]) -> None:
        self._upstream = upstream
        self._keys = keys
        self._grip = ""
        self._hash = ""

    def answers(self, lines: BinaryIO) -> Iterator[bytes]:
        """Answer one line after the other; the end of all is one that is too long, or BYE."""
        while (line := lines.readline(MAX_LINE + 1)).endswith(b"\n"):
            text = line[:-1].decode("ascii", "replace")
            if text and not text.startswith("#"):
                yield self._answer(text)
            if text.upper() == "BYE":
                return

    def _answer(self, line: str) -> bytes:
        allowed: Mapping[str, Callable[[re.Match[str]], bytes]] = {
            # What the user reads when a passphrase is asked for is not the sandbox's to say.
            r"NOP|BYE|GETINFO restricted|SETKEYDESC .*|OPTION agent-awareness ?= ?[\d.]+": _agree,
            r"GETINFO version": lambda _: self._asked("GETINFO version"),
            r"RESET": self._reset,
            r"HAVEKEY --list(?:=\d+)?": self._list,
            rf"HAVEKEY((?: {GRIP})+)": self._has_key,
            rf"SIGKEY ({GRIP})": self._set_key,
            r"SETHASH (\d{1,2}) ([0-9A-F]+)": self._set_hash,
            r"PKSIGN": self._sign,
        }
        for pattern, answer in allowed.items():
            if found := re.fullmatch(pattern, line, re.IGNORECASE):
                return answer(found)
        log.debug("the GPG agent is not asked for this: %s", line.partition(" ")[0])
        return FORBIDDEN

    def _reset(self, _: object) -> bytes:
        self._grip = self._hash = ""
        return OK

    def _list(self, _: object) -> bytes:
        return b"".join(_data(bytes.fromhex(grip)) for grip in self._keys) + OK

    def _has_key(self, found: re.Match[str]) -> bytes:
        return NO_KEY if self._keys.keys().isdisjoint(found[1].upper().split()) else OK

    def _set_key(self, found: re.Match[str]) -> bytes:
        self._grip = found[1].upper() if found[1].upper() in self._keys else ""
        return OK if self._grip else NO_KEY

    def _set_hash(self, found: re.Match[str]) -> bytes:
        if len(found[2]) != 2 * HASHES.get(int(found[1]), 0):
            return FORBIDDEN
        self._hash = f"{found[1]} {found[2]}"
        return OK

    def _sign(self, _: object) -> bytes:
        if not self._grip or not self._hash:
            return INCOMPLETE
        log.debug("the sandbox signs with the GPG key of keygrip %s", self._grip)
        return self._asked(
            f"SIGKEY {self._grip}",
            f"SETKEYDESC {quote_plus(self._keys[self._grip])[:900]}",
            f"SETHASH {self._hash}",
            "PKSIGN",
        )

    def _asked(self, *lines: str) -> bytes:
        """Say lines to the agent, and read its answer to the last one, or the first error."""
        try:
            with (
                socket_server.connected(self._upstream) as agent,
                agent.makefile("rb") as answers,
            ):
                agent.settimeout(ANSWER_S)
                answer = _received(agent, answers)  # it speaks first
                for line in lines:
                    agent.sendall(f"{line}\n".encode())
                    answer = _received(agent, answers)
                    if answer.startswith(b"ERR "):
                        break
        except (OSError, ValueError) as error:
            log.debug("the GPG agent does not answer: %s", error)
            return NO_AGENT
        return answer


def _agree(_: object) -> bytes:
    return OK


def _received(agent: socket.socket, answers: BinaryIO) -> bytes:
    """Receive data and the line that ends an answer; what the agent asks for it does not get."""
    data = b""
    while (line := answers.readline(MAX_LINE + 2)).endswith(b"\n") and len(data) < MAX_ANSWER:
        if line.startswith(b"D "):
            data += line
        elif line.startswith(b"INQUIRE"):
            agent.sendall(b"CAN\n")
        elif line.startswith(b"OK"):
            return data + OK
        elif line.startswith(b"ERR "):
            return line
    raise ValueError("it hung up, or says too much")


def _data(content: bytes) -> bytes:
    escaped = b"".join(b"%%%02X" % one if one in b"%\r\n" else bytes([one]) for one in content)
    return b"D " + escaped + b"\n"
