"""Files and directories copied by hand, with any name, both ways."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.contract import end, ended

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.contract import Caller, Outside

NAMES = (
    b"a b",
    b"new\nline",
    b"-x",
    b"--",
    b"g*[a]?",
    b"$(touch evil)`'\"\\",
    "ü".encode(),
    b"\xff",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with all that a name can be, links, modes and an empty directory."""
    root = tmp_path / "odd tree"
    inner = root / "-in ner"
    inner.mkdir(parents=True)
    (root / "empty").mkdir()
    for place in (root, inner):
        for name in NAMES:
            path = os.path.join(os.fsencode(place), name)  # noqa: PTH118  (bytes)
            with open(path, "wb") as file:  # noqa: PTH123
                file.write(b"content of " + name)
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "link").symlink_to("run")
    (root / "dangling").symlink_to("/nowhere")
    return root


def assert_same(one: Path, other: Path) -> None:
    """Compare content and modes."""
    subprocess.run(("diff", "-r", "--no-dereference", one, other), check=True)
    for path in one.rglob("*"):
        there = other / path.relative_to(one)
        assert path.lstat().st_mode == there.lstat().st_mode, path


def test_a_tree_goes_in_and_comes_out(kept: Caller, tree: Path, tmp_path: Path) -> None:
    """As it was; into a directory that exists, under its own name."""
    kept.make_sandbox()

    for words in (
        (str(tree), "sandbox:/tmp/new"),
        (str(tree), "sandbox:/tmp/new"),
        ("sandbox:/tmp/new", str(tmp_path / "back")),
        (f"{tree}/.", "sandbox:/tmp/new"),
        ("sandbox:/tmp/new", str(tmp_path / "back")),
        (f"{tree}/-x", "sandbox:one"),
        (f"{tree}/g*[a]?", "sandbox:"),
        ("sandbox:g*[a]?", str(tmp_path)),
        ("sandbox:/tmp/new/link", str(tmp_path / "linked")),
    ):
        done = kept("cp", *words)
        assert (done.code, done.stdout, done.said) == (0, b"", ""), words

    assert_same(tree, tmp_path / "back" / "new" / "odd tree")
    assert (tmp_path / "g*[a]?").read_text() == "content of g*[a]?"
    assert (tmp_path / "linked").stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "linked").is_symlink()
    found = kept("shell", "--command", "cat one; find /workspace /tmp -name '.nddt*' -o -name evil")
    assert found.stdout == b"content of -x"
    assert not [path for path in tmp_path.rglob("*") if ".nddt" in path.name]


def test_a_running_sandbox_is_named(nddt: Caller, mine_name: str, tmp_path: Path) -> None:
    """Somebody's run, too; nothing of the copy stays after it."""
    (tmp_path / "file").write_text("in\n")
    command = "cd /tmp; until [ -s file ]; do sleep 0.1; done; sleep 1; cat file; echo out >made"
    words = ("shell", "--name", mine_name, "--command", f"echo up; {command}; sleep 100")

    with ended(nddt.start(*words)) as running:
        assert running.stdout
        assert running.stdout.readline() == b"up\n"
        name = ("--name", mine_name)
        for pair in ((str(tmp_path / "file"), "sandbox:/tmp/file"), ("sandbox:/tmp/file", ".")):
            done = nddt(nddt.task("cp"), *pair, *name)
            assert (done.code, done.said) == (0, "")
        assert running.stdout.readline() == b"in\n"
        assert (nddt.directory / "file").read_text() == "in\n"
        running.terminate()
        end(running)


def test_a_stopped_sandbox_is_started(kept: Caller, outside: Outside, tmp_path: Path) -> None:
    """What is copied is on its disk."""
    name = kept.make_sandbox()
    assert kept("stop").code == 0
    (tmp_path / "file").write_text("in\n")

    assert kept("cp", str(tmp_path / "file"), "sandbox:/tmp/").code == 0

    assert {name: "running"} == outside.sandboxes()
    assert kept("shell", "--command", "cat /tmp/file").stdout == b"in\n"


def test_what_cannot_be_copied_is_said(kept: Caller, outside: Outside, tree: Path) -> None:
    """One line, and the right code; first of all what needs no sandbox to be known."""
    nothing = [
        (("a", "b"), 64, "one of the two paths must be in the sandbox"),
        (("sandbox:a", "sandbox:b"), 64, "one of the two paths must be in the sandbox"),
        ((f"{tree}/none", "sandbox:"), 65, f"there is no {tree}/none"),
        ((str(tree), "sandbox:"), 69, "there is no sandbox"),
    ]
    there = [
        (("sandbox:none", "."), 65, "there is no sandbox:none"),
        (("sandbox:/etc/passwd", "none/x"), 65, "there is no directory for none/x"),
        (("sandbox:/etc/passwd", "taken"), 65, "taken/passwd is a directory"),
        (("sandbox:/etc", "file"), 65, "file is a file"),
        ((str(tree), "sandbox:none/x"), 65, "there is no directory for sandbox:none/x"),
        ((str(tree), "sandbox:/etc/passwd"), 65, "sandbox:/etc/passwd is a file"),
        ((f"{tree}/run", "sandbox:/tmp/taken"), 65, "sandbox:/tmp/taken/run is a directory"),
        ((f"{tree}/run", "sandbox:/proc/x"), 74, "not all could be copied"),
        (("sandbox:/etc/passwd", "/proc/x"), 65, "/proc/x cannot be written"),
    ]
    (kept.directory / "taken" / "passwd").mkdir(parents=True)
    (kept.directory / "file").touch()

    def check(words: tuple[str, str], code: int, message: str) -> None:
        done = kept("cp", *words)
        last = done.said.splitlines()[-1]
        assert (code, b"") == (done.code, done.stdout), (words, done.said)
        assert message in last, (words, done.said)
        assert code == 74 or done.said.count("\n") == 1, done.said

    for words, code, message in nothing:
        check(words, code, message)
    assert not outside.sandboxes()
    kept.make_sandbox()
    assert kept("shell", "--command", "mkdir -p /tmp/taken/run").code == 0
    for words, code, message in there:
        check(words, code, message)
