"""Copies that are not what the last exchange left: nothing here goes for their sake."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from scripts.workspace.copies import mark, names_apart
from tests.workspace.test_exchange import Both, contents, forget, home, made, saved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["home"]


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Two empty copies."""
    return made(tmp_path)


def write(root: Path, **files: str) -> None:
    """Write files."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(root: Path, *words: str) -> str:
    """Have git do something."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ("git", "-C", root, *who, *words), check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def disk(both: Both, home: Path, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Keep the sandbox's disk as it is now, and return what brings that back."""
    kept = tmp_path / "backup"

    def restore() -> None:
        if not kept.exists():
            shutil.copytree(both.there, kept / "tree", symlinks=True)
            shutil.copytree(home, kept / "home", symlinks=True)
            return
        for place, name in ((both.there, "tree"), (home, "home")):
            shutil.rmtree(place)
            shutil.copytree(kept / name, place, symlinks=True)

    yield restore
    assert kept.exists()


# -- a disk that comes back from an earlier time ----------------------------------------------


@pytest.mark.parametrize("newer", ["of the sandbox", "of the user"])
def test_an_earlier_disk_replaces_nothing(both: Both, disk: Callable[[], None], newer: str) -> None:
    """Whoever has written what is newer: it stays, and goes there again."""
    write(both.here, a="old", same="same", dir__b="old")
    both.copies.push()
    disk()
    write(both.there if newer == "of the sandbox" else both.here, a="new", dir__b="new", c="new")
    both.copies.push()
    both.copies.pull()
    assert both.here.joinpath("a").read_text() == "new"
    disk()

    report = both.copies.pull()

    assert (report.is_strange, report.changed) == (True, [])
    assert sorted(report.conflicts) == ["a", "dir/b"]
    assert contents(both.here)["c"][2] == b"new"
    assert sorted(saved(both.here)) == [b"old", b"old"]
    both.copies.push()
    assert contents(both.here) == contents(both.there)
    assert both.copies.pull().is_strange is False


def test_an_earlier_disk_takes_nothing_back(both: Both, disk: Callable[[], None]) -> None:
    """What has been made since then is not taken for deleted there."""
    write(both.here, a="1")
    both.copies.push()
    disk()
    write(both.there, made="by the agent", dir__made="by the agent")
    both.copies.pull()
    disk()

    both.copies.pull()

    assert contents(both.here)["dir/made"][2] == b"by the agent"
    both.copies.push()
    assert contents(both.there)["made"][2] == b"by the agent"


def test_another_machines_exchange_is_no_earlier_disk(both: Both, tmp_path: Path) -> None:
    """Each of those that have the copy in common knows its own last one."""
    write(both.here, a="1")
    both.copies.push()
    (tmp_path / "second").mkdir()
    second = made(tmp_path / "second")
    second.copies.other = both.copies.other
    second.copies.pull()
    write(second.here, b="2")
    second.copies.push()

    report = both.copies.pull()

    assert (report.is_strange, report.changed) == (False, ["b"])


@pytest.mark.parametrize("count", [0, 3, 2 * mark.EXCHANGES])
def test_only_so_many_exchanges_are_remembered(tmp_path: Path, count: int) -> None:
    """The last ones."""
    root = str(tmp_path)
    mark.look_up_identity(root, "me", "")
    for number in range(count):
        mark.note_exchange(root, f"{number:08x}")

    assert mark.look_up_identity(root, "other", f"{count - 1:08x}") == ("me", count > 0)
    assert mark.look_up_identity(root, "other", f"{0:08x}") == ("me", 0 < count <= mark.EXCHANGES)


def test_a_mark_where_there_is_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both
) -> None:
    """Lies in the tree, where git does not see it."""
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    git(both.here, "init", "-q")
    write(both.here, a="1")
    both.copies.push()
    write(both.there, a="2")

    assert both.copies.pull().changed == ["a"]
    assert git(both.there, "status", "--porcelain") == "?? a"


# -- a tree that was emptied ------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 9])
@pytest.mark.parametrize("is_agreed", [False, True])
def test_most_of_a_tree_is_not_deleted_unasked(both: Both, left: int, *, is_agreed: bool) -> None:
    """By a clean-up inside, or by a disk that came back empty."""
    write(both.here, **{f"dir__{number}": "x" for number in range(20)})
    both.copies.push()
    for path in sorted(both.there.joinpath("dir").iterdir())[left:]:
        path.unlink()
    asked: list[int] = []

    def may_delete(count: int) -> bool:
        asked.append(count)
        return is_agreed

    report = both.copies.pull(may_delete)

    assert asked == [20 - left]
    assert report.lost == (0 if is_agreed else 20 - left)
    assert len(list(both.here.joinpath("dir").iterdir())) == (left if is_agreed else 20)
    assert both.copies.pull(may_delete).lost == report.lost


def test_the_repository_itself_stays(both: Both) -> None:
    """Whoever empties the root takes `.git` along, in which work may be that is nowhere else."""
    git(both.here, "init", "-q")
    write(both.here, a="1")
    git(both.here, "add", "a")
    git(both.here, "commit", "-qm", "work")
    both.copies.push()
    for path in both.there.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    assert both.copies.pull(lambda _: False).lost
    assert git(both.here, "log", "--format=%s") == "work"


def test_what_was_moved_is_not_asked_about(both: Both) -> None:
    """A directory that is called otherwise now, and some files that were deleted."""
    write(both.here, **{f"old__{number}": str(number) for number in range(30)})
    both.copies.push()
    both.there.joinpath("old").rename(both.there / "new")
    for number in range(5):
        both.there.joinpath("new", str(number)).unlink()

    assert both.copies.pull(lambda _: False).lost == 0
    assert sorted(path.name for path in both.here.iterdir()) == ["new"]


@pytest.mark.parametrize("how", ["git clean -fdx", "rm -rf ./* ./.??*"])
def test_a_clean_up_takes_no_mark_along(both: Both, how: str) -> None:
    """Deletions still come back after it."""
    git(both.here, "init", "-q")
    write(both.here, **dict.fromkeys("abcdefgh", "x"))
    git(both.here, "add", ".")
    both.copies.push()
    subprocess.run(("sh", "-c", how), cwd=both.there, check=True)
    if "git" in how:
        both.there.joinpath("a").unlink()

    report = both.copies.pull()

    assert not report.is_strange
    assert not both.here.joinpath("a").exists()


def test_a_mark_that_is_gone_is_said(both: Both) -> None:
    """Nothing is deleted then."""
    write(both.here, a="1", b="1")
    both.copies.push()
    forget(both.there)
    both.there.joinpath("b").unlink()

    assert both.copies.pull().is_strange
    assert both.here.joinpath("b").exists()


# -- names ------------------------------------------------------------------------------------

TWINS = [
    pytest.param("Makefile", "makefile", names_apart._folded, id="case"),
    pytest.param("dir/É", "dir/é", names_apart._folded, id="case of another letter"),
    pytest.param("caf\u00e9", "cafe\u0301", names_apart._form, id="form"),
    pytest.param("Dir/a", "dir/b", names_apart._folded, id="directories"),
]


@pytest.mark.parametrize("is_here", [True, False])
@pytest.mark.parametrize(("first", "second", "folds"), TWINS)
def test_twins(
    both: Both,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: str,
    folds: Callable[[str], str],
    *,
    is_here: bool,
) -> None:
    """Of two names that are one here, the second does not come, and it is said.

    The file system of this test tells them apart: what it would say is put in its place.
    """
    monkeypatch.setattr(names_apart, "_key", lambda _: folds)
    root = both.here if is_here else both.there
    write(root, **{first.replace("/", "__"): "first"})
    both.copies.push()
    write(both.there, **{second.replace("/", "__"): "second"})
    there = contents(both.there)

    report = both.copies.pull()

    stays, other = (first, second) if is_here else sorted((first, second))
    failed = {path for path in report.failed if not both.there.joinpath(path).is_dir()}
    assert failed == {other}
    assert both.here.joinpath(stays).read_bytes() == there[stays][2]
    assert not both.here.joinpath(other).exists()
    both.copies.push()
    assert contents(both.there) == there


def test_what_a_file_system_tells_apart_comes(both: Both) -> None:
    """This one does: nothing is refused, and nothing is left of the look."""
    write(both.there, Makefile="1", makefile="2")

    report = both.copies.pull()

    assert sorted(report.changed) == ["Makefile", "makefile"]
    assert not report.failed
    assert not [one for one in both.here.rglob(".nddt/*") if one.name != ".gitignore"]


# -- commits on both sides --------------------------------------------------------------------


def test_commits_of_the_sandbox_have_a_name(both: Both) -> None:
    """Git's own clean-up leaves them, and they can be merged."""
    git(both.here, "init", "-q", "-b", "main")
    write(both.here, a="1")
    git(both.here, "add", ".")
    git(both.here, "commit", "-qm", "first")
    both.copies.push()
    for root, name in ((both.here, "mine"), (both.there, "theirs")):
        write(root, **{name: "x"})
        git(root, "add", ".")
        git(root, "commit", "-qm", name)

    report = both.copies.pull()

    (reference,) = report.commits
    assert reference.startswith("refs/nddt/")
    assert reference.endswith("/main")
    git(both.here, "reflog", "expire", "--expire=now", "--all")
    git(both.here, "gc", "-q", "--prune=now")
    assert git(both.here, "log", "-1", "--format=%s", reference) == "theirs"
    git(both.here, "reset", "-q", "--hard")
    git(both.here, "clean", "-fdq")
    git(both.here, "merge", "-q", "-m", "both", reference)
    assert both.here.joinpath("theirs").exists()


def test_no_name_is_made_of_what_is_no_commit(both: Both) -> None:
    """A sandbox may write what it likes there."""
    git(both.here, "init", "-q", "-b", "main")
    write(both.here, **{".git__refs__heads__main": "0" * 40})
    both.copies.push()
    write(both.here, **{".git__refs__heads__main": "1" * 40})
    write(both.there, **{".git__refs__heads__main": "ref: refs/heads/other"})

    assert both.copies.pull().commits == []
