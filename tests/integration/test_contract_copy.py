"""A copy of the directory in a sandbox: sent, changed there, brought back, and never lost."""

from __future__ import annotations

import os
import socketserver
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import AF_UNIX, SHUT_WR, socket
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import Caller, ended, eventually, processes
from tests.scripted_model import text, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.contract import Outside
    from tests.scripted_model import ScriptedModel


@pytest.fixture
def copying(nddt: Caller) -> Caller:
    """Somebody whose sandboxes have a copy of the directory."""
    home = nddt.directory.parent.parent / "home"
    workspace = "sync" if nddt.provider == "docker" else ""
    return nddt.having(NDDT_WORKSPACE=workspace, XDG_STATE_HOME=str(home / "state"))


def test_the_agent_works_in_a_copy(
    copying: Caller, model: Callable[..., ScriptedModel], outside: Outside
) -> None:
    """It sees the files; what it writes and removes is here afterwards, and the sandbox gone."""
    (copying.directory / "old").write_text("old")
    (copying.directory / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (copying.directory / "run.sh").chmod(0o755)
    command = "cat old; ./run.sh; rm old; mkdir empty"
    steps = (
        tool("Bash", {"command": command, "description": "look"}),
        tool("Write", {"file_path": "/workspace/sub/new.txt", "content": "written"}),
        text("done"),
    )
    told = model(*steps)
    caller = copying.having(ANTHROPIC_BASE_URL=told.url)

    done = caller("run", "--prompt", "go", "--yolo")

    assert (done.code, done.stdout) == (0, b"done\n"), done.said
    assert "old\\nran" in str(told.conversation[1].body["messages"][-1]) or "oldran" in str(
        told.conversation[1].body["messages"][-1]
    )
    assert (copying.directory / "sub/new.txt").read_text() == "written"
    assert (copying.directory / "sub/new.txt").stat().st_uid == os.getuid()
    assert not (copying.directory / "old").exists()
    assert (copying.directory / "empty").is_dir()
    assert not outside.sandboxes()


def test_a_commit_comes_back(copying: Caller) -> None:
    """With .git; and what is ignored stays where it is."""
    git = ("git", "-C", str(copying.directory), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(("git", "init", "-q", str(copying.directory)), check=True)
    (copying.directory / ".gitignore").write_text("build\n")
    (copying.directory / "build").mkdir()
    (copying.directory / "build/x").write_text("here")
    subprocess.run((*git, "add", "."), check=True)
    subprocess.run((*git, "commit", "-qm", "one"), check=True)
    commit = (
        "ls build 2>/dev/null; echo 2 >two; git add two; "
        "git -c user.name=b -c user.email=b@c commit -qm two; mkdir build; echo there >build/y"
    )

    done = copying("shell", "--command", commit)

    assert (done.code, done.stdout) == (0, b""), done.said
    log = subprocess.run((*git, "log", "--format=%s"), check=True, capture_output=True)
    assert log.stdout == b"two\none\n"
    status = subprocess.run((*git, "status", "--short"), check=True, capture_output=True)
    assert status.stdout == b""
    assert [path.name for path in (copying.directory / "build").iterdir()] == ["x"]


def test_a_kept_copy(copying: Caller, outside: Outside) -> None:
    """Each run brings back what changed; push, diff and pull do so by hand."""
    kept = copying.having(NDDT_PERSISTENT="true")
    (kept.directory / "a").write_text("base\n")
    assert kept("shell", "--command", "cat a").stdout == b"base\n"
    (name,) = outside.sandboxes()

    (kept.directory / "a").write_text("here\n")
    again = kept("shell", "--command", "sleep 0.1; cat a; echo there >a; echo more >b")
    assert (again.code, again.stdout) == (0, b"here\n"), again.said
    assert (kept.directory / "a").read_text() == "there\n"

    failed = kept("shell", "--command", "echo theirs >a; rm b; exit 3")
    assert (failed.code, failed.said) == (3, "")
    assert (kept.directory / "a").read_text() == "theirs\n"
    assert not (kept.directory / "b").exists()

    (kept.directory / "d").write_text("4\n")
    pushed, shown, pulled = kept("push"), kept("diff"), kept("pull")
    assert [(one.code, one.stdout) for one in (pushed, shown, pulled)] == [(0, b"")] * 3
    seen = kept.having(NDDT_WORKSPACE="none")(
        "shell", "--name", name, "--command", "cat d; date >e"
    )
    assert seen.stdout == b"4\n", seen.said
    assert b"+++ sandbox/e" in kept("diff").stdout

    cleaned = kept("cleanup", "--name", name, "--yes")
    assert (cleaned.code, cleaned.lines) == (0, [name]), cleaned.said
    assert not list(Path(kept.environ["XDG_STATE_HOME"], "nddt/sync").glob("*"))
    # What was done there without a copy's being asked for was never fetched.
    assert (kept.directory / ".nddt/rescue" / name / "e").exists()


def test_a_sandbox_does_not_choose_what_is_sent(copying: Caller, outside: Outside) -> None:
    """It takes the rules away that keep files here, and has git track one; only `push` sends."""
    kept = copying.having(NDDT_PERSISTENT="true")
    here = kept.directory
    subprocess.run(("git", "init", "-q"), cwd=here, check=True)
    (here / ".gitignore").write_text("*.pem\n")
    (here / ".nddtignore").write_text("secret/\n")
    (here / ".git/info/exclude").write_text("*.key\n")
    (here / "secret").mkdir()
    for name in ("secret/k", "a.pem", "a.key", ".env"):
        (here / name).write_text("# only here\n")
    look = "cat secret/* *.pem *.key .env"
    take = (
        "rm .nddtignore .gitignore; h=$(echo x | git hash-object -w --stdin); "
        "git update-index --add --cacheinfo 100644,$h,.env"
    )

    assert kept("shell", "--command", f"{look}; {take}").code == 0
    for name in ("secret/new", "new.pem"):
        (here / name).write_text("# only here\n")
    for _ in range(2):
        done = kept("shell", "--command", look)
        assert (done.code, done.stdout) == (1, b""), done.said
        assert "that were ignored stay here, though the rules have changed since" in done.said
    (name,) = outside.sandboxes()
    other = kept.having(NDDT_NAME=f"{name}-other")
    theirs = "mkdir secret; for f in secret/k a.pem .env; do echo theirs >$f; done"
    lead = "mv .git hidden; echo gitdir: hidden >.git"
    made = other("shell", "--command", f"{look}; {theirs}; {lead}")
    assert (made.code, made.stdout) == (65, b""), made.said
    seen = other("shell", "--command", f"{look}; rm hidden/info/exclude")
    assert (seen.code, seen.stdout) == (0, b"theirs\n" * 3), seen.said
    (here / "new.key").write_text("# only here\n")
    assert kept("push").code == 0
    assert kept("shell", "--command", look).stdout == b""
    assert kept("push", "--yes").code == 0
    assert kept("shell", "--command", look).stdout == b"# only here\n" * 7
    for one in outside.sandboxes():
        assert kept("cleanup", "--name", one, "--yes", "--discard").code == 0


def test_what_both_have_changed(copying: Caller, outside: Outside) -> None:
    """While the agent works, somebody works here: 65, and nothing is lost."""
    kept = copying.having(NDDT_PERSISTENT="true")
    (kept.directory / "a").write_text("base\n")
    command = "echo there >a; echo up; while [ ! -e /tmp/go ]; do sleep 0.1; done"
    with ended(kept.start("shell", "--command", command)) as running:
        assert running.stdout
        assert running.stdout.readline() == b"up\n"
        (kept.directory / "a").write_text("here\n")
        (name,) = outside.sandboxes()
        assert (
            kept.having(NDDT_WORKSPACE="none")(
                "shell", "--name", name, "--command", "touch /tmp/go"
            ).code
            == 0
        )
        _, stderr = running.communicate(timeout=60)

    assert running.returncode == 65, stderr
    assert (kept.directory / "a").read_text() == "here\n"
    saved = list((kept.directory / ".nddt/conflicts").rglob("a"))
    assert [one.read_text() for one in saved] == ["there\n"]
    assert b".nddt/conflicts/" in stderr
    assert kept("cleanup", "--name", name, "--yes").code == 0


class _Leading(socketserver.BaseRequestHandler):
    """Leads one connection to this machine's engine."""

    def handle(self) -> None:
        """Pass on both directions until both have ended."""
        with socket(AF_UNIX) as engine:
            engine.connect("/var/run/docker.sock")
            back = threading.Thread(target=self._pass, args=(engine, self.request))
            back.start()
            self._pass(self.request, engine)
            back.join()

    @staticmethod
    def _pass(source: socket, target: socket) -> None:
        with suppress(OSError):  # one side is gone
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(SHUT_WR)


@contextmanager
def engine_elsewhere() -> Iterator[str]:
    """Have an engine at an address that is not known as this machine's."""
    with socketserver.ThreadingTCPServer(("127.0.0.2", 0), _Leading) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield "tcp://{}:{}".format(*server.server_address)
        finally:
            server.shutdown()
            serving.join()


@ON_DOCKER
def test_an_engine_on_another_machine_gets_a_copy(nddt: Caller, outside: Outside) -> None:
    """It cannot see the directory; to mount that all the same is refused."""
    (nddt.directory / "here").write_text("seen\n")
    with engine_elsewhere() as address:
        caller = nddt.having(DOCKER_HOST=address)

        done = caller("shell", "--command", "cat here; echo made >there")
        mounted = caller.having(NDDT_WORKSPACE="mount")("shell", "--command", "true")

    assert (done.code, done.stdout) == (0, b"seen\n"), done.said
    assert (nddt.directory / "there").read_text() == "made\n"
    assert mounted.code == 78
    assert "127.0.0.2" in mounted.said
    assert not outside.sandboxes()


def killed_at_work(copying: Caller, outside: Outside) -> str:
    """Kill a client when there is work in its sandbox, and give that one's name."""
    command = "echo precious >work; echo up; sleep 1000"
    with ended(copying.start("shell", "--command", command)) as running:
        assert running.stdout
        assert running.stdout.readline() == b"up\n"
        (name,) = outside.sandboxes()
        running.kill()
    return name


def test_work_that_has_no_place_here_stays_there(copying: Caller, outside: Outside) -> None:
    """The sandbox is kept, and says how the work is fetched; what has a place is here."""
    command = "echo precious >work; chmod 6755 work; truncate -s 8T huge"

    done = copying("shell", "--command", command)

    (name,) = outside.sandboxes()
    assert (done.code, done.stdout) == (65, b"")
    first, last = done.said.splitlines()[-2:]
    assert first.endswith(f"huge was not brought back: there is no room for its {8 << 40} bytes")
    assert last.endswith(f"fetch it with: nddt pull --name {name}")
    assert (copying.directory / "work").read_text() == "precious\n"
    assert (copying.directory / "work").stat().st_mode & 0o7777 == 0o755
    assert not (copying.directory / "huge").exists()
    for words in (("shell", "--name", name, "--command", "rm huge"), ("pull", "--name", name)):
        done = copying.having(NDDT_WORKSPACE="none")(*words)
        assert done.code == 0, done.said
    assert copying("cleanup", "--name", name, "--yes").code == (0 if outside.sandboxes() else 69)


def test_a_killed_client_loses_nothing(copying: Caller, outside: Outside) -> None:
    """The sandbox is still there, and `pull` fetches the work and lets it go."""
    name = killed_at_work(copying, outside)

    pulled = copying("pull", "--name", name)

    assert pulled.code == 0, pulled.said
    assert (copying.directory / "work").read_text() == "precious\n"
    assert eventually(lambda: not outside.sandboxes())
    assert eventually(lambda: not processes(copying.runtime), 15)


def test_a_clean_up_rescues(copying: Caller, outside: Outside, tmp_path: Path) -> None:
    """What a killed client has not fetched is put aside."""
    name = killed_at_work(copying, outside)

    # A repository may hold a link, and an agent may leave one.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (copying.directory / ".nddt").mkdir()
    (copying.directory / ".nddt/rescue").symlink_to(elsewhere)
    blocked = copying("cleanup", "--name", name, "--yes")
    assert (blocked.code, blocked.lines) == (75, []), blocked.said
    assert f".nddt/rescue/{name} cannot be used: Not a directory" in blocked.said
    assert not list(elsewhere.iterdir())
    (copying.directory / ".nddt/rescue").unlink()

    refused = copying("cleanup", "--name", name)
    assert (refused.code, refused.lines) == (64, [])
    assert "never fetched from a copy of the directory goes to .nddt/rescue." in refused.said
    cleaned = copying("cleanup", "--name", name, "--yes")

    assert (cleaned.code, cleaned.lines) == (0, [name]), cleaned.said
    rescued = copying.directory / ".nddt/rescue"
    assert (rescued / name / "work").read_text() == "precious\n"
    assert ".nddt/rescue" in cleaned.said
    again = killed_at_work(copying.having(NDDT_NAME=name), outside)
    assert copying("cleanup", "--name", again, "--yes").code == 0
    assert len(list(rescued.glob(f"{name}*/work"))) == 2
    assert eventually(lambda: not processes(copying.runtime), 15)
