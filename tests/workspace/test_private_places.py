"""Private places: asked about, or never shown."""

from __future__ import annotations

import subprocess
import sys
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from socket import AF_UNIX, socket
from typing import TYPE_CHECKING

import pytest

from scripts import naming, plan
from scripts.contracts.agent import Request
from scripts.errors import ConfigError, UsageError
from scripts.machine import state
from scripts.run import consent
from scripts.run.work import Work, work_with
from scripts.workspace import private_places

if TYPE_CHECKING:
    from tests.conftest import Project

ASKED = (
    *("~/.ssh", "~/.ssh/sub", "~/.gnupg", "~/.aws", "~/.kube", "~/.docker", "~/.claude/projects"),
    *("~/.config/gcloud", "~/.config/gh", "~/.config/google-chrome", "~/.local/share/keyrings"),
    *("~/.password-store", "~/.mozilla", "~/.azure", "~/snap/firefox", "~/Library/Keychains"),
    *("~/.local/share", "~/.cache/pip", "~/dotfiles", "~/dotfiles/ssh", "~/vault", "~/keys"),
    *("/etc", "/etc/ssh", "/usr/local", "/bin", "/lib", "/proc", "/proc/self", "/sys", "/dev"),
    *("/var/tmp", "~/tmp", "~/link to tmp", "/boot", "/run", "/run/lock"),
    *("/var/lib", "/var/run", "/var", "/var/log"),
)
FREE = (
    *("/tmp/project", "~/tmp/x", "~/project", "~/.dotfiles", "~/src/.ssh"),
    *("/opt", "/srv/project", "/run/media/me/x"),
)


@pytest.fixture
def home(project: Project) -> Path:
    """A home directory whose SSH directory is a link, and whose GPG directory is elsewhere."""
    for name in ("dotfiles/ssh", "project", ".password-store", ".claude"):
        (project.home / name).mkdir(parents=True)
    (project.home / ".ssh").symlink_to("dotfiles/ssh")
    project.environ["GNUPGHOME"] = str(project.home / "keys")
    project.environ["TMPDIR"] = str(project.home / "tmp")
    (project.home / "tmp" / "x").mkdir(parents=True)
    (project.home / "link to tmp").symlink_to("tmp")
    (project.home / "vault").symlink_to(".password-store")
    return project.home


def expanded(path: str, home: Path) -> Path:
    """Mean the test's home directory by `~`."""
    return Path(path.replace("~", str(home), 1))


def agree(project: Project, directory: Path, *, yes: bool = False, **options: str) -> None:
    """Ask for consent to what a session in a directory would be shown."""
    there = replace(project, directory=directory)
    loaded = there.load_for_provider(**options)
    consent.ask_for_consent(Work(provider=project.provider, settings=loaded, yes=yes))


@pytest.mark.parametrize("path", ASKED)
def test_places_that_are_asked_about(project: Project, home: Path, path: str) -> None:
    """As the directory and as a mount, also through a link; a yes is enough."""
    directory = expanded(path, home)

    with pytest.raises(UsageError, match=f"Show {directory} to the agent, to read and to write"):
        agree(project, directory)
    with pytest.raises(UsageError, match=r"to the agent, to read\? .* private: ") as caught:
        agree(project, home / "project", mounts=f"{directory}:/x:ro")

    assert caught.value.exit_code == 64
    agree(project, directory, yes=True)
    agree(project, directory, workspace="none")


@pytest.mark.parametrize("path", FREE)
def test_places_that_are_not(project: Project, home: Path, path: str) -> None:
    """Where work is done."""
    agree(project, home / "project", mounts=f"{expanded(path, home)}:/x")


def test_a_home_directory_in_the_system(project: Project, home: Path) -> None:
    """Is the user's, as /root is root's and /var/lib/NAME a service's; another's is not."""
    project.environ["HOME"] = "/root"
    agree(project, Path("/root/project"))
    project.environ["HOME"] = "/var/lib/builder"
    agree(project, Path("/var/lib/builder/project"))
    for other in ("/root/project", "/var/lib/other", "/var/lib/builder/.ssh"):
        with pytest.raises(UsageError, match=f"Show {other} to"):
            agree(project, Path(other))
    assert home


def test_places_of_all_programs(project: Project, home: Path) -> None:
    """As sockets of tmux and of the SSH agent are there."""
    project.environ["HOME"] = "/srv/me"

    with pytest.raises(UsageError, match=r"Show /tmp to .* /tmp is private: files and sockets"):
        agree(project, Path("/tmp"))
    agree(project, home)


def test_sockets_of_programs(project: Project, home: Path) -> None:
    """Of whom can be asked for anything, also by what is only to read; a copy has none of them."""
    other = home / "project"
    with socket(AF_UNIX) as listener, chdir(project.directory):
        listener.bind("s")
        listener.listen()
        mount = f"{project.directory}:/x:ro"
        with pytest.raises(UsageError, match=r"Show .*project/s: a program of yours listens"):
            agree(project, project.directory)
        with pytest.raises(UsageError, match=r"to read\? .*project/s: a program of yours"):
            agree(project, other, mounts=mount)
        agree(project, other, yes=True, mounts=mount)
        agree(project, project.directory, workspace="sync")
        agree(project, project.directory, workspace="none")
        agree(project, other)
    agree(project, project.directory)


def planned(project: Project, directory: Path, **options: str) -> plan.Plan:
    """Plan a session in a directory."""
    loaded = replace(project, directory=directory).load_for_provider(**options)
    request = Request()
    return plan.make(
        loaded, request, provider=project.provider, terminal=False, pid=1, command=("true",)
    )


@pytest.mark.parametrize("workspace", ["mount", "sync"])
def test_own_directories(project: Project, runtime: Path, workspace: str) -> None:
    """Are shown to nobody, nor is what is in them or has them in it, by any way."""
    environ = project.environ
    environ["XDG_RUNTIME_DIR"] = str(runtime)
    (project.home / "link").symlink_to(".config/nddt")
    own = (
        *(project.user_file.parent, state.state_directory(environ), runtime / "nddt"),
        *(state.cache_directory(environ), project.home / "link"),
    )
    for directory in (*own, own[1] / "conversations", *(one.parent for one in own[:4])):
        directory.mkdir(parents=True, exist_ok=True)
        for chosen in ({"workspace": workspace}, {"mounts": f"{directory}:/x:ro"}):
            there = directory if "workspace" in chosen else project.directory
            with pytest.raises(ConfigError, match=r"is shown to no sandbox: in .*nddt") as caught:
                planned(project, there, **chosen)
            assert caught.value.exit_code == 78
    planned(project, project.home, workspace=workspace)
    planned(project, own[0], workspace="none")


def test_the_program_itself(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Is nowhere to be changed: not where it is, nor in it, nor around it, by whatever name."""
    link = project.home / "link"
    link.symlink_to(naming.ROOT)
    project.environ["HOME"] = "/nowhere"  # what the home directory is in can be agreed to
    for one in (naming.ROOT, naming.ROOT / "scripts" / "run", naming.ROOT.parent, link):
        with pytest.raises(ConfigError, match=r"nddt keeps its own program — add :ro"):
            planned(project, one)
        with pytest.raises(ConfigError, match=r"nddt keeps its own program — add :ro") as caught:
            planned(project, project.directory, mounts=f"{one}:/x")
        assert caught.value.exit_code == 78
        planned(project, project.directory, mounts=f"{one}:/x:ro")
        planned(project, one, workspace="sync")

    work = work_with(replace(project, directory=naming.ROOT).load(), "docker")
    consent.ask_for_consent(work)

    assert work.settings.readonly
    assert f"{naming.ROOT} is shown to be read, not changed: nddt's own program" in caplog.text
    for other, workspace in ((project.directory, "mount"), (naming.ROOT, "sync")):
        loaded = replace(project, directory=other).load(workspace=workspace)
        assert not work_with(loaded, "docker").settings.readonly
    project.environ["HOME"] = str(naming.ROOT.parent / "x")
    planned(project, naming.ROOT.parent)


def test_the_python_that_runs_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a project's environment, with `inv`; a project beside it can be changed."""
    environment = project.directory / "venv"
    environment.mkdir()
    (project.home / "beside").mkdir()
    monkeypatch.setattr(sys, "prefix", str(environment))

    assert work_with(project.load(), "docker").settings.readonly
    with pytest.raises(ConfigError, match=f"in {environment} nddt keeps its own program"):
        planned(project, project.home / "beside", mounts=f"{environment}:/x")
    planned(project, project.home / "beside")


@pytest.mark.parametrize("place", [".claude", "chosen/by me"])
def test_what_renews_a_login(project: Project, place: str) -> None:
    """Is in no sandbox, whatever shows it, once it is there."""
    directory = project.home / place
    directory.mkdir(parents=True)
    project.environ["CLAUDE_CONFIG_DIR"] = str(project.home / "chosen/by me")
    (project.home / "link").symlink_to(directory)
    ways = (directory, directory.parent, project.home, project.home / "link", Path("/"))
    for one in ways:
        planned(project, one)

    (directory / ".credentials.json").write_text("{}")

    for one in ways:
        for options in ({"workspace": "mount"}, {"workspace": "sync"}, {"mounts": f"{one}:/x:ro"}):
            there = project.directory if "mounts" in options else one
            with pytest.raises(ConfigError, match=r"\.credentials\.json is in it") as caught:
                planned(project, there, **options)
            assert caught.value.exit_code == 78
    planned(project, project.directory)


def test_places_by_another_name(project: Project, home: Path) -> None:
    """A directory that is mounted elsewhere is the same one."""
    alias = home / "project/alias"
    alias.mkdir()
    for place in (".password-store", ".claude"):
        words = ("mount", "--bind", home / place, alias)
        if subprocess.run(words, check=False, capture_output=True).returncode != 0:
            pytest.skip("only root can mount, and not everywhere")
        try:
            with pytest.raises(UsageError, match=f"~/{place} is private"):
                agree(project, alias)
            (home / ".claude/.credentials.json").touch()
            if place == ".claude":
                with pytest.raises(ConfigError, match="renews a login"):
                    planned(project, alias)
        finally:
            subprocess.run(("umount", alias), check=True)


def test_a_login_that_is_a_link(project: Project) -> None:
    """Counts where it leads."""
    (project.home / ".claude").mkdir()
    (project.home / "kept").mkdir()
    (project.home / "kept/login").touch()
    (project.home / ".claude/.credentials.json").symlink_to("../kept/login")

    with pytest.raises(ConfigError, match="renews a login"):
        planned(project, project.home / "kept")


def test_every_place_is_written_well() -> None:
    """Absolute, of the home directory, or a variable; each once."""
    names = [name for text in private_places.PRIVATE.values() for name in text.split()]

    assert all(name.startswith(("/", "~/", "$")) and not name.endswith("/") for name in names)
    assert len(names) == len(set(names))
