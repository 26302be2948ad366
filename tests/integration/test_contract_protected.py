"""Files that programs of this machine act on: a session that changes them is found out."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import Caller, Terminal, end, ended, eventually

if TYPE_CHECKING:
    from pathlib import Path

CHANGE = "mkdir .vscode; echo evil >.vscode/tasks.json; git config core.fsmonitor evil; "
CHANGED = (
    "nddt: programs of this machine can be made to run something by what was changed meanwhile: "
    ".git/config (changed), .vscode/tasks.json (added) — nddt protected shows it, "
    "nddt protected --restore undoes it\n"
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
    """Without a word about daily work; a hook is told of like all else."""
    caller = repository.having(NDDT_WORKSPACE="mount")
    daily = "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x; git branch other; "
    hook = "echo evil >.git/hooks/pre-commit"

    quiet = caller("shell", "--command", daily)
    hooked = caller("shell", "--command", hook)
    restored = caller("protected", "--restore")
    done = caller("shell", "--command", CHANGE)

    assert (quiet.code, quiet.said) == (0, "")
    assert ".git/hooks/pre-commit (added)" in hooked.said
    assert (hooked.code, restored.code) == (0, 0), hooked.said
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


LATER = (
    f"setsid -f sh -c 'until [ -e now ]; do sleep 0.1; done; {CHANGE} rm now' "
    "</dev/null >/dev/null 2>&1"
)
"""Goes on after the session, and acts when it is told to."""


def act(directory: Path) -> None:
    """Have what goes on in a sandbox act."""
    now = directory / "now"
    now.touch()
    assert eventually(lambda: not now.exists())


@ON_DOCKER
def test_what_goes_on_after_a_session(kept: Caller) -> None:
    """Is told of by the next command, whichever that is, and by the end of the sandbox."""
    subprocess.run(("git", "init", "-q"), cwd=kept.directory, check=True)
    first = kept("shell", "--command", LATER)
    act(kept.directory)

    listed = kept("list")

    assert (first.code, first.said, listed.code) == (0, "", 0)
    assert "by what went on in a sandbox or by yourself: .git/config (changed), " in listed.said
    assert ".vscode/tasks.json (added) — nddt protected shows it" in listed.said
    check_and_restore(kept)
    assert kept("list").said == ""
    assert kept("shell", "--command", LATER).said == ""
    act(kept.directory)
    name = listed.lines[-1].split()[0]
    stopped = kept.to(kept.directory.parent)("stop", "--name", name)
    assert ".vscode/tasks.json (added)" in stopped.said
    assert kept("list").said == ""
    check_and_restore(kept)


@ON_DOCKER
def test_programs_of_an_activated_environment(kept: Caller, tmp_path: Path) -> None:
    """What an agent puts first on PATH runs neither for its session nor for a later command."""
    own, ran = kept.directory / ".venv/bin", tmp_path / "ran"
    caller = kept.having(PATH=f"{own}:{kept.environ['PATH']}")
    names = "docker git gpg npm rsync ssh ssh-keygen tar"
    plant = (
        f"mkdir -p .venv/bin; cd .venv/bin; for one in {names}; do "
        f"printf '#!/bin/sh\necho $0 >>{ran}\nexit 1\n' >$one; chmod 755 $one; done"
    )

    planted = caller("shell", "--command", plant)
    again = caller("shell", "--command", "echo there")
    told = [caller(one) for one in ("list", "protected")]
    elsewhere = caller.to(tmp_path)("list")

    assert (own / "ssh").exists()
    assert (planted.code, again.stdout) == (0, b"there\n"), planted.said + again.said
    assert {one.code for one in (*told, elsewhere)} == {0}, [one.said for one in told]
    assert not ran.exists(), ran.read_text()


def test_what_is_copied_out(kept: Caller, tmp_path: Path) -> None:
    """A copy may hold such files wherever it goes."""
    target = tmp_path / "target"
    target.mkdir()
    assert kept("shell", "--command", "mkdir /tmp/x; echo evil >/tmp/x/.envrc").code == 0

    done = kept("cp", "sandbox:/tmp/x", str(target))

    assert (done.code, done.said.count("x/.envrc (added)")) == (0, 1)
