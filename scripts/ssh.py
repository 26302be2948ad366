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
import select
import shlex
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from scripts import inside, process
from scripts.errors import NotReachedError, PortTakenError, TransportLostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger("nddt")

CONNECT_S = 120
"""How long a connection may take; an engine under load is slow to start a container."""
CLOSE_S = 20
"""How long the pipe's command may take to end after its connection."""

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
    return process.capture(("ssh-keygen", *options, "-f", str(private)))


class Forward(Protocol):
    """What one side listens on for the other one's programs."""

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""


@dataclass(frozen=True)
class SamePort:
    """A port of the sandbox's loopback that leads to the same one of this machine's."""

    host: str
    port: int

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return ("-R", f"{host}:{self.port}:{host}:{self.port}")


@dataclass(frozen=True)
class OpenPort:
    """A port of this machine's loopback that leads to one of the sandbox's."""

    outside: int
    inside: int

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""
        return ("-L", f"127.0.0.1:{self.outside}:localhost:{self.inside}")


@dataclass(frozen=True)
class SocketPort:
    """A port of the sandbox's loopback that leads to a UNIX socket of this machine's."""

    inside: int
    outside: str

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""
        outside = self.outside.replace(":", "\\:")
        return ("-R", f"127.0.0.1:{self.inside}:{outside}")


def check_ports(errors: str, forwards: Sequence[Forward]) -> None:
    """Look at what ssh has printed, a connection of its own or a session of a master's.

    Raises:
        PortTakenError: It could not listen on a port of this machine, and has run nothing.
    """
    signs = ("cannot listen to port: ", "forwarding request failed: Port forwarding failed")
    if any(isinstance(one, OpenPort) for one in forwards) and any(one in errors for one in signs):
        raise PortTakenError("a port of this machine was taken meanwhile", "try again")


@dataclass(frozen=True)
class Socket:
    """A UNIX socket in the sandbox that leads to one of this machine's."""

    inside: str
    outside: str

    @property
    def arguments(self) -> tuple[str, str]:
        """The option of ssh(1)."""
        inside, outside = (path.replace(":", "\\:") for path in (self.inside, self.outside))
        return ("-R", f"{inside}:{outside}")


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
        """Give the public half of the connection's own key, which is made if missing."""
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
        file.write_bytes(f"exec {command}{errors}\n".encode("utf-8", "surrogateescape"))
        options = {
            **OPTIONS,
            "User": user,
            "ProxyCommand": f"sh {shlex.quote(str(file))}",
            "ControlPath": f'"{self.control}"',
            "IdentityFile": f'"{self.directory / "key"}"',
            **({"ServerAliveInterval": str(silent_s)} if silent_s else {}),
        }
        lines = "".join(f"  {name} {value}\n" for name, value in options.items())
        self.config.write_text(f"Host nddt\n{lines}", encoding="utf-8")

    def is_open(self) -> bool:
        """Tell whether a master listens."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.control))
            except OSError:
                return False
        return True

    def master_argv(self, *words: str) -> tuple[str, ...]:
        """Give a command that connects and is the master of later sessions."""
        return ("ssh", "-F", str(self.config), "-o", "ControlMaster=yes", *words)

    def session_argv(self, *words: str) -> tuple[str, ...]:
        """Give the command of a session over the master; it never connects by itself."""
        fixed = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false")
        return ("ssh", "-F", str(self.config), *fixed, *words)

    def direct_argv(self, *words: str) -> tuple[str, ...]:
        """Give the command of a session that is a connection of its own."""
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
        if process.run_to_file(self.master_argv(*words), log_file) != 0:
            files = (file for file in (self.errors, log_file) if file.exists())
            detail = "".join(file.read_text(errors="replace") for file in files)
            raise TransportLostError("the sandbox cannot be reached", detail=detail)

    def forward(self, forwards: Sequence[Forward]) -> None:
        """Have a master that stays forward these, if it does not yet.

        Raises:
            PortTakenError: A port of this machine is somebody else's.
        """
        for one in forwards:
            done = process.capture(self.session_argv("-O", "forward", *one.arguments, "nddt"))
            check_ports(done.stderr, (one,))

    def master_pid(self) -> int:
        """Give the process that is the master.

        Raises:
            TransportLostError: There is none.
        """
        done = process.capture(self.session_argv("-O", "check", "nddt"))
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
                process.capture(self.session_argv("-O", "cancel", *one.arguments, "nddt"))

    @contextlib.contextmanager
    def cancelling(self, forwards: Sequence[Forward]) -> Iterator[None]:
        """Take forwards off a master that stays, while something else is tidied up."""
        words = (("-O", "cancel", *forward.arguments, "nddt") for forward in forwards)
        started = [process.spawn(self.session_argv(*one), pipes=True) for one in words]
        try:
            yield
        finally:
            for one in started:
                one.communicate()

    def close(self) -> None:
        """End the master, if there is one."""
        if self.is_open():
            process.capture(self.session_argv("-O", "exit", "nddt"))


class Lease:
    """A session's script on its way in, and afterwards the proof that its client lives.

    Args:
        connection: Where to.
        session: The session's id.
        script: See `inside.script`; None if the session runs already.
        forwards: Ports that the session needs.
        master: Whether this is the connection itself, or a session of a master that stays.
        durable: Whether the session outlives a broken connection, though not its client.
    """

    def __init__(
        self,
        connection: Connection,
        session: str,
        script: str | None,
        forwards: Sequence[Forward] = (),
        *,
        master: bool,
        durable: bool = False,
    ) -> None:
        self._script = (script or "").encode("utf-8", "surrogateescape")
        self._forwards = forwards
        options = [word for forward in forwards for word in forward.arguments]
        size = None if script is None else len(self._script)
        words = (*options, "-T", "nddt", inside.lease(session, size, durable=durable))
        if master:
            # What a broken connection leaves would keep the new one from listening.
            connection.control.unlink(missing_ok=True)
        argv = connection.master_argv(*words) if master else connection.session_argv(*words)
        self._process = process.spawn(argv, pipes=True)
        self._errors: deque[str] = deque(maxlen=50)
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    def _read_errors(self) -> None:
        # Nobody else reads this pipe; a full one would stop the connection.
        for line in process.piped(self._process.stderr):
            self._errors.append(line.decode(errors="replace").rstrip())

    def ends_within(self, seconds: float) -> bool:
        """Tell whether the connection has broken, of which sessions may know a little before."""
        return process.wait(self._process, seconds) is not None

    @property
    def errors(self) -> str:
        """The last lines that ssh and the pipe's command have printed."""
        return "\n".join(line for line in self._errors if line)

    def hand_over(self) -> None:
        """Send the script and wait until the sandbox has it.

        Raises:
            NotReachedError: The sandbox was not reached.
            PortTakenError: A port of this machine is somebody else's.
        """
        stdin, stdout = process.piped(self._process.stdin), process.piped(self._process.stdout)
        try:
            stdin.write(self._script)
            stdin.flush()
            answer = stdout.readline() if select.select([stdout], [], [], CONNECT_S)[0] else b""
        except BrokenPipeError:
            answer = b""
        if answer != b"ready\n":
            self.close()
            check_ports(self.errors, self._forwards)
            raise NotReachedError("the sandbox was not reached", detail=self.errors)

    def close(self) -> None:
        """Let go: the sandbox ends what is left of the session, and a pipe's command ends."""
        with contextlib.suppress(BrokenPipeError):
            process.piped(self._process.stdin).close()
        # The pipe's command has the same stderr, so its end is seen here, too.
        self._reader.join(CLOSE_S)
        if self._reader.is_alive():
            self._process.terminate()
            self._reader.join(CLOSE_S)
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            process.piped(stream).close()
