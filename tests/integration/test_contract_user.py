"""An ordinary user with nothing but Python and the right to use the provider."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import (
    HOST,
    NETWORK_FILES,
    ON_DOCKER,
    check_nothing_is_left,
    clean_environment,
)
from tests.integration.contract import REPOSITORY, Caller
from tests.integration.test_contract_hardening import HOSTILE
from tests.scripted_model import text, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.contract import Outside
    from tests.scripted_model import ScriptedModel

PATH = "/usr/local/bin:/usr/bin:/bin"
UNWANTED = (".git", ".venv", ".venv.lock", "__pycache__", ".*_cache", ".hypothesis", "tests")

pytestmark = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can make a user; all other tests are run by one already"
)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def _need_python() -> None:
    """Install what the launcher needs of Debian's Python, which any user can run."""
    program = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    found = subprocess.run(
        ("python3", "-I", "-c", program), env={"PATH": PATH}, check=False, capture_output=True
    )
    if found.returncode != 0:
        _run("apt-get", "install", "-qy", "python3-venv")


@pytest.fixture(scope="module")
def user(outside: Outside) -> Iterator[pwd.struct_passwd]:
    """A new user, in the group that may use the provider, with an empty home."""
    group = outside.group()
    name = f"nddt-test-{os.getpid()}"
    base = Path(tempfile.mkdtemp(prefix="n", dir="/tmp"))
    base.chmod(0o755)
    groups = ("--groups", group) if group else ()
    home = base / "home"
    _run("useradd", "--create-home", "--home-dir", str(home), "--user-group", *groups, name)
    try:
        yield pwd.getpwnam(name)
    finally:
        outside.forget_images(f"{name}@{HOST}")
        _run("userdel", name)
        shutil.rmtree(base)


@pytest.fixture(scope="module")
def somebody(
    provider: str,
    user: pwd.struct_passwd,
    on_own_machine: tuple[str, ...],
    base: Path,
) -> Iterator[Caller]:
    """That user in a directory of theirs, with a copy of the repository that nobody has used."""
    _need_python()
    own = Path(user.pw_dir).parent
    repository = own / "nddt"
    shutil.copytree(REPOSITORY, repository, ignore=shutil.ignore_patterns(*UNWANTED))
    for name in NETWORK_FILES:
        original = Path.home() / name
        copy = shutil.copytree if original.is_dir() else shutil.copy
        if original.exists():
            copy(original, Path(user.pw_dir) / name)
    (own / "run").mkdir(mode=0o700)
    work = Path(tempfile.mkdtemp(prefix="user-", dir=base / "w"))
    for path in (repository, Path(user.pw_dir), own / "run", work):
        _run("chown", "--recursive", f"{user.pw_uid}:{user.pw_gid}", str(path))
    ids = ("--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--init-groups")
    yield Caller(
        provider=provider,
        launcher=(*on_own_machine, "setpriv", *ids, "--", str(repository / "nddt")),
        directory=work,
        environ={
            **clean_environment(Path(user.pw_dir), own / "run"),
            "NDDT_PROVIDER": provider,
            "PATH": PATH,
            "USER": user.pw_name,
        },
    )
    shutil.rmtree(work)


@pytest.fixture
def settled(somebody: Caller) -> Caller:
    """That user with the image for their id, whichever test comes first."""
    done = somebody(somebody.task("build-image"), within_s=500)
    assert done.code == 0, done.said
    return somebody


@ON_DOCKER
def test_an_ordinary_user_owns_what_the_agent_writes(
    somebody: Caller,
    outside: Outside,
    user: pwd.struct_passwd,
    model: Callable[..., ScriptedModel],
) -> None:
    """From the launcher's first use and the image for this user's id to the file on the disk."""
    scripted = model(
        tool("Write", {"file_path": "/workspace/new/written.txt", "content": "mine\n"}),
        tool("Bash", {"command": "id -u > new/id.txt", "description": "Who am I"}),
        text("Both files are there."),
    )
    caller = somebody.having(ANTHROPIC_BASE_URL=scripted.url)

    first = caller("run", "--yolo", "--prompt", "Write", within_s=500)
    second = caller("run", "--persistent", "--yolo", "--prompt", "Write")

    assert (first.code, first.stdout) == (0, b"Both files are there.\n"), first.said
    assert (second.code, second.stdout, second.stderr) == (0, b"Both files are there.\n", b"")
    for name in ("new", "new/written.txt", "new/id.txt"):
        found = (somebody.directory / name).stat()
        assert (user.pw_uid, user.pw_gid) == (found.st_uid, found.st_gid)
    assert f"{user.pw_uid}\n" == (somebody.directory / "new/id.txt").read_text()
    (name,) = outside.sandboxes()
    assert (0, [name]) == ((done := caller("cleanup", "--all", "--yes")).code, done.lines)
    check_nothing_is_left(somebody, outside)


@ON_DOCKER
def test_a_hostile_program_of_an_ordinary_user_gets_nowhere(
    settled: Caller, outside: Outside, base: Path
) -> None:
    """As in test_contract_hardening.py, where the user may be root; programs lend it no rights."""
    shutil.copy(HOSTILE, settled.directory / "program.py")

    done = settled("shell", "--command", f"python3 program.py {base}/home {Path.home()}/.bashrc")

    assert (done.stdout, done.said) == (b"24\n", "")
    check_nothing_is_left(settled, outside)


@ON_DOCKER
def test_a_user_becomes_root_where_that_is_chosen(
    settled: Caller, outside: Outside, base: Path
) -> None:
    """With sudo, to install packages; that root of the sandbox's gets out as little as any."""
    shutil.copy(HOSTILE, settled.directory / "program.py")
    try_all = f"python3 program.py {base}/home"
    own = settled.having(NDDT_SUDO="true")

    without = settled("shell", "--command", "sudo id -u")
    packages = own(
        *("shell", "--command"),
        "sudo apt-get update -q && sudo apt-get install -qy sl && id -u && sudo id -u",
        within_s=500,
    )
    hostile = own("shell", "--command", f"sudo {try_all}")

    assert (without.code, without.stdout) == (127, b""), without.said
    ids = [str(settled.directory.stat().st_uid), "0"]
    assert (packages.code, packages.lines[-2:]) == (0, ids), packages.said
    # The one that it is meant to have, of all that were tried.
    assert hostile.lines == ["privilege_of_a_program True", "24"], hostile.said
    check_nothing_is_left(settled, outside)
