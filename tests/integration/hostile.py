"""A program that tries to get out of a sandbox, in which it runs as its user.

It prints what it has achieved, one thing a line, and at last how many things it has tried.
Nothing of it does harm where it succeeds. Its arguments are paths outside that it must not reach.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {"add_key": 248, "bpf": 321, "finit_module": 313, "kexec_load": 246},
    "aarch64": {"add_key": 217, "bpf": 280, "finit_module": 273, "kexec_load": 104},
}[platform.machine()]
SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/sys/fs/cgroup/cgroup.procs",
)
SECRETS = ("/proc/kcore", "/dev/mem", "/dev/kmsg", "/proc/keys", "/proc/timer_list")
OUTSIDE = ("/var/run/docker.sock", "/run/containerd", "/var/lib/docker", "/run/podman")
DEVICES = {"console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"}
SCRATCH = Path("/tmp", f"hostile-{os.getpid()}")


def call(name: str, *arguments: object) -> bool:
    """Make a system call; give whether the kernel let it, whatever it thought of its arguments."""
    ctypes.set_errno(0)
    found = LIBC.syscall(NUMBERS[name], *arguments)
    return bool(found >= 0) or ctypes.get_errno() not in {1, 38}  # EPERM, ENOSYS


def opens(path: str | Path, flags: int) -> bool:
    os.close(os.open(path, flags))
    return True


def mount() -> object:
    return any(
        LIBC.mount(b"none", str(SCRATCH).encode(), kind, 0, None) == 0
        for kind in (b"tmpfs", b"proc", b"sysfs", b"cgroup", b"cgroup2")
    )


def remount_of_what_is_read_only() -> object:
    return LIBC.mount(None, b"/proc/sys", None, 0x20 | 0x1000, None) == 0


def disk_of_the_machine() -> object:
    """Make the device under /etc/hosts, which is a file of the machine's, and read from it."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    number = next(line.split()[2] for line in lines if " /etc/hosts " in line)
    major, minor = map(int, number.split(":"))
    os.mknod(SCRATCH / "disk", stat.S_IFBLK | 0o600, os.makedev(major, minor))
    return opens(SCRATCH / "disk", os.O_RDONLY)


def memory_of_the_machine() -> object:
    os.mknod(SCRATCH / "mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return opens(SCRATCH / "mem", os.O_RDONLY)


def other_devices() -> object:
    known = {f"/dev/{name}" for name in DEVICES}
    for parent, _, names in os.walk("/dev"):
        for path in (os.path.join(parent, name) for name in names):
            mode = os.lstat(path).st_mode
            is_device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
            if is_device and path not in known and not parent.startswith("/dev/pts"):
                return path
    return False


def settings_of_the_kernel() -> object:
    found = [*SETTINGS, *map(str, Path("/sys/fs/cgroup").glob("*/release_agent"))]
    return [path for path in found if os.path.exists(path) and _refused(path, os.O_WRONLY) is None]


def secrets_of_the_kernel() -> object:
    return [path for path in SECRETS if os.path.exists(path) and _reads(path)]


def _refused(path: str, flags: int) -> OSError | None:
    try:
        opens(path, flags)
    except OSError as error:
        return error
    return None


def _reads(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1)
    except OSError:
        return b""


def module() -> object:
    return call("finit_module", -1, b"", 0)


def another_kernel() -> object:
    return call("kexec_load", 0, 0, None, 0)


def program_in_the_kernel() -> object:
    return call("bpf", 0, None, 0)


def keyring() -> object:
    return call("add_key", b"user", b"hostile", b"x", 1, -4)


def file_by_its_number() -> object:
    """Open the root of a file system by its inode, past all directories (CVE-2014-9357's way)."""
    handle = ctypes.create_string_buffer(bytes([8, 0, 0, 0, 1, 0, 0, 0, 2] + [0] * 7))
    directory = os.open("/etc/hosts", os.O_RDONLY)
    return LIBC.open_by_handle_at(directory, handle, os.O_RDONLY) >= 0


def processes_of_others() -> object:
    own = os.readlink("/proc/self/ns/pid")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") != own:
                return pid
        except OSError:
            continue
    return False


def tracing_of_others() -> object:
    """Seize a process of another user, in the sandbox itself, which does not stop it."""
    others = [
        int(pid)
        for pid in filter(str.isdigit, os.listdir("/proc"))
        if os.path.exists(f"/proc/{pid}") and os.stat(f"/proc/{pid}").st_uid != os.getuid()
    ]
    return [pid for pid in others if LIBC.ptrace(0x4206, pid, None, None) == 0]


def privilege_of_a_program() -> object:
    """Start one that lends root's rights, and see whose it has got."""
    if os.getuid() == 0:
        return "NoNewPrivs:\t1" not in Path("/proc/self/status").read_text()
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(("su",), stdin=pipe, stdout=nothing, stderr=nothing) as started:
        time.sleep(0.3)  # the kernel has said that it has started before it gives the rights
        lines = Path(f"/proc/{started.pid}/status").read_text().splitlines()
    return f"Uid:\t{os.getuid()}\t{os.getuid()}" not in "\n".join(lines)


def raw_sockets() -> object:
    made = []
    for family, kind, protocol in ((2, 3, 1), (17, 3, 0x300)):
        try:
            made.append(socket.socket(family, kind, protocol))
        except OSError:
            continue
    return made


def namespaces() -> object:
    """New ones, in which there would be privileges; each try in a process of its own."""

    def makes(flag: int) -> bool:
        child = os.fork()
        if child == 0:
            os._exit(LIBC.unshare(flag) != 0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    flags = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000}
    return [name for name, flag in flags.items() if makes(flag)]


def clock() -> object:
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return True


def name_of_the_machine() -> object:
    socket.sethostname("hostile")
    return True


def better_priority() -> object:
    os.nice(-1)
    return True


def higher_limit() -> object:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return LIBC.setrlimit(7, (ctypes.c_ulong * 2)(hard, hard + 1)) == 0


def engine() -> object:
    return [path for path in OUTSIDE if os.path.exists(path) and not os.path.islink(path)]


def files_outside() -> object:
    """By their names, by links to them, and upwards from what is shown."""
    found = []
    for number, path in enumerate(sys.argv[1:]):
        link = Path(f"/workspace/link-{number}")
        link.symlink_to(path)
        ways = [path, str(link), f"/workspace/../../../..{path}", f"/proc/1/root{path}"]
        found += [way for way in ways if os.path.exists(way)]
        try:
            os.link(path, f"/workspace/hard-{number}")
            found.append("hard link")
        except OSError:
            pass
        link.unlink()
    return found


def way_out_of_chroot() -> object:
    """By a directory that is kept open, upwards to the real root."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    code = 1
    try:
        root = os.open("/", os.O_RDONLY)
        os.chroot(SCRATCH)
        os.fchdir(root)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        code = not any(os.path.exists(path) for path in sys.argv[1:])
    finally:
        os._exit(code)


ATTEMPTS = (
    mount,
    remount_of_what_is_read_only,
    disk_of_the_machine,
    memory_of_the_machine,
    other_devices,
    settings_of_the_kernel,
    secrets_of_the_kernel,
    module,
    another_kernel,
    program_in_the_kernel,
    keyring,
    file_by_its_number,
    processes_of_others,
    tracing_of_others,
    privilege_of_a_program,
    raw_sockets,
    namespaces,
    clock,
    name_of_the_machine,
    better_priority,
    higher_limit,
    engine,
    files_outside,
    way_out_of_chroot,
)

if __name__ == "__main__":
    SCRATCH.mkdir()
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
