"""Two copies of a directory, one here and one in a sandbox, made to agree again.

Both are looked at by `tree.py`, `reconcile.py` decides, rsync carries the contents of files
into a stage on the other side, and `tree.py` puts them into place, each whole or not at all.
It may break off anywhere: the next time begins with what is there then.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scripts import console, process, reconcile, state, tree
from scripts.errors import CannotCreateError, DataError, TransportLostError
from scripts.reconcile import Known, Trees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scripts.reconcile import Base, Decision
    from scripts.tree import Entry, Operation, Outcome

log = logging.getLogger("nddt")

CONFLICTS = f"{tree.OURS}/conflicts"
LARGE = 256 * 1024
"""Bytes from which on only the differences of a file are sent: for less it takes no longer."""
NOTEWORTHY = 10_000_000
"""Bytes that take long enough to be worth a word."""
RSYNC = ("rsync", "--from0", "--files-from=-", "--no-implied-dirs", "-tpI")


class Other(Protocol):
    """The copy in the sandbox: what answers `tree.answer`, and how rsync gets there."""

    def ask(self, wish: Mapping[str, Any]) -> None:
        """Send a wish."""

    def answer(self) -> Any:  # noqa: ANN401  (JSON)
        """Wait for its answer."""

    def rsync(self, words: Sequence[str], *, source: str, target: str) -> tuple[str, ...]:
        """Give the command; a path that begins with `:` is the other copy's."""


@dataclass(kw_only=True)
class Report:
    """What has been done."""

    changed: list[str] = field(default_factory=list)
    """Paths that were brought or sent."""
    conflicts: list[str] = field(default_factory=list)
    """Paths that both have changed: as they are here they stay."""
    saved: str = ""
    """Directory with the sandbox's versions of those, relative to the directory."""
    failed: dict[str, str] = field(default_factory=dict)
    """Paths that could not be changed, and why."""


@dataclass(kw_only=True)
class Copies:
    """The two copies, and what is known of when they last agreed.

    Args:
        here: This machine's directory.
        other: The sandbox's.
        memory: File for what is known.
        private: A path that stays here unless git tracks it.
    """

    here: Path
    other: Other
    memory: Path
    private: str = ""
    identity: str = ""
    """Of the other copy, when that has been looked at."""
    stage: str = field(
        default_factory=lambda: f"{tree.INCOMING}{os.getpid()}-{secrets.token_hex(4)}"
    )
    """Where files arrive before they are put into place, on either side."""

    # -- both directions

    def pull(self) -> Report:
        """Bring what has changed in the sandbox, but for what has changed here, too."""
        trees, decision, saving = self._decided(reconcile.to_bring)
        report, base = Report(conflicts=list(decision.conflicts)), trees.base
        blocked: list[str] = []
        if decision.operations or saving:
            with self._stage(self.here):
                self._fetch(trees, [*_files(decision.operations), *saving])
                outcomes = tree.apply(str(self.here), self.stage, decision.operations)
                # Somebody may have changed it here since we have looked.
                blocked = [p for p, one in outcomes.items() if one.reason == "kept"]
                late = [p for p in blocked if _is_file(trees.there.get(p))]
                report.conflicts += late
                links = {p: trees.there[p] for p in (*saving, *late) if trees.there[p].kind == "l"}
                report.saved = self._saved([*saving, *late], links)
                done = [p for p, one in outcomes.items() if not one.reason]
                files = [p for p in done if (now := outcomes[p].entry) and now.kind == "f"]
                digests = {path: tree.digest(str(self.here), path) for path in files}
            after = {p: (one.entry, trees.there.get(p)) for p, one in outcomes.items()}
            _take_note(report, base, outcomes, after, digests)
        for path in {*report.conflicts, *(p for p in blocked if p in trees.there)}:
            # What had no place here was as if it had: so what is here replaces it there, too.
            there = trees.there.get(path)
            here = there if path in blocked else base.get(path, reconcile.NEVER).here
            base[path] = Known(here, there, "")
        self._remember(base)
        return report

    def push(self) -> Report:
        """Send what has changed here; what it replaces in the sandbox is kept here."""
        trees, decision, saving = self._decided(reconcile.to_send)
        report, base = Report(conflicts=list(decision.conflicts)), trees.base
        if saving:
            links = {p: trees.there[p] for p in saving if trees.there[p].kind == "l"}
            with self._stage(self.here):
                self._fetch(trees, saving)
                report.saved = self._saved(saving, links)
        if decision.operations:
            digests: dict[str, str] = {}
            sent = _files(decision.operations)
            counting = threading.Thread(target=self._count, args=(trees, sent, digests))
            counting.start()
            try:
                if sent:
                    self._wish("prepare", stage=self.stage)
                    self._carry(sent, trees.here, trees.there, source=f"{self.here}/", target=":")
                applied = self._wish("apply", stage=self.stage, operations=decision.operations)
                outcomes = {path: _outcome(one) for path, one in applied.items()}
                if sent:
                    self._wish("discard", stage=self.stage)
            finally:
                counting.join()
            after = {p: (trees.here.get(p), one.entry) for p, one in outcomes.items()}
            _take_note(report, base, outcomes, after, digests)
        self._remember(base)
        return report

    def _decided(self, decide: Callable[[Trees], Decision]) -> tuple[Trees, Decision, list[str]]:
        """Look at both, decide, and note what they agree on.

        Returns:
            Also the files of the sandbox's that are to be kept apart.
        """
        trees = self._looked_at()
        decision = decide(trees)
        _agree(trees.base, trees, decision.agreed)
        saving = [one for one in decision.conflicts if _is_file(trees.there.get(one))]
        return trees, decision, saving

    def changes(self) -> tuple[Trees, tuple[str, ...]]:
        """Tell which paths the sandbox has changed, conflicts among them."""
        trees = self._looked_at()
        decision = reconcile.to_bring(trees)
        paths = (*(one.path for one in decision.operations), *decision.conflicts)
        return trees, tuple(sorted(paths))

    def fetch(self, trees: Trees, paths: Sequence[str], target: Path) -> None:
        """Bring files of the sandbox's into a directory apart.

        Args:
            trees: What `changes` gave.
            paths: Files and links of there.
            target: Where they go, under the same paths.
        """
        with self._stage(target):
            files = [p for p in paths if _is_file(trees.there.get(p))]
            regular = [p for p in files if trees.there[p].kind == "f"]
            self._carry(regular, trees.there, {}, source=":", target=f"{target}/")
            links = {p: trees.there[p] for p in files if trees.there[p].kind == "l"}
            _place(target, self.stage, files, links, Path())

    @contextmanager
    def _stage(self, root: Path) -> Iterator[None]:
        """Have the stage on this side, without those of processes that have been killed."""
        left = [one for one in tree.stages(str(root)) if not state.is_alive(_pid(one))]
        tree.discard(str(root), *left)
        tree.prepare(str(root), self.stage)
        try:
            yield
        finally:
            tree.discard(str(root), self.stage)

    # -- looking

    def _looked_at(self) -> Trees:
        before, base = self._remembered()
        known = {path: one.there for path, one in base.items() if one.there}
        new = secrets.token_hex(16)
        self.other.ask({"do": "entries", "unless": tree.checksum(known), "identity": new})
        here = tree.entries(str(self.here), self.private)
        self.identity, found = self.other.answer()
        there = self._there(found, known)
        if self.identity != before:
            base = {}
        missing = [path for path, one in base.items() if one.here and path not in here]
        here |= {p: now for p in missing if (now := tree.look(str(self.here), p))}
        trees = Trees(base=base, here=here, there=there)
        doubtful = trees.doubtful()
        if not doubtful:
            return trees
        self.other.ask({"do": "digests", "paths": doubtful})
        digests = {path: tree.digest(str(self.here), path) for path in doubtful}
        return Trees(
            base=base,
            here=here,
            there=there,
            digests_here=digests,
            digests_there=self.other.answer(),
        )

    def _there(self, found: Any, known: Mapping[str, Entry]) -> dict[str, Entry]:  # noqa: ANN401
        if found is None:
            return dict(known)
        there = _read(found)
        # What is ignored by now has not been removed.
        missing = [path for path in known if path not in there]
        if missing:
            looked = self._wish("look", paths=missing)
            there |= _read(looked)
        return there

    def _wish(self, do: str, **more: Any) -> Any:  # noqa: ANN401  (JSON)
        self.other.ask({"do": do, **more})
        return self.other.answer()

    # -- carrying

    def _fetch(self, trees: Trees, paths: Sequence[str]) -> None:
        regular = [path for path in paths if trees.there[path].kind == "f"]
        self._carry(regular, trees.there, trees.here, source=":", target=f"{self.here}/")

    def _carry(
        self,
        paths: Sequence[str],
        entries: Mapping[str, Entry],
        others: Mapping[str, Entry],
        *,
        source: str,
        target: str,
    ) -> None:
        """Have rsync carry files into the stage of the other side."""
        # Differences only of what we have seen there: where the other side chooses the path,
        # a link in it could have rsync tell what is in a file that is none of its business.
        deltas = [p for p in paths if _size(others.get(p)) >= LARGE and _size(entries[p]) >= LARGE]
        whole = sorted(set(paths) - set(deltas))
        target = f"{target}{self.stage}/"
        for chosen, words in ((whole, ("--whole-file",)), (deltas, ("--copy-dest=../..",))):
            if chosen:
                argv = self.other.rsync((*RSYNC, *words), source=source, target=target)
                _rsync(argv, chosen, sum(_size(entries[p]) for p in chosen))

    def _count(self, trees: Trees, paths: Sequence[str], digests: dict[str, str]) -> None:
        """Hash what is being sent, unless it changes meanwhile."""
        for path in paths:
            found = tree.digest(str(self.here), path)
            entry = trees.here[path]
            is_index = entry.stamp.startswith("index ")
            if is_index or tree.look(str(self.here), path) == entry:
                digests[path] = found

    # -- what came of it

    def _saved(self, paths: Sequence[str], links: Mapping[str, Entry]) -> str:
        """Keep the sandbox's versions, which are in the stage, apart."""
        if not paths:
            return ""
        name = time.strftime("%Y%m%d-%H%M%S")
        for attempt in range(1000):
            place = Path(CONFLICTS, f"{name}-{attempt}" if attempt else name)
            if not (self.here / place).exists():
                break
        _place(self.here, self.stage, paths, links, place)
        return str(place)

    def _remembered(self) -> tuple[str, Base]:
        try:
            identity, read = json.loads(self.memory.read_text(encoding="ascii"))
        except FileNotFoundError:
            return "", {}
        except ValueError as error:
            raise DataError(f"{self.memory} is damaged", "remove it") from error
        return identity, {
            path: Known(_entry(here), _entry(there), digest)
            for path, (here, there, digest) in read.items()
        }

    def _remember(self, base: Base) -> None:
        self.memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self.memory.with_suffix(f".{os.getpid()}")
        text = json.dumps((self.identity, base), separators=(",", ":"))
        partial.write_text(text, encoding="ascii")
        partial.replace(self.memory)


def _pid(stage: str) -> int:
    word = stage.removeprefix(tree.INCOMING).partition("-")[0]
    return int(word) if word.isdecimal() else 0


def _take_note(
    report: Report,
    base: Base,
    outcomes: Mapping[str, Outcome],
    after: Mapping[str, tuple[Entry | None, Entry | None]],
    digests: Mapping[str, str],
) -> None:
    """Note what has been changed, and what is there now on this side and on the other."""
    for path, one in outcomes.items():
        if one.reason == "kept":
            continue
        if one.reason:
            report.failed[path] = one.reason
            continue
        report.changed.append(path)
        if after[path] == (None, None):
            base.pop(path, None)
        else:
            base[path] = Known(*after[path], digests.get(path, ""))


def _entry(read: Sequence[Any] | None) -> Entry | None:
    return tree.Entry(*read) if read else None


def _read(found: Mapping[str, Sequence[Any]]) -> dict[str, Entry]:
    """Read what the sandbox says is there, which may be meant to do harm.

    Raises:
        DataError: It is no tree.
    """
    read = {path: tree.Entry(*one) for path, one in found.items()}
    for path in read:
        above = [path[:i] for i, letter in enumerate(path) if letter == "/"]
        if not tree.is_inside(path) or any(read[one].kind != "d" for one in above if one in read):
            raise DataError(f"the sandbox has a file at {path!r}", "do not trust what is in it")
    return read


def _outcome(read: Sequence[Any]) -> Outcome:
    return tree.Outcome(_entry(read[0]), read[1])


def _files(operations: Sequence[Operation]) -> list[str]:
    return [one.path for one in operations if one.entry and one.entry.kind == "f"]


def _is_file(entry: Entry | None) -> bool:
    return entry is not None and entry.kind in {"f", "l"}


def _size(entry: Entry | None) -> int:
    """Give a file's size; that of git's index does not matter."""
    word = entry.stamp.partition(" ")[0] if entry and entry.kind == "f" else ""
    return int(word) if word.isdecimal() else 0


def _agree(base: Base, trees: Trees, paths: Sequence[str]) -> None:
    """Take note of what is the same on both sides."""
    for path in paths:
        here, there = trees.here.get(path), trees.there.get(path)
        before = base.get(path, reconcile.NEVER)
        if here is None and there is None:
            base.pop(path, None)
            continue
        digest = trees.digests_here.get(path, "")
        if not digest and path not in trees.digests_there:
            digest = before.digest
        # With another mode it is the version here that goes on.
        same_mode = here is None or there is None or here.mode == there.mode
        base[path] = Known(here if same_mode else before.here, there, digest)


def _place(
    root: Path, stage: str, paths: Sequence[str], links: Mapping[str, Entry], place: Path
) -> None:
    """Move files from the stage to a place in the tree, and make links there."""
    for path in paths:
        target = root / place / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path in links:
            target.symlink_to(links[path].stamp)
        elif (root / stage / path).is_file() and not (root / stage / path).is_symlink():
            (root / stage / path).replace(target)


def _rsync(argv: Sequence[str], paths: Sequence[str], size: int) -> None:
    """Run rsync over files; those that it cannot read or find are missing afterwards.

    Raises:
        CannotCreateError: There is no room on one of the sides.
        TransportLostError: The connection broke.
    """
    listed = b"\0".join(b"./" + os.fsencode(path) for path in paths)
    if size < NOTEWORTHY:
        done = process.capture(argv, stdin=listed)
    else:
        title = f"copying {len(paths)} files of {size // 1_000_000} MB"
        done = _rsync_shown(argv, listed, title)
    if done.code in {0, 23, 24} and "No space left" not in done.stderr:
        return
    if "No space left" in done.stderr or "Disk quota" in done.stderr:
        raise CannotCreateError(
            f"there is no room for {len(paths)} files of {size} bytes", "make some, and try again"
        )
    raise TransportLostError(f"the files were not copied: {done.last_line}", detail=done.stderr)


def _rsync_shown(argv: Sequence[str], listed: bytes, title: str) -> process.Result:
    """Run rsync, and show at a terminal how far it is."""
    log.info("%s", title)
    # What macOS has by that name cannot tell.
    if not (
        console.is_terminal(2)
        and "rsync  version 3" in process.capture((argv[0], "--version")).stdout
    ):
        return process.capture(argv, stdin=listed)
    show = console.progress(title)

    def on_output(text: str) -> None:
        if percents := re.findall(r"\d+%", text):
            show(percents[-1])

    try:
        return process.follow((*argv, "--info=progress2"), on_output, stdin=listed)
    finally:
        show("")
