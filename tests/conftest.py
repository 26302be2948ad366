"""What several test files use: a project directory of its own, and no root privilege."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

from scripts.configuration import reading, trust
from scripts.settings import env_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from _typeshed import DataclassInstance

    from scripts.contracts.action import Action
    from scripts.contracts.image import Recipe
    from scripts.contracts.sandbox import Link, Sandbox, Specification
    from scripts.settings import fields
    from scripts.settings.host import Host

# A shell starts what runs in its background with SIGINT and SIGQUIT ignored, and nohup(1) with
# SIGHUP; no program that a test starts and ends with them could undo that.
for _signum, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, _usual)

hypothesis_settings.register_profile("here", deadline=None)
hypothesis_settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis_settings.load_profile("ci" if os.environ.get("CI") else "here")


@dataclass(kw_only=True)
class Memory:
    """A provider whose sandboxes are entries of a list."""

    NAME: str = "memory"
    TITLE: str = "Memory"
    SETTINGS: type[DataclassInstance] | None = None
    USUAL: Mapping[str, int] = field(default_factory=dict)
    VARIABLES: tuple[str, ...] = ()
    ACTIONS: tuple[Action, ...] = ()
    LISTENERS: tuple[str, ...] = ()
    STARTS_SLOWLY: bool = False
    ANSWERS_SLOWLY: bool = False
    FALLS_SILENT: bool = False
    BREAKS: bool = False
    HAS_ROUTES: bool = False
    found: list[Sandbox] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def is_set_up(self, settings: fields.Settings) -> bool:  # noqa: ARG002
        """Need nothing."""
        return True

    def posture(self, settings: fields.Settings) -> tuple[tuple[str, str, str], ...]:  # noqa: ARG002
        """Have none."""
        return ()

    def idle_s(self, settings: fields.Settings) -> int:  # noqa: ARG002
        """Stop none."""
        return 0

    def workspace(self, settings: fields.Settings) -> str:  # noqa: ARG002
        """Show the directory itself."""
        return "mount"

    def user(self, settings: fields.Settings) -> tuple[int, int]:  # noqa: ARG002
        """Give an ordinary one."""
        return (1000, 1000)

    def network(self, settings: fields.Settings, found: Host) -> Host:  # noqa: ARG002
        """Give all of it."""
        return found

    def image_name(self, settings: fields.Settings, recipe: Recipe, version: str) -> str:  # noqa: ARG002
        """Say what the image is of."""
        return f"memory:{recipe.tag(version)}"

    def docker_risk(self, settings: fields.Settings) -> str:  # noqa: ARG002
        """See none."""
        return ""

    def disks(self, settings: fields.Settings) -> tuple[Path, ...]:  # noqa: ARG002
        """Fill none."""
        return ()

    def check_mount(self, settings: fields.Settings) -> None:
        """Take any directory."""

    def check_limits(self, settings: fields.Settings) -> None:
        """Take any limit."""

    def prepare(self, settings: fields.Settings, *, yes: bool) -> None:
        """Need nothing."""

    def find_image(self, settings: fields.Settings, name: str) -> bool:
        """Have none."""
        raise NotImplementedError

    def build(self, settings: fields.Settings, recipe: Recipe, version: str, *, yes: bool) -> None:
        """Build none."""
        raise NotImplementedError

    def look_up(
        self,
        settings: fields.Settings,
        recipe: Recipe,
        package: str,
        build_tools: Callable[[], None],
    ) -> str:
        """Know none."""
        raise NotImplementedError

    def ask(self, settings: fields.Settings, image: str, words: Sequence[str]) -> str:
        """Run nothing."""
        raise NotImplementedError

    def ephemeral(
        self, settings: fields.Settings, want: Specification, image: str, link: Link
    ) -> AbstractContextManager[tuple[str, ...]]:
        """Reach none."""
        raise NotImplementedError

    def known_pipe(
        self, settings: fields.Settings, name: str, link: Link
    ) -> tuple[str, ...] | None:
        """Know none."""
        raise NotImplementedError

    def pipe(self, settings: fields.Settings, sandbox: Sandbox, link: Link) -> tuple[str, ...]:
        """Reach none."""
        raise NotImplementedError

    def explain(self, errors: str, link: Link) -> None:
        """Know nothing."""
        raise NotImplementedError

    def pipe_environment(self, settings: fields.Settings) -> Mapping[str, str]:
        """Need nothing."""
        raise NotImplementedError

    def create(self, settings: fields.Settings, want: Specification, image: str) -> Sandbox:
        """Make none."""
        raise NotImplementedError

    def find(self, settings: fields.Settings, name: str) -> Sandbox | None:  # noqa: ARG002
        """Look one up."""
        return next((one for one in self.found if one.name == name), None)

    def sandboxes(self, settings: fields.Settings) -> tuple[Sandbox, ...]:  # noqa: ARG002
        """List all."""
        return tuple(self.found)

    def start(self, settings: fields.Settings, sandbox: Sandbox) -> None:  # noqa: ARG002
        """Note it."""
        self.done.append(f"start {sandbox.name}")

    def stop(self, settings: fields.Settings, sandbox: Sandbox) -> None:  # noqa: ARG002
        """Note it."""
        self.done.append(f"stop {sandbox.name}")

    def remove(self, settings: fields.Settings, sandbox: Sandbox) -> None:  # noqa: ARG002
        """Forget one."""
        self.found = [one for one in self.found if one.id != sandbox.id]

    def prune_images(
        self,
        settings: fields.Settings,  # noqa: ARG002
        owner: str,
        keep: int,
    ) -> tuple[str, ...]:
        """Remove one image."""
        return (f"nddt:old-{owner}-{keep}",)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A directory, a home and an environment, all of them empty at first."""

    directory: Path
    home: Path
    environ: dict[str, str]
    provider: Memory = field(default_factory=Memory)

    @property
    def env_file(self) -> Path:
        """The project's .env file."""
        return self.directory / ".env"

    @property
    def user_file(self) -> Path:
        """The user's .env file."""
        return self.home / ".config" / "nddt" / ".env"

    def write(self, text: str) -> None:
        """Write the project's .env file."""
        self.env_file.write_text(text, encoding="utf-8")

    def agree(self) -> None:
        """Agree to the project's .env file as it is."""
        found = env_file.read_env_file(self.env_file)
        assert found
        trust.agree_to_env_file(self.environ, found)

    def write_user_file(self, text: str) -> None:
        """Write the user's .env file."""
        self.user_file.parent.mkdir(parents=True, exist_ok=True)
        self.user_file.write_text(text, encoding="utf-8")

    def load(self, **options: str | bool | None) -> fields.Settings:
        """Load the settings with these options."""
        return reading.load(self.directory, self.environ, options)

    def load_for_provider(self, **options: str | bool | None) -> fields.Settings:
        """Load the settings as a command does, which knows its provider."""
        loaded = self.load(**options)
        return replace(loaded, workspace=loaded.workspace or self.provider.workspace(loaded))


@pytest.fixture(autouse=True)
def _elsewhere() -> None:
    """Let each test have a current directory of its own: a command has one, once."""
    reading._here.cache_clear()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Make a project without settings; nothing of this machine's home or environment is seen."""
    directory, home = tmp_path / "project", tmp_path / "home"
    directory.mkdir()
    home.mkdir()
    environ = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return Project(directory=directory, home=home, environ=environ)


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Make a directory with a path short enough for XDG_RUNTIME_DIR and sockets in it."""
    path = Path(tempfile.mkdtemp(prefix="n", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def _processes_of(run: Path) -> list[int]:
    mark = f"NDDT_RUN={run}\0".encode()
    found = []
    for path in Path("/proc").iterdir():
        # A process may end meanwhile, or be another user's.
        with suppress(OSError):
            if path.name.isdigit() and mark in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


@pytest.fixture
def processes_of() -> Callable[[Path], list[int]]:
    """Give what finds the processes of a sandbox by its private directory."""
    return _processes_of


@contextmanager
def _without_privilege() -> Iterator[None]:
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def without_privilege() -> Callable[[], AbstractContextManager[None]]:
    """Give what makes file permissions count for root, too."""
    return _without_privilege
