"""Hostile programs exchange all they can in a directory while nddt works with it.

HOSTILE_SEED and HOSTILE_MINUTES say how: `./nddt test.hostile`.
"""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.machine.beneath import Beneath
from tests.integration.contract import Daytona

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.contract import Caller, Mine, Outside

SEED = int(os.environ.get("HOSTILE_SEED", "12"))
SECONDS = 60 * float(os.environ.get("HOSTILE_MINUTES", "0.4"))
LIMIT_S = 150
"""How long one command may take, on a machine that is busy."""
PROGRAM = Path(__file__).with_name("exchanging.py").read_bytes()


class Outsides:
    """A directory beside the one that is handed over, which nobody may read or write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = f"canary-{secrets.token_hex(16)}"
        for name in ("x", "a", "authorized_keys", "d/x", "d/authorized_keys", "e/f/x"):
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{name} {self.token}\n")
            file.chmod(0o640)
        self.before = self.look()

    def look(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Look at all that is there, and at what can be changed about it."""
        found = {}
        for one in (self.path, *sorted(self.path.rglob("*"))):
            status = one.lstat()
            content = one.read_bytes() if one.is_file() and not one.is_symlink() else b""
            name = str(one.relative_to(self.path))
            found[name] = (status.st_mode, status.st_mtime_ns, status.st_ctime_ns, content)
        return found

    def check(self, directory: Path, copy: str, doing: str) -> None:
        """See that nothing has been written there, and nothing of it is where a sandbox looks."""
        assert self.look() == self.before, doing
        with Beneath(directory) as door:
            for listing in door.walk():
                for child in listing.children:
                    path = f"{listing.path}/{child.name}".lstrip("/")
                    try:
                        content = door.read(path, 1 << 20)
                    except OSError:
                        continue
                    assert self.token.encode() not in content, (doing, path)
        words = ("grep", "-rlsI", "-D", "skip", "--", self.token, "/workspace", "/tmp")
        found = subprocess.run(
            ("docker", "exec", copy, "timeout", "20", *words), check=False, capture_output=True
        )
        assert not found.stdout, (doing, found.stdout)


@contextmanager
def exchanging(sandbox: str, seed: int, outside: Path) -> Iterator[None]:
    """Have the hostile program run in a sandbox."""
    words = ("docker", "exec", "-i", sandbox, "python3", "-", str(seed), str(outside))
    with subprocess.Popen(words, stdin=subprocess.PIPE) as running:
        assert running.stdin
        running.stdin.write(PROGRAM)
        running.stdin.close()
        try:
            yield
        finally:
            ending = ("docker", "exec", sandbox, "pkill", "-9", "-f", "python3 - ")
            subprocess.run(ending, check=False, capture_output=True)
            running.kill()


def commands(name: str, directory: Path) -> tuple[tuple[str, ...], ...]:
    """List what a user may do meanwhile; the second word tells for which sandbox."""
    aside = str(directory.parent / "aside")
    return (
        ("mount", "shell", "--command", "true"),
        ("copy", "shell", "--name", name, "--command", "echo work >>work"),
        ("copy", "push", "--name", name),
        ("copy", "pull", "--name", name),
        ("copy", "diff", "--name", name),
        ("copy", "pull", "--name", name),
        ("mount", "protected"),
        ("mount", "protected", "--restore"),
        ("mount", "protected", "--accept"),
        ("copy", "cp", "sandbox:d", ".", "--name", name),
        ("copy", "cp", "sandbox:.", "copied", "--name", name),
        ("copy", "cp", "sandbox:x", "d", "--name", name),
        ("mount", "cp", "sandbox:.", aside),
        ("copy", "cp", "d", "sandbox:", "--name", name),
        ("copy", "cleanup", "--name", name, "--yes"),
    )


def container(outside: Outside, name: str) -> str:
    """Name a sandbox's container."""
    return outside.double.container_of(name) if isinstance(outside, Daytona) else name


def test_nothing_outside_is_touched(nddt: Caller, outside: Outside, mine: Mine, base: Path) -> None:
    """Neither read nor written, and every command ends, without a traceback.

    With Docker one sandbox has the directory itself, and another a copy; at Daytona both copies.
    """
    chosen = random.Random(SEED)  # noqa: S311  (to be the same again)
    canaries = Outsides(base / f"outside-{os.urandom(3).hex()}")
    git = ("git", "-C", str(nddt.directory), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run((*git, "init", "-q"), check=True)
    (nddt.directory / "d").mkdir()
    (nddt.directory / "d/x").write_text("x")
    subprocess.run((*git, "add", "."), check=True)
    subprocess.run((*git, "commit", "-qm", "one"), check=True)
    mount = nddt.having(NDDT_PERSISTENT="true")
    copy = mount.having(NDDT_WORKSPACE="sync")
    mount = copy if isinstance(outside, Daytona) else mount
    callers = {"mount": mount, "copy": copy}
    shown = container(outside, mount.make_sandbox())
    name = f"{mine.prefix}copy"
    deadline = time.monotonic() + SECONDS
    done: dict[str, list[int]] = {}
    with exchanging(shown, SEED, canaries.path):
        while time.monotonic() < deadline:
            made = copy("shell", "--name", name, "--command", "true", within_s=LIMIT_S)
            if name not in outside.sandboxes():
                assert b"Traceback" not in made.stderr, made.said
                canaries.check(nddt.directory, shown, "shell")
                continue
            there = container(outside, name)
            with exchanging(there, chosen.randrange(1 << 30), canaries.path):
                while time.monotonic() < deadline:
                    who, *words = chosen.choice(commands(name, nddt.directory))
                    ended = callers[who](*words, within_s=LIMIT_S)
                    assert b"Traceback" not in ended.stderr, (words, ended.said)
                    assert b"\x1b]52" not in ended.stderr, words
                    done.setdefault(words[0], []).append(ended.code)
                    canaries.check(nddt.directory, shown, " ".join(words))
                    if name not in outside.sandboxes():
                        break
                    canaries.check(nddt.directory, there, " ".join(words))
    print(f"seed {SEED}, {SECONDS:.0f} s: {done}")  # noqa: T201  (what was tried, for whoever asks for it)
    for one in outside.sandboxes():
        assert mount("cleanup", "--name", one, "--yes", "--discard").code == 0
    canaries.check(nddt.directory, shown, "cleanup")
    with Beneath(base / "w") as door:
        door.remove(nddt.directory.name)
        door.remove("aside")
    nddt.directory.mkdir()
    assert done
