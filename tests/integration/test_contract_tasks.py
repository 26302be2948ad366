"""The provider's own tasks: what each prints, how they chain, and what they never touch."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import KEY, Caller, ended

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.contract import Outside


def docker(*words: str) -> None:
    """Have the engine do something, without nddt."""
    subprocess.run(("docker", *words), check=True, capture_output=True, timeout=60)


alone = pytest.mark.skipif(
    os.getuid() != 0, reason="removes all that the owner has; only root can be another owner"
)


def test_each_task_prints_the_one_thing_that_a_script_needs(kept: Caller, outside: Outside) -> None:
    """`image=$(…)` and `name=$(…)` work, and what is there already is not made again."""
    image = kept(kept.task("build-image"))
    first = kept(kept.task("create-sandbox"))
    again = kept(kept.task("create-sandbox"))

    assert (image.code, len(image.lines), image.said) == (0, 1, "")
    assert (0, first.stdout, "") == (again.code, again.stdout, again.said)
    assert {first.lines[0]: "running"} == outside.sandboxes()
    plan = kept("run", "--dry", "--demo", "--prompt", "x").stdout.decode()
    assert first.lines[0] in plan


def test_tasks_chain_over_one_sandbox(nddt: Caller, outside: Outside) -> None:
    """Build, create, use and remove in one command; nothing is left."""
    words = ("build-image", "create-sandbox")
    tasks = [nddt.task(word) for word in words]
    look = (nddt.task("shell"), "--command", "hostname")

    done = nddt(*tasks, *look, nddt.task("cleanup"), "--yes")

    assert done.code == 0, done.said
    image, name, inside, removed = done.lines
    assert image == nddt(nddt.task("build-image")).lines[0]
    assert name == removed
    assert nddt.provider != "docker" or name == inside
    assert not outside.sandboxes()


@pytest.mark.same_everywhere
def test_a_failing_task_ends_the_chain_but_for_its_clean_up(nddt: Caller, outside: Outside) -> None:
    """Its exit code is the command's, and of what follows only `cleanup` is done."""
    make = nddt.task("create-sandbox")
    words = (make, nddt.task("shell"), "--command", "exit 5", nddt.task("list"))

    done = nddt.having(NDDT_PERSISTENT="true")(*words, nddt.task("cleanup"), "--yes")

    assert (done.code, done.lines, done.said) == (5, [done.lines[0]] * 2, "")
    assert not outside.sandboxes()


@pytest.mark.same_everywhere
def test_a_clean_up_that_fails_too_does_not_hide_the_failure(
    kept: Caller, outside: Outside
) -> None:
    """Without consent it says what it would have removed; the code is the first one."""
    make, shell = kept.task("create-sandbox"), (kept.task("shell"), "--command", "exit 5")

    done = kept(make, *shell, kept.task("cleanup"))

    assert (done.code, list(outside.sandboxes())) == (5, done.lines)
    assert f"Remove {done.lines[0]} (running)?" in done.said


def test_a_shell_command_has_stdin_and_a_code(nddt: Caller) -> None:
    """It runs with bash, in a sandbox for it alone, and the channels are its own."""
    command = 'cat; echo "it\'s $((1 + 1))" >&2; [[ -w /workspace ]] && exit 4'

    done = nddt("shell", "--command", command, stdin=b"a\0b")

    assert (done.code, done.stdout, done.stderr) == (4, b"a\0b", b"it's 2\n")


def test_the_list_for_people_and_for_programs(kept: Caller) -> None:
    """A table with a head, and JSON with the same sandboxes."""
    name = kept.make_sandbox()

    table = kept(kept.task("list"))
    found = json.loads(kept("list", "--json").stdout)

    (row,) = [line.split() for line in table.lines if line.startswith(f"{name} ")]
    assert row[1:3] == ["running", "persistent"]
    shown = str(kept.directory) if kept.provider == "docker" else ""
    assert (shown or "-") in row
    (item,) = [one for one in found if one["name"] == name]
    assert ("running", "persistent", shown) == (
        item["state"],
        item["mode"],
        item["workspace"],
    )
    assert abs(time.time() - item["created"]) < 120


@alone
def test_an_empty_list(nddt: Caller) -> None:
    """Programs get an empty array, people an empty table."""
    assert json.loads(nddt("list", "--json").stdout) == []
    assert len(nddt("list").lines) == 1


@ON_DOCKER
def test_a_clean_up_takes_what_is_of_here(kept: Caller, outside: Outside, mine_name: str) -> None:
    """Running or not, but not a run that goes on in another terminal, nor another directory's."""
    elsewhere = kept.directory / "elsewhere"
    elsewhere.mkdir()
    other = kept.to(elsewhere).make_sandbox()
    words = ("shell", "--command", "echo begun; read line")

    with ended(kept.having(NDDT_PERSISTENT="").start(*words, stdin=PIPE)) as running:
        assert running.stdout
        assert running.stdin
        assert running.stdout.readline() == b"begun\n"
        name = kept.make_sandbox()
        second = kept.having(NDDT_NAME=mine_name).make_sandbox()
        assert kept("stop").code == 0
        done = kept("cleanup", "--yes")
        running.stdin.write(b"end\n")
        running.stdin.close()
        assert running.wait(60) == 0

    assert (done.code, {*done.lines}) == (0, {name, second})
    assert [other] == list(outside.sandboxes())


@ON_DOCKER
@alone
def test_marks_of_an_image_make_no_sandbox(kept: Caller, outside: Outside, mine_name: str) -> None:
    """What runs from nddt's image, or from one made of a sandbox, is not nddt's to remove."""
    sandbox = kept.make_sandbox()
    image = json.loads(kept("list", "--json").stdout)[0]["image"]
    names = (mine_name, f"{mine_name}-2")
    docker("commit", sandbox, mine_name)
    docker("run", "--detach", "--entrypoint", "sleep", "--name", names[0], image, "600")
    docker("create", "--name", names[1], mine_name)
    try:
        listed = kept("list", "--all-owners").stdout.decode()
        refused = [kept(task, "--name", name) for task in ("stop", "cleanup") for name in names]
        done = kept("cleanup", "--all", "--yes")
        left = {*outside.sandboxes()}
    finally:
        docker("rm", "--force", *names)
        docker("rmi", mine_name)

    assert not {*names} & {*listed.split()}
    assert [(one.code, "not nddt's" in one.said) for one in refused] == [(73, True)] * 4
    assert (done.code, done.lines) == (0, [sandbox])
    assert left == {*names}


@pytest.mark.same_everywhere
def test_nothing_is_removed_without_consent(kept: Caller, outside: Outside) -> None:
    """Nobody can be asked: 64, the name, the way to agree; --dry only names it."""
    name = kept.make_sandbox()

    refused = kept("cleanup", "--name", name)
    dry = kept("cleanup", "--dry", "--name", name)

    assert (refused.code, refused.stdout, len(refused.said.splitlines())) == (64, b"", 1)
    assert name in refused.said
    assert "--yes" in refused.said
    assert (0, [name]) == (dry.code, dry.lines)
    assert {name: "running"} == outside.sandboxes()


@alone
def test_a_clean_up_by_age(kept: Caller, outside: Outside) -> None:
    """--older-than spares what is younger."""
    name = kept.make_sandbox()

    assert ((d := kept("cleanup", "--all", "--older-than", "1h", "--yes")).code, d.lines) == (0, [])
    assert [name] == list(outside.sandboxes())
    wrong = kept("cleanup", "--all", "--older-than", "soon", "--yes")
    assert (wrong.code, len(wrong.said.splitlines())) == (64, 1)


@ON_DOCKER
@alone
def test_a_clean_up_of_all_spares_other_owners(
    kept: Caller, outside: Outside, mine_name: str
) -> None:
    """Any directory's sandboxes, running or not, but only one's own."""
    elsewhere = kept.directory / "elsewhere"
    elsewhere.mkdir()
    names = {kept.make_sandbox(), kept.to(elsewhere).make_sandbox()}

    with outside.neighbour(mine_name):
        done = kept(kept.task("cleanup"), "--all", "--yes")

        assert (0, names) == (done.code, set(done.lines))
        assert [mine_name] == list(outside.sandboxes())
        assert mine_name not in kept("list").stdout.decode()
        assert mine_name in kept("list", "--all-owners").stdout.decode()
        by_name = kept("cleanup", "--name", mine_name, "--yes")
        assert by_name.code == 73
        assert "somebody@else" in by_name.said
        assert [mine_name] == list(outside.sandboxes())


def test_a_name_of_somebody_elses_is_refused(
    nddt: Caller, outside: Outside, mine_name: str
) -> None:
    """Neither a stranger's thing nor another owner's sandbox is used, stopped or removed."""
    caller = nddt.having(ANTHROPIC_API_KEY=KEY).with_agent("echo never")
    commands = (
        ("run", "--prompt", "x", "--name", mine_name),
        ("run", "--prompt", "x", "--persistent", "--name", mine_name),
        ("shell", "--command", "true", "--name", mine_name),
        ("stop", "--name", mine_name),
        (caller.task("start"), "--name", mine_name),
        (caller.task("create-sandbox"), "--name", mine_name),
        ("cleanup", "--name", mine_name, "--yes"),
    )

    for other, tried in ((outside.stranger, commands[::3]), (outside.neighbour, commands)):
        with other(mine_name):
            for words in tried:
                done = caller(*words)
                assert (done.code, done.stdout) == (73, b""), (words, done.said)
                assert len(done.said.splitlines()) == 1, (words, done.said)
                assert f"{mine_name} belongs to" in done.said, words
                assert "--name" in done.said


def test_a_sandbox_that_is_not_there(nddt: Caller, mine_name: str) -> None:
    """69 and the task that makes one."""
    for words in (("stop",), ("cleanup", "--yes"), (nddt.task("start"),)):
        done = nddt(*words, "--name", mine_name)
        assert (done.code, len(done.said.splitlines())) == (69, 1), done.said
        assert "create-sandbox" in done.said


@alone
def test_a_run_of_a_machine_of_the_same_name(nddt: Caller, outside: Outside, runtime: Path) -> None:
    """As a CI's runners have, on one engine or account: its clean-up is not that of ours."""
    words = (*nddt.launcher[:-1], "unshare", "--pid", "--fork", "--mount-proc", nddt.launcher[-1])
    twin = replace(nddt, launcher=words).having(
        XDG_STATE_HOME=str(runtime / "state"), XDG_RUNTIME_DIR=str(runtime)
    )

    with ended(nddt.start("shell", "--command", "echo begun; read line", stdin=PIPE)) as running:
        assert running.stdout
        assert running.stdin
        assert running.stdout.readline() == b"begun\n"
        (name,) = outside.sandboxes()
        here = twin("cleanup", "--yes")
        everywhere = twin("cleanup", "--all", "--yes")
        still = outside.sandboxes()
        running.stdin.write(b"end\n")
        running.stdin.close()
        assert running.wait(60) == 0

    assert (here.code, here.stdout) == (0, b""), here.said
    assert (everywhere.code, everywhere.stdout) == (0, b""), everywhere.said
    assert f"{name} runs for another machine's" in everywhere.said
    assert still == {name: "running"}
