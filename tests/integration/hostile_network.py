"""A program that tries to reach anything from a sandbox without a network, at either provider.

It prints what it has achieved, one thing a line, and at last how many things it has tried.
Its arguments are `ADDRESS:PORT`, where somebody listens on the machine of the sandbox; `@NAME`,
an abstract socket, and a path, a socket of the file system, where somebody listens beside it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PLACES = [word.rpartition(":") for word in sys.argv[1:] if word[0] not in "@/"]
SOCKETS = [word.replace("@", "\0", 1) for word in sys.argv[1:] if word[0] in "@/"]
OURS = {"127.0.0.1", "127.0.0.11", "::1", socket.gethostname()}
"""Whose refusal is one's own."""
DAEMON = (2280, 22220, 22222, 33333)
QUESTION = bytes.fromhex("000101000001000000000000016103636f6d0000010001")
NEWUSER, NEWNET, NEWNS = 0x10000000, 0x40000000, 0x20000


def near() -> set[str]:
    """Give what may be a gateway or a name server, from outside's view and from here."""
    found = {address for address, _, _ in PLACES} | {"127.0.0.11"}
    found |= set(re.findall(r"(?m)^nameserver +([0-9.]+)", Path("/etc/resolv.conf").read_text()))
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        found.add(socket.inet_ntoa(struct.pack("=L", int(line.split()[2], 16))))
    return found


def answers(host: str, port: int) -> bool:
    """Connect; who refuses has answered, too, but for oneself."""
    try:
        socket.create_connection((host, port), 1).close()
    except ConnectionRefusedError:
        return host not in OURS
    except OSError:
        return False
    return True


def asked(host: str, family: int = socket.AF_INET) -> bool:
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.settimeout(1)
    try:
        one.connect((host, 53))
        one.send(QUESTION)
        return bool(one.recv(9))
    except ConnectionRefusedError:
        return host not in OURS
    except OSError:
        return False


def services_of_the_machine() -> object:
    return [place for place in PLACES if answers(place[0], int(place[2]))]


def gateways() -> object:
    return [
        (host, port) for host in near() for port in (22, 53, 80, 443, 2375) if answers(host, port)
    ]


def name_servers() -> object:
    hosts = near() | {"8.8.8.8", "1.1.1.1"}
    return [host for host in hosts if asked(host) or answers(host, 53)]


def names() -> object:
    try:
        return socket.getaddrinfo("example.com", 443)
    except socket.gaierror as error:
        return error.errno not in {socket.EAI_AGAIN, socket.EAI_SYSTEM}


def metadata() -> object:
    return [host for host in ("169.254.169.254", "fd00:ec2::254") if answers(host, 80)]


def daemon_of_the_platform() -> object:
    hosts = ("127.0.0.1", "::1", socket.gethostname())
    return [(host, port) for host in hosts for port in DAEMON if answers(host, port)]


def neighbours_by_ipv6() -> object:
    found = []
    for number, name in socket.if_nameindex():
        if name == "lo":
            continue
        one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            one.sendto(b"x", ("ff02::1", 9, 0, number))
            found.append(name)
        except OSError:
            pass
    return found or asked("2001:4860:4860::8888", socket.AF_INET6)


def interfaces() -> object:
    """Those that are up and lead somewhere; a tunnel of the kernel's that is down does not."""
    lines = subprocess.run(("ip", "-o", "link"), capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if " lo: " not in line and "UP" in line]


def new_interfaces() -> object:
    words = (("add", "a0", "type", "veth", "peer", "name", "a1"), ("add", "a2", "type", "dummy"))
    return [one for one in words if _ran("ip", "link", *one)]


def a_tunnel() -> object:
    with open("/dev/net/tun", "r+b", buffering=0) as device:
        fcntl.ioctl(device, 0x400454CA, struct.pack("16sH", b"t0", 1))  # TUNSETIFF, IFF_TUN
    return True


def raw_sockets() -> object:
    made = []
    for family, kind, protocol in ((2, 3, 1), (2, 3, 255), (17, 3, 0x300), (10, 3, 58)):
        try:
            made.append(socket.socket(family, kind, protocol))
        except OSError:
            continue
    return made


def machine_below() -> object:
    """By the sockets of virtual machines, which no network namespace holds."""
    one = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    one.settimeout(1)
    one.connect((socket.VMADDR_CID_HOST, 22))
    return True


def sockets_beside() -> object:
    found = []
    for path in SOCKETS:
        with socket.socket(socket.AF_UNIX) as one:
            try:
                one.connect(path)
                found.append(path)
            except OSError:
                continue
    return found


def sockets_in_sight() -> object:
    """Any at all that is not of this session, such as a container engine's or a daemon's."""
    told = Path("/proc/net/unix").read_text().splitlines()[1:]
    abstract = [line.split()[-1] for line in told if " @" in line]
    listed = subprocess.run(
        ("find", "/", "-path", "/proc", "-prune", "-o", "-type", "s", "-print"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = ("/tmp/nddt", "/tmp/tmux-", "/dev/shm/nddt/")
    return abstract + [one for one in listed.stdout.split("\n") if one and not one.startswith(ours)]


def _ran(*words: str) -> bool:
    nothing = subprocess.DEVNULL
    return subprocess.run(words, stdout=nothing, stderr=nothing, check=False).returncode == 0


def _in_child(*steps: object) -> bool:
    """Tell whether all steps succeed in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if all(step() for step in steps) else 1)  # type: ignore[operator]
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _unshared(flags: int) -> object:
    return lambda: LIBC.unshare(flags) == 0


def _entered(path: str, flag: int = 0) -> bool:
    with open(path) as file:
        return bool(LIBC.setns(file.fileno(), flag) == 0)


def networks_of_others() -> object:
    """Of any process that is seen, with all rights in a namespace of one's own, too."""
    own = os.readlink("/proc/self/ns/net")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        path = f"/proc/{pid}/ns/net"
        try:
            other = os.readlink(path)
        except OSError:
            continue
        enter = partial(_entered, path)
        if other != own and (_in_child(enter) or _in_child(_unshared(NEWUSER), enter)):
            found.append(pid)
    return found


def rights_over_this_network() -> object:
    """By new namespaces, or by entering that of the first process or the one above it."""

    def changed() -> bool:
        return _ran("ip", "link", "add", "a3", "type", "dummy")

    above = 0xB702  # NS_GET_PARENT, and NS_GET_USERNS is 0xB701

    def owner(kind: int) -> object:
        def enter() -> bool:
            with open("/proc/1/ns/net" if kind != above else "/proc/1/ns/user") as file:
                number = fcntl.ioctl(file, kind)
            return bool(LIBC.setns(number, NEWUSER) == 0)

        return enter

    user = partial(_entered, "/proc/1/ns/user", NEWUSER)
    ways = (user, owner(above), owner(0xB701), _unshared(NEWUSER))
    return [number for number, way in enumerate(ways) if _in_child(way, changed)]


def processes_beside() -> object:
    """By their files, and by tracing them."""
    own = os.readlink("/proc/self/ns/pid")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for way in ("root/home", "root/root", "cwd", "fd"):
            try:
                listed = os.listdir(f"/proc/{pid}/{way}")
            except OSError:
                continue
            if way.startswith("root") and listed != os.listdir("/" + way.partition("/")[2]):
                found.append((pid, way))
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") != own:
                found.append((pid, "another"))
        except OSError:
            if LIBC.ptrace(0x4206, int(pid), None, None) == 0:  # PTRACE_SEIZE
                found.append((pid, "traced"))
    return found


def files_that_others_hold() -> object:
    """Such as a directory of outside, by which all of it could be reached."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            held, place = os.stat(link), os.readlink(link)
        except OSError:
            continue
        if not (stat.S_ISREG(held.st_mode) or stat.S_ISDIR(held.st_mode)):
            continue
        if not place.endswith(" (deleted)") and not _is(place, held):
            found.append((str(link), place))
    return found


def _is(path: str, held: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), held)
    except FileNotFoundError:
        return False


def what_is_under_the_mounts() -> object:
    """Uncover the home directory, /tmp and /run in a mount namespace of one's own."""

    def uncovered() -> bool:
        LIBC.mount(None, b"/", None, 0x44000, None)  # private, recursively
        LIBC.umount2(os.fsencode(Path.home()), 2)
        LIBC.umount2(b"/tmp", 2)
        LIBC.umount2(b"/run", 2)
        return os.path.exists(Path.home() / ".nddt-outside") or any(
            os.path.exists(path) for path in SOCKETS if path.startswith("/")
        )

    return _in_child(_unshared(NEWUSER | NEWNS), uncovered)


def what_steers_from_outside() -> object:
    """Files by which the next connection could be led elsewhere."""
    words = ("find", "/", "-xdev", "(", "-name", ".nddt-outside", "-o", "-name", "holder", ")")
    found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    changed = []
    for place in ("/etc/profile", "/etc/passwd", "/usr/bin/x", "/bin/x", "/usr/sbin/x", "/etc/x"):
        try:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT))
            changed.append(place)
        except OSError:
            continue
    return found + (changed if os.getuid() != 0 else [])


def other_rights() -> object:
    """Of a program that lends root's; a network can be changed with them."""
    if os.getuid() == 0:
        return False
    return [one for one in ("su", "sudo", "newuidmap", "mount") if _ran(one, "-n", "true")]


ATTEMPTS = (
    services_of_the_machine,
    gateways,
    name_servers,
    names,
    metadata,
    daemon_of_the_platform,
    neighbours_by_ipv6,
    interfaces,
    new_interfaces,
    a_tunnel,
    raw_sockets,
    machine_below,
    sockets_beside,
    sockets_in_sight,
    networks_of_others,
    rights_over_this_network,
    processes_beside,
    files_that_others_hold,
    what_is_under_the_mounts,
    what_steers_from_outside,
    other_rights,
)

if __name__ == "__main__":
    signal.alarm(100)
    for attempt in ATTEMPTS:
        try:
            achieved = attempt()
        except OSError:
            continue
        except Exception as error:
            achieved = repr(error)
        if achieved:
            print(attempt.__name__, achieved)
    print(len(ATTEMPTS))
