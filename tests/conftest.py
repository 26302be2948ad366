"""What several test files use: a project directory of its own, and no root privilege."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

from scripts import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A shell starts what runs in its background with SIGINT ignored, and no program that a test
# starts and interrupts could undo that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis_settings.register_profile("here", deadline=None)
hypothesis_settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis_settings.load_profile("ci" if os.environ.get("CI") else "here")


@dataclass(frozen=True, kw_only=True)
class Project:
    """A directory, a home and an environment, all of them empty at first."""

    directory: Path
    home: Path
    environ: dict[str, str]

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

    def write_user_file(self, text: str) -> None:
        """Write the user's .env file."""
        self.user_file.parent.mkdir(parents=True, exist_ok=True)
        self.user_file.write_text(text, encoding="utf-8")

    def load(self, **options: str | bool | None) -> settings.Settings:
        """Load the settings with these options."""
        return settings.load(self.directory, self.environ, options)


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
