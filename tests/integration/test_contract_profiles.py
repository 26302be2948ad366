"""What profiles close, and what nddt leaves on this machine and in sandboxes: no secret."""

from __future__ import annotations

import subprocess
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.contract import KEY, Caller, Daytona, end, ended, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.contract import Outside

TOKEN = "gho_0123456789abcdefghijklmnopqrstuvwxyz"


PUBLIC = {"known_hosts", "versions.json"}
"""Files with nothing that the whole world does not know."""


def _engine(*words: str) -> str:
    done = subprocess.run(("docker", *words), check=False, capture_output=True, text=True)
    return done.stdout.strip()


def _container(outside: Outside) -> str:
    for name in outside.sandboxes():
        with suppress(LookupError):  # it has been asked for, and is not made yet
            return outside.double.container_of(name) if isinstance(outside, Daytona) else name
    return ""


def _processes(container: str) -> list[Path]:
    """Give the processes of a container's, as directories of this machine's /proc."""
    found = _engine("top", container, "-eo", "pid").split()[1:] if container else []
    return [Path("/proc", pid) for pid in found]


def _interfaces_of_agents(container: str) -> list[str]:
    """Give the network interfaces that each agent in a container sees."""
    found = []
    for process in _processes(container):
        with suppress(OSError):  # it has ended
            if (process / "cmdline").read_bytes().split(b"\0")[0].endswith(b"claude"):
                lines = (process / "net/dev").read_text(encoding="ascii").splitlines()[2:]
                found += [line.partition(":")[0].strip() for line in lines]
    return found


def _environments(container: str) -> Iterator[bytes]:
    for process in _processes(container):
        with suppress(OSError):  # it has ended
            yield (process / "environ").read_bytes()


def test_an_airgap(nddt: Caller, outside: Outside) -> None:
    """The agent answers; there is no way for a packet, and no process has a key."""
    caller = nddt.having(ANTHROPIC_API_KEY=KEY, GH_TOKEN=TOKEN)
    run = ("run", "--profile", "airgap", "--demo", "--prompt", "Say hello")

    with ended(caller.start(*run)) as running:
        seen = eventually(lambda: _interfaces_of_agents(_container(outside)), 60)
        told = b"".join(_environments(_container(outside)))
        done = end(running, 60)

    assert (done.code, b"Say hello" in done.stdout) == (0, True), done.said
    assert set(seen) == {"lo"}
    assert b"PATH=" in told
    assert not any(one.encode() in told for one in (KEY, TOKEN))


def _files(*places: Path) -> Iterator[Path]:
    for place in places:
        yield from (one for one in place.rglob("*") if one.is_file() and not one.is_symlink())


def _is_private(file: Path, ours: list[Path]) -> bool:
    """Tell whether nobody else gets at a file, for its own mode or that of our directory."""
    around = [one for one in file.parents if any(one.is_relative_to(top) for top in ours)]
    return any(one.stat().st_mode & 0o077 == 0 for one in (file, *around))


def test_no_secret_is_left_anywhere(kept: Caller, outside: Outside, tmp_path: Path) -> None:
    """Neither in our files, nor in the sandbox's, nor in what the provider tells."""
    state, cache = tmp_path / "state", tmp_path / "cache"
    known = {"XDG_STATE_HOME": str(state), "XDG_CACHE_HOME": str(cache), "NDDT_WORKSPACE": ""}
    caller = kept.having(**known, ANTHROPIC_API_KEY=KEY, GH_TOKEN=TOKEN)
    agent = caller.with_agent("echo $GH_TOKEN | wc -c; echo work >made")
    for option, length in (((), 41), (("--keyless",), 46)):
        done = agent("run", "--prompt", "x", *option)
        assert (done.code, done.stdout) == (0, b"%d\n" % length), done.said
    (name,) = outside.sandboxes()
    secrets = {form for one in (KEY, TOKEN) for form in (one.encode(), b64encode(one.encode()))}

    ours = [caller.runtime, state / "nddt", cache / "nddt"]
    for file in _files(*ours, caller.directory, Path(caller.environ["HOME"])):
        assert not any(one in file.read_bytes() for one in secrets), file
    seen = [file.name for file in _files(*ours) if not _is_private(file, ours)]
    assert set(seen) <= PUBLIC
    assert not any(one.decode() in outside.visible(name) for one in secrets)
    look = (
        "cd / && printf %s {0} >/tmp/seen; "
        "grep -rlF -e {0} -e {1} ~ /tmp /var/tmp /dev/shm /workspace 2>/dev/null"
    )
    forms = [f"$(printf %s {b64encode(one.encode()).decode()} | base64 -d)" for one in (KEY, TOKEN)]
    found = caller.having(NDDT_ENV_VARS="NONE")("shell", "--command", look.format(*forms))
    assert found.stdout == b"/tmp/seen\n", found.said
