"""A sandbox without a network: what the provider was asked for is looked at from inside.

Behind our own wall (`wall.py`) there is no interface, which one look tells. Elsewhere at a
provider that drops what is sent, only trying tells; and what is tried there is also what such a
block has been seen to leave open: the gateway, which is the machine that the sandbox runs on, and
the platform's own daemon on the sandbox's loopback.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from scripts.errors import UnavailableError
from scripts.naming import said
from scripts.settings import allowlist
from scripts.transport import wall

if TYPE_CHECKING:
    from scripts.transport.ssh import Connection

WINDOW_S = 10
"""How long a provider may take to switch the network off of a sandbox that has started."""

NO_ROUTES = (
    "{ [ -r /proc/net/route ] && ! grep -qv ^Iface /proc/net/route"
    " && ! grep -sqv ' lo$' /proc/net/ipv6_route; }"
)
"""Command that succeeds where nothing but loopback is routed."""

# An answer of a name server is as good as a connection, also that there is no such name; and of
# a machine that is near, also that nobody listens. A gateway is also looked for where it mostly
# is, at a network's first address. Nobody reads what a thread says after the end.
_PROBE = r"""
import os, re, socket, struct, sys, threading, time
os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
reached = []
def read(path):
    try:
        return open(path).read()
    except OSError:
        return ""
def near():
    found = set(re.findall(r"(?m)^nameserver +([0-9.]+)", read("/etc/resolv.conf")))
    for line in read("/proc/net/route").splitlines()[1:]:
        to, by = (int(word, 16) for word in line.split()[1:3])
        first = socket.ntohl(to) + 1
        found.add(socket.inet_ntoa(struct.pack("=L", by) if by else struct.pack("!L", first)))
    return found
def answers(host, port):
    try:
        socket.create_connection((host, port), 2).close()
    except ConnectionRefusedError:
        pass
    except OSError:
        return
    reached.append(host)
def name_server(host):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(2)
    try:
        one.connect((host, 53))
        one.send(bytes.fromhex("000101000001000000000000016103636f6d0000010001"))
        one.recv(9)
    except ConnectionRefusedError:
        pass
    except OSError:
        return
    reached.append(host)
def daemon(port):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
        reached.append("the platform's own port %d" % port)
    except OSError:
        pass
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
    tries = [(name, one) for one in sys.argv[2:]]
    tries += [(address, one) for one in ("1.1.1.1", "8.8.8.8", "2606:4700:4700::1111")]
    tries += [(answers, one, port) for one in near() for port in (PORTS)]
    tries += [(name_server, one) for one in near()] + [(daemon, one) for one in (DAEMON)]
    all = [threading.Thread(target=one, args=more, daemon=True) for one, *more in tries]
    for one in all:
        one.start()
    latest = time.monotonic() + 3
    for one in all:
        one.join(max(0, latest - time.monotonic()))
    if not reached or time.monotonic() > end:
        break
    time.sleep(0.3)
if reached:
    print("nddt: it reaches", ", ".join(sorted(set(reached))), file=sys.stderr, flush=True)
os._exit(1 if reached else 0)
"""
_PORTS = (22, 53, 80, 111, 443, 2375, 3000, 3003, 5000, 5432, 6379, 8080, 9000)
"""Some of what listens on a machine that runs sandboxes, or a whole platform."""
_DAEMON = (2280, 22220, 22222, 33333)
"""Where a platform's daemon listens in its sandboxes."""


def no_network_check(*, may_have_routes: bool) -> str:
    """Build the command that succeeds if the sandbox it runs in has no network.

    Args:
        may_have_routes: Whether the provider drops what is sent, in place of having no way for
            it; then, but for behind our own wall, it takes up to 3 s to see, and is looked at
            once in a sandbox's life.
    """
    if not may_have_routes:
        return NO_ROUTES
    behind = f'{{ [ "${wall.WANTED}" = yes ] && {NO_ROUTES}; }}'
    names = {one.name for one in allowlist.read_rules(allowlist.DEFAULTS) if not one.any_below}
    program = _PROBE.replace("(PORTS)", str(_PORTS)).replace("(DAEMON)", str(_DAEMON))
    probe = shlex.join(("python3", "-ESc", program, str(WINDOW_S), *sorted(names)))
    known = '"$NDDT_RUN/blocked"'
    return f"{{ {behind} || [ -e {known} ] || {{ {probe} && : >{known}; }}; }}"


def guard(*, may_have_routes: bool, setting: str) -> str:
    """Build shell text of a session's that ends it where there is a network.

    Args:
        may_have_routes: See `check`.
        setting: The value of NDDT_NETWORK, for the message.
    """
    told = shlex.quote(f"nddt: {_problem(setting)} — {_remedy()}")
    return (
        f"{no_network_check(may_have_routes=may_have_routes)} || {{ echo {told} >&2; "
        'rm -rf -- "${0%.sh}.pid" "$NDDT_SESSION"; exit 69; }'
    )


def prove(connection: Connection, *, may_have_routes: bool, setting: str) -> None:
    """Look from inside.

    Raises:
        UnavailableError: There is a network, or it cannot be told.
    """
    done = connection.ask(f'. "$NDDT_RUN/env"; {no_network_check(may_have_routes=may_have_routes)}')
    if not done.ok:
        raise UnavailableError(_problem(setting), _remedy(), detail=done.stderr)


def _remedy() -> str:
    return (
        f"make it anew: {said('cleanup')}, then try again; if it stays so, the provider does not "
        "obey, or lets an ordinary user make no namespaces"
    )


def _problem(setting: str) -> str:
    return f"the sandbox has a network, though NDDT_NETWORK is {setting}"
