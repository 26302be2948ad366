"""Files of nddt's own, with real processes beside us."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.machine import files

ROOT = Path(__file__).parents[2]


def start(code: str, *words: str) -> subprocess.Popen[str]:
    """Start another process of ours."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def modes(top: Path) -> set[int]:
    """Collect the permissions of all below a directory."""
    return {one.lstat().st_mode & 0o777 for one in top.rglob("*") if not one.is_symlink()}


# -- writing --------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_all_is_for_the_owner_alone(tmp_path: Path, umask: int) -> None:
    """Directories above it, too, whatever the umask."""
    before = os.umask(umask)
    try:
        files.write(tmp_path / "a" / "b" / "file", "x")
        files.write_once(tmp_path / "c" / "d" / "file", "x")
        files.link(tmp_path / "e" / "f" / "link", "x")
        files.make_private(tmp_path / "g" / "h")
        files.write(tmp_path / "a" / "mode", b"x", mode=0o640)
    finally:
        os.umask(before)

    assert (tmp_path / "a" / "mode").stat().st_mode & 0o777 == 0o640
    (tmp_path / "a" / "mode").unlink()
    assert modes(tmp_path) == {0o600, 0o700}


def test_what_others_have_is_left_alone(tmp_path: Path) -> None:
    """A directory that is there keeps its mode; a file in its place is none."""
    (tmp_path / "a").mkdir(mode=0o755)
    files.write(tmp_path / "a" / "file", "x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755

    with pytest.raises(FileExistsError):
        files.make_private(tmp_path / "a" / "file")
    with pytest.raises(NotADirectoryError) as caught:
        files.write(tmp_path / "a" / "file" / "deeper" / "file", "x")
    assert str(tmp_path) in str(caught.value.filename)


def test_what_is_there_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    """A link, or a second name of a file, leads to what stays as it was."""
    (tmp_path / "other").write_text("theirs")
    (tmp_path / "link").symlink_to("other")
    os.link(tmp_path / "other", tmp_path / "second")

    for name in ("link", "second", "new"):
        files.write(tmp_path / name, "ours", survives_a_crash=True)
        assert (tmp_path / name).read_text() == "ours"
    files.write_once(tmp_path / "new", "later")

    assert (tmp_path / "other").read_text() == "theirs"
    assert (tmp_path / "new").read_text() == "ours"
    assert not (tmp_path / "link").is_symlink()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "new", "other", "second"]


@pytest.mark.parametrize("name", ["note.json", "config"])
def test_no_name_beside_it_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever guesses the name under which it is written gets it refused, and nothing written."""
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / "d").mkdir()
    guesses = (f".nddt-{os.getpid()}-000000000000", f"note.{os.getpid()}", f"{name}.nddt")
    for guess in guesses:
        (tmp_path / "d" / guess).symlink_to(victim)
    monkeypatch.setattr(os, "urandom", bytes)

    with pytest.raises(FileExistsError) as caught:
        files.write(tmp_path / "d" / name, "ours")

    assert caught.value.filename == str(tmp_path / "d" / name)
    assert victim.read_text() == "theirs"
    assert not (tmp_path / "d" / name).exists()


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    """Neither a part of the file, nor nothing in place of what was there."""
    (tmp_path / "a").mkdir()
    files.write(tmp_path / "file", "before")

    with pytest.raises(UnicodeEncodeError):
        files.write(tmp_path / "file", "\udcff")
    with pytest.raises(IsADirectoryError):
        files.write(tmp_path / "a", "x")

    assert (tmp_path / "file").read_text() == "before"
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["a", "file"]


def test_a_reader_sees_one_or_the_other(tmp_path: Path) -> None:
    """Never a part, nor nothing, while several write."""
    code = (
        "import sys; from pathlib import Path; from scripts.machine import files\n"
        "for _ in range(300): files.write(Path(sys.argv[1]), sys.argv[2] * 50_000)"
    )
    path = tmp_path / "file"
    files.write(path, "a" * 50_000)
    writers = [start(code, str(path), letter) for letter in "ab"]
    try:
        while any(one.poll() is None for one in writers):
            assert path.read_text() in {"a" * 50_000, "b" * 50_000}
    finally:
        for one in writers:
            with one:
                one.kill()
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_nobody_else_writes_files() -> None:
    """Of nddt's own: what is made by hand forgets a mode, a link or a half."""
    by_hand = re.compile(
        r"O_CREAT|O_TRUNC|\.write_(text|bytes)\(|mkstemp|parents=True|os\.(rename|replace)\("
        r"|with_suffix\(f\""
    )
    others = {
        "machine/beneath.py": "where others write",
        "machine/descriptors.py": "its steps",
        "workspace/copies/carrying.py": "directories by a door of `beneath`",
        "workspace/copies/kept_apart.py": "directories by a door of `beneath`",
        "transport/relay.py": "runs in a sandbox",
        "dev/measurements.py": "what is measured",
        "dev/settings_page.py": "a page of this repository",
    }
    found = {
        str(path.relative_to(ROOT / "scripts"))
        for path in (ROOT / "scripts").rglob("*.py")
        if by_hand.search(path.read_text())
    }

    assert found - {"machine/files.py"} == set(others)


# -- locks ----------------------------------------------------------------------------------


def test_lock_leaves_nothing_behind(runtime: Path) -> None:
    """Neither after a failure."""
    with files.lock(runtime / "l"):
        assert (runtime / "l").is_dir()
    with pytest.raises(ZeroDivisionError), files.lock(runtime / "l"):
        raise ZeroDivisionError

    assert list(runtime.iterdir()) == []


def test_lock_on_a_directory_in_use(runtime: Path) -> None:
    """Leaves what is in it."""
    with files.lock(runtime / "l"):
        (runtime / "l" / "file").write_text("")

    assert (runtime / "l" / "file").exists()


WORK = """
import os, sys, time
from pathlib import Path
from scripts.machine import files
runtime, number = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(number):
    with files.lock(runtime / "l"):
        descriptor = os.open(runtime / "inside", os.O_CREAT | os.O_EXCL)
        os.close(descriptor)
        (runtime / "inside").unlink()
"""


def test_lock_excludes_other_processes(runtime: Path) -> None:
    """Also while each holder removes the directory that is the lock."""
    workers = [start(WORK, str(runtime), "100") for _ in range(6)]
    codes = []
    for worker in workers:
        with worker:
            worker.communicate(timeout=60)
            codes.append(worker.returncode)

    assert codes == [0] * 6
    assert list(runtime.iterdir()) == []


def test_lock_of_a_killed_process_is_free(runtime: Path) -> None:
    """The kernel gives it back."""
    code = (
        "import sys; from pathlib import Path; from scripts.machine import files\n"
        "with files.lock(Path(sys.argv[1])):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    with start(code, str(runtime / "l")) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "locked\n"
        holder.kill()
        holder.wait(30)
    began = time.monotonic()

    with files.lock(runtime / "l"):
        assert time.monotonic() - began < 5
    assert list(runtime.iterdir()) == []
