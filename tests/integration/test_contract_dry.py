"""`--dry` changes nothing, whatever the task: not here, not in a sandbox, not in what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER
from tests.test_documents import known

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.contract import Caller, Outside

KNOWN = known()
PLACES = {"SOURCE": "sandbox:inside.txt", "TARGET": "copied.txt", "HOST": "example.org"}
GIVEN = {"--prompt": "x y", "--command": "touch made", "--add": "3000", "--port": "3000"}
ACTING = ("--demo", "--yes", "--all", "--restore", "--install", "--images", "--persistent")
MORE = {"protected": ("--accept",), "trust": ("--revoke",), "ports": ("--remove=3000",)}


def lines() -> Iterator[tuple[str, ...]]:
    """Write each task so that it would change as much as it can."""
    for task, options in KNOWN.tasks.items():
        if task == "setup" or task.endswith("bootstrap-base"):
            yield (task, "--yes", "--dry")
            continue
        places = [PLACES[one.upper()] for one in KNOWN.places[task]]
        given = [f"{name}={value}" for name, value in GIVEN.items() if name in options]
        acting = [one for one in ACTING if one in options]
        yield (task, *places, *given, *acting, "--dry")
        if more := MORE.get(task):
            yield (task, *more, "--dry")


def state(*roots: Path) -> dict[str, tuple[int, int, bytes]]:
    """Read every file below some directories, with its time and mode."""
    return {
        str(one): (one.stat().st_mtime_ns, one.stat().st_mode, one.read_bytes())
        for root in roots
        for one in root.rglob("*")
        if one.is_file() and "nddt.log" not in one.name
    }


@ON_DOCKER
@pytest.mark.same_everywhere
def test_no_task_changes_anything(kept: Caller, outside: Outside, tmp_path: Path) -> None:
    """With a copy that both sides have changed, and a .env to agree to."""
    for name in ("home", "state", "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "home/.ssh").mkdir(mode=0o700)
    own = {f"XDG_{name.upper()}_HOME": str(tmp_path / name) for name in ("state", "cache")}
    caller = kept.having(HOME=str(tmp_path / "home"), NDDT_WORKSPACE="sync", **own)
    made = caller.make_sandbox()
    late = "setsid sh -c 'sleep 1; echo 1 >late.txt' >/dev/null 2>&1 </dev/null &"
    inside = caller("shell", "--name", made, "--command", f"echo 1 >inside.txt; {late}")
    assert inside.code == 0, inside.said
    (caller.directory / "outside.txt").write_text("new here")
    (caller.directory / ".env").write_text("NDDT_SUDO=true\n")
    look = (tmp_path, caller.directory)
    before, sandboxes = state(*look), outside.sandboxes()
    changed = []
    for words in lines():
        done = caller(*words)
        elsewhere = {77} if words[0].startswith("daytona.") else set()  # there is no key
        assert done.code in {0, 64} | elsewhere, (words, done.said)
        assert b"Traceback" not in done.stderr, done.said
        if state(*look) != before or outside.sandboxes() != sandboxes:
            changed.append(words)
            before, sandboxes = state(*look), outside.sandboxes()

    assert changed == []
    assert (caller("pull").code, (caller.directory / "late.txt").exists()) == (0, True)
    assert caller("cleanup", "--name", made, "--yes", "--discard").code == 0
