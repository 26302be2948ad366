"""Names that mean harm, and names that have become another one's.

Of directories, branches, remotes and labels nothing is run. Of two sandboxes that have or had the
same name, what is ended is the one that was meant.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.configuration import reading
from scripts.errors import NddtError
from scripts.providers.daytona.actions import archive
from scripts.providers.docker import containers, images
from scripts.run.work import work_with
from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import KEY, Daytona, Done, end, ended, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.contracts.sandbox import Sandbox
    from scripts.run.work import Work
    from scripts.settings.fields import Settings
    from tests.integration.contract import Caller, Outside

DIRECTORY = "$(touch ran)`touch ran`;touch ran\n'\"\x1b]0;owned\x07,target=etc:ro"
BRANCH = "$(touch${IFS}ran);touch${IFS}ran|`touch${IFS}ran`'\"&"
FORM = "{{.Repository}}:{{.Tag}}"
REMOTE = "https://github.com/a/$(touch ran);touch ran"


def git(directory: Path, *words: str) -> None:
    """Do something in a repository."""
    subprocess.run(("git", *words), cwd=directory, check=True, capture_output=True)


@pytest.fixture
def hostile(nddt: Caller) -> Caller:
    """Somebody in a repository with such names."""
    directory = nddt.directory / DIRECTORY
    directory.mkdir()
    git(directory, "init", "--quiet", "--initial-branch", BRANCH)
    git(directory, "remote", "add", "origin", REMOTE)
    git(directory, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-mx")
    git(directory, "tag", BRANCH)
    return nddt.to(directory)


@pytest.mark.parametrize("how", ["sync", "mount"])
@pytest.mark.parametrize("persistent", ["false", "true"])
def test_a_repository(hostile: Caller, outside: Outside, how: str, persistent: str) -> None:
    """Its names arrive as they are, wherever they are used; a terminal obeys none of them."""
    if (hostile.provider, how) == ("daytona", "mount"):
        pytest.skip("Daytona cannot see a directory of this machine")
    settings = {"NDDT_WORKSPACE": how, "NDDT_PERSISTENT": persistent}
    caller = hostile.having(**settings, GH_TOKEN="gh-test-token", NDDT_MODEL_ACCESS="tunnel")
    look = "git branch --show-current; git remote get-url origin; echo new >new; ls"

    done = caller("shell", "--verbose", "--command", look)
    listed = caller("list")

    assert (done.code, done.lines) == (0, [BRANCH, REMOTE, "new"]), done.said
    assert (caller.directory / "new").read_text() == "new\n"
    if persistent == "true":
        assert r"\x1b]0;owned\x07" in listed.stdout.decode()
        assert caller("cleanup", "--name", *outside.sandboxes(), "--yes").code == 0
    assert "\x1b" not in done.said + listed.stdout.decode() + listed.said
    home = Path(caller.environ["HOME"])
    for place in (hostile.directory, hostile.directory.parent, home, Path.cwd()):
        assert not (place / "ran").exists()


@ON_DOCKER
def test_a_label(nddt: Caller) -> None:
    """Of somebody else's container, which says that it is one of nddt's."""
    words = "\x1b]0;owned\x07\nnddt: all is well"
    name = f"nddt-test-{os.getpid()}-label"
    labels = {"nddt": "persistent", "nddt.owner": words, "nddt.workspace": words}
    labels["nddt.sandbox"] = name
    arguments = [word for item in labels.items() for word in ("--label", "=".join(item))]
    built = nddt("docker.build-image")
    assert built.code == 0, built.said
    made = subprocess.run(
        ("docker", "create", "--name", name, *arguments, built.lines[-1]),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    try:
        listed = nddt("list", "--all-owners")
        refused = nddt("cleanup", "--all", "--yes")
        kept = subprocess.run(("docker", "inspect", made), check=False, capture_output=True)
    finally:
        subprocess.run(("docker", "rm", made), check=True, capture_output=True)

    assert listed.code == 0, listed.said
    shown = listed.stdout.decode()
    assert r"\x1b]0;owned\x07\nnddt: all is well" in shown
    assert "\x1b" not in shown + listed.said + refused.said
    assert kept.returncode == 0


# -- sandboxes of one name --------------------------------------------------------------------


@pytest.fixture(params=["mount", "sync", "none"])
def named(
    request: pytest.FixtureRequest, nddt: Caller, outside: Outside, mine_name: str
) -> Iterator[Caller]:
    """Somebody whose sandbox has a name, and shows the directory in one of the ways."""
    how = str(request.param)
    if (nddt.provider, how) in {("daytona", "mount"), ("docker", "none")}:
        pytest.skip("a way that the other provider is tried with")
    yield nddt.having(NDDT_NAME=mine_name, NDDT_WORKSPACE=how, ANTHROPIC_API_KEY=KEY)
    if mine_name in outside.sandboxes():
        assert nddt("cleanup", "--name", mine_name, "--yes").code == 0


@contextmanager
def conversing(caller: Caller) -> Iterator[Callable[[], Done]]:
    """Have a session in a kept sandbox; gives what goes on with it to its end."""
    kept = caller.having(NDDT_PERSISTENT="true")
    kept = kept.with_agent("echo up; read -r word; echo got $word")
    with ended(kept.start("run", stdin=subprocess.PIPE)) as running:
        assert running.stdin
        assert running.stdout
        assert running.stdout.readline() == b"up\n"

        def go_on() -> Done:
            stdout, stderr = running.communicate(b"more\n", 60)
            return Done(code=running.returncode, stdout=stdout, stderr=stderr)

        yield go_on


def connected(caller: Caller) -> int:
    """Tell one connection to the caller's sandbox from the next one."""
    socket = caller.runtime / f"s-{caller.provider}-{caller.environ['NDDT_NAME']}" / "s"
    return socket.stat().st_ino


def test_a_project_that_asks_for_the_name_of_what_is_kept(
    named: Caller, outside: Outside, tmp_path: Path
) -> None:
    """Its run is refused, and a session of its user's goes on in the sandbox of that name."""
    (tmp_path / "nddt").mkdir()
    (tmp_path / "nddt/.env").write_text("NDDT_PERSISTENT=true\n")
    (named.directory / ".env").write_text("NDDT_PERSISTENT=false\n")
    name = named.environ["NDDT_NAME"]
    user = named.having(XDG_CONFIG_HOME=str(tmp_path))

    with conversing(named) as go_on:
        before = connected(named)
        refused = user.with_agent("echo never")("run", "--prompt", "x")
        after = connected(named)
        done = go_on()

    assert before == after
    assert (refused.code, refused.stdout) == (73, b""), refused.said
    assert f"the name {name} " in refused.said.splitlines()[-1]
    assert (done.code, done.stdout) == (0, b"got more\n"), done.said
    assert outside.sandboxes() == {name: "running"}


def test_a_name_that_has_become_another_ones(named: Caller, outside: Outside) -> None:
    """The run that had it before ends nothing of that one, and does not go on in it."""
    name = named.environ["NDDT_NAME"]
    with ended(named.with_agent("echo up; sleep 100").start("run", "--prompt", "x")) as first:
        assert first.stdout
        assert first.stdout.readline() == b"up\n"
        os.killpg(first.pid, signal.SIGSTOP)
        outside.remove(name)
        assert eventually(lambda: name not in outside.sandboxes())
        with conversing(named) as go_on:
            before = connected(named)
            os.killpg(first.pid, signal.SIGCONT)
            lost = end(first, 90)
            after = connected(named)
            done = go_on()

    assert before == after
    assert lost.code != 0
    assert (done.code, done.stdout) == (0, b"got more\n"), (lost.said, done.said)
    assert outside.sandboxes() == {name: "running"}


# -- at the provider itself -------------------------------------------------------------------


@contextmanager
def labelled(caller: Caller, outside: Outside, name: str) -> Iterator[Sandbox]:
    """Have a running sandbox of this name that nddt's labels are on, as the provider finds it."""
    work = work_of(caller)
    with outside.neighbour(name):
        if isinstance(outside, Daytona):
            outside.double.set_state(name, "started")
        else:  # neighbours end at once
            outside.remove(name)
            labels = ["--label=nddt=persistent", "--label=nddt.owner=somebody@else"]
            labels.append(f"--label=nddt.sandbox={name}")
            image = docker("images", "--quiet", "--filter", "label=nddt").split()[0]
            options = ("--detach", "--name", name, *labels, "--entrypoint=sleep")
            docker("run", *options, image, "100")
        found = work.provider.find(work.settings, name)
        assert found
        assert found.state == "running"
        yield found


def docker(*words: str) -> str:
    """Ask the engine."""
    return subprocess.run(
        ("docker", *words), check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def work_of(caller: Caller) -> Work:
    """Have what a command of theirs works with."""
    return work_with(reading.load(caller.directory, caller.environ, {}), caller.provider)


@pytest.mark.filterwarnings("ignore:Polling-only")
def test_what_is_ended_is_known_by_its_id(nddt: Caller, outside: Outside, mine_name: str) -> None:
    """Whatever has been found is told to a provider, and another one has its name by now."""
    work = work_of(nddt)
    more = archive if nddt.provider == "daytona" else compare
    acts: tuple[Callable[[Settings, Sandbox], None], ...]
    acts = (work.provider.stop, work.provider.start, work.provider.remove, more)
    with labelled(nddt, outside, mine_name) as before:
        pass
    with labelled(nddt, outside, mine_name) as now:
        for act in acts:
            with suppress(NddtError):
                act(work.settings, before)
            assert work.provider.find(work.settings, mine_name) == now
        assert before != now


def compare(chosen: Settings, sandbox: Sandbox) -> None:
    """Find that a container does not show what it was made to show."""
    containers.check_shown(chosen, sandbox, ("false",))


@pytest.mark.filterwarnings("ignore:Polling-only")
def test_a_name_that_is_another_ones_id(nddt: Caller, outside: Outside, mine_name: str) -> None:
    """Is nobody's name, though the provider takes both, and the beginning of an id."""
    work = work_of(nddt)
    with labelled(nddt, outside, mine_name) as there:
        for name in (there.id, there.id[:12], there.id[:2]):
            assert work.provider.find(work.settings, name) is None


@ON_DOCKER
def test_an_image_with_a_name_of_somebody_elses(nddt: Caller, mine_name: str) -> None:
    """Stays, with that name; of the others, which nddt alone has named, the old ones go."""
    label = f"nddt.owner={mine_name}"
    names = [f"nddt:{mine_name}-{number}" for number in range(3)]
    theirs = f"{mine_name}:theirs"
    for name in names:  # of one empty block each
        words = ("docker", "import", "--message", name, "--change", f"LABEL {label}", "-", name)
        subprocess.run(words, input=bytes(1024), check=True, capture_output=True)
    docker("tag", names[0], theirs)
    try:
        removed = images.prune_images(work_of(nddt).settings, mine_name, 1)
        left = docker("images", "--filter", f"label={label}", "--format", FORM)
    finally:
        for name in (*names, theirs):
            subprocess.run(("docker", "rmi", name), check=False, capture_output=True)

    assert removed == (names[1],)
    assert sorted(left.split()) == sorted((names[0], names[2], theirs))
