"""JSON that somebody else has written: what is wrong with it is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.agents.claude import user_files
from scripts.contracts import grants, image
from scripts.errors import DataError
from scripts.machine import foreign_json
from scripts.providers.daytona.access import Access
from scripts.providers.docker import engine
from scripts.workspace import change_records

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
DEEP = foreign_json.DEPTH


@pytest.mark.parametrize(
    "value", [None, [], {}, 1.5, "\ud800", {"a": [1, {"b": None}]}, [[] for _ in range(1000)]]
)
def test_what_is_well(value: object) -> None:
    """Comes as it is, from bytes and text."""
    text = json.dumps(value)

    assert foreign_json.parse(text, what="it") == value
    assert foreign_json.parse(text.encode(), what="it") == value


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is no JSON"),
    "a-word": (b"junk", "is no JSON"),
    "half": (b'{"a": [1,', "is no JSON"),
    "more-behind-it": (b"{} {}", "is no JSON"),
    "no-text": (b'"\xff"', "is no JSON"),
    "nul": (b'"\0"', "is no JSON"),
    "digits": (b"9" * 5000, "is no JSON"),
    "infinite": (b"[1e999]", "is no JSON"),
    "infinity": (b"-Infinity", "is no JSON"),
    "not-a-number": (b'{"a": NaN}', "is no JSON"),
    "arrays-unclosed": (b"[" * 100_000, "is nested too deeply"),
    "objects-unclosed": (b'{"a":' * 100_000, "is nested too deeply"),
    "arrays": (b"[" * 500 + b"]" * 500, "is nested too deeply"),
    "a-few-arrays": (b"[" * (DEEP + 2) + b"1" + b"]" * (DEEP + 2), "is nested too deeply"),
    "large": (b" " * (foreign_json.MOST + 1), f"has more than {foreign_json.MOST} bytes"),
}


@pytest.mark.parametrize(("text", "reason"), BAD.values(), ids=BAD.keys())
def test_what_is_not(text: bytes, reason: str) -> None:
    """Is one line, and an error of data and of a value."""
    with pytest.raises(DataError) as caught:
        foreign_json.parse(text, what="the answer", next_step="look at it")

    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == f"nddt: the answer {reason} — look at it"


def test_depth() -> None:
    """Is allowed as far as is said."""
    text = b"[" * DEEP + b"1" + b"]" * DEEP

    assert foreign_json.parse(text, what="it")


def test_file(tmp_path: Path) -> None:
    """Is read, if it is one and small."""
    file = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        foreign_json.read_json(file)
    file.write_text('{"a": 1}')
    assert foreign_json.read_json(file) == {"a": 1}
    with pytest.raises(DataError, match="has more than 7 bytes"):
        foreign_json.read_json(file, most=7)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="is no file"):
        foreign_json.read_json(file)
    with pytest.raises(DataError, match="is no file"):
        foreign_json.read_json(Path("/dev/zero"))


GROWTH = """
import re, sys
from pathlib import Path
from scripts.machine import foreign_json
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
try:
    foreign_json.read_json(Path(sys.argv[1]))
except ValueError as error:
    print(error)
print((peak() - before) // 1024)
"""


@pytest.mark.parametrize(
    ("content", "size"),
    [
        pytest.param(b"[%s[]]" % (b"[]," * 340_000), 0, id="arrays"),
        pytest.param(b"[%s{}]" % (b"{}," * 340_000), 0, id="objects"),
        pytest.param(b"[%s1.5]" % (b"1.5," * 260_000), 0, id="numbers"),
        pytest.param(b"{}", 3 << 30, id="3-GiB"),
    ],
)
def test_memory(tmp_path: Path, content: bytes, size: int) -> None:
    """Grows by less than 64 MiB, whatever the file is."""
    file = tmp_path / "file"
    file.write_bytes(content)
    if size:
        os.truncate(file, size)
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(file)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )

    assert int(done.stdout.split()[-1]) < 64


READERS: dict[str, Callable[[Path], object]] = {
    "image": image._remembered,
    "protected": change_records.load,
    "claude": user_files.read_object,
    "daytona": lambda path: Access.load(path.parent),
    "docker": lambda path: engine.context_name({"DOCKER_CONFIG": str(path.parent)}),
    "grants": lambda path: grants.read_grants(path.read_text(errors="replace")),
}


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"junk\0\xff", b'[{"a": 1}]'])
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_spoilt_files(tmp_path: Path, reader: Callable[[Path], object], text: bytes) -> None:
    """Are as good as none, wherever one is read."""
    for name in ("access", "config.json"):
        (tmp_path / name).write_bytes(text)

    assert not reader(tmp_path / "access") or text.startswith(b"[{")
