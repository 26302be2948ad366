"""Secrets while a run is going, and all the ways in which it can end."""

from __future__ import annotations

import shlex
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integration.contract import (
    GONE_S,
    KEY,
    Caller,
    Done,
    end,
    ended,
    eventually,
    process_list,
    processes,
)

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.integration.contract import Outside

ENDED_S = 8.0
"""How soon a client ends that was asked to; a sandbox in the cloud is deleted meanwhile."""
PATIENT = 'trap "echo asked to end; exit 9" TERM; echo started; while :; do sleep 0.1; done'
DEAF = 'trap "" TERM HUP INT; echo started; while :; do sleep 0.1; done'


def started(caller: Caller, *words: str) -> subprocess.Popen[bytes]:
    """Start a run and wait until its agent works."""
    running = caller.start("run", *(words or ("--prompt", "x")))
    assert running.stdout
    assert running.stdout.readline() == b"started\n", running.poll()
    return running


def is_gone(caller: Caller, outside: Outside) -> bool:
    """Tell whether no sandbox and no process of the caller's is left."""
    return not outside.sandboxes() and not processes(caller.runtime)


def files_of(caller: Caller) -> list[Path]:
    """List what is in the runtime directory."""
    return list(caller.runtime.rglob("*"))


# -- secrets --------------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", ["false", "true"])
def test_a_key_shows_nowhere_during_a_run(nddt: Caller, outside: Outside, persistent: str) -> None:
    """Not in what the provider tells, not in argument lists, not in files; but the agent has it."""
    caller = nddt.with_agent("echo started; echo $ANTHROPIC_API_KEY; sleep 100").having(
        ANTHROPIC_API_KEY=KEY, NDDT_PERSISTENT=persistent
    )

    with ended(started(caller)) as running:
        assert running.stdout
        assert f"{KEY}\n".encode() == running.stdout.readline()
        (name,) = outside.sandboxes()
        for place in (outside.visible(name), process_list(), *processes(caller.runtime).values()):
            assert KEY not in place
        files = files_of(caller)
        assert files
        for directory in (caller.runtime, *(path for path in files if path.is_dir())):
            assert directory.stat().st_mode & 0o777 == 0o700, directory
        assert not [path for path in files if path.is_file() and KEY.encode() in path.read_bytes()]
        running.terminate()
        running.communicate()

    if persistent == "true":
        inside = caller("shell", "--command", "grep -rls ANTHROPIC /dev/shm /tmp ~; env")
        assert KEY.encode() not in inside.stdout.replace(f"ANTHROPIC_API_KEY={KEY}".encode(), b"")
        assert caller("cleanup", "--name", name, "--yes").code == 0


# -- ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "agent"),
    [
        pytest.param("SIGTERM", DEAF, id="SIGTERM-deaf"),
        pytest.param("SIGHUP", PATIENT, id="SIGHUP-patient"),
        pytest.param("SIGINT", PATIENT, id="SIGINT-patient"),
        pytest.param("SIGTERM", PATIENT, id="SIGTERM-patient", marks=pytest.mark.exhaustive),
        pytest.param("SIGHUP", DEAF, id="SIGHUP-deaf", marks=pytest.mark.exhaustive),
        pytest.param("SIGINT", DEAF, id="SIGINT-deaf", marks=pytest.mark.exhaustive),
    ],
)
def test_a_signal_ends_the_run_and_the_agent(
    nddt: Caller, outside: Outside, name: str, agent: str
) -> None:
    """The exit code is 128 + n, and within 5 s nothing is left, whatever the agent does."""
    signum = signal.Signals[name]
    running = started(nddt.with_agent(agent).having(ANTHROPIC_API_KEY=KEY))

    running.send_signal(signum)
    before = time.monotonic()
    done = end(running)

    assert 128 + signum == done.code, done.said
    assert time.monotonic() - before < ENDED_S
    assert "Traceback" not in done.said
    assert is_gone(nddt, outside)
    assert not files_of(nddt)


@pytest.mark.parametrize("persistent", ["false", "true"])
def test_a_time_limit_ends_the_run(nddt: Caller, outside: Outside, persistent: str) -> None:
    """The exit code is that of timeout(1), and one line says so."""
    caller = nddt.with_agent(DEAF).having(ANTHROPIC_API_KEY=KEY, NDDT_PERSISTENT=persistent)

    done = caller("run", "--prompt", "x", "--timeout", "6")

    assert (done.code, len(done.said.splitlines())) == (124, 1), done.said
    assert "--timeout" in done.said
    if persistent == "true":
        (name,) = outside.sandboxes()
        left = caller("shell", "--command", "ps axo args | grep '[a]gent.sh'")
        assert (left.code, left.stdout) == (1, b"")
        assert caller("cleanup", "--name", name, "--yes").code == 0
    assert is_gone(nddt, outside)


def test_a_time_limit_is_for_copying_too(nddt: Caller, outside: Outside) -> None:
    """What was done stays in the sandbox, if it does not come back; and the limit says so."""
    stuck = "case $BASH_EXECUTION_STRING in *python3*) sleep 1000;; esac"
    stick = f"echo work >work; echo {shlex.quote(stuck)} >~/.bashrc"
    caller = nddt.with_agent(stick).having(
        ANTHROPIC_API_KEY=KEY, NDDT_WORKSPACE="sync", NDDT_PERSISTENT="true"
    )

    for when in ("pull", "push"):
        began = time.monotonic()
        done = caller("run", "--prompt", "x", "--timeout", "8")

        assert done.code == 124, done.said
        assert 7 < time.monotonic() - began < 60
        assert "the time limit of 8 s is over" in done.said
        (name,) = outside.sandboxes()
        left = f"is still there: the time limit is over — fetch it with: nddt pull --name {name}"
        assert (left in done.said) == (when == "pull"), done.said
    assert caller("cleanup", "--name", name, "--discard", "--yes").code == 0


HOLD = "head -c 300000 /dev/zero; head -c 100000 /dev/zero >&2; "
HOLDERS = {
    "stdout": HOLD + "sleep 300 2>/dev/null & exit 7",
    "both": HOLD + "setsid sleep 300 & exit 7",
    "of-all-sessions": f"{HOLD} for f in /proc/[0-9]*/fd/[0-9]*; do case $(readlink $f) in pipe:*) "
    "exec {n}>$f;; esac; done 2>/dev/null; setsid sleep 300 & exit 7",
}


@pytest.mark.parametrize(
    ("holder", "persistent"),
    [
        pytest.param(HOLDERS["of-all-sessions"], "true", id="of-all-sessions-true"),
        pytest.param(HOLDERS["both"], "false", id="both-false"),
        *(
            pytest.param(HOLDERS[name], kept, id=f"{name}-{kept}", marks=pytest.mark.exhaustive)
            for name, kept in (
                ("stdout", "false"),
                ("stdout", "true"),
                ("both", "true"),
                ("of-all-sessions", "false"),
            )
        ),
    ],
)
def test_what_holds_its_pipes_does_not_keep_a_run(
    nddt: Caller, outside: Outside, holder: str, persistent: str
) -> None:
    """It ends when its program has, with all that this has printed, and its code."""
    caller = nddt.with_agent("exit 7").having(ANTHROPIC_API_KEY=KEY, NDDT_PERSISTENT=persistent)
    began = time.monotonic()
    assert caller("run", "--prompt", "x").code == 7
    usual_s = time.monotonic() - began

    began = time.monotonic()
    done = caller.with_agent(holder)("run", "--prompt", "x")
    took_s = time.monotonic() - began

    assert (done.code, len(done.stdout), len(done.stderr)) == (7, 300_000, 100_000), done.said
    assert took_s < usual_s + 8
    if persistent == "true":
        (name,) = outside.sandboxes()
        assert caller("shell", "--command", "echo well").stdout == b"well\n"
        assert caller("cleanup", "--name", name, "--yes").code == 0
    assert eventually(lambda: is_gone(nddt, outside), GONE_S)


def test_a_slow_reader_gets_all_of_it(nddt: Caller) -> None:
    """Though something holds the program's pipes, and the program has ended long ago."""
    agent = "head -c 3000000 /dev/zero; sleep 300 & exit 7"
    caller = nddt.with_agent(agent).having(ANTHROPIC_API_KEY=KEY)
    with caller.start("run", "--prompt", "x") as running:
        assert running.stdout
        got = len(running.stdout.read(1000))
        time.sleep(3)
        while block := running.stdout.read(500_000):
            got += len(block)
            time.sleep(0.2)

    assert (running.returncode, got) == (7, 3_000_000)


def test_the_agents_group_ends_with_it(nddt: Caller, outside: Outside) -> None:
    """A background process of the agent keeps neither the run nor the sandbox."""
    agent = "sleep 1000 >/dev/null 2>&1 & echo done"

    done = nddt.with_agent(agent).having(ANTHROPIC_API_KEY=KEY)("run", "--prompt", "x")

    assert (done.code, done.stdout, done.stderr) == (0, b"done\n", b"")
    assert outside.is_gone(lambda: is_gone(nddt, outside))


@pytest.mark.parametrize(
    "next_command", [("list",), ("shell", "--command", "true")], ids=lambda words: words[0]
)
def test_nothing_outlives_a_killed_client(
    nddt: Caller, outside: Outside, next_command: tuple[str, ...]
) -> None:
    """5 s after SIGKILL nothing runs, and the next command removes the files."""
    caller = nddt.with_agent(DEAF).having(ANTHROPIC_API_KEY=KEY)
    running = started(caller)
    (name,) = outside.sandboxes()
    extras = set(outside.extras(name))

    running.kill()
    end(running)

    assert outside.is_gone(lambda: is_gone(nddt, outside)), processes(nddt.runtime)
    assert eventually(lambda: not extras & set(outside.existing_extras()))
    assert nddt(*next_command).code == 0
    assert not files_of(nddt)


@pytest.mark.parametrize(
    "name", ["SIGKILL", "SIGTERM", pytest.param("SIGINT", marks=pytest.mark.exhaustive)]
)
def test_a_signal_at_any_moment_leaves_nothing(nddt: Caller, outside: Outside, name: str) -> None:
    """Eight runs, each hit at another moment between its first 50 ms and its answer."""
    signum = signal.Signals[name]
    caller = nddt.with_agent(PATIENT).having(ANTHROPIC_API_KEY=KEY)

    def hit(number: int) -> Done:
        running = caller.start("run", "--prompt", "x")
        time.sleep(0.05 + 0.2 * number)  # the moment is what is tried here
        running.send_signal(signum)
        return end(running)

    with ThreadPoolExecutor(2) as pool:
        all_done = list(pool.map(hit, range(8)))

    assert outside.is_gone(lambda: is_gone(nddt, outside)), (
        outside.sandboxes(),
        processes(nddt.runtime),
    )
    # While it starts, Python itself dies of the signal, or of what it did to an import of its own.
    expected = {128 + signum, -signum} if name != "SIGKILL" else {-signum}
    others = [one for one in all_done if one.code not in expected]
    in_python = [one for one in others if one.code == 1 and b"init_import_site" in one.stderr]
    assert others == in_python
    assert nddt.with_agent("exit").having(ANTHROPIC_API_KEY=KEY)("run", "--prompt", "x").code == 0
    assert not files_of(nddt)


def test_a_killed_client_ends_the_agent_in_a_kept_sandbox(kept: Caller, outside: Outside) -> None:
    """The sandbox stays, the agent does not."""
    caller = kept.with_agent(DEAF).having(ANTHROPIC_API_KEY=KEY)
    with ended(started(caller)) as running:
        running.kill()
        running.communicate()

    def agents() -> bytes:
        return caller("shell", "--command", "ps axo args | grep '[a]gent.sh'; true").stdout

    assert eventually(lambda: not agents(), 2 * GONE_S)
    assert list(outside.sandboxes().values()) == ["running"]
