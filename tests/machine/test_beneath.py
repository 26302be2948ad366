"""The door to what is below a directory that others write to, tried by others that do."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from scripts.machine.beneath import Beneath
from scripts.machine.descriptors import BLOCK, TooLargeError, pour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the root, with a file that nobody is to read or replace."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "x").write_text("secret")
    return path


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """A root with links to there, at the end of a path and in the middle."""
    path = tmp_path / "root"
    (path / "d").mkdir(parents=True)
    (path / "d/x").write_text("inside")
    (path / "link").symlink_to(outside)
    (path / "d/link").symlink_to(outside / "x")
    return path


@pytest.fixture
def door(root: Path) -> Iterator[Beneath]:
    """The door to it."""
    with Beneath(root) as made:
        yield made


ELSEWHERE = ("/etc/passwd", "../outside/x", "d/../../outside/x", "", "d//x", "./x", "d/\0", "d/")


@pytest.mark.parametrize("path", [*ELSEWHERE, "link/x", "link/new", "d/x/y"])
def test_no_path_leads_elsewhere(door: Beneath, outside: Path, root: Path, path: str) -> None:
    """Whatever is to be done there."""
    (root / "other").write_text("other")
    acts: tuple[Callable[[], object], ...] = (
        lambda: door.read(path, 100),
        lambda: door.write(path, b"evil"),
        lambda: door.mkdir(path, parents=True),
        lambda: door.symlink(path, "evil", make=0o700),
        lambda: door.move_in(door, "other", path, mode=0o644, make=0o700),
        lambda: door.target(path),
    )
    if path:  # else it means the root itself
        acts += (lambda: door.at(path, make=0o700), lambda: door.permit(path, 0o777))
    for act in acts:
        with pytest.raises(OSError):  # noqa: PT011  (which one, depends on the path)
            act()
    with suppress(OSError):
        door.remove(path)
    assert [(one.name, one.read_text()) for one in outside.iterdir()] == [("x", "secret")]
    assert (root / "other").exists()
    assert (outside / "x").stat().st_mode & 0o777 == 0o644


def test_what_is_at_the_end_is_not_followed(door: Beneath, outside: Path, root: Path) -> None:
    """A link is replaced or removed itself; what it leads to is neither read nor changed."""
    with pytest.raises(OSError, match="no regular file"):
        door.read("d/link", 100)
    with pytest.raises(OSError):  # noqa: PT011  (a loop, or no directory)
        door.permit("d/link", 0o777)
    with pytest.raises(OSError):  # noqa: PT011
        door.names("link")
    assert door.target("d/link") == str(outside / "x")
    door.write("d/link", b"new")
    door.remove("link")
    assert (root / "d/link").read_text() == "new"
    assert not (root / "link").is_symlink()
    assert (outside / "x").read_text() == "secret"


@pytest.mark.parametrize("path", ["pipe", "null", "d"])
def test_only_regular_files_are_opened(door: Beneath, root: Path, path: str) -> None:
    """A pipe would wait for ever, and a device may do anything."""
    os.mkfifo(root / "pipe")
    if os.getuid() == 0:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with pytest.raises(OSError):  # noqa: PT011
        door.read(path, 100)


@pytest.mark.parametrize("mode", [0o6755, 0o4711, 0o2644, 0o1777])
def test_no_bit_lends_rights(door: Beneath, root: Path, mode: int) -> None:
    """Neither a new file, nor one that is moved, nor a directory has such a bit."""
    (root / "lent").write_text("x")
    (root / "lent").chmod(mode)
    door.move_in(door, "lent", "moved", mode=mode)
    door.write("written", b"x", mode=mode)
    door.mkdir("made", mode=mode)
    door.permit("d", mode)
    door.permit("d/x", mode)
    for name in ("moved", "written", "made", "d", "d/x"):
        assert (root / name).stat().st_mode & 0o7000 == 0, name


def test_a_file_appears_whole(door: Beneath, root: Path) -> None:
    """What fails in between leaves the old one, and nothing else."""
    with suppress(RuntimeError), door.create("d/x", mode=0o640, modified_ns=5) as file:
        file.write(b"half")
        raise RuntimeError
    assert (root / "d/x").read_text() == "inside"
    with door.create("d/x", mode=0o640, modified_ns=10**9) as file:
        file.write(b"whole")
    assert (root / "d/x").read_text() == "whole"
    assert (root / "d/x").stat().st_mtime == 1
    assert sorted(door.names("d")) == ["link", "x"]


def test_limits(door: Beneath, root: Path) -> None:
    """Of bytes, of entries and of depth."""
    assert door.read("d/x", 6) == b"inside"
    with pytest.raises(TooLargeError):
        door.read("d/x", 5)
    for name in range(20):
        (root / f"d/{name}").touch()
    with pytest.raises(TooLargeError):
        door.names("d", most=21)
    with pytest.raises(TooLargeError):
        list(door.walk(most=23))
    assert sum(len(one.children) for one in door.walk(most=24)) == 24


def deepen(root: Path, levels: int) -> None:
    """Make directories below each other, deeper than any path can name."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deep", dir_fd=here)
        deeper = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_deep_tree(door: Beneath, root: Path) -> None:
    """Is walked to a limit, and removed whole."""
    deepen(root, 3000)
    found = list(door.walk(depth=20))
    (problem,) = [one.problem for one in found if one.problem]
    assert "more than 20 directories deep" in str(problem)
    assert len(found) == 23
    door.remove("deep")
    assert sorted(door.names()) == ["d", "link"]


def test_a_walk_enters_what_is_left_in_its_list(door: Beneath, root: Path, outside: Path) -> None:
    """No link among it, even one that was a directory a moment ago."""
    (root / "e").mkdir()
    (root / "swapped").mkdir()
    found = {}
    for one in door.walk():
        found[one.path] = sorted(child.name for child in one.children)
        if not one.path:
            one.children[:] = [child for child in one.children if child.name != "e"]
            (root / "swapped").rmdir()
            (root / "swapped").symlink_to(outside)
    assert found == {"": ["d", "e", "link", "swapped"], "d": ["link", "x"], "swapped": []}


def test_holes_stay_holes(door: Beneath, root: Path) -> None:
    """A file of zeros takes no room, and has its size."""
    zeros = bytes(BLOCK)
    with door.create("sparse") as file:
        assert pour([zeros] * 100 + [b"x", b"\0\0"], file) == 100 * BLOCK + 3
    found = (root / "sparse").stat()
    assert (found.st_size, found.st_blocks * 512 <= BLOCK) == (100 * BLOCK + 3, True)
    assert (root / "sparse").read_bytes() == zeros * 100 + b"x\0\0"


def test_closed_directories(door: Beneath, root: Path) -> None:
    """Their owner writes there all the same, and they are closed again."""
    (root / "d").chmod(0o555)
    door.write("d/new", b"x")
    door.write("d/sub/new", b"x")
    assert (root / "d").stat().st_mode & 0o777 == 0o555
    (root / "d/sub").chmod(0)
    (root / "d").chmod(0o755)
    door.remove("d")
    assert door.names() == ["link"]


@contextmanager
def exchanged(root: Path, outside: Path) -> Iterator[None]:
    """Exchange a directory for a link, and a file for a pipe, as fast as can be."""
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            (root / "d").rename(root / "away")
            (root / "d").symlink_to(outside)
            (root / "d").unlink()
            (root / "away").rename(root / "d")
            with suppress(FileExistsError):
                (root / "d/x").unlink(missing_ok=True)
                os.mkfifo(root / "d/x")
                (root / "d/x").unlink(missing_ok=True)
                (root / "d/x").symlink_to(outside / "x")

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    try:
        yield
    finally:
        over.set()
        exchanging.join()


def test_a_race(door: Beneath, root: Path, outside: Path) -> None:
    """What is exchanged at the same time leads nowhere, either."""
    done = 0
    with exchanged(root, outside):
        for number in range(2000):
            with suppress(OSError):
                assert door.read("d/x", 100) != b"secret"
            with suppress(OSError):
                assert all("secret" not in one.path for one in door.walk())
            path = "d/x" if number % 2 else f"d/{number}"
            with suppress(OSError), door.create(path) as file:
                file.write(b"evil")
                done += 1
            with suppress(OSError):
                door.permit("d/x", 0o777)
            with suppress(OSError):
                door.remove(f"d/{number}")
    assert done
    assert [(one.name, one.read_text()) for one in outside.iterdir()] == [("x", "secret")]
    assert (outside / "x").stat().st_mode & 0o777 == 0o644
