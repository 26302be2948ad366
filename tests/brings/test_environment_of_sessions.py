"""What a session knows of the user's place: the time zone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts.brings.environment import zone

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/usr/share/zoneinfo/Europe/Berlin", "Europe/Berlin"),
        ("../usr/share/zoneinfo/Etc/UTC", "Etc/UTC"),
        ("/var/db/timezone/zoneinfo/America/Argentina/Ushuaia", "America/Argentina/Ushuaia"),
        ("/elsewhere/Berlin", None),
        ("/usr/share/zoneinfo/../../../x", None),
        ("/usr/share/zoneinfo/a;b", None),
    ],
)
def test_time_zone(tmp_path: Path, target: str, expected: str | None) -> None:
    """Is what this machine's clock is set to."""
    clock = tmp_path / "localtime"
    clock.symlink_to(target)

    assert zone({}, clock) == ({"TZ": expected} if expected else {})
    assert zone({"TZ": "Asia/Tokyo"}, clock) == {}


def test_no_time_zone(tmp_path: Path) -> None:
    """Is none, where it is no link, or nothing is there."""
    clock = tmp_path / "localtime"
    assert zone({}, clock) == {}
    clock.write_bytes(b"TZif")
    assert zone({}, clock) == {}
