"""Copies that are made to agree: real directories, real rsync, random edits on both sides."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scripts import tree
from scripts.errors import CannotCreateError, DataError
from scripts.sync import Copies

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass
class Directory:
    """Another directory of this machine as the other copy; JSON in between, as with a sandbox."""

    root: Path
    wishes: list[Any] = field(default_factory=list)

    def ask(self, wish: Mapping[str, Any]) -> None:
        """Take a wish."""
        self.wishes.append(json.loads(json.dumps(wish)))

    def answer(self) -> Any:  # noqa: ANN401
        """Fulfil the oldest one."""
        return json.loads(json.dumps(tree.answer(str(self.root), self.wishes.pop(0))))

    def rsync(self, words: Sequence[str], *, source: str, target: str) -> tuple[str, ...]:
        """Copy between directories."""
        paths = (f"{self.root}/{p[1:]}" if p.startswith(":") else p for p in (source, target))
        return (*words, *paths)


@dataclass
class Both:
    """Two copies."""

    here: Path
    there: Path
    copies: Copies


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Two empty copies."""
    return made(tmp_path)


def made(base: Path) -> Both:
    """Make two empty copies."""
    here, there = base / "here", base / "there"
    here.mkdir()
    there.mkdir()
    copies = Copies(here=here, other=Directory(there), memory=base / "known.json")
    return Both(here, there, copies)


def contents(root: Path) -> dict[str, tuple[str, int, bytes]]:
    """Give all that is in a directory but what is ours."""
    found: dict[str, tuple[str, int, bytes]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.split("/", 1)[0] == ".nddt":
            continue
        if path.is_symlink():
            found[name] = ("l", 0, os.fsencode(path.readlink()))
        elif path.is_dir():
            found[name] = ("d", 0, b"")
        else:
            found[name] = ("f", path.stat().st_mode & 0o777, path.read_bytes())
    return found


def saved(root: Path) -> list[bytes]:
    """Give the contents of the conflicts that have been kept apart."""
    return [p.read_bytes() for p in (root / ".nddt/conflicts").rglob("*") if p.is_file()]


def test_all_kinds_of_things_go_there_and_back(both: Both) -> None:
    """Modes, links, empty directories, odd names; nothing else is left behind."""
    (both.here / "empty/deep").mkdir(parents=True)
    (both.here / "x.sh").write_text("#!/bin/sh\n")
    (both.here / "x.sh").chmod(0o755)
    (both.here / "link").symlink_to("x.sh")
    (both.here / "dangling").symlink_to("/nowhere")
    for name in (
        b"a b",
        b"-x",
        b"new\nline",
        b"#c",
        b";d",
        b"\xff\xfe",
        "ü".encode(),
        b"'q\"",
        b"*",
    ):
        Path(both.here, os.fsdecode(name)).write_bytes(name)
    (both.here / "big").write_bytes(os.urandom(700_000))
    (both.here / "closed").mkdir()
    (both.here / "closed/x").write_text("x")
    (both.here / "closed").chmod(0o555)

    report = both.copies.push()

    assert not report.failed
    assert contents(both.here) == contents(both.there)
    assert (both.there / "closed").stat().st_mode & 0o777 == 0o555
    assert not list(both.here.glob(".nddt"))
    assert [one.name for one in both.there.glob(".nddt/i*")] == ["id"]
    for path in list(both.there.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.parent.name != ".nddt":
            path.unlink()
    (both.there / "empty/deep").rmdir()
    (both.there / "fresh").write_text("new")
    report = both.copies.pull()
    assert not report.conflicts
    assert contents(both.here) == contents(both.there)
    assert (both.here / "fresh").read_text() == "new"
    assert both.copies.pull().changed == both.copies.push().changed == []


def test_ignored_files_stay_where_they_are(both: Both) -> None:
    """Those of .gitignore and .nddtignore; but what is tracked goes, and .git does."""
    subprocess.run(("git", "init", "-q", str(both.here)), check=True)
    (both.here / ".gitignore").write_text("*.log\n/build/\n")
    (both.here / ".nddtignore").write_text("secret*\n")
    (both.here / "sub").mkdir()
    (both.here / "sub/.gitignore").write_text("only-here\n")
    for name in ("a.log", "kept.log", "secret.txt", "sub/only-here", "sub/b.txt", "only-here"):
        (both.here / name).write_text(name)
    (both.here / "build").mkdir()
    (both.here / "build/out").write_text("out")
    git = ("git", "-C", str(both.here))
    subprocess.run((*git, "add", "-f", "kept.log"), check=True)

    both.copies.push()

    there = contents(both.there)
    assert {"kept.log", "sub/b.txt", "only-here", ".git/HEAD", ".git/index"} <= set(there)
    assert not {"a.log", "secret.txt", "sub/only-here", "build", "build/out"} & set(there)
    (both.there / "build").mkdir()
    (both.there / "build/other").write_text("theirs")
    # What becomes ignored has not been removed.
    (both.there / ".gitignore").write_text("*.log\n/build/\nsub\n")
    both.copies.pull()
    assert (both.here / "sub/b.txt").read_text() == "sub/b.txt"
    assert (both.here / "build/out").read_text() == "out"
    assert not (both.here / "build/other").exists()


@pytest.mark.parametrize("name", ["sub/my [1]*.env", ".env"])
def test_the_settings_stay_unless_they_are_tracked(both: Both, name: str) -> None:
    """They hold keys; where git has them anyway, a copy without them would look damaged."""
    path = both.here / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("KEY=secret")
    (both.here / "sub").mkdir(exist_ok=True)
    (both.here / "sub/.env").write_text("theirs")
    both.copies.private = name

    both.copies.push()

    assert not (both.there / name).exists()
    assert (both.there / "sub/.env").read_text() == "theirs"
    (both.there / name).write_text("the agent's")
    assert both.copies.pull().conflicts == [name]
    assert (path.read_text(), saved(both.here)) == ("KEY=secret", [b"the agent's"])
    subprocess.run(("git", "init", "-q", str(both.here)), check=True)
    subprocess.run(("git", "-C", str(both.here), "add", "-f", name), check=True)
    path.write_text("KEY=tracked")
    both.copies.push()
    assert (both.there / name).read_text() == "KEY=tracked"


def test_looking_at_a_repository_is_no_change(both: Both) -> None:
    """Git writes its index anew for nothing; only what is in it counts."""
    git = ("git", "-C", str(both.here), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(("git", "init", "-q", str(both.here)), check=True)
    (both.here / "a").write_text("1")
    subprocess.run((*git, "add", "."), check=True)
    subprocess.run((*git, "commit", "-qm", "one"), check=True)
    both.copies.push()
    for side in (both.here, both.there):
        os.utime(side / "a")
        subprocess.run(("git", "-C", str(side), "status"), check=True, capture_output=True)
    there = ("git", "-C", str(both.there), "-c", "user.name=a", "-c", "user.email=a@b")
    (both.there / "a").write_text("2")
    subprocess.run((*there, "commit", "-qam", "two"), check=True)

    report = both.copies.pull()

    assert not report.conflicts
    log = subprocess.run((*git, "log", "--format=%s"), check=True, capture_output=True)
    assert log.stdout == b"two\none\n"
    status = subprocess.run((*git, "status", "--short"), check=True, capture_output=True)
    assert status.stdout == b""


def test_a_conflict_keeps_both(both: Both) -> None:
    """What is here stays; the other is beside it, and is replaced when the next one is sent."""
    (both.here / "a").write_text("base")
    (both.here / "gone").write_text("base")
    both.copies.push()
    (both.here / "a").write_text("here")
    (both.there / "a").write_text("there")
    (both.here / "gone").unlink()
    (both.there / "gone").write_text("still wanted")

    report = both.copies.pull()

    assert report.conflicts == ["a", "gone"]
    assert (both.here / "a").read_text() == "here"
    assert (both.here / report.saved / "a").read_text() == "there"
    assert (both.here / report.saved / "gone").read_text() == "still wanted"
    assert both.copies.pull().conflicts == []
    both.copies.push()
    assert contents(both.here) == contents(both.there) == {"a": ("f", 0o644, b"here")}


def test_a_link_in_place_of_a_directory(both: Both) -> None:
    """What is in the directory has changed here: it stays, and replaces the link there."""
    (both.here / "c").mkdir()
    (both.here / "c/b").write_text("base")
    both.copies.push()
    shutil.rmtree(both.there / "c")
    (both.there / "c").symlink_to("elsewhere")
    (both.here / "c/b").write_text("here")

    report = both.copies.pull()

    assert "c" in report.conflicts
    assert (both.here / report.saved / "c").readlink() == Path("elsewhere")
    both.copies.push()
    assert contents(both.here) == contents(both.there)
    assert (both.here / "c/b").read_text() == "here"


def test_a_file_that_appears_meanwhile_is_not_overwritten(both: Both) -> None:
    """Such as an ignored one, at a place where the sandbox has made another."""
    (both.here / ".gitignore").write_text("x\n")
    (both.here / "x").write_text("mine")
    both.copies.push()
    (both.there / ".gitignore").write_text("")
    (both.there / "x").write_text("theirs")

    report = both.copies.pull()

    assert report.conflicts == ["x"]
    assert (both.here / "x").read_text() == "mine"
    assert saved(both.here) == [b"theirs"]


@pytest.mark.parametrize(
    "found",
    [
        {"../x": ["f", 420, "1 1 1 1"]},
        {"/etc/x": ["f", 420, "1 1 1 1"]},
        {"a/../../x": ["f", 420, "1 1 1 1"]},
        {".nddt/incoming/x": ["f", 420, "1 1 1 1"]},
        {"a": ["l", 0, "/etc"], "a/x": ["f", 420, "1 1 1 1"]},
        {"": ["d", 493, ""]},
        {"a\0": ["d", 493, ""]},
    ],
    ids=str,
)
def test_a_hostile_sandbox(both: Both, found: dict[str, list[Any]], monkeypatch: Any) -> None:  # noqa: ANN401
    """Cannot name a path elsewhere."""
    monkeypatch.setattr(Directory, "answer", lambda self: self.wishes.pop() and ["id", found])

    with pytest.raises(DataError, match="the sandbox has a file at"):
        both.copies.pull()
    assert not contents(both.here)


def test_another_sandbox_of_the_same_name(both: Both) -> None:
    """Has nothing in it, which is not to say that all has been removed."""
    (both.here / "a").write_text("1")
    both.copies.push()
    shutil.rmtree(both.there)
    both.there.mkdir()

    report = both.copies.pull()

    assert report.changed == []
    assert (both.here / "a").read_text() == "1"
    both.copies.push()
    assert (both.there / "a").read_text() == "1"


def test_a_copy_that_has_lost_its_identity(both: Both) -> None:
    """Is looked at anew: nothing is taken for removed, and what has changed here is sent."""
    (both.here / "a").write_text("1")
    (both.here / "b").write_text("1")
    both.copies.push()
    (both.there / ".nddt/id").unlink()
    (both.here / "a").write_text("here")

    report = both.copies.push()

    assert report.conflicts == ["a"]
    assert contents(both.here) == contents(both.there)
    assert (both.there / "a").read_text() == "here"
    assert saved(both.here) == [b"1"]


def test_what_is_ours_must_be_a_directory(both: Both, tmp_path: Path) -> None:
    """A link at its place, of a project that is somebody else's, leads nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (both.here / ".nddt").symlink_to(outside)
    (both.there / "a").write_text("1")

    with pytest.raises(NotADirectoryError):
        both.copies.pull()
    assert not list(outside.iterdir())
    assert not (both.here / "a").exists()


def test_a_link_here_leads_nowhere(both: Both, tmp_path: Path) -> None:
    """A directory that was replaced by a link is not written through."""
    (both.here / "d").mkdir()
    (both.here / "d/x").write_text("1")
    both.copies.push()
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(both.here / "d")
    (both.here / "d").symlink_to(outside)
    (both.there / "d/y").write_text("2")
    (both.there / "d/x").write_text("3")

    report = both.copies.pull()

    assert not list(outside.iterdir())
    assert report.failed or report.conflicts


# -- random trees, random edits ---------------------------------------------------------------

NAMES = ("a", "b", "c")
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(("here", "there")),
        st.sampled_from(("write", "write", "write", "remove", "mkdir", "link", "move", "chmod")),
        PATHS,
        PATHS,
        st.binary(max_size=3),
    ),
    max_size=8,
)


class Edits:
    """Makes edits, and notes every content that somebody has meant to keep."""

    def __init__(self, both: Both) -> None:
        self._both = both

    def make(self, edits: Sequence[tuple[str, str, str, str, bytes]]) -> None:
        """Make those that are possible."""
        for side, what, first, second, data in edits:
            root = self._both.here if side == "here" else self._both.there
            path, other = root / first, root / second
            try:
                self._edit(what, path, other, data)
            except (OSError, shutil.Error):
                continue

    @staticmethod
    def _edit(what: str, path: Path, other: Path, data: bytes) -> None:
        if what == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        elif what == "remove" and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif what == "remove":
            path.unlink()
        elif what == "mkdir":
            path.mkdir(parents=True)
        elif what == "link":
            path.symlink_to(os.fsdecode(data.hex()) or "x")
        elif what == "move":
            path.rename(other)
        elif what == "chmod":
            path.chmod(0o600 if path.is_file() else 0o755)


def versions(root: Path) -> dict[str, bytes]:
    """Give the regular files."""
    return {name: data for name, (kind, _, data) in contents(root).items() if kind == "f"}


@settings(
    max_examples=500,
    phases=(Phase.explicit, Phase.generate),  # to make a failing one small would take minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(first=EDITS, second=EDITS, third=EDITS, pushes=st.booleans())
def test_no_byte_is_lost(
    first: list[Any], second: list[Any], third: list[Any], *, pushes: bool
) -> None:
    """Whatever both sides do: each change survives here, there, or beside."""
    with (
        tempfile.TemporaryDirectory(prefix="nddt-") as base,
        patch.object(tree, "ignored", lambda *_: set()),  # not what is tried here, and slow
        patch.object(tree, "YOUNG_NS", 5_000_000),
    ):
        both = made(Path(base))
        edits = Edits(both)
        edits.make(first)
        both.copies.push()
        agreed = versions(both.here)
        for more in (second, third):
            edits.make(more)
            here, there = versions(both.here), versions(both.there)
            reports = [both.copies.push(), both.copies.pull()] if pushes else []
            reports += [both.copies.pull(), both.copies.push()]
            now, kept = versions(both.here), saved(both.here)
            assert not any(one.failed for one in reports), [one.failed for one in reports]
            for path, data in here.items():
                if agreed.get(path) != data:
                    assert now.get(path) == data, f"{path} of here is lost"
            for path, data in there.items():
                if agreed.get(path) != data:
                    assert now.get(path) == data or data in kept, f"{path} of there is lost"
            if not any(one.conflicts for one in reports):
                assert contents(both.here) == contents(both.there)
            agreed = now


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep this machine's git configuration out."""
    monkeypatch.setenv("HOME", str(tmp_path))


# -- faults -----------------------------------------------------------------------------------

_ACT = (
    "import sys; from pathlib import Path; from scripts.sync import Copies; "
    "from tests.test_sync import Directory; base = Path(sys.argv[1]); "
    "both = Copies(here=base / 'here', other=Directory(base / 'there'), "
    "memory=base / 'known.json'); getattr(both, sys.argv[2])()"
)


@pytest.mark.parametrize("act", ["push", "pull"])
def test_killed_anywhere(tmp_path: Path, act: str) -> None:
    """The next one completes what was begun, and nothing is lost."""
    random = Random(4)  # noqa: S311  (only to be different)
    for attempt in range(12):
        base = tmp_path / str(attempt)
        base.mkdir()
        both = made(base)
        source = both.here if act == "push" else both.there
        for number in range(300):
            (source / f"d{number % 7}").mkdir(exist_ok=True)
            (source / f"d{number % 7}/{number}").write_bytes(random.randbytes(2000))
        both.copies.push()
        both.copies.pull()
        for number in range(0, 300, 2):
            (source / f"d{number % 7}/{number}").unlink()
        for number in range(1, 300, 2):
            (source / f"d{number % 7}/{number}").write_bytes(random.randbytes(2000))
        wanted = contents(source)
        with subprocess.Popen(
            (sys.executable, "-c", _ACT, str(base), act), cwd=Path(__file__).parent.parent
        ) as running:
            with suppress(subprocess.TimeoutExpired):
                running.wait(0.15 + 0.04 * attempt)
            running.kill()

        report = getattr(both.copies, act)()

        assert not report.conflicts
        assert not report.failed
        assert contents(both.here) == contents(both.there) == wanted


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 1 MB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path))
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can make one")
    yield path
    subprocess.run(("umount", str(path)), check=True)


@pytest.mark.parametrize("full", ["here", "there"])
def test_no_room(tmp_path: Path, small: Path, full: str) -> None:
    """Is said; nothing is lost, and with room it goes on."""
    sides = {side: tmp_path / side for side in ("here", "there")}
    sides[full] = small / full
    for one in sides.values():
        one.mkdir()
    copies = Copies(
        here=sides["here"], other=Directory(sides["there"]), memory=tmp_path / "known.json"
    )
    other = sides["there" if full == "here" else "here"]
    (sides[full] / "mine").write_text("mine")
    copies.pull()
    copies.push()
    for number in range(4):
        (other / f"big{number}").write_bytes(os.urandom(400_000))
    act = copies.pull if full == "here" else copies.push

    with pytest.raises(CannotCreateError, match="there is no room"):
        act()

    assert (sides[full] / "mine").read_text() == "mine"
    assert len(list(other.glob("big*"))) == 4
    subprocess.run(("mount", "-o", "remount,size=9m", str(small)), check=True)
    report = act()
    assert not report.failed
    assert contents(sides["here"]) == contents(sides["there"])
