"""A .env file itself: read once, and who else could have written it."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING

import pytest

from scripts import env_file
from scripts.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path) -> env_file.EnvFile:
    """Read a file that is there."""
    found = env_file.read(path)
    assert found
    return found


def test_what_is_hashed_is_what_is_parsed(tmp_path: Path) -> None:
    """Whatever becomes of the file meanwhile."""
    file = tmp_path / ".env"
    file.write_bytes(b"A=1\r\n")
    found = read(file)

    file.write_bytes(b"A=2\n")

    assert found.parse() == ({"A": "1"}, {"A": 1})
    assert found.digest == hashlib.sha256(b"A=1\r\n").hexdigest()
    assert "A=" not in repr(found)


def test_pipe(tmp_path: Path) -> None:
    """Whoever can write the directory could make us wait for ever; it is an error at once."""
    os.mkfifo(tmp_path / ".env")
    problems = []

    def look() -> None:
        with pytest.raises(ConfigError) as caught:
            env_file.read(tmp_path / ".env")
        problems.append(str(caught.value))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(10)

    assert problems == [
        f"nddt: {tmp_path}/.env cannot be read: it is no file — correct or remove it"
    ]


@pytest.mark.parametrize(
    ("mode", "is_own_group", "doubt"),
    [
        (0o600, True, ""),
        (0o644, True, ""),
        (0o664, True, ""),
        (0o664, False, "can be changed by others"),
        (0o646, True, "can be changed by others"),
    ],
)
def test_who_else_could_write(tmp_path: Path, mode: int, doubt: str, *, is_own_group: bool) -> None:
    """Also one's own group, if it is not for oneself."""
    file = tmp_path / ".env"
    file.touch()
    if not is_own_group:
        others = [group for group in (*os.getgroups(), 12345) if group != os.getgid()]
        if os.getuid() != 0 and others == [12345]:
            pytest.skip("this user has one group only")
        os.chown(file, -1, others[0])
    file.chmod(mode)

    assert read(file).doubts() == doubt


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_whose_it_is(tmp_path: Path) -> None:
    """A link to it does not make it one's own."""
    file = tmp_path / "theirs"
    file.touch()
    (tmp_path / ".env").symlink_to(file)

    for uid, name in ((65534, "nobody"), (54321, "user 54321")):
        os.chown(file, uid, -1)

        assert read(tmp_path / ".env").doubts() == f"belongs to {name}"
