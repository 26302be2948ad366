"""A sandbox without a network: what the provider was asked for is looked at from inside."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from scripts import allowlist, process
from scripts.errors import UnavailableError

if TYPE_CHECKING:
    from scripts.ssh import Connection

WINDOW_S = 10
"""How long a provider may take to switch the network off of a sandbox that has started."""

NO_ROUTES = (
    "{ [ -r /proc/net/route ] && ! grep -qv ^Iface /proc/net/route"
    " && ! grep -sqv ' lo$' /proc/net/ipv6_route; }"
)
"""Command that succeeds where nothing but loopback is routed."""

# Where packets are dropped on their way, only trying tells. An answer of a name server is as good
# as a connection, also that there is no such name. Nobody reads what a thread says after the end.
_PROBE = """
import os, socket, sys, threading, time
os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
reached = []
def name(host):
    try:
        reached.append(socket.getaddrinfo(host, 443)[0][4][0])
    except socket.gaierror as error:
        if error.errno not in (socket.EAI_AGAIN, socket.EAI_SYSTEM):
            reached.append("a name server")
def address(host):
    try:
        socket.create_connection((host, 443), 2).close()
        reached.append(host)
    except OSError:
        pass
end = time.monotonic() + float(sys.argv[1])
while True:
    reached.clear()
    all = [threading.Thread(target=name, args=(one,), daemon=True) for one in sys.argv[2:]]
    for one in ("1.1.1.1", "8.8.8.8", "2606:4700:4700::1111"):
        all.append(threading.Thread(target=address, args=(one,), daemon=True))
    for one in all:
        one.start()
    latest = time.monotonic() + 3
    for one in all:
        one.join(max(0, latest - time.monotonic()))
    if not reached or time.monotonic() > end:
        break
    time.sleep(0.3)
sys.stdout.flush()
os._exit(1 if reached else 0)
"""


def check(*, may_have_routes: bool) -> str:
    """Give the command that succeeds if the sandbox it runs in has no network.

    Args:
        may_have_routes: Whether the provider drops what is sent, in place of having no way for
            it; then it takes up to 3 s to see, and is looked at once in a sandbox's life.
    """
    if not may_have_routes:
        return NO_ROUTES
    names = {one.name for one in allowlist.read(allowlist.DEFAULTS) if not one.any_below}
    probe = shlex.join(("python3", "-ESc", _PROBE, str(WINDOW_S), *sorted(names)))
    known = '"$NDDT_RUN/offline"'
    return f"{{ {NO_ROUTES} || [ -e {known} ] || {{ {probe} && : >{known}; }}; }}"


def guard(*, may_have_routes: bool, setting: str) -> str:
    """Give shell text of a session's that ends it where there is a network.

    Args:
        may_have_routes: See `check`.
        setting: The value of NDDT_NETWORK, for the message.
    """
    said = shlex.quote(f"nddt: {_problem(setting)} — {_REMEDY}")
    return (
        f"{check(may_have_routes=may_have_routes)} || {{ echo {said} >&2; "
        'rm -rf -- "${0%.sh}.pid" "$NDDT_SESSION"; exit 69; }'
    )


def prove(connection: Connection, *, may_have_routes: bool, setting: str) -> None:
    """Look from inside.

    Raises:
        UnavailableError: There is a network, or it cannot be told.
    """
    command = check(may_have_routes=may_have_routes)
    done = process.capture(connection.session_argv("-T", "nddt", command))
    if not done.ok:
        raise UnavailableError(_problem(setting), _REMEDY, detail=done.stderr)


_REMEDY = "make it anew: inv cleanup, then try again; if it stays so, the provider does not obey"


def _problem(setting: str) -> str:
    return f"the sandbox has a network, though NDDT_NETWORK is {setting}"
