"""Files that programs of this machine act on: a session that changes them is found out."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import Caller, Terminal, end, ended

if TYPE_CHECKING:
    from pathlib import Path

CHANGE = "mkdir .vscode; echo evil >.vscode/tasks.json; git config core.fsmonitor evil; "
CHANGED = (
    "nddt: programs of this machine can be made to run something by what was changed meanwhile: "
    ".git/config (changed), .vscode/tasks.json (added) — inv protected shows it, "
    "inv protected --restore undoes it\n"
)


@pytest.fixture
def repository(nddt: Caller) -> Caller:
    """Somebody in a new repository, with a copy of it in the sandbox."""
    subprocess.run(("git", "init", "-q"), cwd=nddt.directory, check=True)
    return nddt.having(NDDT_WORKSPACE="sync")


def check_and_restore(caller: Caller) -> None:
    """Look at the differences, and undo them."""
    shown = caller("protected")
    restored = caller("protected", "--restore")

    assert (shown.code, restored.code, restored.said) == (0, 0, "")
    assert "+\tfsmonitor = evil" in shown.lines
    assert "+evil" in shown.lines
    assert not (caller.directory / ".vscode/tasks.json").exists()
    assert "evil" not in (caller.directory / ".git/config").read_text()
    assert caller("protected").stdout == b""


def test_in_a_copy(repository: Caller) -> None:
    """What comes back of a copy is brought back like all else, and told of."""
    done = repository("shell", "--command", CHANGE)

    assert (done.code, done.said) == (0, CHANGED)
    check_and_restore(repository)


@ON_DOCKER
def test_in_the_directory_itself(repository: Caller) -> None:
    """Without a word about daily work; and hooks cannot be changed at all."""
    caller = repository.having(NDDT_WORKSPACE="mount")
    daily = "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x; git branch other; "
    hook = "echo evil >.git/hooks/pre-commit"

    quiet = caller("shell", "--command", daily)
    refused = caller("shell", "--command", hook)
    done = caller("shell", "--command", CHANGE)

    assert (quiet.code, quiet.said) == (0, "")
    assert refused.code != 0
    assert "Read-only file system" in refused.said
    assert (done.code, done.said) == (0, CHANGED)
    check_and_restore(caller)


@ON_DOCKER
def test_when_it_is_ended(repository: Caller) -> None:
    """It is told of, too, and nobody is asked."""
    caller = repository.having(NDDT_WORKSPACE="mount")
    words = ("shell", "--command", f"{CHANGE} echo done; sleep 100")

    with ended(caller.start(*words)) as running:
        assert running.stdout
        assert running.stdout.readline() == b"done\n"
        running.terminate()
        done = end(running)

    assert CHANGED in done.said
    check_and_restore(caller)


@ON_DOCKER
def test_at_a_terminal(repository: Caller) -> None:
    """The difference is shown, and restored at a yes."""
    caller = repository.having(NDDT_WORKSPACE="mount")

    with Terminal(caller, "shell", "--command", CHANGE) as terminal:
        assert terminal.shows("Restore them?"), terminal.text
        assert terminal.shows("fsmonitor = evil")
        terminal.type("y\n")
        assert terminal.code() == 0

    assert not (caller.directory / ".vscode/tasks.json").exists()
    assert caller("protected").stdout == b""


@ON_DOCKER
def test_what_is_copied_out(kept: Caller, tmp_path: Path) -> None:
    """A copy may hold such files wherever it goes."""
    target = tmp_path / "target"
    target.mkdir()
    assert kept("shell", "--command", "mkdir /tmp/x; echo evil >/tmp/x/.envrc").code == 0

    done = kept("cp", "sandbox:/tmp/x", str(target))

    assert (done.code, done.said.count("x/.envrc (added)")) == (0, 1)
