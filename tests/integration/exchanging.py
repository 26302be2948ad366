"""What a hostile program in a sandbox does to /workspace, as fast as it can, until it is ended.

It runs in the sandbox: `exchanging.py SEED OUTSIDE`, of which the latter is a directory of the
machine around it, to which it has links lead.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import sys
import time
from contextlib import suppress

ROOT = "/workspace"
NAMES = ("a", "x", "authorized_keys", "d", "d/x", "d/authorized_keys", "e/f/x", "big", "d/a")
TOOLS = (".vscode/tasks.json", ".envrc", ".git/config", ".git/hooks/pre-commit", ".claude/x")
LISTS = (".gitignore", ".nddtignore", ".git/info/exclude", ".git/index", ".git/HEAD", ".git/config")
OURS = (".nddt", ".nddt/rescue", ".nddt/conflicts", ".nddt/id", ".nddt/.gitignore")
PYTHON = """#!/bin/sh
[ $(($$ % 3)) = 0 ] || exec /usr/bin/python3 "$@"
head -c 20000 >/dev/null
echo '["i",false]'; echo '["d","l",0,"OUTSIDE"]'; echo '["d/authorized_keys","f",420,"1 1 1 1"]'
echo; sleep 1; echo '["d/x","f",420,"1 1 1 1"]'; echo; yes '["a"]' | head -c 3000000
"""


class Exchanging:
    """One such program."""

    def __init__(self, seed: int, outside: str) -> None:
        self.random = random.Random(seed)  # noqa: S311  (to be the same again)
        self.outside = outside

    def path(self, *names: str) -> str:
        """Choose one of these."""
        return os.path.join(ROOT, self.random.choice(names))

    def elsewhere(self) -> str:
        """Choose where a link leads."""
        up = os.path.relpath(self.outside, "/")
        name = self.random.choice(("", "/x", "/authorized_keys", "/a", "/d"))
        return self.random.choice((self.outside, "../" * 12 + up)) + name

    def clear(self, path: str) -> None:
        """Remove what is at a path."""
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)

    def write(self) -> None:
        """Write an honest file, or one that is large, or another one of a tool's."""
        path = self.path(*NAMES, *TOOLS)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(self.random.randbytes(self.random.choice((3, 300, 400_000))))

    def exchange(self) -> None:
        """Put a link in a directory's or a file's place for a moment, and again and again."""
        path = self.path(*NAMES, ".git", ".vscode", ".nddt")
        away = f"{path}.away"
        for _ in range(20):
            os.rename(path, away)
            with suppress(OSError):
                os.symlink(self.elsewhere(), path)
                time.sleep(self.random.random() / 200)
                os.unlink(path)
            os.rename(away, path)

    def link(self) -> None:
        """Leave a link."""
        path = self.path(*NAMES, *TOOLS, *LISTS, *OURS)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with suppress(OSError):
            self.clear(path)
        os.symlink(self.elsewhere(), path)

    def special(self) -> None:
        """Leave a pipe, or a device if that can be."""
        path = self.path(*NAMES, *TOOLS, *LISTS)
        with suppress(OSError):
            self.clear(path)
        if self.random.random() < 0.5:
            with suppress(OSError):
                os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
                return
        os.mkfifo(path)

    def deep(self) -> None:
        """Nest directories."""
        path = os.path.join(ROOT, "deep")
        with suppress(OSError):
            self.clear(path)
        here = os.open(ROOT, os.O_RDONLY)
        for _ in range(self.random.choice((5, 140, 1500))):
            os.mkdir("deep", dir_fd=here)
            deeper = os.open("deep", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(here)

    def lend(self) -> None:
        """Set bits that lend rights, or take all away."""
        os.chmod(self.path(*NAMES), self.random.choice((0o6777, 0o4755, 0o1777, 0, 0o700)))

    def sparse(self) -> None:
        """Have a file that is larger than any disk."""
        with open(self.path("huge", "d/huge"), "wb") as file:
            file.truncate(self.random.choice((1 << 20, 1 << 43)))

    def name(self) -> None:
        """Have names that no program likes."""
        with open(os.path.join(os.fsencode(ROOT), b"\xff\n\x1b]52;c;AA\x07"), "wb") as file:
            file.write(b"x")

    def remove(self) -> None:
        """Remove something."""
        self.clear(self.path(*NAMES, *TOOLS, "deep", "huge", ".git/index"))

    def answer(self) -> None:
        """Put another python3 first, which answers what it likes."""
        home = os.path.expanduser("~")
        os.makedirs(f"{home}/first", exist_ok=True)
        with open(f"{home}/first/python3", "w", encoding="ascii") as file:
            file.write(PYTHON.replace("OUTSIDE", self.outside))
        os.chmod(f"{home}/first/python3", 0o755)
        with open(f"{home}/.bashrc", "w", encoding="ascii") as file:
            file.write("PATH=~/first:$PATH\n" if self.random.random() < 0.3 else "")

    def go_on(self) -> None:
        """Do all this, in the seed's order."""
        acts = [self.write, self.exchange, self.link, self.special, self.deep, self.lend]
        acts += [self.sparse, self.name, self.remove, self.answer, self.write, self.exchange]
        while True:
            with suppress(OSError):
                self.random.choice(acts)()
            time.sleep(self.random.random() / 50)


if __name__ == "__main__":
    Exchanging(int(sys.argv[1]), sys.argv[2]).go_on()
