"""Ports of a sandbox that this machine reaches: each by a port of its loopback, through ssh.

A file for each such port says for which process's life it is open, so that several of us choose
different ones, and everybody can be told. Whether it really is free, only ssh can say.
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scripts.contracts.provisions import Provision
from scripts.errors import PortTakenError, TransportLostError, UnavailableError, UsageError
from scripts.machine import files, state
from scripts.naming import said
from scripts.transport.forwards import OpenPort
from scripts.transport.ssh import Connection

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path


ATTEMPTS = 5
"""How often other programs may take what we have just chosen."""
PROBE_S = 0.5
MAP = "NDDT_PORT_MAP"


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A port of this machine that leads to one of a sandbox's."""

    outside: int
    inside: int
    sandbox: str
    """Its key; see naming.py."""
    pid: int
    """The process with which it ends: a session's, or that of a connection."""

    @property
    def url(self) -> str:
        """Where the user finds it."""
        return f"http://127.0.0.1:{self.outside}"

    @property
    def forward(self) -> OpenPort:
        """What ssh is asked for."""
        return OpenPort(self.outside, self.inside)

    def path(self, environ: Mapping[str, str]) -> Path:
        """Its file."""
        return state.runtime_directory(environ) / f"p-{self.outside}"

    def note(self, environ: Mapping[str, str]) -> None:
        """Tell others of it."""
        text = f"{self.pid} {self.inside} {self.sandbox}\n"
        files.write(self.path(environ), text)


# -- what is open -----------------------------------------------------------------------------


def _read(path: Path) -> Opening | None:
    with suppress(OSError, ValueError):
        pid, inside, sandbox = path.read_text(encoding="utf-8").split()
        outside = int(path.name.removeprefix("p-"))
        return Opening(outside=outside, inside=int(inside), sandbox=sandbox, pid=int(pid))
    return None


def _known(environ: Mapping[str, str]) -> tuple[Opening, ...]:
    """List what is open, and close what killed processes have left."""
    found = []
    for path in sorted(state.runtime_directory(environ).glob("p-*")):
        one = _read(path)
        if one and state.is_alive(one.pid):
            found.append(one)
            continue
        if one:
            connection = Connection(state.sandbox_directory(environ, one.sandbox))
            if connection.is_open():
                with connection.cancelling((one.forward,)):
                    pass
        path.unlink(missing_ok=True)
    return tuple(found)


@contextmanager
def _locked(environ: Mapping[str, str]) -> Iterator[None]:
    with files.lock(state.runtime_directory(environ) / "l-ports"):
        yield


def tidy(environ: Mapping[str, str]) -> None:
    """Close what killed processes have left open."""
    if any(state.runtime_directory(environ).glob("p-*")):
        with _locked(environ):
            _known(environ)


def of(environ: Mapping[str, str], sandbox: str) -> tuple[Opening, ...]:
    """Return what leads to a sandbox, by its port there."""
    with _locked(environ):
        found = [one for one in _known(environ) if one.sandbox == sandbox]
    return tuple(sorted(found, key=lambda one: (one.inside, one.outside)))


def forget(environ: Mapping[str, str], sandbox: str) -> None:
    """Know nothing more of a sandbox's ports: what they were open through is closed."""
    for one in of(environ, sandbox):
        one.path(environ).unlink(missing_ok=True)


# -- choosing ---------------------------------------------------------------------------------


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a port of this machine, and we may.

    The attempt to connect is for systems that let a program listen on loopback beside another
    one that listens on all addresses.
    """
    with socket.socket() as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            pass
        except OSError:
            return False
        else:
            return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def reserved(
    environ: Mapping[str, str],
    sandbox: str,
    wanted: Iterable[int],
    *,
    start: int,
    usual: Mapping[int, int] | None = None,
    avoided: Collection[int] = (),
) -> Iterator[tuple[Opening, ...]]:
    """Choose a free port of this machine for each of a sandbox's, until the block's end.

    Args:
        environ: Our own environment.
        sandbox: Its key.
        wanted: The ports of the sandbox.
        start: The first port of this machine that may be chosen.
        usual: Port of the sandbox → the port of this machine that it has, if that is free.
        avoided: Ports of this machine that ssh could not have.

    Raises:
        UnavailableError: There is no free one.
    """
    usual = usual or {}
    ours: list[Opening] = []
    try:
        with _locked(environ):
            known = _known(environ)
            there = {(one.inside, one.outside) for one in known if one.sandbox == sandbox}
            taken = {one.outside for one in known} | set(avoided)
            for inside in dict.fromkeys(wanted):
                if (inside, usual.get(inside)) in there:  # another terminal has it open
                    continue
                first = [usual[inside]] if inside in usual else []
                free = (p for p in (*first, *range(start, 65536)) if p not in taken and is_free(p))
                outside = next(free, 0)
                if not outside:
                    raise UnavailableError(
                        f"no port of this machine from {start} on is free",
                        "choose a lower NDDT_PORT_RANGE_START",
                    )
                taken.add(outside)
                one = Opening(outside=outside, inside=inside, sandbox=sandbox, pid=os.getpid())
                one.note(environ)
                ours.append(one)
        yield tuple(ours)
    finally:
        for one in ours:
            if _read(one.path(environ)) == one:  # else it stays, with something else's life
                one.path(environ).unlink(missing_ok=True)


# -- ports that stay open while a connection does ---------------------------------------------


def open_port(
    environ: Mapping[str, str], sandbox: str, connection: Connection, port: int, *, start: int
) -> Opening:
    """Open a port of a running sandbox, if it is not open, for as long as the connection is.

    Args:
        environ: Our own environment.
        sandbox: Its key.
        connection: The way there.
        port: The sandbox's.
        start: The first port of this machine that may be chosen.

    Raises:
        PortTakenError: Somebody has taken every one that was chosen.
    """
    for one in of(environ, sandbox):
        if one.inside == port:
            return one
    avoided: set[int] = set()
    for _ in range(ATTEMPTS):
        with reserved(environ, sandbox, (port,), start=start, avoided=avoided) as (one,):
            avoided.add(one.outside)
            with suppress(PortTakenError):
                connection.forward((one.forward,))
                lasting = replace(one, pid=connection.master_pid())
                lasting.note(environ)
                return lasting
    raise PortTakenError(f"ports from {start} on are taken again and again", "try again")


def close_port(
    environ: Mapping[str, str], sandbox: str, connection: Connection, port: int
) -> Opening:
    """Close what `add` has opened.

    Raises:
        UsageError: It is not open, or belongs to a session.
    """
    found = [one for one in of(environ, sandbox) if one.inside == port]
    if not found:
        raise UsageError(f"port {port} is not open", f"see: {said('ports')}")
    master = connection.master_pid()
    for one in found:
        if one.pid == master:
            with connection.cancelling((one.forward,)):
                one.path(environ).unlink(missing_ok=True)
            return one
    raise UsageError(f"port {port} is open for a session", "it closes with that")


def listening(connection: Connection, others: tuple[str, ...] = ()) -> dict[int, str]:
    """Ask a sandbox which ports are listened on, and by which program.

    What ssh itself listens on leads to this machine, and is left out.

    Args:
        connection: To the sandbox.
        others: Beginnings of the names of more programs that are left out: the provider's own.
    """
    done = connection.ask("ss -Hltnp", most=1 << 20)
    if not done.ok:
        raise TransportLostError("the sandbox did not say what listens", detail=done.stderr)
    found: dict[int, str] = {}
    for line in done.stdout.splitlines():
        port = re.match(r"(?:\S+\s+){3}\S*:(\d{1,5})\s", line)
        program = re.search(r'users:\(\("([^"]+)"', line)
        name = program[1] if program else "?"
        if port and not name.startswith(("sshd", *others)):
            found[int(port[1])] = name
    return found


def table(openings: tuple[Opening, ...], found: Mapping[int, str]) -> list[tuple[str, ...]]:
    """Put together what is open and what listens, a row for each port of the sandbox."""
    rows = [(one.inside, one.url, found.get(one.inside, "-")) for one in openings]
    there = {one.inside for one in openings}
    rows += [(port, "-", name) for port, name in found.items() if port not in there]
    return [("PORT", "URL", "LISTENS"), *((str(row[0]), *row[1:]) for row in sorted(rows))]


# -- the ports of a session -------------------------------------------------------------------


def read_map(text: str) -> dict[int, int]:
    """Read `3000:30000,8080:30001`."""
    found = re.findall(r"\b(\d{1,5}):(\d{1,5})\b", text)
    pairs = [(int(inside), int(outside)) for inside, outside in found]
    return {
        inside: outside
        for inside, outside in pairs
        if min(inside, outside) > 0 and max(inside, outside) < 65536
    }


def bring_ports(openings: tuple[Opening, ...]) -> Provision:
    """Have ports open during a session, and tell the agent where the user finds them."""
    if not openings:
        return Provision()
    places = "; ".join(f"port {one.inside} is {one.url}" for one in openings)
    told = (
        "You run in a sandbox. The user reaches servers that listen in it only at these "
        f"addresses: {places}. When you start a server, use one of these ports, and give the user "
        f"the address from this list, never the one inside the sandbox. The variable {MAP} has "
        "the list, too, as pairs of a port of the sandbox and one of the user's; if they differ, "
        "because this conversation began in another session, the variable is right."
    )
    return Provision(
        forwards=tuple(one.forward for one in openings),
        variables={MAP: ",".join(f"{one.inside}:{one.outside}" for one in openings)},
        # For whoever comes back to an agent that goes on in tmux; see inside.AGENT_PORTS.
        before=(f'[ -z "$TMUX" ] || tmux set-environment {MAP} "${MAP}"',),
        system_prompt_lines=(told,),
    )
