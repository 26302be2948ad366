"""A hostile program in a sandbox: it does not get out, and does not use this machine up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.machine import free_space
from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import Caller, end, ended

if TYPE_CHECKING:
    from tests.integration.contract import Outside

pytestmark = ON_DOCKER

HOSTILE = Path(__file__).parent / "hostile.py"
READONLY = {"NDDT_READONLY_ROOT": "true"}
BOMB = "f() { f | f & }; f; sleep 60"
MANY = """
import os, time
children = []
try:
    while len(children) < 1000:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
except BlockingIOError:
    print("no more")
for child in children:
    os.kill(child, 9)
print(len(children) < 100)
"""
FILL = """
import os, time
for number in range(64):
    with open(f"fill-{number}", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 256 << 20)
    time.sleep(0.1)
print("full")
"""


@pytest.mark.parametrize("settings", [{}, READONLY], ids=["plain", "readonly"])
def test_no_way_leads_out(
    nddt: Caller, tmp_path: Path, settings: dict[str, str], base: Path
) -> None:
    """Neither to the kernel's settings, devices and secrets nor to files, processes or engines."""
    (tmp_path / "secret").write_text("of this machine")
    shutil.copy(HOSTILE, nddt.directory / "program.py")
    words = f"python3 program.py {tmp_path}/secret {base}/home /root/.ssh/known_hosts"

    done = nddt.having(**settings)("shell", "--command", words)

    assert (done.stdout, done.said) == (b"24\n", "")


def test_processes_are_counted(nddt: Caller) -> None:
    """At the limit there are no more, and what waits for them goes on."""
    (nddt.directory / "many.py").write_text(MANY)

    done = nddt.having(NDDT_PIDS="100")("shell", "--command", "python3 many.py")

    assert (done.code, done.lines) == (0, ["no more", "True"]), done.said


def test_a_fork_bomb_harms_its_sandbox_alone(nddt: Caller, mine_name: str) -> None:
    """The engine and other sandboxes answer meanwhile, and its run can be ended."""
    words = ("shell", "--name", mine_name, "--command", f"echo up; exec 2>/dev/null; {BOMB}")

    with ended(nddt.having(NDDT_PIDS="200").start(*words)) as running:
        assert running.stdout
        assert running.stdout.readline() == b"up\n"
        other = nddt("shell", "--command", "echo works")
        running.terminate()
        end(running)

    assert (other.code, other.stdout) == (0, b"works\n"), other.said


def test_memory_ends_inside(nddt: Caller) -> None:
    """Of what takes too much, with the reason; swap is no way around it."""
    take = "python3 -c 'x = bytearray(3 << 30); print(len(x))'"
    limited = nddt.having(NDDT_MEMORY="1")

    killed = limited("shell", "--command", f"exec {take}")
    noticed = limited("shell", "--command", f"{take}; echo $?")

    assert (killed.code, killed.stdout) == (137, b"")
    assert killed.said == (
        "nddt: the sandbox ran out of memory — NDDT_MEMORY says how much it has\n"
    )
    assert (noticed.code, noticed.stdout) == (0, b"137\n")


def test_a_kill_for_another_reason_is_none_for_want_of_memory(nddt: Caller) -> None:
    """Nothing is said about memory then."""
    done = nddt("shell", "--command", "kill -9 $$")

    assert (done.code, done.said) == (137, "")


def test_a_disk_is_not_filled(kept: Caller, outside: Outside) -> None:
    """The session that would is ended while enough is left, and its sandbox stopped."""
    reserve = free_space.free(kept.directory) // free_space.GIB - 1
    (kept.directory / "fill.py").write_text(FILL)

    done = kept.having(NDDT_DISK_RESERVE=str(reserve))("shell", "--command", "python3 fill.py")

    (name,) = outside.sandboxes()
    taken = sum(one.stat().st_size for one in kept.directory.iterdir())
    assert (done.code, done.stdout) == (73, b""), done.said
    stopped, why = done.said.splitlines()[-2:]
    assert stopped == f"nddt: sandbox {name} is stopped"
    assert why.startswith(f"nddt: less than {reserve}.0 GiB is free on the disk of /"), why
    assert taken < 12 * free_space.GIB
    assert '"state": "stopped"' in kept("list", "--json").stdout.decode()
    for one in kept.directory.iterdir():
        one.unlink()
    assert kept("cleanup", "--all", "--yes").code == 0


def test_a_root_that_cannot_be_changed(kept: Caller, outside: Outside, tmp_path: Path) -> None:
    """All that is the user's can; with a kept connection, copies, and nothing left in the end."""
    caller = kept.having(**READONLY)
    (tmp_path / "file").write_text("in\n")
    look = (
        "for d in / /etc /usr/bin /opt; do touch $d/new 2>/dev/null && echo $d; done; "
        'for d in ~ /tmp /var/tmp /workspace; do echo "echo ran $d" >$d/it; sh $d/it; done; '
        "cp ~/../tmp/it /tmp/run; chmod +x /tmp/run; stat -c %a ~ /tmp; tmux -V >/dev/null"
    )

    first = caller("shell", "--command", look)
    copied = caller("cp", str(tmp_path / "file"), "sandbox:/tmp/")
    second = caller("shell", "--command", "cat /tmp/file ~/it; git init -q ~/r && echo git")
    (name,) = outside.sandboxes()
    extras = set(outside.extras(name))
    stopped = caller("stop")
    third = caller("shell", "--command", "cat ~/it")

    homes = [line.rpartition("/")[2] for line in first.lines[:4]]
    assert homes == ["root" if "/root" in first.lines[0] else "nddt", "tmp", "tmp", "workspace"]
    assert [copied.code, stopped.code, third.code] == [0, 0, 0], copied.said
    assert second.lines[0] == "in"
    assert second.lines[-1] == "git"
    assert third.stdout.startswith(b"echo ran")
    assert extras
    assert caller("cleanup", "--all", "--yes").code == 0
    assert not extras & set(outside.existing_extras())


def test_what_was_made_without_a_limit_is_made_anew(kept: Caller) -> None:
    """A sandbox has the limits that it was made with."""
    name = kept.make_sandbox()

    done = kept.having(NDDT_PIDS="50")("shell", "--command", "true")

    problem = f"sandbox {name} has more than is allowed now: NDDT_PIDS (environment)"
    assert (done.code, done.said) == (69, f"nddt: {problem} — --yes makes it anew\n")
