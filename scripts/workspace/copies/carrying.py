"""Contents of files, carried from one copy to the other; of large ones the differences.

The stage on this side is where no sandbox looks, and rsync is led nowhere else.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.errors import CannotCreateError, TransportLostError
from scripts.machine import console, process
from scripts.machine.beneath import Beneath
from scripts.workspace.copies import answers, file_stream, own_directory, tree
from scripts.workspace.copies.answers import SLOWEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from scripts.workspace.copies.answers import Other
    from scripts.workspace.copies.reconcile import Trees
    from scripts.workspace.copies.tree import Entry

log = logging.getLogger("nddt")


FILES, SEEDS = "files", "seeds"
"""Of the stage here: what comes or goes, and what is here of files of which differences come."""
LARGE = 256 * 1024
"""Bytes from which on only the differences of a file are sent: for less it takes no longer."""
NOTEWORTHY = 10_000_000
"""Bytes that take long enough to be worth a word."""
# Neither links nor special files nor permissions: a file has those of its entry in the end.
_RSYNC = ("rsync", "--from0", "--files-from=-", "--no-implied-dirs", "-tIS")
SLACK = 1 << 20
"""Bytes by which a file may have grown since it was looked at; or it may have doubled."""
INDEX = 1 << 30
"""Bytes that git's index may have, whose entry does not tell."""
_NO_ROOM = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """Carries files both ways.

    Args:
        here: This machine's directory.
        other: The sandbox's copy.
        incoming: Directory for the stage on this side, which no sandbox sees.
        stage: That in the sandbox, relative to the copy.
        reserve: Bytes that are to stay free on this machine's disks.
        stays: Tells whether a path of here is none of the sandbox's business.
    """

    here: Path
    other: Other
    incoming: Path
    stage: str
    reserve: int
    stays: Callable[[str], bool]

    @contextmanager
    def stage_here(self) -> Iterator[Beneath]:
        """Have the stage on this side, which no sandbox sees, without those that were left."""
        with Beneath(self.incoming.parent) as door:
            for name in door.names():
                if f"{tree.OURS}/{name}".startswith(own_directory.INCOMING):
                    door.remove(name)
            door.mkdir(f"{self.incoming.name}/{SEEDS}", parents=True)
            try:
                with door.at(f"{self.incoming.name}/{FILES}", make=0o700) as stage:
                    yield stage
            finally:
                door.remove(self.incoming.name)

    def budget(self, *doors: Beneath) -> int:
        """Count the bytes that may be written to each of these disks."""
        rooms = [door.room() for door in doors]
        # As for a session: where there is less already, half of that is left.
        return min(room - (self.reserve if room > self.reserve else room // 2) for room in rooms)

    def fetch(
        self, trees: Trees, paths: Sequence[str], stage: Beneath, target: Beneath
    ) -> dict[str, str]:
        """Bring contents of regular files into the stage here.

        The smaller ones come first, and each only if there is room for all of its size, so
        that none that is too large blocks the others.

        Returns:
            Those that did not come, and why.
        """
        budget = self.budget(stage, target)
        sizes = {p: tree.size(trees.there[p]) for p in paths if trees.there[p].kind == "f"}
        failed: dict[str, str] = {}
        wanted: dict[str, int] = {}
        for path, size in sorted(sizes.items(), key=lambda one: one[1]):
            if size > budget:
                failed[path] = f"there is no room for its {size} bytes"
            else:
                budget -= size
                wanted[path] = size
        large = [
            p for p, size in wanted.items() if min(size, tree.size(trees.here.get(p))) >= LARGE
        ]
        # rsync tells the other side hashes of the blocks that are here.
        large = [path for path in large if not self.stays(path)]
        deltas = self._copied(trees, large, SEEDS, budget)
        if deltas:
            came = {path: wanted.pop(path) for path in deltas}
            words = (*_RSYNC, f"--copy-dest=../{SEEDS}")
            self._rsync(words, came, source=":", target=f"{self.incoming / FILES}/")
            missing = [path for path in deltas if stage.status(path) is None]
            failed |= dict.fromkeys(missing, "it did not arrive")
        return failed | self._unpacked(trees, wanted, stage, budget)

    def _unpacked(
        self, trees: Trees, wanted: Mapping[str, int], stage: Beneath, budget: int
    ) -> dict[str, str]:
        if not wanted:
            return {}
        more = {p: INDEX if tree.is_index(trees.there[p]) else s + SLACK for p, s in wanted.items()}
        limits = {path: size + min(budget, more[path]) for path, size in wanted.items()}
        failed = {}
        self.other.ask({"do": "fetch", "files": tuple(limits.items())})
        self.other.patient(60 + sum(limits.values()) / SLOWEST)
        with _counted(wanted) as done:
            for path, size in wanted.items():
                limit = min(limits[path], size + budget)
                stream = file_stream.Stream(self.other.read, self.other.line, limit)
                with answers.understood():
                    if reason := file_stream.unpack(stage, path, stream):
                        failed[path] = reason
                if found := stage.status(path):
                    budget -= max(0, found.st_size - size)
                done(size)
        return failed

    def _copied(self, trees: Trees, paths: Sequence[str], name: str, budget: int) -> list[str]:
        """Copy files of here to where rsync looks at them.

        What it looks at, the other side learns of: in the directory itself, a link could be in
        the way by then.

        Args:
            trees: Both sides.
            paths: Files of here.
            name: `FILES` or `SEEDS`.
            budget: Bytes that they may take.

        Returns:
            Those for which there was room.
        """
        copied = []
        with Beneath(self.here) as door, Beneath(self.incoming / name) as target:
            for path in paths:
                size = tree.size(trees.here[path])
                with suppress(OSError):
                    target.copy_in(door, path, path, limit=min(size, budget), make=0o700)
                    copied.append(path)
                    budget -= size
        return copied

    def send(self, trees: Trees, paths: Sequence[str]) -> None:
        """Send contents of files into the stage there.

        Raises:
            CannotCreateError: There is no room in the sandbox.
        """
        wanted = {path: tree.size(trees.here[path]) for path in paths}
        # Differences only of what we have seen there: where the other side chooses the path,
        # a link in it could have rsync tell what is in a file that is none of its business.
        large = [
            p for p, size in wanted.items() if min(size, tree.size(trees.there.get(p))) >= LARGE
        ]
        with self.stage_here() as stage:
            deltas = self._copied(trees, large, FILES, self.budget(stage)) if large else []
            if deltas:
                came = {path: wanted.pop(path) for path in deltas}
                words = (*_RSYNC, "--copy-dest=../..")
                source = f"{self.incoming / FILES}/"
                self._rsync(words, came, source=source, target=f":{self.stage}/")
        limits = {p: 2 * size + (SLACK if size else INDEX) for p, size in wanted.items()}
        self.other.ask({"do": "receive", "stage": self.stage, "files": tuple(limits.items())})
        self.other.patient(60 + sum(limits.values()) / SLOWEST)
        with _counted(wanted) as done:
            for path, size in wanted.items():
                for piece in file_stream.pack(str(self.here), path, limits[path]):
                    self.other.send(piece)
                done(size)
        _check_room("\n".join(answers.reasons(self.other, len(wanted))), wanted)

    def _rsync(
        self, words: Sequence[str], sizes: Mapping[str, int], *, source: str, target: str
    ) -> None:
        """Have rsync carry files between the stage here and the other side.

        Raises:
            CannotCreateError: There is no room on one of the sides.
            TransportLostError: The connection broke.
        """
        listed = b"\0".join(b"./" + os.fsencode(path) for path in sizes)
        size = sum(sizes.values())
        if size >= NOTEWORTHY:
            log.info("copying %d large files of %d MB", len(sizes), size // 1_000_000)
        # The other side may send more than it has said.
        most = (2 * max(sizes.values()) + SLACK) // 512
        limited = ("sh", "-c", 'ulimit -f "$0" && exec "$@"', str(most))
        argv = self.other.rsync(words, source=source, target=target)
        done = process.capture((*limited, *argv), stdin=listed, timeout_s=60 + size / SLOWEST)
        _check_room(done.stderr, sizes)
        if done.code not in {0, 23, 24}:  # those that it cannot read or find are missing then
            problem = f"the files were not copied: {done.last_line}"
            raise TransportLostError(problem, detail=done.stderr)


def _large(sizes: Mapping[str, int], others: Mapping[str, Entry]) -> list[str]:
    """Choose the files that are large on both sides."""
    return [p for p, size in sizes.items() if min(size, tree.size(others.get(p))) >= LARGE]


def _check_room(said: str, sizes: Mapping[str, int]) -> None:
    """See that there was room for files.

    Raises:
        CannotCreateError: There was none.
    """
    if any(one in said for one in _NO_ROOM):
        raise CannotCreateError(
            f"there is no room for {len(sizes)} files of {sum(sizes.values())} bytes",
            "make some, and try again",
        )


@contextmanager
def _counted(wanted: Mapping[str, int]) -> Iterator[Callable[[int], None]]:
    """Show how far copying is, if it takes long; call the function after each file."""
    total = sum(wanted.values())
    if total < NOTEWORTHY:
        yield lambda _: None
        return
    title = f"copying {len(wanted)} files of {total // 1_000_000} MB"
    log.info("%s", title)
    show = console.progress(title) if console.is_terminal(2) else lambda _: None
    done = 0

    def on_file(size: int) -> None:
        nonlocal done
        done += size
        show(f"{100 * done // total}%")

    try:
        yield on_file
    finally:
        show("")
