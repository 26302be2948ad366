"""The wall around a sandbox's programs where the platform's own has holes; shell text.

A provider that cannot take the network away from a whole sandbox has what comes in run behind
`ENTER`: in user, network, mount, process and IPC namespaces that all connections to the sandbox
share, made by bubblewrap and kept by a process of its own. There is no interface but a loopback
of their own, so nothing needs a firewall, and no right at the platform. Kinds of sockets that no
network namespace holds, such as those to the machine below a virtual one, cannot be made there.

The programs inside have the same user as what is outside, such as the platform's daemon and the
shell that runs `ENTER`. So they see no process of it, and can change no file that it trusts: the
root is read-only, their home, /tmp and /var/tmp are directories in `OUTSIDE`, /run and /dev are
their own. Of what they can write, only /workspace is where it was.
"""

from __future__ import annotations

import errno
import struct

from scripts.sandbox_places import WORKSPACE

WANTED = "NDDT_APART"
"""Variable of a sandbox's that asks for the wall with `wanted`; behind it, its value is `yes`.

It is the sandbox's own from its making on, so that each connection is treated alike, and nobody
inside can change it.
"""

OUTSIDE = ".nddt-outside"
"""Directory in the home of outside, with the homes of inside and with what is known of the wall."""

BROKEN = "nddt: the sandbox cannot be walled off"
"""How the complaint begins of a sandbox in which there was a wall, and cannot be one."""

_FAMILIES = (1, 2, 10, 16, 17, 38)
"""Kinds of sockets that a network namespace holds or that lead nowhere: UNIX, INET, INET6,
NETLINK, PACKET, ALG; see address_families(7)."""
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""What `uname -m` says → AUDIT_ARCH, and the number of socket(2)."""
_IO_URING = 425
"""The number of io_uring_setup(2), by which sockets can be made past any filter."""


def _filter(architecture: int, socket: int) -> bytes:
    """Build a program for seccomp(2), which lets a process make no other sockets.

    Args:
        architecture: The only one of which a process may make system calls.
        socket: The number of socket(2) there.
    """
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06  # see linux/bpf_common.h
    allow, refuse = 0x7FFF0000, 0x00050000
    kinds = len(_FAMILIES)
    steps = [
        (load, 0, 0, 4),  # the architecture
        (equal, 0, kinds + 6, architecture),
        (load, 0, 0, 0),  # the number
        (at_least, kinds + 4, 0, 0x40000000),  # another table of the same architecture, x32
        (equal, kinds + 3, 0, _IO_URING),
        (equal, 0, kinds + 3, socket),
        (load, 0, 0, 16),  # the first argument
        *((equal, kinds - number + 1, 0, one) for number, one in enumerate(_FAMILIES)),
        (answer, 0, 0, refuse | errno.EAFNOSUPPORT),
        (answer, 0, 0, refuse | errno.ENOSYS),
        (answer, 0, 0, allow),
    ]
    return b"".join(struct.pack("<HBBI", *one) for one in steps)


def _printed(data: bytes) -> str:
    """Write bytes as printf(1) reads them."""
    return "".join(f"\\{byte:03o}" for byte in data)


_FILTERS = "\n    ".join(
    f"{machine}) printf '{_printed(_filter(*numbers))}' ;;"
    for machine, numbers in _MACHINES.items()
)
"""Cases of a shell's `case` that print the filter of a machine."""

# Programs by fixed paths: the image's PATH may name a directory that inside can be written.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# What is kept must hold nothing of this connection's, of the lock, or of outside's files. `tty` as
# a group would have sshd give terminals to it, which is not possible: it is not mapped.
_MAKE = r"""
begin() {
    t=$1; shift
    exec "$@" setpriv --no-new-privs --seccomp-filter "$o/filter" \
        bwrap --unshare-user --unshare-all --info-fd 8 --ro-bind / / --proc /proc --dev /dev \
        --perms 1777 --tmpfs /dev/shm --tmpfs /run --ro-bind "$o/group" /etc/group \
        --bind "$o/tmp" /tmp --bind "$o/var-tmp" /var/tmp \
        --bind-try WORKSPACE WORKSPACE --bind "$h" "$HOME" \
        /bin/sh -c 'echo up >&3; exec sleep "$1" 3>&- 8>&-' sh "$t"
}
make() {
    nsenter --help | grep -q -e --user-parent ||
        { echo "nsenter is older than 2.41" >"$o/log"; return 1; }
    rm -rf "$o/home.new"
    h=$o/home
    if [ ! -d "$h" ]; then
        [ "$(id -u)" != 0 ] || { echo "its user is root" >"$o/log"; return 1; }
        h=$o/home.new
        mkdir -p "$h" "$o/tmp" "$o/var-tmp"
        chmod 1777 "$o/tmp" "$o/var-tmp"
        find "$HOME" -mindepth 1 -maxdepth 1 ! -name .daytona ! -name "${o##*/}" \
            -exec cp -a -t "$h" {} + 2>/dev/null
    fi
    case $(uname -m) in
    FILTERS
    esac >"$o/filter"
    grep -v ^tty: /etc/group >"$o/group"
    up=$(begin infinity setsid 3>&1 8>"$o/info" 9>&- >/dev/null 2>&1 </dev/null &)
    if [ "$up" != up ]; then
        (begin 0 env 3>/dev/null 8>/dev/null >/dev/null 2>"$o/log" </dev/null)
        return 1
    fi
    [ "$h" = "$o/home" ] || mv "$h" "$o/home"
    p=$(sed -n 's/.*"child-pid": \([0-9]*\).*/\1/p' "$o/info")
    n=$(readlink "/proc/$p/ns/net") && echo "$p $n" >"$o/holder"
}
""".replace("FILTERS", _FILTERS).replace("WORKSPACE", WORKSPACE)

# A process id may be somebody else's by now, but then its network is not that one, or it is ours.
_IS_THERE = r"""
is_there() {
    read -r p n 2>/dev/null <"$o/holder" && [ "$n" = "$(readlink "/proc/$p/ns/net")" ] &&
        [ "$n" != "$(readlink /proc/self/ns/net)" ]
}
"""

_INSIDE = (
    f'[ "$(readlink /proc/self/ns/net)" = "$1" ] || exit 69; PATH=$2; {WANTED}=yes; '
    f'export PATH {WANTED}; shift 2; exec "$@"'
)

ENTER = f"""\
[ "${WANTED}" = wanted ] || exec "$@"
{_MAKE}{_IS_THERE}
fail() {{ echo "{BROKEN}: $(tail -n 1 "$o/log" 2>/dev/null | cut -c 1-300)" >&2; exit 69; }}
path=$PATH; PATH={_PATH}; cd /; m=$(umask); umask 077
o=$HOME/{OUTSIDE}; mkdir -p "$o" && exec 9>"$o/lock" && flock -w 60 9 || fail
if ! is_there && ! {{ make && is_there; }}; then
    # Where nothing has run yet, the platform's own block is looked at from inside.
    [ ! -d "$o/home" ] || fail
    umask "$m"; PATH=$path; export PATH; exec 9>&-; exec "$@"
fi
umask "$m"; exec 9>&-; d=/proc/$p/ns
exec setpriv --no-new-privs --seccomp-filter "$o/filter" \\
    nsenter --preserve-credentials --target "$p" --user-parent --net="$d/net" --pid="$d/pid" \\
    --ipc="$d/ipc" --uts="$d/uts" --cgroup="$d/cgroup" --mount="$d/mnt" \\
    nsenter --preserve-credentials --target 1 --user \\
    sh -c '{_INSIDE}' nddt-wall "$n" "$path" "$@"
"""
"""Shell text that becomes the command in its arguments, behind the wall where that is wanted.

It exits with 69 and a line that begins with `BROKEN` where there was a wall and is none.
"""
