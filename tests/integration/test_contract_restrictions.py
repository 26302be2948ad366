"""What is taken away from a kept sandbox is taken away, or nothing runs in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.contract import Caller, Outside

TOUCH = ("shell", "--command", "touch /workspace/touched; echo ran")


def check_refused(caller: Caller, name: str, words: tuple[str, ...], setting: str) -> None:
    """Check that a command says which setting forbids it and how it goes on, and does nothing."""
    done = caller(*words)

    assert (done.code, done.stdout) == (69, b""), (words, setting, done.said)
    line = done.said.splitlines()[-1]
    assert line.startswith(f"nddt: sandbox {name} has more than is allowed now: {setting} (")
    assert "anew" in line


@ON_DOCKER
def test_what_runs_in_a_sandbox_that_has_more(kept: Caller, tmp_path: Path) -> None:
    """Is refused, whatever it is, and however warm the connection; with less to say it goes on."""
    name = kept.make_sandbox()
    assert kept("shell", "--command", "true").code == 0
    readonly = kept.having(NDDT_WORKSPACE_READONLY="true")
    once = readonly.having(NDDT_PERSISTENT="false")

    for words in (
        *(TOUCH, ("run", "--demo", "--prompt=x"), ("shell", "--name", name, "--command", "true")),
        *(("cp", "sandbox:/etc/hostname", str(tmp_path)), ("ports",), ("--pipe", name)),
    ):
        check_refused(readonly, name, words, "NDDT_WORKSPACE_READONLY")
    check_refused(once, name, TOUCH, "NDDT_WORKSPACE_READONLY")
    with Terminal(once, "attach") as terminal:
        assert terminal.code() == 69
        assert terminal.shows("more than is allowed now: NDDT_WORKSPACE_READONLY"), terminal.text
    with Terminal(readonly, *TOUCH) as terminal:
        assert terminal.shows("Make it anew?")
        terminal.type("n\n")
        assert terminal.code() == 69
    assert list(kept.directory.iterdir()) == []
    assert kept.having(NDDT_PIDS="0")(*TOUCH).stdout == b"ran\n"
    assert readonly("shell", "--command", "touch x", "--yes").code == 1


@ON_DOCKER
def test_each_restriction(kept: Caller, tmp_path: Path) -> None:
    """Counts by itself, for a stopped sandbox, too, which is not started."""
    shown = f"{tmp_path}:/shown"
    name = kept.having(NDDT_MOUNTS=shown).make_sandbox()
    assert kept("stop").code == 0
    for setting, value in (
        *(("NDDT_READONLY_ROOT", "true"), ("NDDT_PIDS", "50"), ("NDDT_MEMORY", "1")),
        *(("NDDT_CPUS", "1"), ("NDDT_NETWORK", "allowlist"), ("NDDT_MOUNTS", f"{shown}:ro")),
        *(("NDDT_MOUNTS", f"{tmp_path}:/other"), ("NDDT_WORKSPACE", "none")),
    ):
        caller = kept.having(**{"NDDT_NAME": name, "NDDT_MOUNTS": shown, setting: value})
        check_refused(caller, name, TOUCH, setting)
    check_refused(kept, name, TOUCH, "NDDT_MOUNTS")
    check_refused(kept, name, ("cp", "sandbox:/etc/hostname", str(tmp_path / "x")), "NDDT_MOUNTS")


def test_a_network_and_a_limit(kept: Caller, outside: Outside, tmp_path: Path) -> None:
    """Are taken away at each provider, as long as a connection is kept and when it is not."""
    name = kept.make_sandbox()
    assert kept("shell", "--command", "true").code == 0
    copy = ("cp", "sandbox:/etc/hostname", str(tmp_path / "x"))
    for words in (TOUCH, copy, ("--pipe", name), ("run", "--demo", "--prompt=x")):
        check_refused(kept.having(NDDT_NETWORK="none"), name, words, "NDDT_NETWORK")
    assert kept("stop").code == 0
    for words in (TOUCH, copy):
        check_refused(kept.having(NDDT_MEMORY="1"), name, words, "NDDT_MEMORY")
    assert outside.sandboxes()[name] != "running"
    assert kept(*copy).code == 0
    said = kept.having(NDDT_MEMORY="1")("config", "--security").lines[-1]
    assert said.startswith("kept sandbox ")
    assert "the one that is there has more; " in said
    assert said.endswith("  NDDT_MEMORY")
    assert "kept sandbox" not in kept("config", "--security").stdout.decode()
