"""What a sandbox shows of this machine cannot become something else, whatever runs in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from scripts.configuration import reading
from scripts.errors import CannotCreateError
from scripts.machine import bind_sources
from scripts.providers.docker import containers
from scripts.settings.parsing import Mount
from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import REPOSITORY, end, ended

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.contract import Caller, Outside

EXCHANGE = (
    "mv .git .g; cp -a .g .git; rm -rf .git/hooks; ln -s / .g/r; ln -s {here}/.g/r .git/hooks; "
    "mv data .d; ln -s / data; echo done"
)
"""What leads out at the next start where the engine looks a source up in the directory."""


def docker(*words: str) -> str:
    """Ask the engine."""
    return subprocess.run(("docker", *words), check=True, capture_output=True, text=True).stdout


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside."""
    path = tmp_path / "secret"
    path.write_text("of this machine")
    return path


@ON_DOCKER
def test_a_restart_shows_nothing_else(kept: Caller, outside: Outside, secret: Path) -> None:
    """However the repository in the directory was exchanged meanwhile."""
    here = kept.directory
    subprocess.run(("git", "init", "-q"), cwd=here, check=True)
    (here / "data").mkdir()
    look = f"cat {here}/.g/r{secret} .git/hooks{secret} data{secret} 2>/dev/null; ls {here} /host"

    exchanged = kept("shell", "--command", EXCHANGE.format(here=here))
    stopped = kept(kept.task("stop"))
    done = kept("shell", "--command", look)

    assert (exchanged.stdout, stopped.code) == (b"done\n", 0), exchanged.said
    assert (done.stdout, done.code) == (b"", 2), done.said
    assert len(outside.sandboxes()) == 1


@ON_DOCKER
def test_a_directory_that_is_exchanged_at_the_last_moment(
    nddt: Caller, outside: Outside, secret: Path
) -> None:
    """Between our look and the engine's: nothing runs in what shows another one."""
    here, engine = nddt.directory, secret.parent / "bin/docker"
    engine.parent.mkdir()
    swap = f"mv {here} {here}.away && ln -s {secret.parent} {here}"
    engine.write_text(
        f'#!/bin/sh\ncase $* in *type=bind*) {swap} ;; esac\nexec {shutil.which("docker")} "$@"\n'
    )
    engine.chmod(0o755)
    caller = nddt.having(PATH=f"{engine.parent}:{os.environ['PATH']}")
    name = "nddt-test-exchanged"
    for words in (
        ("shell", "--command", "cat /workspace/secret"),
        ("docker.create-sandbox", "--name", name),
    ):
        done = caller(*words)
        here.unlink()
        here.with_name(f"{here.name}.away").rename(here)

        assert (done.code, done.stdout) == (73, b""), done.said
        assert "a directory was exchanged while the sandbox started" in done.said
        assert "running" not in outside.sandboxes().values()
    assert nddt("cleanup", "--name", name, "--yes").code == 0


@ON_DOCKER
def test_a_restart_at_the_last_moment(
    kept: Caller, outside: Outside, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for a kept sandbox, which is ended again."""
    name = kept.make_sandbox()
    assert kept("stop").code == 0
    here, away = kept.directory, kept.directory.with_name(f"{kept.directory.name}.away")

    def swap(*_: object) -> None:
        here.rename(away)
        here.symlink_to(secret.parent)

    loaded = reading.load(here, {**os.environ, **kept.environ}, {})
    found = containers.find(loaded, name)
    assert found
    monkeypatch.setattr(containers, "_warn_of_others", swap)

    with pytest.raises(CannotCreateError, match="does not show what it was made to show"):
        containers.start(loaded, found)

    here.unlink()
    away.rename(here)
    assert outside.sandboxes()[name] != "running"


@ON_DOCKER
def test_a_start_by_hand(kept: Caller, outside: Outside, secret: Path) -> None:
    """Without a look of nddt's: whatever would run in it, the next connection looks."""
    name = kept.make_sandbox()
    assert kept("stop").code == 0
    here, away = kept.directory, kept.directory.with_name(f"{kept.directory.name}.away")
    here.rename(away)
    here.symlink_to(secret.parent)
    docker("start", name)
    kept.to(away)("shell", "--name", name, "--command", "true")
    here.unlink()
    away.rename(here)

    for words in (
        ("shell", "--command", "cat /workspace/secret"),
        ("shell", "--name", name, "--command", "cat /workspace/secret"),
        ("cp", "sandbox:secret", "copied"),
        ("run", "--demo", "--prompt=x"),
    ):
        done = kept(*words)
        assert (done.code, done.stdout) == (73, b""), done.said
        assert "does not show the directories that are there now — start it once" in done.said
    assert not (here / "copied").exists()

    assert kept("stop").code == 0
    assert kept("shell", "--command", "ls /workspace").stdout == b""
    assert outside.sandboxes() == {name: "running"}


# What a second sandbox can do that may change both `outer` and `inner`, when the first one has
# been started with `evil` in place of `inner` at /workspace/sub.
ASIDE = {
    "nothing": "true",
    "the honest one in its place": "mv outer/sub outer/aside; mv inner outer/sub",
    "a link to it": "mv outer/sub outer/aside; mv inner outer/honest; ln -s honest outer/sub",
    "a link to it below what was moved": (
        "mv inner evil/honest; mv outer/sub outer/aside; ln -s aside/honest outer/sub"
    ),
    "a link to another place": "mv outer/sub outer/aside; ln -s again outer/sub",
}


@ON_DOCKER
@pytest.mark.parametrize("how", [None, *ASIDE])
def test_a_place_in_another_that_is_moved_aside(
    nddt: Caller, tmp_path: Path, how: str | None
) -> None:
    """What was mounted there goes along, and the look inside is not to take another for it."""
    image = nddt("docker.build-image").lines[-1]
    for name in ("outer/sub", "outer/again", "inner", "evil"):
        (tmp_path / name).mkdir(parents=True)
    places = {"/workspace": "outer", "/workspace/again": "inner", "/workspace/sub": "inner"}
    binds = [Mount(tmp_path / one, place) for place, one in places.items()]
    compare = bind_sources.comparison([*places], bind_sources.check_sources(binds, ""))
    shown = {**places, "/workspace/sub": "evil"} if how else places
    words = [f"--mount=type=bind,source={tmp_path / one},target={to}" for to, one in shown.items()]
    made = docker("run", "--detach", "--rm", "--init", *words, image, "sleep", "600").strip()
    try:
        if how:
            subprocess.run(("sh", "-ec", ASIDE[how]), cwd=tmp_path, check=True)
        done = subprocess.run(
            ("docker", "exec", made, "/bin/sh", "-c", compare, "same", "echo", "went on"),
            check=False,
            capture_output=True,
        )
    finally:
        docker("kill", made)

    assert (done.returncode, done.stdout) == ((73, b"") if how else (0, b"went on\n")), done
    assert done.stderr == (f"{bind_sources.EXCHANGED}\n".encode() if how else b"")


@ON_DOCKER
def test_a_container_of_somebody_else_stays(nddt: Caller, kept: Caller, outside: Outside) -> None:
    """Whoever asks for its name, in whatever mode; and so does a sandbox that is kept."""
    image = kept("docker.build-image").lines[-1]
    theirs = docker("run", "-d", "--entrypoint", "sleep", image, "60").strip()
    try:
        taken = docker("inspect", "--format", "{{.Name}}", theirs).strip().lstrip("/")
        mine = kept.make_sandbox()
        for name in (taken, mine):
            for workspace in ("sync", "mount"):
                caller = nddt.having(NDDT_WORKSPACE=workspace, NDDT_NAME=name)
                done = caller("run", "--demo", "--prompt", "x")
                assert (done.code, done.stdout) == (73, b""), done.said
        assert docker("inspect", "--format", "{{.State.Status}}", theirs).strip() == "running"
        assert outside.sandboxes()[mine] == "running"
    finally:
        docker("rm", "--force", theirs)


@ON_DOCKER
def test_a_mount_from_the_directory_is_refused(nddt: Caller) -> None:
    """Also by way of a link, and above the directory; at once, and nothing is started."""
    (nddt.directory / "data").mkdir()
    for mount in ("./data:/data", "./data:/data:ro", "..:/above"):
        for words in (("shell", "--command", "true"), ("run", "--demo", "--prompt", "hello")):
            done = nddt(*words, "--mount", mount)

            assert (done.code, done.stdout) == (78, b""), done.said
            (line,) = done.said.splitlines()
            assert "could put a link to any directory in its place — " in line


@ON_DOCKER
def test_no_start_if_a_directory_leads_elsewhere(
    kept: Caller, outside: Outside, secret: Path
) -> None:
    """Whatever command would start it; when it is back, all is well."""
    name = kept.make_sandbox()
    here, moved = kept.directory, kept.directory.with_name(f"{kept.directory.name}-moved")
    assert kept("stop").code == 0
    here.rename(moved)
    here.symlink_to(secret.parent)
    caller = kept.to(moved)
    try:
        for words in (
            *(("docker.start", "--name", name), ("shell", "--name", name, "--command", "true")),
            *(("cp", "sandbox:/etc/hostname", "x", "--name", name), ("--pipe", name)),
            *(("run", "--demo", "--prompt=x", "--name", name),),
        ):
            done = caller(*words)

            assert outside.sandboxes()[name] != "running"
            if words[0] == "run":  # it shows another directory than the caller's
                assert (done.code, done.stdout) == (69, b""), done.said
                continue
            assert (done.code, done.stdout) == (73, b""), (words, done.said)
            line = done.said.splitlines()[-1]
            assert line == (
                f"nddt: {here}, which the sandbox shows, leads to {secret.parent} now "
                f"— remove it: nddt docker.cleanup --name {name}"
            )
            assert outside.sandboxes()[name] != "running"
    finally:
        here.unlink()
        moved.rename(here)
    assert kept("shell", "--command", "echo well").stdout == b"well\n"


@ON_DOCKER
def test_no_start_of_what_was_made_with_one_in_another(
    nddt: Caller, mine_name: str, outside: Outside
) -> None:
    """By an older nddt, say: the engine's own record of it counts."""
    hooks = nddt.directory / ".git/hooks"
    hooks.mkdir(parents=True)
    shown = {"/workspace": nddt.directory, "/workspace/.git/hooks": hooks}
    mounts = [f"--mount=type=bind,source={one},target={to}" for to, one in shown.items()]
    made = nddt.having(NDDT_PERSISTENT="true").make_sandbox()
    config = json.loads(docker("inspect", "--format", "{{json .Config}}", made))
    labels = [f"--label={key}={value}" for key, value in config["Labels"].items()]
    labels.append(f"--label=nddt.sandbox={mine_name}")
    docker("create", "--name", mine_name, *mounts, *labels, config["Image"], "sleep", "infinity")

    done = nddt("docker.start", "--name", mine_name)

    assert (done.code, outside.sandboxes()[mine_name]) == (73, "created"), done.said
    assert f"the sandbox shows {hooks}, and could put a link" in done.said
    assert nddt("cleanup", "--name", made, "--yes").code == 0
    assert nddt("cleanup", "--name", mine_name, "--yes").code == 0


def test_private_places(nddt: Caller, tmp_path: Path) -> None:
    """Are asked about; nddt's own and what renews a login are shown, or copied, to nobody."""
    environ = {"HOME": str(tmp_path), "NDDT_WORKSPACE": "", "XDG_STATE_HOME": ""}
    caller = nddt.having(**environ)
    for name in (".ssh", ".config/nddt", ".local/state/nddt", ".claude"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".claude/.credentials.json").write_text("{}")
    create = (caller.task("create-sandbox"),)
    ways = (("shell", "--command", "true"), ("run", "--demo", "--prompt=x"), create)
    question = f"Show {tmp_path}/.ssh to the agent, to read and to write? ~/.ssh is private: SSH "

    for words in ways:
        asked = caller.to(tmp_path / ".ssh")(*words)
        assert (asked.code, asked.stdout) == (64, b""), asked.said
        assert question in asked.said
    for name, way in zip(("", ".claude", ".local/state"), ways, strict=True):
        refused = caller.to(tmp_path / name)(*way, "--yes")
        assert (refused.code, refused.stdout) == (78, b""), (name, refused.said)
        assert len(refused.said.splitlines()) == 1
        assert "is shown to no sandbox: " in refused.said


@ON_DOCKER
def test_nddt_in_its_own_clone(nddt: Caller, mine_name: str) -> None:
    """What runs there changes nothing of the program that runs next."""
    caller = nddt.to(REPOSITORY)
    words = ("shell", "--name", mine_name, "--command")
    tries = "for one in nddt scripts/errors.py .venv/bin/x .git/x; do : >>$one; done 2>/dev/null"

    done = caller(*words, f"{tries}; cat pyproject.toml")
    mounted = nddt("shell", "--mount", f"{REPOSITORY}:/x", "--command", "true")

    assert (done.code, done.stdout) == (0, (REPOSITORY / "pyproject.toml").read_bytes()), done.said
    assert f"{REPOSITORY} is shown to be read, not changed" in done.said
    assert not (REPOSITORY / ".venv/bin/x").exists()
    assert (mounted.code, mounted.stdout) == (78, b"")
    assert f"in {REPOSITORY} nddt keeps its own program — add :ro" in mounted.said


@ON_DOCKER
def test_sandboxes_that_contain_each_other(nddt: Caller, mine_name: str) -> None:
    """Are told of when one of them starts, as the other could lead it elsewhere."""
    inside = nddt.directory / "in"
    inside.mkdir()
    words = ("shell", "--name", mine_name, "--command", "echo up; sleep 60")
    with ended(nddt.start(*words)) as running:
        assert running.stdout
        assert running.stdout.readline() == b"up\n"
        told = nddt.to(inside)("shell", "--command", "true")
        quiet = nddt.having(NDDT_WORKSPACE_READONLY="true")("shell", "--command", "true")
        running.terminate()
        end(running)

    assert (told.code, quiet.code, quiet.said) == (0, 0, ""), told.said
    (line,) = told.said.splitlines()
    assert f" and {mine_name} show directories of which one is in the other, " in line
    assert f", {inside} in {nddt.directory}: while one starts, the other can have it show" in line
