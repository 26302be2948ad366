"""A program that fills a disk is ended before nothing is left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.errors import DiskFullError
from scripts.machine import free_space


@pytest.fixture
def sleeping() -> subprocess.Popen[bytes]:
    """A program that ends only if it is ended."""
    return subprocess.Popen(("sleep", "60"))


def test_ends_what_leaves_too_little(
    sleeping: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any of the disks; what is the matter is said."""
    frees = iter([10 << 30, 5 << 30, 3 << 30, 1 << 30])
    monkeypatch.setattr(free_space, "free", lambda _: next(frees))

    with (
        pytest.raises(DiskFullError, match=r"less than 2\.0 GiB is free on the disk of /x, so "),
        free_space.end_when_disk_is_full((Path("/x"),), 2 << 30, sleeping.terminate),
    ):
        assert sleeping.wait(20) == -15


def test_a_disk_that_is_nearly_full_can_be_used(
    sleeping: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to half of what was free, if that is less than the reserve."""
    frees = iter([1 << 30, 900 << 20, 400 << 20])
    monkeypatch.setattr(free_space, "free", lambda _: next(frees))

    with (
        pytest.raises(DiskFullError, match=r"less than 0\.5 GiB"),
        free_space.end_when_disk_is_full((Path("/x"),), 2 << 30, sleeping.terminate),
    ):
        sleeping.wait(20)


def test_leaves_others_alone(sleeping: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Where there is enough, where nothing is to be left, and where there is no disk any more."""
    for places, reserve in (((tmp_path,), 1), ((tmp_path,), 0), ((tmp_path / "gone",), 1 << 60)):
        with free_space.end_when_disk_is_full(places, reserve, sleeping.terminate):
            assert sleeping.poll() is None

    sleeping.kill()
    assert sleeping.wait() == -9


def test_looks_at_the_disk_itself(tmp_path: Path) -> None:
    """In bytes, as df does."""
    words = ("df", "--output=avail", "--block-size=1", str(tmp_path))
    done = subprocess.run(words, check=True, capture_output=True, text=True)

    assert free_space.free(tmp_path) == pytest.approx(int(done.stdout.split()[1]), rel=0.2)
