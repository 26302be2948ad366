"""What a session brings along: added up, and unpacked by a real shell."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from scripts.contracts.provisions import File, Provision
from scripts.run import background
from scripts.transport.forwards import SamePort

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def unpacked(provision: Provision, home: Path) -> Path:
    """Unpack in a home directory, and give the session's directory."""
    home.mkdir(exist_ok=True)
    session = home.parent / "one.d"
    subprocess.run(
        ("sh", "-eu"),
        input=provision.unpack().encode(),
        env={"HOME": str(home), "NDDT_SESSION": str(session), "PATH": os.environ["PATH"]},
        check=True,
    )
    return session


def test_nothing() -> None:
    """Is what a session has that brings nothing along."""
    assert Provision().unpack() == ":"


def test_sum() -> None:
    """Has all of both; of one name, the second's."""
    port = SamePort("localhost", 1)
    one = Provision(
        forwards=(port,), variables={"A": "1", "B": "1"}, before=("a",), system_prompt_lines=("x",)
    )
    two = Provision(
        forwards=(port,), variables={"B": "2"}, secret=frozenset("B"), before=("b",), after=("c",)
    )

    both = one + two

    assert both.forwards == (port,)
    assert both.variables == {"A": "1", "B": "2"}
    assert both.secret == {"B"}
    assert both.before + both.after == ("a", "b", "c")
    assert both.system_prompt_lines == ("x",)


def test_what_runs_on_this_machine() -> None:
    """Begins in order, and ends in reverse, also if the session fails."""
    events = []

    @contextmanager
    def serve(name: str) -> Iterator[None]:
        events.append(f"{name} begins")
        try:
            yield
        finally:
            events.append(f"{name} ends")

    both = Provision(background_services=(partial(serve, "a"),)) + Provision(
        background_services=(partial(serve, "b"),)
    )
    with suppress(KeyError), background.running(both.background_services):
        events.append("session")
        raise KeyError

    assert events == ["a begins", "b begins", "session", "b ends", "a ends"]


def test_files_of_the_home_directory(tmp_path: Path) -> None:
    """Take the place of what is there, also of a link, and leave the rest."""
    home = tmp_path / "home"
    (home / ".claude").mkdir(parents=True)
    (home / ".claude" / "other").write_text("stays")
    (tmp_path / "elsewhere").write_text("stays")
    (home / ".gitconfig").symlink_to(tmp_path / "elsewhere")

    files = {
        ".gitconfig": File(content=b"[user]\n"),
        ".claude/a b/c": File(content=bytes(range(256)) * 400, mode=0o755),
    }
    unpacked(Provision(files=files, before=('echo "$HOME" >$HOME/ran',)), home)

    assert (tmp_path / "elsewhere").read_text() == "stays"
    assert (home / ".gitconfig").read_bytes() == b"[user]\n"
    assert (home / ".gitconfig").stat().st_mode & 0o777 == 0o600
    assert (home / ".claude/a b/c").read_bytes() == files[".claude/a b/c"].content
    assert (home / ".claude/a b/c").stat().st_mode & 0o777 == 0o755
    assert (home / ".claude/other").read_text() == "stays"
    assert (home / "ran").exists()


def test_files_of_the_session(tmp_path: Path) -> None:
    """Are in a directory of its own."""
    session = unpacked(
        Provision(files={"session/gpg/pubring": File(content=b"x")}), tmp_path / "home"
    )

    assert (session / "gpg/pubring").read_bytes() == b"x"
    assert session.stat().st_mode & 0o777 == 0o700
    assert not list((tmp_path / "home").iterdir())
