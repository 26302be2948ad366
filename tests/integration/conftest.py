"""Callers with directories of their own, and the check that every test leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daytona_double import DaytonaDouble
from tests.integration.contract import (
    OUTSIDES,
    REPOSITORY,
    Caller,
    Cloud,
    Mine,
    Outside,
    caller_of,
    eventually,
    processes,
)
from tests.one_at_a_time import one_at_a_time
from tests.scripted_model import ScriptedModel, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as exhaustive, of what is tried with Docker, what Daytona adds nothing new to.

    That is each case but the first, and all of what is the same everywhere.
    """
    cases = [
        ((item.path, item.originalname), item)
        for item in items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    ]
    with_docker = {key for key, item in cases if item.callspec.params.get("outside") == "docker"}
    tried = set()
    for key, item in cases:
        if key in with_docker and item.callspec.params["outside"] == "daytona":
            if key in tried or item.get_closest_marker("same_everywhere"):
                item.add_marker(pytest.mark.exhaustive)
            tried.add(key)


HOST = f"nddt-test-{os.getpid()}"
"""As root the callers are on a machine of this name, so nobody else's sandboxes are theirs."""
NETWORK_FILES = (".npmrc", ".config/pip", ".pip", ".docker")
"""What decides about mirrors and the engine is the callers' as it is ours."""
_OTHERS = re.compile(r"NDDT_|XDG_|ANTHROPIC_|CLAUDE|GH_TOKEN|DAYTONA_|AWS_|TERM_PROGRAM|PYTEST_")


def clean_environment(home: Path, runtime: Path) -> dict[str, str]:
    """Give our environment without what steers nddt or the agent."""
    kept = {name: value for name, value in os.environ.items() if not _OTHERS.match(name)}
    path = f"{kept['PATH']}:{REPOSITORY}"  # messages then say `nddt …`
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "PATH": path}


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A directory with a short name: sockets are in it."""
    path = Path(tempfile.mkdtemp(prefix="n", dir="/tmp"))
    path.chmod(0o755)
    for name in ("run", "home", "cache"):
        (path / name).mkdir(mode=0o700)
    (path / "w").mkdir()
    for name in NETWORK_FILES:
        original, link = Path.home() / name, path / "home" / name
        link.parent.mkdir(exist_ok=True)
        if original.exists():
            link.symlink_to(original)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def on_own_machine() -> tuple[str, ...]:
    """The words before a command that give it a host name, and so an owner, of its own."""
    # Whoever runs the tests in the background passes on that Ctrl-C is ignored.
    plain = ("env", "--default-signal")
    if os.getuid() != 0:
        return plain
    return (*plain, "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', HOST)


@pytest.fixture(scope="session")
def environ(base: Path) -> Mapping[str, str]:
    """The callers' variables; the registry is asked once for all of them."""
    return {
        **clean_environment(base / "home", base / "run"),
        "XDG_CACHE_HOME": str(base / "cache"),
    }


@pytest.fixture(scope="session")
def mine(base: Path) -> Mine:
    """What the tests make is known by this."""
    return Mine(base, f"nddt-test-{os.getpid()}-")


@pytest.fixture(scope="session", params=tuple(OUTSIDES))
def outside(request: pytest.FixtureRequest, mine: Mine) -> Iterator[Outside]:
    """Each provider in turn, without nddt."""
    made = OUTSIDES[str(request.param)](mine)
    yield made
    made.close()


def build_image(provider: str, environ: Mapping[str, str], directory: Path) -> None:
    """Build a provider's image, if it is not there."""
    with one_at_a_time(f"build-{provider}"):
        done = subprocess.run(
            (REPOSITORY / "nddt", f"{provider}.build-image"),
            env=environ,
            cwd=directory,
            check=False,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def provider(outside: Outside, environ: Mapping[str, str], base: Path) -> str:
    """Name the provider, with the image built, which stays."""
    name = type(outside).__name__.lower()
    build_image(name, {**environ, **outside.environ()}, base)
    return name


@pytest.fixture
def workspace(base: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory of the test's own."""
    name = re.sub(r"\W+", "-", request.node.name)[:40].strip("-")
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base / "w"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def nddt(
    provider: str,
    outside: Outside,
    on_own_machine: tuple[str, ...],
    environ: Mapping[str, str],
    workspace: Path,
) -> Iterator[Caller]:
    """Somebody in an empty directory; what the test leaves behind fails it."""
    caller = Caller(
        provider=provider,
        launcher=(*on_own_machine, str(REPOSITORY / "nddt")),
        directory=workspace,
        environ={**environ, **outside.environ(), "NDDT_PROVIDER": provider},
    )
    yield caller
    check_nothing_is_left(caller, outside)


def check_nothing_is_left(caller: Caller, outside: Outside) -> None:
    """Fail if a sandbox, a process or a file of the caller's is there, and remove it."""
    runtime = Path(caller.environ["XDG_RUNTIME_DIR"])

    def left() -> list[str]:
        files = [str(path) for path in caller.runtime.glob("*")]
        return [*outside.sandboxes(), *processes(runtime).values(), *files]

    outside.is_gone(lambda: not left())
    found = left()
    for name in outside.sandboxes():
        outside.remove(name)
    for pid in processes(runtime):
        os.kill(pid, 9)
    shutil.rmtree(caller.runtime, ignore_errors=True)
    assert not found, f"left behind: {found}"


@pytest.fixture
def kept(nddt: Caller, outside: Outside) -> Iterator[Caller]:
    """Somebody who keeps one sandbox for the directory; it is removed in the end."""
    caller = nddt.having(NDDT_PERSISTENT="true")
    yield caller
    for name in outside.sandboxes():
        done = caller("cleanup", "--name", name, "--yes")
        assert done.code == 0, done.said


@pytest.fixture
def model() -> Iterator[Callable[..., ScriptedModel]]:
    """Makes models that follow a script, on loopback."""
    made: list[ScriptedModel] = []

    def make(*steps: Step) -> ScriptedModel:
        made.append(ScriptedModel(*steps))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def clouds(
    on_own_machine: tuple[str, ...], environ: Mapping[str, str], base: Path
) -> Iterator[list[Cloud]]:
    """Three platforms, so that three faults can be tried at a time."""
    launcher = (*on_own_machine, str(REPOSITORY / "nddt"))
    with ExitStack() as stack:
        made = []
        for number in range(3):
            directory = base / "w" / f"cloud-{number}"
            directory.mkdir()
            double = stack.enter_context(DaytonaDouble(minute_s=1.0))
            made.append(Cloud(caller_of(double, launcher, environ, directory), double))
            built = made[-1].caller("daytona.build-image", within_s=500)
            assert built.code == 0, built.said
        yield made


@pytest.fixture
def cloud(clouds: list[Cloud], workspace: Path) -> Iterator[Cloud]:
    """The first of them; what a test leaves there is removed, and nothing goes wrong."""
    double = clouds[0].double
    known = {"XDG_STATE_HOME": str(workspace)}
    caller = clouds[0].caller.to(workspace).having(**known)
    double.heal()
    double.forget_requests()
    yield Cloud(caller, double)
    double.heal()
    if double.sandboxes() or list(caller.runtime.glob("s-*")):
        caller("cleanup", "--all", "--yes")
    eventually(lambda: not double.sandboxes(), 15)
    assert not double.sandboxes()


ON_DOCKER = pytest.mark.parametrize("outside", ["docker"], indirect=True)
"""For what needs the directory in the sandbox."""


@pytest.fixture
def mine_name(mine: Mine) -> str:
    """A name that is known as the tests' own."""
    return f"{mine.prefix}{os.urandom(3).hex()}"
