"""A .env file itself: read once, and who else could have written it."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.errors import ConfigError
from scripts.settings import env_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project

ROOT = Path(__file__).parents[2]


def read(path: Path) -> env_file.EnvFile:
    """Read a file that is there."""
    found = env_file.read_env_file(path)
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
            env_file.read_env_file(tmp_path / ".env")
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


# -- files that are to hurt whoever reads them ----------------------------------------------

GIB = 1 << 30


def sparse(path: Path) -> None:
    """Have more than fits into memory, which takes no room."""
    path.touch()
    os.truncate(path, 3 * GIB)


def link(target: str) -> Callable[[Path], None]:
    """Have a link there."""
    return lambda path: path.symlink_to(target)


def bound(path: Path) -> None:
    """Have a socket there."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def text(content: str) -> Callable[[Path], None]:
    """Have a file with this content."""

    def make(path: Path) -> None:
        path.write_text(content, encoding="utf-8")

    return make


DOUBLED = "A0=aaaaaaaa\n" + "".join(f"A{i + 1}=${{A{i}}}${{A{i}}}\n" for i in range(60))
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "sparse": (sparse, "cannot be read: it has more than 1 MiB"),
    "zeros": (link("/dev/zero"), "cannot be read: it is no file"),
    "terminal": (link("/dev/tty"), "cannot be read: it is no file"),
    "link to itself": (link(".env"), "cannot be read: "),
    "pipe": (os.mkfifo, "cannot be read: it is no file"),
    "socket": (bound, "cannot be read: it is no file"),
    "directory": (Path.mkdir, "cannot be read: it is no file"),
    "NUL": (text("A=1\nB=a\0b\n"), "cannot be read: it holds a NUL byte"),
    "environment": (link("/proc/self/environ"), "cannot be read: it holds a NUL byte"),
    "lines": (text("A=1\n" * 10_001), "cannot be read: it has over 10,000 lines"),
    "blanks": (text("A=a" + " " * 1_000_000 + "b\n"), "cannot be read: it has over 500 blanks"),
    "doubled": (text(DOUBLED), "line 18: this file's values are more than 1 MiB"),
    "opened": (text("A=" + "${" * 500_000), "line 1: there are too many ${ in this file"),
    "repeated": (text("A=" + "a" * 90_000 + "\nB=" + "${A}" * 1_000), "line 2: this file's values"),
    "unclosed": (text("A='" + "\\'" * 500_000), "line 1: this is not NAME=value"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file(tmp_path: Path, kind: str) -> None:
    """Is refused at once, with its path and what is wrong."""
    make, problem = HOSTILE[kind]
    make(tmp_path / ".env")
    began = time.monotonic()

    with pytest.raises(ConfigError) as caught:
        read(tmp_path / ".env").parse()

    assert problem in caught.value.message
    assert str(tmp_path / ".env") in caught.value.message
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("kind", "name"), [("sparse", ".env"), ("zeros", "team.env"), ("doubled", "team.env")]
)
def test_a_command_beside_a_hostile_file(project: Project, kind: str, name: str) -> None:
    """Ends with 78 and one line, in little memory, however the file is called."""
    make, problem = HOSTILE[kind]
    make(project.directory / name)
    known = {"NDDT_ENV_FILE": name} if name != ".env" else {}
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29)); "
    code += "from scripts.cli import main; main(['config'])"

    done = subprocess.run(
        (sys.executable, "-c", code),
        cwd=project.directory,
        env={**project.environ, **known, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        timeout=60,
    )

    said = done.stderr.decode()
    assert (done.returncode, done.stdout, said.count("\n")) == (78, b"", 1), said
    assert problem in said or "which is no file" in said
