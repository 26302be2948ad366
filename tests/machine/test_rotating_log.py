"""Logs that several processes write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.machine.rotating_log import append
from scripts.network import decisions
from scripts.network.decisions import Decisions

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]


def test_nothing_is_lost_when_several_begin_new_files(tmp_path: Path) -> None:
    """Each line is whole, and in one of the files."""
    file = tmp_path / "log"
    code = (
        "import sys; from pathlib import Path; from scripts.machine.rotating_log import append\n"
        "for i in range(400):\n"
        "    append(Path(sys.argv[1]), b'[%s, %d]' % (sys.argv[2].encode(), i) + b' ' * 90"
        " + b'\\n', most=60_000, kept=3)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(file), str(number)], cwd=ROOT)
        for number in range(5)
    ]

    assert [one.wait(60) for one in started] == [0] * 5
    found = [
        tuple(json.loads(line))
        for one in tmp_path.iterdir()
        for line in one.read_bytes().splitlines()
    ]
    assert sorted(found) == [(number, i) for number in range(5) for i in range(400)]
    assert (tmp_path / "log.2").exists()


def test_old_files_go(tmp_path: Path) -> None:
    """Three stay beside the one that is written."""
    file = tmp_path / "log"

    for number in range(7):
        append(file, b"%d...\n" % number, most=3, kept=3)
    append(file, b"\n", most=3, kept=3)

    found = {one.name: one.read_text() for one in tmp_path.iterdir()}
    assert found == {"log": "\n", "log.1": "6...\n", "log.2": "5...\n", "log.3": "4...\n"}


def test_no_decision_is_lost_at_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a proxy that found the log full, and another one began a new file meanwhile."""
    monkeypatch.setattr(decisions, "MOST_BYTES", 60_000)
    log, look = Decisions(tmp_path / "log"), os.fstat
    log.note("blocked", "first.org:443", "x" * 59_940)

    def meanwhile(descriptor: int) -> os.stat_result:
        found = look(descriptor)
        monkeypatch.setattr(os, "fstat", look)
        for name in ("second", "third"):
            log.note("blocked", f"{name}.org:443", "not allowed")
        return found

    monkeypatch.setattr(os, "fstat", meanwhile)
    log.note("blocked", "last.org:443", "not allowed")

    names = [where for _, _, where, _ in log.read()]
    assert sorted(names) == [f"{one}.org:443" for one in ("first", "last", "second", "third")]
