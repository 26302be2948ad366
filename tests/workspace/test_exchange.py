"""Copies that are made to agree: real directories, real rsync, random edits on both sides."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scripts.errors import CannotCreateError, DataError
from scripts.machine.beneath import Beneath
from scripts.run import directory_copy, images
from scripts.workspace.copies import answering, changing, known, mark, tree
from scripts.workspace.copies.exchange import Copies
from scripts.workspace.copies.staying import Staying

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass
class Directory:
    """Another directory of this machine as the other copy; bytes in between, as with a sandbox."""

    root: Path
    wishes: list[Any] = field(default_factory=list)
    given: io.BytesIO = field(default_factory=io.BytesIO)
    told: io.BytesIO = field(default_factory=io.BytesIO)

    def ask(self, wish: Mapping[str, Any]) -> None:
        """Take a wish."""
        self.wishes.append(json.loads(json.dumps(wish)))
        self.given = io.BytesIO()

    def send(self, data: bytes) -> None:
        """Take bytes."""
        self.given.write(data)

    def _fulfil(self) -> None:
        while self.wishes:
            self.given.seek(0)
            wish = self.wishes.pop(0)
            pieces = answering.answer(str(self.root), wish, self.given.read, self.given.readline)
            self.told = io.BytesIO(b"".join(pieces))

    def line(self, limit: int = 0) -> bytes:
        """Read a line."""
        del limit
        self._fulfil()
        return self.told.readline().removesuffix(b"\n")

    def read(self, size: int) -> bytes:
        """Read bytes."""
        self._fulfil()
        return self.told.read(size)

    def patient(self, seconds: float) -> None:
        """It does not take long."""

    def rsync(self, words: Sequence[str], *, source: str, target: str) -> tuple[str, ...]:
        """Copy between directories."""
        paths = (f"{self.root}/{p[1:]}" if p.startswith(":") else p for p in (source, target))
        return (*words, *paths)


@dataclass
class Both:
    """Two copies."""

    here: Path
    there: Path
    copies: Copies

    @property
    def staying(self) -> Staying:
        """What stays here."""
        return Staying(self.here, self.copies.memory.with_name("staying"), self.copies.private)

    def another(self) -> None:
        """Have another sandbox, with an empty copy; nothing is known of it."""
        shutil.rmtree(self.there)
        self.there.mkdir()
        forget(self.there)
        self.copies.memory.unlink()


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home directory of the sandbox, where a copy's mark is."""
    made = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(made))
        yield made


def forget(root: Path) -> None:
    """Take a copy's mark away."""
    Path.home().joinpath(mark._file(str(root))).unlink(missing_ok=True)


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Two empty copies."""
    return made(tmp_path)


def made(base: Path) -> Both:
    """Make two empty copies."""
    here, there = base / "here", base / "there"
    here.mkdir()
    there.mkdir()
    copies = Copies(here=here, other=Directory(there), memory=base / "known.json")
    return Both(here, there, copies)


def contents(root: Path) -> dict[str, tuple[str, int, bytes]]:
    """Give all that is in a directory but what is ours."""
    found: dict[str, tuple[str, int, bytes]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.split("/", 1)[0] == ".nddt":
            continue
        if path.is_symlink():
            found[name] = ("l", 0, os.fsencode(path.readlink()))
        elif path.is_dir():
            found[name] = ("d", 0, b"")
        else:
            found[name] = ("f", path.stat().st_mode & 0o777, path.read_bytes())
    return found


def saved(root: Path) -> list[bytes]:
    """Give the contents of the conflicts that have been kept apart."""
    return [p.read_bytes() for p in (root / ".nddt/conflicts").rglob("*") if p.is_file()]


def test_all_kinds_of_things_go_there_and_back(both: Both) -> None:
    """Modes, links, empty directories, odd names; nothing else is left behind."""
    (both.here / "empty/deep").mkdir(parents=True)
    (both.here / "x.sh").write_text("#!/bin/sh\n")
    (both.here / "x.sh").chmod(0o755)
    (both.here / "link").symlink_to("x.sh")
    (both.here / "dangling").symlink_to("/nowhere")
    for name in (
        b"a b",
        b"-x",
        b"new\nline",
        b"#c",
        b";d",
        b"\xff\xfe",
        "ü".encode(),
        b"'q\"",
        b"*",
    ):
        Path(both.here, os.fsdecode(name)).write_bytes(name)
    (both.here / "big").write_bytes(os.urandom(700_000))
    (both.here / "closed").mkdir()
    (both.here / "closed/x").write_text("x")
    (both.here / "closed").chmod(0o555)

    report = both.copies.push()

    assert not report.failed
    assert contents(both.here) == contents(both.there)
    assert (both.there / "closed").stat().st_mode & 0o777 == 0o555
    assert not list(both.here.glob(".nddt"))
    assert not list(both.there.glob(".nddt/i*"))
    for path in list(both.there.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.parent.name != ".nddt":
            path.unlink()
    (both.there / "empty/deep").rmdir()
    (both.there / "fresh").write_text("new")
    report = both.copies.pull()
    assert not report.conflicts
    assert contents(both.here) == contents(both.there)
    assert (both.here / "fresh").read_text() == "new"
    assert both.copies.pull().changed == both.copies.push().changed == []


def test_ignored_files_stay_where_they_are(both: Both) -> None:
    """Those of .gitignore and .nddtignore; but what is tracked goes, and .git does."""
    subprocess.run(("git", "init", "-q", str(both.here)), check=True)
    (both.here / ".gitignore").write_text("*.log\n/build/\n")
    (both.here / ".nddtignore").write_text("secret*\n")
    (both.here / "sub").mkdir()
    (both.here / "sub/.gitignore").write_text("only-here\n")
    for name in ("a.log", "kept.log", "secret.txt", "sub/only-here", "sub/b.txt", "only-here"):
        (both.here / name).write_text(name)
    (both.here / "build").mkdir()
    (both.here / "build/out").write_text("out")
    git = ("git", "-C", str(both.here))
    subprocess.run((*git, "add", "-f", "kept.log"), check=True)

    both.copies.push()

    there = contents(both.there)
    assert {"kept.log", "sub/b.txt", "only-here", ".git/HEAD", ".git/index"} <= set(there)
    assert not {"a.log", "secret.txt", "sub/only-here", "build", "build/out"} & set(there)
    (both.there / "build").mkdir()
    (both.there / "build/other").write_text("theirs")
    # What becomes ignored has not been removed.
    (both.there / ".gitignore").write_text("*.log\n/build/\nsub\n")
    both.copies.pull()
    assert (both.here / "sub/b.txt").read_text() == "sub/b.txt"
    assert (both.here / "build/out").read_text() == "out"
    assert not (both.here / "build/other").exists()


@pytest.mark.parametrize("name", ["sub/my [1]*.env", ".env"])
def test_the_settings_stay_unless_they_are_tracked(both: Both, name: str) -> None:
    """They hold keys; where git has them anyway, a copy without them would look damaged."""
    path = both.here / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("KEY=secret")
    (both.here / "sub").mkdir(exist_ok=True)
    (both.here / "sub/.env").write_text("theirs")
    both.copies.private = name

    both.copies.push()

    assert not (both.there / name).exists()
    assert (both.there / "sub/.env").read_text() == "theirs"
    (both.there / name).write_text("the agent's")
    assert both.copies.pull().conflicts == [name]
    assert (path.read_text(), saved(both.here)) == ("KEY=secret", [b"the agent's"])
    subprocess.run(("git", "init", "-q", str(both.here)), check=True)
    subprocess.run(("git", "-C", str(both.here), "add", "-f", name), check=True)
    path.write_text("KEY=tracked")
    assert both.copies.push().staying == [name]
    assert (both.there / name).read_text() == "the agent's"
    both.staying.let_go(lambda held: held == [name])
    both.copies.push()
    assert (both.there / name).read_text() == "KEY=tracked"


def test_looking_at_a_repository_is_no_change(both: Both) -> None:
    """Git writes its index anew for nothing; only what is in it counts."""
    git = ("git", "-C", str(both.here), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(("git", "init", "-q", str(both.here)), check=True)
    (both.here / "a").write_text("1")
    subprocess.run((*git, "add", "."), check=True)
    subprocess.run((*git, "commit", "-qm", "one"), check=True)
    both.copies.push()
    for side in (both.here, both.there):
        os.utime(side / "a")
        subprocess.run(("git", "-C", str(side), "status"), check=True, capture_output=True)
    there = ("git", "-C", str(both.there), "-c", "user.name=a", "-c", "user.email=a@b")
    (both.there / "a").write_text("2")
    subprocess.run((*there, "commit", "-qam", "two"), check=True)

    report = both.copies.pull()

    assert not report.conflicts
    log = subprocess.run((*git, "log", "--format=%s"), check=True, capture_output=True)
    assert log.stdout == b"two\none\n"
    status = subprocess.run((*git, "status", "--short"), check=True, capture_output=True)
    assert status.stdout == b""


def test_a_conflict_keeps_both(both: Both) -> None:
    """What is here stays; the other is beside it, and is replaced when the next one is sent."""
    (both.here / "a").write_text("base")
    (both.here / "gone").write_text("base")
    both.copies.push()
    (both.here / "a").write_text("here")
    (both.there / "a").write_text("there")
    (both.here / "gone").unlink()
    (both.there / "gone").write_text("still wanted")

    report = both.copies.pull()

    assert report.conflicts == ["a", "gone"]
    assert (both.here / "a").read_text() == "here"
    assert (both.here / report.saved / "a").read_text() == "there"
    assert (both.here / report.saved / "gone").read_text() == "still wanted"
    assert both.copies.pull().conflicts == []
    both.copies.push()
    assert contents(both.here) == contents(both.there) == {"a": ("f", 0o644, b"here")}


def test_a_link_in_place_of_a_directory(both: Both) -> None:
    """What is in the directory has changed here: it stays, and replaces the link there."""
    (both.here / "c").mkdir()
    (both.here / "c/b").write_text("base")
    both.copies.push()
    shutil.rmtree(both.there / "c")
    (both.there / "c").symlink_to("elsewhere")
    (both.here / "c/b").write_text("here")

    report = both.copies.pull()

    assert "c" in report.conflicts
    assert (both.here / report.saved / "c").readlink() == Path("elsewhere")
    both.copies.push()
    assert contents(both.here) == contents(both.there)
    assert (both.here / "c/b").read_text() == "here"


def test_a_file_that_appears_meanwhile_is_not_overwritten(both: Both) -> None:
    """Such as an ignored one, at a place where the sandbox has made another."""
    (both.here / ".gitignore").write_text("x\n")
    (both.here / "x").write_text("mine")
    both.copies.push()
    (both.there / ".gitignore").write_text("")
    (both.there / "x").write_text("theirs")

    report = both.copies.pull()

    assert report.conflicts == ["x"]
    assert (both.here / "x").read_text() == "mine"
    assert saved(both.here) == [b"theirs"]


# -- what stays here, whatever a sandbox does to the rules ---------------------------------------

ONLY_HERE = ("secret/k", "a.pem", ".env", "sub/b.pem", "a.key", "sub/my [1]*.pem")
LATER = ("secret/new", "new.pem", "sub/:(top)new.pem", "new.key", "secret/deep/.git/config")
TAKING = {
    "their files": "rm -rf .gitignore .nddtignore",
    "the excludes": "rm -rf .git/info .gitignore .nddtignore",
    "exceptions": "printf '!*\\n' >>.gitignore; printf '!*\\n' >.nddtignore",
    "links": "ln -sf /dev/null .gitignore; rm .nddtignore",
    "the index": "git add -f .; h=$(echo x | git hash-object -w --stdin); for f in {files}; "
    'do git update-index --add --cacheinfo "100644,$h,$f" || [ $? = 128 ]; done; rm .nddtignore',
    "a repository around them": "for d in sub secret; do mkdir -p $d; git init -q $d; done; "
    "rm .gitignore .nddtignore",
    "files in their place": 'for f in {files}; do install -D /etc/hostname "$f"; done',
    "directories in their place": 'for f in {kept}; do mkdir -p "$f"; touch "$f/x"; done',
    "links in their place": 'for f in {kept}; do mkdir -p "${{f%/*}}"; ln -s x "$f"; done',
    "deeper exceptions": "mkdir secret; for d in sub secret; do echo '!*' >$d/.gitignore; done; "
    "rm .nddtignore",
    "all at once": "rm -rf .git .gitignore .nddtignore; git init -q; for f in {files}; do "
    'install -D /etc/hostname "$f"; done; git add .',
}


def keeping(both: Both) -> None:
    """Have files that stay here, and send the others."""
    both.copies.private = ".env"
    subprocess.run(("git", "init", "-q", str(both.here)), check=True)
    (both.here / ".gitignore").write_text("*.pem\n")
    (both.here / ".nddtignore").write_text("secret/\n")
    (both.here / ".git/info/exclude").write_text("*.key\n")
    for name in ("secret", "sub"):
        (both.here / name).mkdir()
    (both.here / "sub/x").write_text("x")
    for name in ONLY_HERE:
        (both.here / name).write_text("only here")
    both.copies.push()


def taken(both: Both, how: str) -> None:
    """Have the sandbox change the rules, and bring that here."""
    files = {"files": shlex.join((*ONLY_HERE, *LATER)), "kept": shlex.join(ONLY_HERE)}
    changed(both, TAKING[how].format(**files))


def changed(both: Both, text: str) -> None:
    """Run a shell's text in the sandbox, and bring here what it has changed."""
    subprocess.run(("sh", "-euc", text), cwd=both.there, check=True)
    both.copies.pull()


def got(both: Both) -> list[str]:
    """Name the files that the sandbox has got."""
    return [name for name, (_, _, text) in contents(both.there).items() if b"only here" in text]


@pytest.mark.parametrize("is_another", [False, True])
@pytest.mark.parametrize("how", TAKING)
def test_a_sandbox_does_not_choose_what_it_gets(both: Both, how: str, *, is_another: bool) -> None:
    """Neither the one that has changed the rules nor the next one, in session after session."""
    keeping(both)
    taken(both, how)
    for name in LATER:
        (both.here / name).parent.mkdir(parents=True, exist_ok=True)
        (both.here / name).write_text("only here")
    if is_another:
        both.another()

    for _ in range(2):
        both.copies.push()
        assert got(both) == []
        both.copies.pull()
    assert all((both.here / name).read_text() == "only here" for name in (*ONLY_HERE, *LATER))


@pytest.mark.parametrize(
    ("lead", "change"),
    [
        ("mv .git hidden; echo gitdir: hidden >.git", "rm hidden/info/exclude"),
        ("mv .git hidden; ln -s hidden .git", "rm hidden/info/exclude"),
        ("cp -r .git common; echo ../common >.git/commondir", "echo >common/info/exclude"),
        ("mv .git/info .; ln -s ../info .git/info", "rm info/exclude"),
        ("mv .git/info a; cp -r a b; echo >b/exclude; ln -s ../a .git/info", "rm -r a; ln -s b a"),
    ],
    ids=["a gitdir", "a link", "a commondir", "a link inside", "a link to a link"],
)
def test_rules_that_are_led_elsewhere_first(both: Both, lead: str, change: str) -> None:
    """To where a later change looks like one to any other file."""
    keeping(both)
    changed(both, lead)
    both.copies.push()
    changed(both, change)
    (both.here / "new.key").write_text("only here")

    both.copies.push()

    assert got(both) == []


def test_excludes_of_the_users_own(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """That are in the directory, as with dotfiles."""
    settings_file = both.here.with_name("gitconfig")
    settings_file.write_text(f"[core]\nexcludesFile = {both.here}/my-excludes\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings_file))
    (both.here / "my-excludes").write_text("*.own\n")
    keeping(both)
    changed(both, "rm my-excludes")
    (both.here / "new.own").write_text("only here")

    assert both.copies.push().staying == ["new.own"]
    assert got(both) == []


def test_no_hash_of_what_stays_leaves(both: Both) -> None:
    """Rsync hands the other side hashes of the blocks of what it has already."""
    seeds: list[list[str]] = []

    class Looking(Directory):
        def rsync(self, words: Sequence[str], *, source: str, target: str) -> tuple[str, ...]:
            seeds.append(sorted(one.name for one in Path(target, "../seeds").glob("*")))
            return super().rsync(words, source=source, target=target)

    both.copies.other = Looking(both.there)
    (both.here / ".gitignore").write_text("*.pem\n")
    for name in ("a.pem", "b"):
        (both.here / name).write_bytes(os.urandom(300_000))
    both.copies.push()
    (both.there / ".gitignore").unlink()
    for _ in range(2):
        for name in ("a.pem", "b"):
            (both.there / name).write_bytes(os.urandom(300_000))
        both.copies.pull()
        (both.here / "a.pem").write_bytes(os.urandom(300_000))

    assert len(saved(both.here)) == 2
    assert seeds == [["b"], ["b"]]


def test_damaged_notes(both: Both) -> None:
    """Without them, nothing is sent."""
    keeping(both)
    (both.here.parent / "staying/notes.json").write_text("[]")
    with pytest.raises(DataError, match=r"notes\.json is damaged"):
        both.copies.push()


@pytest.mark.parametrize("how", ["their files", "the index"])
def test_what_stays_goes_with_consent(both: Both, how: str) -> None:
    """To what would go: then the rules count as they are, and no other file waits."""
    keeping(both)
    taken(both, how)
    (both.here / "new.pem").write_text("only here")
    staying = both.copies.push().staying
    assert {"a.pem", "sub/b.pem"} <= set(staying)

    both.staying.let_go(lambda _: False)
    assert both.copies.push().staying == staying
    both.staying.let_go(lambda held: held == staying)
    assert both.copies.push().staying == []
    assert set(got(both)) == set(staying)
    (both.here / "later").write_text("only here")
    both.copies.push()
    assert "later" in got(both)


def test_a_file_of_the_sandboxs_goes_back_to_the_next(both: Both) -> None:
    """What it has begun to track, though it was ignored; but not what is here in its place."""
    keeping(both)
    (both.here / ".gitignore").write_text("*.pem\ndist\n")
    both.copies.push()
    make = "mkdir dist; echo a >dist/a; echo b >dist/b; git add -f dist"
    subprocess.run(("sh", "-euc", make), cwd=both.there, check=True)
    both.copies.pull()
    both.another()
    assert both.copies.push().staying == []
    assert (both.there / "dist/a").read_text() == "a\n"

    (both.here / "dist/b").write_text("only here")
    assert both.copies.push().staying == ["dist/b"]
    assert (both.there / "dist/b").read_text() == "b\n"


def test_the_users_own_rules_count(both: Both) -> None:
    """For what was never ignored here: a sandbox's commit or new rule is no reason to ask."""
    keeping(both)
    there = "echo build >>.gitignore; git -c user.name=a -c user.email=a@b commit -qam one"
    subprocess.run(("sh", "-euc", f"git add .; {there}"), cwd=both.there, check=True)
    both.copies.pull()
    (both.here / ".gitignore").write_text("*.pem\n")
    (both.here / "build").write_text("to go")

    assert both.copies.push().staying == []
    assert (both.there / "build").read_text() == "to go"
    assert got(both) == []


def test_rules_that_no_copy_has_changed(both: Both) -> None:
    """The user's own count for what is new; what was ignored stays, whoever has shown it."""
    keeping(both)
    there = "git add .; git -c user.name=a -c user.email=a@b commit -qm one"
    subprocess.run(("sh", "-euc", there), cwd=both.there, check=True)
    both.copies.pull()
    for name in (".gitignore", ".nddtignore"):
        (both.here / name).unlink()
    (both.here / "new.pem").write_text("only here")

    for _ in range(2):
        staying = both.copies.push().staying
        assert staying == ["a.pem", "secret/k", "sub/b.pem", "sub/my [1]*.pem"]
        assert got(both) == ["new.pem"]
        both.another()


def test_killed_while_rules_arrive(both: Both) -> None:
    """What was remembered before they came still holds."""
    keeping(both)
    (both.there / ".gitignore").unlink()
    with (
        patch.object(changing, "apply", side_effect=KeyboardInterrupt),
        suppress(KeyboardInterrupt),
    ):
        both.copies.pull()
    (both.here / ".gitignore").unlink()
    (both.here / "new.pem").write_text("only here")

    both.copies.push()

    assert got(both) == []


# -- what a sandbox may answer -------------------------------------------------------------------

FILE = ["f", 420, "1 1 1 1"]


@dataclass
class Hostile(Directory):
    """A copy that answers as it likes: rows for each kind of wish, else what is true."""

    answers: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def _fulfil(self) -> None:
        if self.wishes and self.wishes[0]["do"] in self.answers:
            rows = self.answers[self.wishes.pop(0)["do"]]
            lines = (one if isinstance(one, bytes) else json.dumps(one).encode() for one in rows)
            self.told = io.BytesIO(b"".join(one + b"\n" for one in (*lines, b"")))
        super()._fulfil()


ID = ["id", False, False]


@pytest.mark.parametrize(
    "row",
    [
        ["../x", *FILE],
        ["/etc/x", *FILE],
        ["a/../../x", *FILE],
        [".nddt/incoming/x", *FILE],
        [".NDDT/x", *FILE],
        ["a/x", *FILE],
        ["", "d", 493, ""],
        ["b\0", "d", 493, ""],
        ["b//c", "d", 493, ""],
        ["x" * 300, "d", 493, ""],
        ["x/" * 3000 + "x", "d", 493, ""],
    ],
    ids=lambda row: repr(row)[:30],
)
def test_a_hostile_sandbox(both: Both, row: list[Any]) -> None:
    """Cannot name a path elsewhere."""
    rows = [ID, ["a", "l", 0, "/etc"], row]
    both.copies.other = Hostile(both.there, answers={"entries": rows})

    with pytest.raises(DataError, match="the sandbox has a file at"):
        both.copies.pull()
    assert not contents(both.here)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [b"no JSON"],
        [b"[" * 30_000],
        [b'{"a": 1}'],
        [["id"]],
        [["i" * 100, False, False]],
        [["id", False]],
        [["id", 1, False]],
        [ID, ["a"]],
        [ID, ["a", "f", 420]],
        [ID, [["a"], *FILE]],
        [ID, ["a", "x", 420, "1 1 1 1"]],
        [ID, ["a", "f", 0o6755, "1 1 1 1"]],
        [ID, ["a", "f", -1, "1 1 1 1"]],
        [ID, ["a", "f", True, "1 1 1 1"]],
        [ID, ["a", "f", 420, "1 1"]],
        [ID, ["a", "f", 420, f"{'9' * 30} 1 1 1"]],
        [ID, ["a", "l", 0, ""]],
        [ID, ["a", "l", 0, "x\0y"]],
        [ID, ["a", "l", 0, "x" * 5000]],
        [ID, ["a", "d", 493, None]],
        [ID, b'["\\ud800", "d", 493, ""]'],
        [ID, b'["a", "l", 0, "\\ud800"]'],
        [ID, *([f"{number}", "d", 493, ""] for number in range(100_010))],
    ],
    ids=lambda rows: repr(rows)[:40],
)
def test_an_answer_that_makes_no_sense(both: Both, rows: list[Any]) -> None:
    """Is one line, whatever it is, and nothing is changed."""
    (both.here / "mine").write_text("mine")
    both.copies.other = Hostile(both.there, answers={"entries": rows})

    with pytest.raises(DataError, match="the sandbox's answer makes no sense"):
        both.copies.pull()
    assert list(contents(both.here)) == ["mine"]


@pytest.mark.parametrize("act", ["pull", "push", "fetch"])
def test_an_answer_that_adds_up_to_no_tree(both: Both, tmp_path: Path, act: str) -> None:
    """A link, and later a file below it: what comes is not written through the link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (both.here / "a").mkdir()
    (both.here / "a/b").write_text("base")
    both.copies.push()
    before = known.read_known(both.copies.memory)[0]
    entries = [[before.identity, True, False], ["a", "l", 0, str(outside)]]
    answers = {"entries": entries, "look": [["a/b", *FILE]]}
    both.copies.other = Hostile(both.there, answers=answers)

    def do() -> None:
        trees, paths = both.copies.changes()
        with Beneath(tmp_path) as target:
            both.copies.fetch(trees, paths, target)

    with pytest.raises(DataError, match="the sandbox has a file at 'a/b'"):
        do() if act == "fetch" else getattr(both.copies, act)()
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    ("do", "rows"),
    [
        ("look", [["other", *FILE]]),
        ("digests", [["other", "0" * 40]]),
        ("digests", [["both", "x"]]),
        ("digests", [["both", None]]),
        ("prepare", [["more"]]),
        ("apply", [["other", None, ""]]),
        ("apply", [["both", ["f", 0o4755, "1 1 1 1"], ""]]),
        ("apply", [["both", None, 1]]),
    ],
)
def test_an_answer_to_what_was_not_asked(both: Both, do: str, rows: list[Any]) -> None:
    """Whatever was asked."""
    for name in ("gone", "both"):
        (both.here / name).write_text("base")
    both.copies.push()
    (both.there / "gone").unlink()
    for side in (both.here, both.there):
        (side / "both").write_text(f"of {side.name}")
    both.copies.other = Hostile(both.there, answers={do: rows})

    with pytest.raises(DataError, match="the sandbox's answer makes no sense"):
        both.copies.push()


def test_what_a_sandbox_only_says_to_have_done(both: Both) -> None:
    """Is not taken for done."""
    (both.here / "a").write_text("1")
    both.copies.other = Hostile(both.there, answers={"apply": []})

    assert both.copies.push().failed == {"a": "the sandbox says nothing"}


@pytest.mark.parametrize("name", ["conflicts", "conflicts/x", "rescue"])
def test_links_in_what_is_ours(both: Both, tmp_path: Path, name: str) -> None:
    """A repository may hold them: what both have changed is not written through them."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (both.here / "authorized_keys").write_text("base")
    both.copies.push()
    (both.here / "authorized_keys").write_text("here")
    (both.there / "authorized_keys").write_text("theirs")
    link = both.here / ".nddt" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)

    with suppress(OSError):
        both.copies.pull()

    assert not list(outside.iterdir())
    assert (both.here / "authorized_keys").read_text() == "here"


def test_no_bit_lends_rights(both: Both) -> None:
    """Neither of a file that comes, nor of one that is put aside, in either direction."""
    for name in ("small", "big"):
        (both.here / name).write_bytes(os.urandom(400_000 if name == "big" else 10))
    both.copies.push()
    (both.here / "small").write_text("here")
    for name in ("small", "big", "new"):
        (both.there / name).write_bytes(os.urandom(400_001))
        (both.there / name).chmod(0o6755)
    (both.there / "directory").mkdir()
    (both.there / "directory").chmod(0o7777)

    report = both.copies.pull()

    assert report.changed == ["big", "directory", "new"]
    modes = [one.lstat().st_mode for one in both.here.rglob("*")]
    assert not [mode for mode in modes if mode & 0o7000]
    assert (both.here / "new").stat().st_mode & 0o777 == 0o755
    (both.here / "mine").write_text("x")
    (both.here / "mine").chmod(0o6755)
    both.copies.push()
    assert (both.there / "mine").stat().st_mode & 0o7777 == 0o755


def test_a_sparse_file(both: Both) -> None:
    """Comes as one; one that has no room by its size stays, is told of, and blocks no other."""
    room = os.statvfs(both.here)
    for name, size in (("huge", 1 << 43), ("holes", 1 << 30)):
        with (both.there / name).open("wb") as file:
            file.truncate(size)
    with (both.there / "holes").open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"x")
    (both.there / "a").write_text("fits")

    report = both.copies.pull()

    assert report.changed == ["a", "holes"]
    assert report.failed == {"huge": f"there is no room for its {1 << 43} bytes"}
    found = (both.here / "holes").stat()
    assert (found.st_size, found.st_blocks < 1000) == (1 << 30, True)
    assert tree.digest(str(both.here), "holes") == tree.digest(str(both.there), "holes")
    (both.there / "huge").unlink()
    both.copies.reserve = room.f_bavail * room.f_frsize - (1 << 29)
    with (both.there / "more").open("wb") as file:
        file.truncate(1 << 30)
    assert "no room" in both.copies.pull().failed["more"]


def test_more_than_was_said(both: Both) -> None:
    """A file that is larger when it comes than its entry is not taken."""
    rows = [ID, ["a", *FILE]]
    (both.there / "a").write_bytes(bytes(4 << 20))
    both.copies.other = Hostile(both.there, answers={"entries": rows})

    assert both.copies.pull().failed == {"a": "it has grown meanwhile"}

    endless = struct.pack(">q", 65536) + bytes(65536)
    told = Hostile(both.there, answers={"entries": rows, "fetch": [endless * 100]})
    both.copies.other = told
    with pytest.raises(DataError, match="more of a file than was asked for"):
        both.copies.pull()
    assert not contents(both.here)


def test_a_conflict_that_has_no_room(both: Both) -> None:
    """Is not taken for settled: nothing replaces it there."""
    (both.here / "a").write_text("base")
    both.copies.push()
    (both.here / "a").write_text("here")
    with (both.there / "a").open("wb") as file:
        file.truncate(1 << 43)

    for _ in range(2):
        assert "no room" in both.copies.push().failed["a"]
        assert "no room" in both.copies.pull().failed["a"]

    assert (both.there / "a").stat().st_size == 1 << 43


def test_a_deep_tree(both: Both) -> None:
    """Is left where it is, and keeps nothing else from coming."""
    here = os.open(both.there, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=here)
        deeper = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    (both.there / "a").write_text("1")

    report = both.copies.pull()

    assert not report.failed
    assert (both.here / "a").read_text() == "1"
    with Beneath(both.there) as door, Beneath(both.here) as mine:
        door.remove("deep")
        mine.remove("deep")


def test_another_sandbox_of_the_same_name(both: Both) -> None:
    """Has nothing in it, which is not to say that all has been removed."""
    (both.here / "a").write_text("1")
    both.copies.push()
    shutil.rmtree(both.there)
    both.there.mkdir()
    forget(both.there)

    report = both.copies.pull()

    assert report.changed == []
    assert (both.here / "a").read_text() == "1"
    both.copies.push()
    assert (both.there / "a").read_text() == "1"


def test_a_copy_that_has_lost_its_identity(both: Both) -> None:
    """Is looked at anew: nothing is taken for removed, and what has changed here is sent."""
    (both.here / "a").write_text("1")
    (both.here / "b").write_text("1")
    both.copies.push()
    forget(both.there)
    (both.here / "a").write_text("here")

    report = both.copies.push()

    assert report.is_strange
    assert report.conflicts == ["a"]
    assert contents(both.here) == contents(both.there)
    assert (both.there / "a").read_text() == "here"
    assert saved(both.here) == [b"1"]


def test_what_is_ours_must_be_a_directory(both: Both, tmp_path: Path) -> None:
    """A link at its place, of a project that is somebody else's, leads nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (both.here / "a").write_text("base")
    both.copies.push()
    (both.here / ".nddt").symlink_to(outside)
    for side in (both.here, both.there):
        (side / "a").write_text(f"of {side.name}")

    with pytest.raises(NotADirectoryError):
        both.copies.pull()
    assert not list(outside.iterdir())
    assert (both.here / "a").read_text() == "of here"


def test_a_link_here_leads_nowhere(both: Both, tmp_path: Path) -> None:
    """A directory that was replaced by a link is not written through."""
    (both.here / "d").mkdir()
    (both.here / "d/x").write_text("1")
    both.copies.push()
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(both.here / "d")
    (both.here / "d").symlink_to(outside)
    (both.there / "d/y").write_text("2")
    (both.there / "d/x").write_text("3")

    report = both.copies.pull()

    assert not list(outside.iterdir())
    assert report.failed or report.conflicts


# -- random trees, random edits ---------------------------------------------------------------

NAMES = ("a", "b", "c")
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(("here", "there")),
        st.sampled_from(("write", "write", "write", "remove", "mkdir", "link", "move", "chmod")),
        PATHS,
        PATHS,
        st.binary(max_size=3),
    ),
    max_size=8,
)


class Edits:
    """Makes edits, and notes every content that somebody has meant to keep."""

    def __init__(self, both: Both) -> None:
        self._both = both

    def make(self, edits: Sequence[tuple[str, str, str, str, bytes]]) -> None:
        """Make those that are possible."""
        for side, what, first, second, data in edits:
            root = self._both.here if side == "here" else self._both.there
            path, other = root / first, root / second
            try:
                self._edit(what, path, other, data)
            except (OSError, shutil.Error):
                continue

    @staticmethod
    def _edit(what: str, path: Path, other: Path, data: bytes) -> None:
        if what == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        elif what == "remove" and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif what == "remove":
            path.unlink()
        elif what == "mkdir":
            path.mkdir(parents=True)
        elif what == "link":
            path.symlink_to(os.fsdecode(data.hex()) or "x")
        elif what == "move":
            path.rename(other)
        elif what == "chmod":
            path.chmod(0o600 if path.is_file() else 0o755)


def versions(root: Path) -> dict[str, bytes]:
    """Give the regular files."""
    return {name: data for name, (kind, _, data) in contents(root).items() if kind == "f"}


def tried(examples: int) -> settings:
    """Say how many random edits are tried."""
    return settings(
        max_examples=examples,
        phases=(Phase.explicit, Phase.generate),  # to make a failing one small would take minutes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


BOTH_EDIT = given(first=EDITS, second=EDITS, third=EDITS, pushes=st.booleans())


def keeps_each_byte(first: list[Any], second: list[Any], third: list[Any], *, pushes: bool) -> None:
    """Have both sides do whatever they do: each change survives here, there, or beside."""
    with (
        tempfile.TemporaryDirectory(prefix="nddt-") as base,
        patch.object(tree, "ignored", lambda *_: set()),  # not what is tried here, and slow
        patch.object(tree, "YOUNG_NS", 5_000_000),
    ):
        both = made(Path(base))
        edits = Edits(both)
        edits.make(first)
        both.copies.push()
        agreed = versions(both.here)
        for more in (second, third):
            edits.make(more)
            here, there = versions(both.here), versions(both.there)
            reports = [both.copies.push(), both.copies.pull()] if pushes else []
            reports += [both.copies.pull(), both.copies.push()]
            now, kept = versions(both.here), saved(both.here)
            assert not any(one.failed for one in reports), [one.failed for one in reports]
            for path, data in here.items():
                if agreed.get(path) != data:
                    assert now.get(path) == data, f"{path} of here is lost"
            for path, data in there.items():
                if agreed.get(path) != data:
                    assert now.get(path) == data or data in kept, f"{path} of there is lost"
            if not any(one.conflicts for one in reports):
                assert contents(both.here) == contents(both.there)
            agreed = now


@tried(60)
@BOTH_EDIT
def test_no_byte_is_lost(
    first: list[Any], second: list[Any], third: list[Any], *, pushes: bool
) -> None:
    """Whatever both sides do."""
    keeps_each_byte(first, second, third, pushes=pushes)


@pytest.mark.exhaustive
@tried(500)
@BOTH_EDIT
def test_no_byte_is_lost_in_many_ways(
    first: list[Any], second: list[Any], third: list[Any], *, pushes: bool
) -> None:
    """However long that goes on."""
    keeps_each_byte(first, second, third, pushes=pushes)


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep this machine's git configuration out."""
    monkeypatch.setenv("HOME", str(tmp_path))


# -- faults -----------------------------------------------------------------------------------

_ACT = (
    "import sys; from pathlib import Path; from scripts.workspace.copies.exchange import Copies; "
    "from tests.workspace.test_exchange import Directory; base = Path(sys.argv[1]); "
    "both = Copies(here=base / 'here', other=Directory(base / 'there'), "
    "memory=base / 'known.json'); getattr(both, sys.argv[2])()"
)


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("act", ["push", "pull"])
def test_killed_anywhere(tmp_path: Path, act: str, step: int) -> None:
    """The next one completes what was begun, and nothing is lost."""
    random = Random(4)  # noqa: S311  (only to be different)
    for attempt in range(step - 1, 12, step):
        base = tmp_path / str(attempt)
        base.mkdir()
        both = made(base)
        source = both.here if act == "push" else both.there
        for number in range(300):
            (source / f"d{number % 7}").mkdir(exist_ok=True)
            (source / f"d{number % 7}/{number}").write_bytes(random.randbytes(2000))
        both.copies.push()
        both.copies.pull()
        for number in range(0, 300, 2):
            (source / f"d{number % 7}/{number}").unlink()
        for number in range(1, 300, 2):
            (source / f"d{number % 7}/{number}").write_bytes(random.randbytes(2000))
        wanted = contents(source)
        with subprocess.Popen(
            (sys.executable, "-c", _ACT, str(base), act), cwd=Path(__file__).parents[2]
        ) as running:
            with suppress(subprocess.TimeoutExpired):
                running.wait(0.15 + 0.04 * attempt)
            running.kill()

        report = getattr(both.copies, act)()

        assert not report.conflicts
        assert not report.failed
        assert contents(both.here) == contents(both.there) == wanted


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 1 MB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path))
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can make one")
    yield path
    subprocess.run(("umount", str(path)), check=True)


@pytest.mark.parametrize("full", ["here", "there"])
def test_no_room(tmp_path: Path, small: Path, full: str) -> None:
    """Is said; nothing is lost, and with room it goes on."""
    sides = {side: tmp_path / side for side in ("here", "there")}
    sides[full] = small / full
    for one in sides.values():
        one.mkdir()
    copies = Copies(
        here=sides["here"], other=Directory(sides["there"]), memory=tmp_path / "known.json"
    )
    other = sides["there" if full == "here" else "here"]
    (sides[full] / "mine").write_text("mine")
    copies.pull()
    copies.push()
    for number in range(4):
        (other / f"big{number}").write_bytes(os.urandom(400_000))
    act = copies.pull if full == "here" else copies.push

    if full == "here":
        assert "there is no room" in " ".join(act().failed.values())
    else:
        with pytest.raises(CannotCreateError, match="there is no room"):
            act()

    assert (sides[full] / "mine").read_text() == "mine"
    assert len(list(other.glob("big*"))) == 4
    subprocess.run(("mount", "-o", "remount,size=9m", str(small)), check=True)
    report = act()
    assert not report.failed
    assert contents(sides["here"]) == contents(sides["there"])


def test_a_difference_leaves_the_reserve(
    both: Both, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is shown beside each other is copied only as far as there is room beside it."""
    room = os.statvfs(tempfile.gettempdir())
    both.copies.reserve = room.f_bavail * room.f_frsize - (1 << 29)
    with (both.here / "large").open("wb") as file:
        file.truncate(2 << 30)
    (both.here / "small").write_text("here")
    for name in ("large", "small"):
        (both.there / name).write_text("there")
    monkeypatch.setattr(images, "need_copying", lambda _: None)
    monkeypatch.setattr(directory_copy, "both_copies", lambda *_: nullcontext(both.copies))

    with directory_copy.compared(Mock(), Mock(), both.here) as (place, paths):
        shown = sorted(str(one.relative_to(place)) for one in place.rglob("*") if one.is_file())

    assert paths == ("large", "small")
    assert shown == ["here/small", "sandbox/large", "sandbox/small"]
    assert caplog.messages == [f"large is not shown: there is no room for its {2 << 30} bytes"]
