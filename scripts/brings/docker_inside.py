"""Docker inside: a daemon of the sandbox's own, or the engine's socket.

The daemon runs in a user namespace of the sandbox's user ("rootless"), so that it needs no
privilege. It begins with the first session, stays with the sandbox, and keeps its images and
containers where `data` says. Its socket is where every client looks for one.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from scripts.contracts.docker_places import TUN
from scripts.contracts.provisions import Provision
from scripts.transport import inside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.contracts.sandbox import Specification
    from scripts.settings.host import Host

PLACE = f"{inside.PLACES}/docker"
"""What a running daemon has, but for its data; its log and process id are beside it."""

_LOOPBACK = re.compile(r"(?<=//)([^/@]*@)?(127\.[0-9.]+|localhost|\[::1\])(?=[:/]|$)")
_SANDBOX = "10.0.2.2"
"""The sandbox's loopback, as slirp4netns(1) shows it to the daemon."""

# Of two sessions one starts it. It gets none of their variables, and none of them ends it.
_START = """\
(
d={place}
exec 9>"$d.lock" && flock 9
answers() {{ docker --host "unix://$d/docker.sock" version; }} >/dev/null 2>&1
told() {{ grep -vE 'rootlesskit.*(exited|EOF)' "$d.log" || cat "$d.log"; }}
reason() {{ told | tail -n 1 | cut -c 1-400; }}
fail() {{ echo "nddt: Docker in the sandbox does not start: $1" >&2; exit 1; }}
alive() {{ grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$p/status"; }}
begin() {{
    command -v rootlesskit >/dev/null || fail "it was made without — make it anew: nddt cleanup"
    [ -w {tun} ] || fail "{tun} is not there for all — on the engine's machine: chmod 666 {tun}"
    # Of a daemon that was killed; some of it belongs to other users of its namespace.
    rm -rf "$d" "$d.log" 2>/dev/null || rootlesskit rm -rf "$d"
    mkdir -m 700 "$d"
    env -i PATH="$PATH" HOME="$HOME" XDG_RUNTIME_DIR="$d" setsid sh >"$d.log" 2>&1 9>&- <<'NDDT' &
{exports}
# What is below needs more capabilities than the sandbox's root has; in a namespace it has all.
[ "$(id -u)" != 0 ] || set -- unshare --user --map-users=all --map-groups=all
# The sandbox's loopback may be reached: what listens there is as near to the agent as this is.
exec </dev/null "$@" rootlesskit --state-dir="$XDG_RUNTIME_DIR/rootlesskit" \\
    --net=slirp4netns --mtu=65520 --slirp4netns-sandbox=auto --slirp4netns-seccomp=auto \\
    --port-driver=builtin --copy-up=/etc --copy-up=/run --propagation=rslave sh -c \\
    'rm -f /run/docker /run/containerd; exec dockerd --host "unix://$XDG_RUNTIME_DIR/docker.sock"'
NDDT
    p=$!
    echo "$p" >"$d.pid"
}}
answers && exit
# One that another session has begun may be about to answer, or about to end.
p=$(cat "$d.pid" 2>/dev/null)
grep -qse rootlesskit "/proc/$p/cmdline" || p=
own=
for i in $(seq 600); do
    answers && exit
    if ! alive; then
        [ -z "$own" ] || fail "$(reason)"
        begin
        own=yes
    fi
    sleep 0.1
done
kill "$p"
fail "it took too long: $(reason)"
) </dev/null || {{ rm -rf -- "${{0%.sh}}.pid" "$NDDT_SESSION"; {pause}exit 73; }}
"""

TITLES = {
    "host": "host: the engine of this machine itself",
    "isolated": "isolated: a daemon of the sandbox's own",
}
"""NDDT_DOCKER_FORWARD for a person."""

# The screen of tmux goes with its program.
_PAUSE = '[ -z "$TMUX" ] || { echo "Enter closes this screen."; read -r _; }; '


def bring_docker(want: Specification, network: Host) -> Provision:
    """Have Docker in a session.

    Args:
        want: The sandbox.
        network: What its daemon must know, as the session does.
    """
    if want.docker != "isolated":
        return Provision()
    return Provision(before=(_start(network.session_variables()),))


def _start(variables: Mapping[str, str]) -> str:
    """Build the shell text that makes sure that the daemon answers, or ends the session."""
    found = {name: _from_inside(name, value) for name, value in variables.items()}
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items())
    return _START.format(place=PLACE, tun=TUN, exports=exports, pause=_PAUSE)


def _from_inside(name: str, value: str) -> str:
    """Make a proxy on the sandbox's loopback one that the daemon reaches, too."""
    is_proxy = name.lower().endswith("_proxy") and name.lower() != "no_proxy"
    return _LOOPBACK.sub(rf"\g<1>{_SANDBOX}", value) if is_proxy else value
