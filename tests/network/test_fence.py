"""What a session brings along of the network, and who listens for it."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from scripts import plan
from scripts.contracts.agent import Request
from scripts.contracts.sandbox import made
from scripts.errors import ConfigError, UnavailableError, UsageError
from scripts.network import fence
from scripts.run import collecting, sandboxes
from scripts.run.work import Work
from scripts.settings.allowlist import rule
from scripts.transport.forwards import SamePort, SocketPort
from tests.conftest import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from scripts.contracts.provisions import Provision
    from scripts.machine.socket_server import Serve
    from scripts.plan import Plan
    from scripts.settings import fields
    from tests.conftest import Project


@dataclass
class Answering(Memory):
    """A provider whose images say where packages come from."""

    asked: list[str] = field(default_factory=list)

    def ask(self, settings: fields.Settings, image: str, words: Sequence[str]) -> str:  # noqa: ARG002
        """Give the addresses of tools."""
        self.asked.append(image)
        return (
            "'http://deb.example/debian/dists/x/InRelease' deb.example_x 0\n"
            "https://npm.example/\nhttp://pip.example:3141/root/simple https://files.example\n"
            "https://10.0.0.1/simple\nfile:///srv/wheels ERROR: No such key\n"
        )


def planned(project: Project, **environ: str) -> Plan:
    """Plan a session with these variables."""
    project.environ.update(environ, NDDT_CLAUDE_VERSION="2.1.330")
    return plan.make(
        project.load_for_provider(),
        Request(),
        provider=project.provider,
        terminal=False,
        pid=4711,
        command=("true",),
    )


def work_of(project: Project) -> Work:
    """Give what a step needs."""
    return Work(provider=project.provider, settings=project.load_for_provider())


def collected(project: Project, **environ: str) -> Plan:
    """Collect all that a session with these variables brings along."""
    made = planned(project, **environ)
    return collecting.collect(work_of(project), made)


def provision(project: Project, made: Plan) -> Provision:
    """Bring along what a session's settings grant."""
    loaded = project.load_for_provider()
    return fence.bring_network(loaded, made.session, loaded.environment, lambda: ())


@pytest.fixture
def project(project: Project, runtime: Path) -> Project:
    """Have a directory for sockets, and images that answer."""
    project.environ["XDG_RUNTIME_DIR"] = str(runtime)
    return replace(project, provider=Answering())


# -- the plan ---------------------------------------------------------------------------------


def test_an_open_network(project: Project) -> None:
    """Is as it was: this machine's proxies are the sandbox's."""
    made = collected(project, HTTPS_PROXY="http://proxy.example:3128")

    assert not made.sandbox.is_offline
    assert "nddt.offline" not in made.sandbox.labels
    assert made.brings.variables["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert not [one for one in made.brings.before if "/proc/net/route" in one]
    more = provision(project, made)
    assert (more.forwards, more.variables, more.background_services) == ((), {}, ())


@pytest.mark.parametrize("setting", ["allowlist", "none"])
def test_no_network(project: Project, setting: str) -> None:
    """Is the provider's to give, and looked at first; this machine's proxies stay here."""
    opened = planned(project).sandbox
    local = {"HTTPS_PROXY": "http://127.0.0.1:3128", "NDDT_NETWORK": setting}
    made = collected(project, **local)

    assert made.sandbox.is_offline
    assert made.sandbox.labels["nddt.offline"] == "true"
    assert made.sandbox.fingerprint("a") != opened.fingerprint("a")
    assert "/proc/net/route" in made.brings.before[0]
    assert f"NDDT_NETWORK is {setting}" in made.brings.before[0]
    here = "http://127.0.0.1:3128" if setting == "allowlist" else None
    assert made.brings.variables.get("HTTPS_PROXY") == here  # the fence's own
    assert not [one for one in made.brings.forwards if isinstance(one, SamePort)]
    assert made.recipe.proxies["HTTPS_PROXY"] == "http://127.0.0.1:3128"


def test_none_brings_nothing(project: Project) -> None:
    """But a word for the agent and for whoever asks for the plan."""
    made = planned(project, NDDT_NETWORK="none")
    more = provision(project, made)

    assert (more.forwards, more.variables, more.background_services) == ((), {}, ())
    assert "no network" in more.system_prompt_lines[0]
    assert more.plan_lines == (("network", "none"),)


def test_allowlist_brings_a_proxy(project: Project) -> None:
    """At a port of the sandbox's, by a socket; every program that asks is told of it."""
    made = planned(project, NDDT_NETWORK="allowlist")
    more = provision(project, made)

    (forward,) = more.forwards
    assert isinstance(forward, SocketPort)
    assert forward.arguments == ("-R", f"127.0.0.1:3128:{forward.outside}")
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    assert {more.variables[name] for name in names} == {"http://127.0.0.1:3128"}
    assert more.variables["NO_PROXY"] == more.variables["no_proxy"]
    assert "127.0.0.1:3128" in more.system_prompt_lines[0]


def test_what_the_user_has_set(project: Project) -> None:
    """Counts, but for the proxy."""
    theirs = {"NODE_OPTIONS": "--trace-gc", "HTTPS_PROXY": "http://other.example"}
    both = collected(
        project, NDDT_NETWORK="allowlist", NDDT_ENV_VARS="NODE_OPTIONS,HTTPS_PROXY", **theirs
    ).brings.variables

    assert both["NODE_OPTIONS"] == "--trace-gc"
    assert both["HTTPS_PROXY"] == "http://127.0.0.1:3128"


@pytest.mark.parametrize(("version", "expected"), [("20.19.0", False), ("22", True)])
def test_an_old_node(project: Project, version: str, expected: bool) -> None:  # noqa: FBT001
    """Would not start with an option that it does not know."""
    made = planned(project, NDDT_NETWORK="allowlist", NDDT_NODE_VERSION=version)
    more = provision(project, made)

    assert ("NODE_OPTIONS" in more.variables) is expected


def test_sessions_of_one_sandbox(project: Project) -> None:
    """Have ports and sockets of their own; a conversation finds its own again."""
    found = []
    for is_conversation in (False, False, True, True):
        made = planned(project, NDDT_NETWORK="allowlist", NDDT_PERSISTENT="true")
        session = replace(made.session, is_conversation=is_conversation)
        more = provision(project, replace(made, session=session))
        (forward,) = (*more.forwards, *(one for kept in more.kept for one in kept.forwards))
        assert isinstance(forward, SocketPort)
        found.append((forward.inside, forward.outside))

    assert len({port for port, _ in found[:2]} | {3128}) == 3
    assert found[0][1] != found[1][1]
    assert found[2] == found[3]
    assert found[2][0] == 3128


def test_the_engine_itself(project: Project) -> None:
    """Has a network for whoever gets it, so nobody does who is to have none."""
    with pytest.raises(ConfigError, match=r"containers of NDDT_DOCKER_FORWARD=host have"):
        planned(project, NDDT_NETWORK="none", NDDT_DOCKER_FORWARD="host")


# -- what is allowed --------------------------------------------------------------------------


def test_where_packages_come_from(project: Project) -> None:
    """Is asked once for each image; what is no name is left out."""
    made = planned(project)
    expected = ("deb.example", "npm.example", "pip.example:3141", "files.example")

    loaded, image = project.load_for_provider(), made.image("2.1.330")
    first, second = (fence.package_rules(loaded, image, project.provider.ask) for _ in range(2))

    assert first == second == tuple(map(rule, expected))
    assert isinstance(project.provider, Answering)
    assert project.provider.asked == [image]


def test_the_models_address(project: Project) -> None:
    """Is allowed if the user has set it, not a project; a loopback one needs no proxy."""
    project.write("ANTHROPIC_BASE_URL=https://hostile.example\n")
    before = fence.fixed_rules(project.load())
    project.environ["ANTHROPIC_BASE_URL"] = "http://127.0.0.1:11434"
    local = fence.fixed_rules(project.load())
    project.environ["ANTHROPIC_BASE_URL"] = "https://model.example:8443/v1"
    other = fence.fixed_rules(project.load())

    assert before == local
    assert rule("hostile.example") not in before
    assert other == (*before, rule("model.example:8443"))


def test_allowing_and_taking_back(project: Project) -> None:
    """Is kept for the directory, for its owner's eyes."""
    loaded = project.load_for_provider()
    fence.allow(loaded, "b.example")
    fence.allow(loaded, "*.a.example:8443")
    fence.allow(loaded, "b.example")
    elsewhere = replace(loaded, directory=project.home)

    rows = fence.allowed(loaded)

    assert rows[-2:] == [("b.example", "nddt network.allow"), ("*.a.example:8443", rows[-1][1])]
    assert fence.allowed(elsewhere)[-1][1] == "default"
    fence.deny(loaded, "b.example")
    assert fence.allowed(loaded)[-1] == rows[-1]
    with pytest.raises(UsageError, match=r"b\.example was not allowed here"):
        fence.deny(loaded, "b.example")
    with pytest.raises(UsageError, match=r"'10\.0\.0\.1' is no host"):
        fence.allow(loaded, "10.0.0.1")


# -- who listens ------------------------------------------------------------------------------


def echoing(word: bytes) -> Callable[[], Serve]:
    """Say a word to everybody who connects."""
    return lambda: lambda peer: peer.sendall(word)


def heard(directory: Path) -> bytes:
    """Connect, and give the word; nothing if nobody listens."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(directory / "proxy"))
        except OSError:
            return b""
        return client.recv(9)


def test_two_that_listen(runtime: Path) -> None:
    """The last one is heard, and then the one that is still there."""
    directory = runtime / "net"
    with fence.listening(directory, echoing(b"one")):
        with fence.listening(directory, echoing(b"two")):
            assert heard(directory) == b"two"
        assert heard(directory) == b"one"

    assert heard(directory) == b""
    assert not directory.exists()


def test_the_first_of_two_that_ends(runtime: Path) -> None:
    """Takes nothing away from the other one."""
    directory = runtime / "net"
    with ExitStack() as second:
        with fence.listening(directory, echoing(b"one")):
            second.enter_context(fence.listening(directory, echoing(b"two")))
        assert heard(directory) == b"two"

    assert not directory.exists()


def test_what_a_killed_one_has_left(runtime: Path) -> None:
    """Is in nobody's way, and goes."""
    directory = runtime / "net"
    directory.mkdir(mode=0o700)
    with subprocess.Popen(("true",)) as gone:
        gone.wait()
    for name in ("proxy", f"proxy-{gone.pid}-0"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(directory / name))

    with fence.listening(directory, echoing(b"one")):
        assert heard(directory) == b"one"
        names = sorted(os.listdir(directory))  # noqa: PTH208
        assert [one.partition("-")[0] for one in names] == ["proxy", "proxy"]
    assert not directory.exists()


def test_a_sandbox_that_has_a_network(project: Project) -> None:
    """Is not used in place of one that has none."""
    opened = planned(project, NDDT_PERSISTENT="true")
    found = made(opened.sandbox, "image", "1")
    fenced = planned(project, NDDT_NETWORK="none")
    project.provider.found.append(found)

    with pytest.raises(UnavailableError, match="more than is allowed now: NDDT_NETWORK "):
        sandboxes._ask_to_replace(work_of(project), fenced, found, "image")
    assert sandboxes._ask_to_replace(replace(work_of(project), yes=True), fenced, found, "image")
