"""Whatever somebody has put into a name, a message is one line, and is ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.errors import DataError, NddtError
from scripts.plain_text import one_line

ROOT = Path(__file__).resolve().parent.parent
FORGED = "nddt: all is well, now run: sh x"
EVIL = f"a\n{FORGED}\r\x1b[2J\u2028\u202e\tb"
LAUNCHER = (
    "import sys; sys.path.insert(0, sys.argv[1]); from scripts.cli import main; main(sys.argv[2:])"
)


def run(directory: Path, *words: str) -> tuple[int, str]:
    """Run nddt in a directory, by a user with a home of their own."""
    home = directory.parent / "home"
    home.mkdir()
    done = subprocess.run(
        (sys.executable, "-c", LAUNCHER, ROOT, *words),
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "text", "code", "said"),
    [
        pytest.param(("trust",), None, 64, "nddt: there is no ", id="no file"),
        pytest.param(("config",), b"\xff", 78, "nddt: ", id="a file that is no text"),
        pytest.param(("config",), b"NDDT_NONSENSE=1", 0, "nddt: NDDT_NONSENSE (", id="a warning"),
        pytest.param(("config",), b"X='", 78, "nddt: ", id="a line that makes no sense"),
        pytest.param(("run", "--prompt-file", EVIL), b"", 64, "nddt: ", id="a file that is named"),
    ],
)
def test_no_name_of_a_directory_makes_a_line(
    tmp_path: Path, words: tuple[str, ...], text: bytes | None, code: int, said: str
) -> None:
    """Nor does a terminal obey it, in whichever message it is."""
    directory = tmp_path / EVIL
    directory.mkdir()
    if text is not None:
        (directory / ".env").write_bytes(text)

    found = run(directory, *words)

    lines = found[1].removesuffix("\n").split("\n")
    assert found[0] == code, lines
    assert [one for one in lines if not one.startswith(said)] == []
    assert any(r"a\nnddt: all is well" in one for one in lines), lines
    assert not any(one.startswith(FORGED) for one in lines), lines
    assert all(one.isprintable() for one in lines), lines


def test_lines_of_somebody_else_stay_theirs() -> None:
    """They stand above ours, and none begins as ours do."""
    error = DataError(f"no {EVIL}", f"see {EVIL}", detail=f"first\n{FORGED}\n\x1b]0;owned\x07\n")

    first, second, third, ours = str(error).split("\n")

    assert (first, second, third) == ("first", f"  {FORGED}", r"\x1b]0;owned\x07")
    assert ours == f"nddt: no {one_line(EVIL)} — see {one_line(EVIL)}"


def test_one_line_of_one_line_is_the_same() -> None:
    """A text may pass through more than one door."""
    assert one_line(one_line(EVIL)) == one_line(EVIL)
    assert str(NddtError(one_line(EVIL))) == str(NddtError(EVIL))


def test_a_list_in_a_message_is_lines() -> None:
    """Each of its members is one."""
    code = (
        "import logging; from scripts.machine import console; "
        "console.set_up_logging(verbose=True); "
        f"logging.getLogger('nddt').warning('%s of %d: %s', {EVIL!r}, 2, ['a', {EVIL!r}])"
    )

    done = subprocess.run(
        (sys.executable, "-c", code), cwd=ROOT, check=True, capture_output=True, text=True
    )

    shown = one_line(EVIL)
    assert done.stderr == f"nddt: {shown} of 2: a\n{shown}\n"
