"""The text that leads behind the wall, run here where there is none to be made."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scripts.errors import UnavailableError
from scripts.providers.daytona import access
from scripts.transport import wall

NETWORK = "/proc/self/ns/net"
ARGUMENTS = ("", "a b", "it's", "$HOME", "-n", "\n")


def entered(home: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as it is run in a sandbox with this home."""
    environ = {**os.environ, "HOME": str(home), **variables}
    argv = ("/bin/sh", "-c", wall.ENTER, "nddt-wall", *command)
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


def test_without_the_wish_there_is_no_wall(tmp_path: Path) -> None:
    """The command is all that runs, with its arguments, its code and nothing left."""
    done = entered(tmp_path, "sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", *ARGUMENTS)

    assert (done.returncode, done.stdout) == (7, "".join(f"{one}|" for one in ARGUMENTS))
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    """Is a reason to run nothing."""
    (tmp_path / "file").write_text("")
    done = entered(tmp_path / "file", "echo", "ran", NDDT_APART="wanted")

    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.splitlines()[-1].startswith(wall.BROKEN)


def test_a_wall_that_was_there_is_not_done_without(tmp_path: Path) -> None:
    """Where it cannot be made again, as here, where no program of it is found."""
    (tmp_path / wall.OUTSIDE / "home").mkdir(parents=True)
    (tmp_path / wall.OUTSIDE / "holder").write_text(f"{os.getpid()} {Path(NETWORK).readlink()}\n")
    text = wall.ENTER.replace("bwrap", "there-is-no-such-program")
    environ = {**os.environ, "HOME": str(tmp_path), "NDDT_APART": "wanted"}

    argv = ("/bin/sh", "-c", text, "nddt-wall", "echo", "ran")
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (69, "")
    assert wall.BROKEN in done.stderr


def test_its_complaint_is_a_reason_to_stop_trying() -> None:
    """With what to do, and once."""
    with pytest.raises(UnavailableError, match="any more: bwrap: No — end what is in") as caught:
        access.explain(f"warning\n{wall.BROKEN}: bwrap: No\nmore")

    assert caught.value.is_final
