"""The one transport: OpenSSH through a pipe into the sandbox.

A provider gives a command whose stdin and stdout are an SSH server in the sandbox (see
`inside.server`). A *master* connection runs over it and carries any number of *sessions*.
The script of a session goes into the sandbox through the stdin of a *lease*, a session that
lasts as long as this process holds its stdin open and then ends the agent. So secrets are in
no argument list, and nothing outlives its client, however that ends.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.errors import DataError, TransportLostError
from scripts.machine import files, process, running
from scripts.transport.forwards import Socket, check_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from scripts.transport.forwards import Forward

log = logging.getLogger("nddt")

CONNECT_S = 120
"""How long a connection may take; an engine under load is slow to start a container."""
ANSWER_S = 60
"""How long a sandbox may take for one short command."""
ANSWER = 1 << 16
"""Bytes that such a command may print."""
MASTER_S = 30
"""How long a master of ours may take for what it is asked."""
CLOSE_S = 20
"""How long the pipe's command may take to end after its connection."""
DELETE = 0x7F

THROUGH_A_PIPE: Mapping[str, str] = {
    "IdentitiesOnly": "yes",
    "PreferredAuthentications": "publickey",
    # The pipe itself leads into the sandbox and nowhere else.
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "GlobalKnownHostsFile": "/dev/null",
    "UpdateHostKeys": "no",
    "LogLevel": "ERROR",
}
OPTIONS: Mapping[str, str] = {
    **THROUGH_A_PIPE,
    "HostName": "nddt",
    "IdentityAgent": "none",
    # OpenSSH 9's default key exchange costs 60 ms more, to guard what never leaves a pipe.
    "KexAlgorithms": "curve25519-sha256",
    "Ciphers": "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr",
    "ConnectTimeout": str(CONNECT_S),
    "ExitOnForwardFailure": "yes",
}


def make_key(private: Path) -> process.Result:
    """Make a pair of keys in place of what is left of one, and give what ssh-keygen said."""
    private.unlink(missing_ok=True)
    options = ("-q", "-t", "ed25519", "-N", "", "-C", "nddt")
    return process.capture(("ssh-keygen", *options, "-f", str(private)), timeout_s=MASTER_S)


def section(hosts: str, options: Mapping[str, str]) -> str:
    """Write what ssh's configuration says of some hosts.

    Raises:
        DataError: A value has a line end or the like, behind which it could say anything.
    """
    for name, value in options.items():
        if any(ord(one) < ord(" ") or ord(one) == DELETE for one in value):
            raise DataError(f"ssh's {name} cannot be {value!r}", "look at where that comes from")
    return f"Host {hosts}\n" + "".join(f"  {name} {value}\n" for name, value in options.items())


@dataclass(frozen=True)
class Connection:
    """The files of one connection, in a private directory of this machine."""

    directory: Path

    @property
    def config(self) -> Path:
        """The client's configuration: `ssh -F FILE nddt` reaches the sandbox."""
        return self.directory / "config"

    @property
    def control(self) -> Path:
        """The master's socket."""
        return self.directory / "s"

    def public_key(self) -> str:
        """Read the public half of the connection's own key, which is made if missing."""
        private = self.directory / "key"
        public = self.directory / "key.pub"
        if not public.exists():
            made = make_key(private)
            if not made.ok:
                raise TransportLostError(f"no key could be made: {made.last_line}")
        return public.read_text(encoding="ascii").strip()

    @property
    def errors(self) -> Path:
        """What the pipe's command of a kept connection has printed."""
        return self.directory / "errors"

    def write(
        self,
        pipe: Sequence[str],
        user: str,
        environ: Mapping[str, str],
        *,
        kept: bool = False,
        silent_s: int | None = None,
    ) -> None:
        """Write the configuration.

        Args:
            pipe: The command whose stdin and stdout are the server.
            user: The user inside.
            environ: What that command needs beyond our own environment.
            kept: Whether the connection outlives us: then its errors go to a file.
            silent_s: For a connection over a network: after three times so many seconds of
                silence it is taken for dead.
        """
        # A file, so that neither ssh's % expansion nor its quoting touches the command.
        file = self.directory / "pipe"
        words = [f"{name}={value}" for name, value in environ.items()]
        command = shlex.join(("env", *words, *pipe))
        errors = f" 2>{shlex.quote(str(self.errors))}" if kept else ""
        files.write(file, f"exec {command}{errors}\n".encode("utf-8", "surrogateescape"))
        options = {
            **OPTIONS,
            "User": user,
            "ProxyCommand": f"sh {shlex.quote(str(file))}",
            "ControlPath": f'"{self.control}"',
            "IdentityFile": f'"{self.directory / "key"}"',
            **({"ServerAliveInterval": str(silent_s)} if silent_s else {}),
        }
        files.write(self.config, section("nddt", options))

    def is_open(self) -> bool:
        """Tell whether a master listens."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.control))
            except OSError:
                return False
        return True

    def master_argv(self, *words: str) -> tuple[str, ...]:
        """Return a command that connects and is the master of later sessions."""
        return ("ssh", "-F", str(self.config), "-o", "ControlMaster=yes", *words)

    def session_argv(self, *words: str) -> tuple[str, ...]:
        """Build the command of a session over the master; it never connects by itself."""
        fixed = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false")
        return ("ssh", "-F", str(self.config), *fixed, *words)

    def direct_argv(self, *words: str) -> tuple[str, ...]:
        """Build the command of a session that is a connection of its own."""
        return ("ssh", "-F", str(self.config), "-o", "ControlPath=none", *words)

    def keep_open(self, keep_s: int) -> None:
        """Start a master that outlives this process and ends after `keep_s` idle seconds.

        Raises:
            TransportLostError: The sandbox cannot be reached.
        """
        log_file = self.directory / "log"
        self.errors.unlink(missing_ok=True)
        # What a killed master leaves would keep the new one from listening.
        self.control.unlink(missing_ok=True)
        # What stays in the background holds on to stderr, so that must not be our pipe.
        words = ("-f", "-N", "-o", f"ControlPersist={max(keep_s, 1)}", "nddt")
        argv = self.master_argv(*words)
        if process.run_to_file(argv, log_file, timeout_s=2 * CONNECT_S) != 0:
            detail = "".join(process.tail(file) for file in (self.errors, log_file))
            raise TransportLostError("the sandbox cannot be reached", detail=detail)

    def forward(self, forwards: Sequence[Forward]) -> None:
        """Have a master that stays forward these, if it does not yet.

        Raises:
            PortTakenError: A port of this machine is somebody else's.
        """
        for one in forwards:
            done = self._command("forward", *one.arguments)
            check_ports(done.stderr, (one,))

    def master_pid(self) -> int:
        """Ask for the process that is the master.

        Raises:
            TransportLostError: There is none.
        """
        done = self._command("check")
        found = re.search(r"pid=(\d+)", done.stderr)
        if not found:
            raise TransportLostError("the connection to the sandbox broke", detail=done.stderr)
        return int(found[1])

    def drop_sockets(self, forwards: Sequence[Forward]) -> None:
        """Have a master that stays forget sockets: in the sandbox somebody may have removed them.

        It would not make again what it knows as forwarded.
        """
        for one in forwards:
            if isinstance(one, Socket):
                self._command("cancel", *one.arguments)

    @contextlib.contextmanager
    def cancelling(self, forwards: Sequence[Forward]) -> Iterator[None]:
        """Take forwards off a master that stays, while something else is tidied up."""
        words = (("-O", "cancel", *forward.arguments, "nddt") for forward in forwards)
        started = [process.spawn(self.session_argv(*one), pipes=True) for one in words]
        try:
            yield
        finally:
            for one in started:
                running.finish(one, MASTER_S)

    def close(self) -> None:
        """End the master, if there is one."""
        if self.is_open():
            self._command("exit")

    def _command(self, word: str, *arguments: str) -> process.Result:
        """Tell the master something."""
        argv = self.session_argv("-O", word, *arguments, "nddt")
        return process.capture(argv, timeout_s=MASTER_S)

    def ask(
        self, command: str, *, stdin: bytes = b"", timeout_s: float = ANSWER_S, most: int = ANSWER
    ) -> process.Result:
        """Run a short command in the sandbox, over the master.

        Args:
            command: Shell text.
            stdin: What it reads.
            timeout_s: How long it may take; see `process.capture`.
            most: Bytes that it may print.
        """
        argv = self.session_argv("-T", "nddt", command)
        return process.capture(argv, stdin=stdin, timeout_s=timeout_s, most=most)
