"""The log of decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.network import decisions
from scripts.network.decisions import Decisions

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_was_blocked(tmp_path: Path) -> None:
    """Is counted, the latest first; the rest is only kept."""
    log = Decisions(tmp_path / "a" / "log")
    for where in ("a.org:443", "b.org:443", "a.org:443"):
        log.note("blocked", where, "not allowed")
    log.note("allowed", "c.org:443", "")

    assert [row[:2] for row in log.blocked()] == [("a.org:443", "2"), ("b.org:443", "1")]
    assert len(list(log.read())) == 4
    assert (tmp_path / "a" / "log").stat().st_mode & 0o777 == 0o600


def test_lines_stay_lines(tmp_path: Path) -> None:
    """Whatever a reason holds."""
    log = Decisions(tmp_path / "log")
    log.note("blocked", "a.org:443", "one\ttwo\nthree")

    assert [row[3] for row in log.blocked()] == ["one two three"]


def test_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the log and the one before it, both small."""
    monkeypatch.setattr(decisions, "MOST_BYTES", 1000)
    log = Decisions(tmp_path / "log")
    for number in range(100):
        log.note("blocked", f"{number}.org:443", "not allowed")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2200
    assert next(iter(log.blocked()))[0] == "99.org:443"
