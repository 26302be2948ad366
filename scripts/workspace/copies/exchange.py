"""Two copies of a directory, one here and one in a sandbox, made to agree again.

Both are looked at by `tree.py`, and `reconcile.py` decides. Contents of files come into a stage
on the other side (`carrying.py`), and `changing.py` puts them into place, each whole or not at
all. It may break off anywhere: the next time begins with what is there then.

The sandbox is not trusted: what it answers is checked (`answers.py`).
"""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scripts.machine.beneath import Beneath
from scripts.workspace.copies import (
    answers,
    changing,
    kept_apart,
    known,
    names_apart,
    own_directory,
    reconcile,
    tree,
)
from scripts.workspace.copies.carrying import FILES, Carrier
from scripts.workspace.copies.reconcile import Known, Trees
from scripts.workspace.copies.report import Report, take_note
from scripts.workspace.copies.staying import Staying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from scripts.workspace.copies.answers import Mark, Other
    from scripts.workspace.copies.changing import Operation, Outcome
    from scripts.workspace.copies.reconcile import Base, Decision


@dataclass(kw_only=True)
class Copies:
    """The two copies, and what is known of when they last agreed.

    Args:
        here: This machine's directory.
        other: The sandbox's.
        memory: File for what is known, in a directory that no sandbox sees.
        private: A path that stays here unless git tracks it.
        reserve: Bytes that are to stay free on this machine's disks.
        notes: Directory for what stays here, whatever the rules have become; all sandboxes of
            the directory have it in common.
    """

    here: Path
    other: Other
    memory: Path
    private: str = ""
    reserve: int = 0
    notes: Path | None = None
    _mark: Mark = answers.UNKNOWN
    """Of the other copy, when that has been looked at."""
    _before: Base = field(default_factory=dict)
    """What was known of both then."""
    _is_strange: bool = False
    """The other copy is none that is known, and there is something in it."""
    _ignored: set[str] = field(default_factory=set)
    """Files and directories that are ignored here."""
    _held: set[str] = field(default_factory=set)
    """What stays here though it is not ignored."""
    stage: str = field(
        default_factory=lambda: f"{own_directory.INCOMING}{os.getpid()}-{secrets.token_hex(4)}"
    )
    """Where files arrive in the sandbox before they are put into place."""

    # -- both directions

    def pull(self, may_delete: Callable[[int], bool] = lambda _: True) -> Report:
        """Bring what has changed in the sandbox, but for what has changed here, too.

        Args:
            may_delete: Asked if most files are gone there, with their number.
        """
        trees, decision, saving = self._decided(self._to_bring)
        report, base = self._report(decision), trees.base
        report.failed |= self._named_alike(trees)
        if (lost := reconcile.lost(trees, decision)) and not may_delete(lost):
            report.lost = lost
            decision = decision.without_deletions()
        blocked: list[str] = []
        if decision.operations or saving:
            with self.carrier.stage_here() as stage, Beneath(self.here) as target:
                wanted = [*_files(decision.operations), *saving]
                report.failed |= self.carrier.fetch(trees, wanted, stage, target)
                came = [one for one in decision.operations if one.path not in report.failed]
                outcomes = self._changed_here(trees, came)
                # Somebody may have changed it here since we have looked.
                blocked = [p for p, one in outcomes.items() if one.reason == "kept"]
                late = [p for p in blocked if tree.is_file(trees.there.get(p))]
                report.conflicts += late
                apart = [p for p in (*saving, *late) if p not in report.failed]
                report.saved, report.commits = kept_apart.keep(self.here, stage, trees.there, apart)
                done = [p for p, one in outcomes.items() if not one.reason]
                files = [p for p in done if (now := outcomes[p].entry) and now.kind == "f"]
                digests = {path: tree.digest(str(self.here), path) for path in files}
            after = {p: (one.entry, trees.there.get(p)) for p, one in outcomes.items()}
            take_note(report, base, outcomes, after, digests)
        for path in {*report.conflicts, *(p for p in blocked if p in trees.there)}:
            if path in report.failed:
                continue
            # What had no place here was as if it had: so what is here replaces it there, too.
            there = trees.there.get(path)
            here = there if path in blocked else base.get(path, reconcile.NEVER).here
            base[path] = Known(here, there, "")
        self._remember(base)
        return report

    def push(self) -> Report:
        """Send what has changed here; what it replaces in the sandbox is kept here."""
        trees, decision, saving = self._decided(self._to_send)
        report, base = self._report(decision), trees.base
        held = (path for path in self._held if not reconcile.is_in(path, self._ignored))
        report.staying = sorted(path for path in held if trees.here[path].kind != "d")
        if saving:
            with self.carrier.stage_here() as stage, Beneath(self.here) as target:
                report.failed |= self.carrier.fetch(trees, saving, stage, target)
                apart = [path for path in saving if path not in report.failed]
                report.saved, report.commits = kept_apart.keep(self.here, stage, trees.there, apart)
        operations = [one for one in decision.operations if one.path not in report.failed]
        if operations:
            digests: dict[str, str] = {}
            sent = _files(operations)
            counting = threading.Thread(target=self._count, args=(trees, sent, digests))
            counting.start()
            try:
                if sent:
                    answers.fulfil(self.other, "prepare", stage=self.stage)
                    self.carrier.send(trees, sent)
                outcomes = answers.apply(self.other, self.stage, operations)
                if sent:
                    answers.fulfil(self.other, "discard", stage=self.stage)
            finally:
                counting.join()
            after = {p: (trees.here.get(p), one.entry) for p, one in outcomes.items()}
            take_note(report, base, outcomes, after, digests)
        self._remember(base)
        return report

    def _report(self, decision: Decision) -> Report:
        return Report(conflicts=list(decision.conflicts), is_strange=self._is_strange)

    def _remember(self, base: Base) -> None:
        """Remember on both sides that they have agreed, and here on what."""
        if self._mark.exchange and base == self._before:
            return
        exchange = secrets.token_hex(4)
        answers.fulfil(self.other, "note", exchange=exchange)
        known.write_known(self.memory, self._mark._replace(exchange=exchange), base)

    def _decided(self, decide: Callable[[Trees], Decision]) -> tuple[Trees, Decision, list[str]]:
        """Look at both, decide, and note what they agree on.

        Returns:
            Also the files of the sandbox's that are to be kept apart.
        """
        trees = self._looked_at()
        decision = decide(trees)
        known.note_same(trees.base, trees, decision.agreed)
        saving = [one for one in decision.conflicts if tree.is_file(trees.there.get(one))]
        return trees, decision, saving

    @property
    def _staying(self) -> Staying:
        place = self.notes or self.memory.with_name("staying")
        return Staying(self.here, place, self.private)

    def _to_bring(self, trees: Trees) -> Decision:
        """Decide what comes from the sandbox: no name for which there is no place."""
        alike = self._named_alike(trees)
        return reconcile.to_bring(trees).where(lambda path: path not in alike)

    def _named_alike(self, trees: Trees) -> dict[str, str]:
        places = (self.here, self.memory.parent)
        reason = "the file system here takes its name and another's for one"
        return dict.fromkeys(names_apart.blocked(trees.there, trees.here, places), reason)

    def _to_send(self, trees: Trees) -> Decision:
        """Decide what goes to the sandbox, which has no say in that.

        What is ignored by now does not go, though there is something in its place there.
        """
        return reconcile.to_send(trees).where(lambda path: not self._stays(path))

    def _stays(self, path: str) -> bool:
        return path in self._held or reconcile.is_in(path, self._ignored)

    def _changed_here(self, trees: Trees, operations: Sequence[Operation]) -> dict[str, Outcome]:
        """Put into place here what has come."""
        return self._staying.bring(
            [one.path for one in operations],
            {*trees.here, *self._ignored},
            lambda: changing.apply(str(self.here), str(self._incoming / FILES), operations),
        )

    def changes(self) -> tuple[Trees, tuple[str, ...]]:
        """Tell which paths the sandbox has changed, conflicts among them."""
        trees = self._looked_at()
        decision = self._to_bring(trees)
        paths = (*(one.path for one in decision.operations), *decision.conflicts)
        return trees, tuple(sorted(paths))

    def fetch(self, trees: Trees, paths: Sequence[str], target: Beneath) -> dict[str, str]:
        """Bring files of the sandbox's into a directory apart.

        Args:
            trees: What `changes` has returned.
            paths: Files and links of there.
            target: Where they go, under the same paths.

        Returns:
            Those that could not be brought, and why.
        """
        with self.carrier.stage_here() as stage:
            files = [p for p in paths if tree.is_file(trees.there.get(p))]
            failed = self.carrier.fetch(trees, files, stage, target)
            for path in files:
                if path not in failed:
                    with _reasons(failed, path):
                        kept_apart.place(stage, path, target, trees.there[path])
        return failed

    @property
    def _incoming(self) -> Path:
        return self.memory.with_name(self.stage.rpartition("/")[2])

    # -- looking

    def _looked_at(self) -> Trees:
        mark, base = known.read_known(self.memory)
        agreed = {path: one.there for path, one in base.items() if one.there}
        answers.ask_entries(self.other, mark, agreed)
        self._ignored = set()
        here = tree.entries(str(self.here), self.private, self._ignored)
        expected = len(here) + len(agreed)
        self._mark, there = answers.entries(self.other, mark, agreed, expected)
        self._is_strange = bool(mark.identity and there and self._mark != mark)
        if self._mark != mark:
            base = {}
        self._before = dict(base)
        missing = [path for path, one in base.items() if one.here and path not in here]
        here |= {p: now for p in missing if (now := tree.look(str(self.here), p))}
        self._held = self._staying.held(here, self._ignored)
        trees = Trees(base=base, here=here, there=there)
        doubtful = trees.doubtful()
        if not doubtful:
            return trees
        answers.ask_digests(self.other, there, doubtful)
        digests = {path: tree.digest(str(self.here), path) for path in doubtful}
        theirs = answers.digests(self.other, doubtful)
        return replace(trees, digests_here=digests, digests_there=theirs)

    @property
    def carrier(self) -> Carrier:
        """What carries files between the two."""
        return Carrier(
            here=self.here,
            other=self.other,
            incoming=self._incoming,
            stage=self.stage,
            reserve=self.reserve,
            stays=self._stays,
        )

    def _count(self, trees: Trees, paths: Sequence[str], digests: dict[str, str]) -> None:
        """Hash what is being sent, unless it changes meanwhile."""
        for path in paths:
            found = tree.digest(str(self.here), path)
            entry = trees.here[path]
            if tree.is_index(entry) or tree.look(str(self.here), path) == entry:
                digests[path] = found


def _files(operations: Sequence[Operation]) -> list[str]:
    return [one.path for one in operations if one.entry and one.entry.kind == "f"]


@contextmanager
def _reasons(failed: dict[str, str], path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        failed[path] = error.strerror or str(error)
