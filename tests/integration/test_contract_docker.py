"""Docker inside: images that are built and containers that run in a sandbox."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ON_DOCKER, build_image
from tests.integration.contract import KEY, Caller, Done, end, ended, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from subprocess import Popen

    from tests.integration.contract import Outside

IMAGE = (
    "mkdir -p ~/image/bin; for p in bash cat id sleep socat; do p=$(command -v $p); "
    "cp -L $p ~/image/bin; cp -L --parents $(ldd $p | grep -o '/[^ )]*') ~/image; done; "
    "ln -s bash ~/image/bin/sh; printf 'FROM scratch\\nCOPY . /\\nRUN echo built >/mark\\n' "
    ">~/image/Dockerfile; docker build --quiet --tag tiny ~/image >/dev/null && "
)
"""Shell text that makes an image, `tiny`, of the sandbox's own programs: no registry is needed."""
CONTAINER = (
    "tar c -T /dev/null | docker import - empty >/dev/null; docker create empty x >/dev/null; "
)
"""Shell text that makes an image with nothing in it, and a container of that."""
DAEMONS = "ps axo pid,args | sed -nE 's/^ *([0-9]+) dockerd .*/\\1/p'"
"""Shell text that prints the process ids of daemons."""
RISK = "take over the machine"


@pytest.fixture(scope="module")
def isolated(
    provider: str, outside: Outside, environ: Mapping[str, str], base: Path
) -> Mapping[str, str]:
    """The settings of a sandbox with a daemon of its own, whose image is built."""
    wanted = {"NDDT_DOCKER_FORWARD": "isolated"}
    build_image(provider, {**environ, **outside.environ(), **wanted}, base)
    return wanted


def shell(caller: Caller, command: str) -> Done:
    """Run a command in a sandbox; root must agree to what it lays open with Docker."""
    return caller("shell", "--yes", "--command", command)


def said(done: Done) -> list[str]:
    """Give what was said beside the warning to root."""
    return [line for line in done.said.splitlines() if RISK not in line]


def test_an_image_is_built_and_run(nddt: Caller, isolated: Mapping[str, str]) -> None:
    """With its output and exit code, a directory whose files are the user's, and a port."""
    look = (
        "docker run --rm tiny cat /mark; docker run --rm tiny bash -c 'exit 7'; echo $?; "
        "docker run --rm -v /workspace:/w tiny bash -c 'id -u; echo inner >/w/made'; "
        "cat made; stat -c %u made | grep -x $(id -u) >/dev/null && echo mine; "
        "docker run -d --rm -p 8080:80 tiny socat TCP-LISTEN:80,fork EXEC:'cat /mark' >/dev/null; "
        "for i in 1 2 3 4 5 6 7 8 9; do curl -s --http0.9 127.0.0.1:8080 && break; sleep 1; done"
    )

    done = shell(nddt.having(**isolated), IMAGE + look)

    assert (done.stdout, said(done)) == (b"built\n7\n0\ninner\nmine\nbuilt\n", [])


def test_the_agent_has_it_and_the_daemon_has_no_secret(
    nddt: Caller, isolated: Mapping[str, str]
) -> None:
    """It gets none of the session's variables, but those of the network."""
    look = f'd=$({DAEMONS}); tr "\\0" "\\n" </proc/$d/environ; docker info -f "{{{{.HTTPProxy}}}}"'
    caller = nddt.with_agent(look).having(ANTHROPIC_API_KEY=KEY, **isolated)

    done = caller.having(HTTP_PROXY="http://127.0.0.1:9")("run", "--yes", "--prompt", "x")

    assert (done.code, said(done)) == (0, []), done.said
    assert KEY.encode() not in done.stdout
    assert {"HOME", "PATH", "HTTP_PROXY"} <= {line.partition("=")[0] for line in done.lines}
    assert done.lines[-1] == "http://10.0.2.2:9"


@contextmanager
def with_containers(caller: Caller, outside: Outside, count: int) -> Iterator[list[Popen[bytes]]]:
    """Have sandboxes with a container each; of their data nothing is left after the block."""
    words = ("shell", "--yes", "--command", f"{CONTAINER} docker ps -aq | wc -l; cat")
    with ExitStack() as stack:
        starting = (caller.start(*words, stdin=subprocess.PIPE) for _ in range(count))
        running = [stack.enter_context(ended(one)) for one in starting]
        for one in running:
            assert one.stdout
            assert one.stdout.readline() == b"1\n"
        extras = {extra for name in outside.sandboxes() for extra in outside.extras(name)}
        assert len(extras) == count
        yield running
        assert outside.is_gone(lambda: not extras & set(outside.existing_extras()))


def test_two_sandboxes_have_two_daemons(
    nddt: Caller, outside: Outside, isolated: Mapping[str, str]
) -> None:
    """Each sees its own containers alone."""
    with with_containers(nddt.having(**isolated), outside, 2) as running:
        assert [end(one).code for one in running] == [0, 0]


@ON_DOCKER
def test_containers_and_images_go_with_a_killed_client(
    nddt: Caller, outside: Outside, isolated: Mapping[str, str]
) -> None:
    """They are in a volume, and that is the sandbox's."""
    with with_containers(nddt.having(**isolated), outside, 1) as running:
        running[0].kill()
    assert nddt("list").code == 0  # removes the files here


def test_a_kept_sandbox_keeps_its_images(
    kept: Caller, outside: Outside, isolated: Mapping[str, str]
) -> None:
    """One daemon serves all sessions; after a stop another one has the same images."""
    caller = kept.having(**isolated)
    started = [caller.start("shell", "--yes", "--command", DAEMONS) for _ in range(3)]
    first = {end(one, 60).stdout for one in started}
    assert len(first) == 1
    assert shell(caller, f"{CONTAINER} docker tag empty kept").code == 0
    assert shell(caller, DAEMONS).stdout in first
    (name,) = outside.sandboxes()
    extras = set(outside.extras(name))

    assert caller("stop").code == 0
    again = shell(caller, "docker ps -aq | wc -l; docker image inspect -f '{{.RepoTags}}' kept")

    assert (again.stdout, said(again)) == (b"1\n[empty:latest kept:latest]\n", [])
    assert caller("cleanup", "--name", name, "--yes").code == 0
    assert extras
    assert eventually(lambda: not extras & set(outside.existing_extras()))


def test_a_daemon_that_does_not_start_says_why(
    kept: Caller, outside: Outside, isolated: Mapping[str, str]
) -> None:
    """The session ends with 73 and the daemon's own reason; the next one tries again."""
    spoil = (
        "mkdir -p ~/.config/docker; echo x >~/.config/docker/daemon.json; "
        "kill $(cat /tmp/nddt/docker.pid); while docker ps; do sleep 0.1; done >/dev/null 2>&1"
    )
    caller = kept.having(**isolated)
    assert shell(caller, spoil).code == 0

    done = shell(caller, "echo never")
    refused = kept("shell", "--command", "true")
    (name,) = outside.sandboxes()
    mend = ("--command", "rm ~/.config/docker/daemon.json")
    mended = kept("shell", "--name", name, *mend)
    again = shell(caller, "docker ps -q")

    assert (done.code, done.stdout) == (73, b"")
    (line,) = said(done)
    assert line.startswith("nddt: Docker in the sandbox does not start: ")
    assert "daemon.json" in line
    assert refused.code == 69
    assert "more than is allowed now: NDDT_DOCKER_FORWARD (default)" in refused.said
    assert mended.code == 0, mended.said
    assert (again.code, again.stdout, said(again)) == (0, b"", [])


# -- the engine outside ----------------------------------------------------------------------


@pytest.mark.parametrize("outside", ["daytona"], indirect=True)
def test_the_engine_of_this_machine_is_not_for_the_cloud(nddt: Caller) -> None:
    """Nobody else's engine is taken in its place: it is refused."""
    done = nddt.having(NDDT_DOCKER_FORWARD="host")("run", "--yes", "--prompt", "x")

    assert (done.code, done.stdout) == (78, b"")
    assert "NDDT_DOCKER_FORWARD=host" in done.said


@ON_DOCKER
def test_the_engine_of_this_machine_is_handed_over_after_a_yes(
    nddt: Caller, outside: Outside
) -> None:
    """Without a yes nothing is made, and the question says what it means."""
    caller = nddt.having(NDDT_DOCKER_FORWARD="host")
    command = "docker ps --format '{{.Names}}' --filter label=nddt.pid"

    refused = caller("shell", "--command", command)
    assert (refused.code, refused.stdout) == (64, b"")
    assert "all that root can on this machine" in refused.said
    assert not outside.sandboxes()

    with ended(caller.start("shell", "--yes", "--command", command)) as running:
        stdout, stderr = running.communicate(timeout=300)
    assert b"nddt-" in stdout, stderr
    assert b"all that root can on this machine" in stderr


@ON_DOCKER
def test_a_daemon_of_ones_own_is_no_riskless_thing_for_root(
    nddt: Caller, isolated: Mapping[str, str]
) -> None:
    """Root is asked, any other user is not."""
    if os.getuid() != 0:
        pytest.skip("nobody but root is asked")

    done = nddt.having(**isolated)("shell", "--command", "true")

    assert (done.code, done.stdout) == (64, b"")
    assert RISK in done.said
