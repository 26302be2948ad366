"""Programs of the user's own that speak SSH: ssh, scp, sshfs, rsync, git, an editor.

One file of ssh's configuration, written once and without a secret of any sandbox, is good for
all of them: its ProxyCommand is this program, which finds the sandbox when it is needed. The
server that it reaches runs in a session of the connection that we keep anyway.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

from scripts import (
    audit,
    connections,
    console,
    inside,
    lifecycle,
    process,
    providers,
    settings,
    ssh,
    state,
)
from scripts.errors import DataError, NddtError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from scripts.lifecycle import Work
    from scripts.settings import Settings
    from scripts.ssh import Connection

WORD = "--pipe"
"""The first argument of this program when it is a ProxyCommand."""
SUFFIX = ".nddt"
_OPTIONS: Mapping[str, str] = {**ssh.THROUGH_A_PIPE, "User": "nddt", "ConnectTimeout": "300"}


# -- the file -----------------------------------------------------------------------------------


def configuration(launcher: Path, key: Path) -> str:
    """Write what ssh needs.

    Args:
        launcher: This program.
        key: The private key that lets the user in.
    """
    # ssh gives the line to the user's shell. A host's name may come from somebody else, in an
    # address for git, and a quote in it would end the word: such names are not ours.
    program = shlex.quote(str(launcher)).replace("%", "%%")
    options = {
        "ProxyCommand": f"{program} {WORD} '%n'",
        "IdentityFile": f'"{str(key).replace("%", "%%")}"',
        **_OPTIONS,
    }
    lines = "".join(f"  {name} {value}\n" for name, value in options.items())
    return (
        "# Written by nddt (inv ssh-config). With it `ssh NAME` reaches any sandbox whose name "
        f"begins\n# with nddt-, and `ssh NAME{SUFFIX}` each one.\n"
        f'Host nddt-* *{SUFFIX} "!*\'*"\n{lines}'
    )


def write(environ: Mapping[str, str], launcher: Path) -> Path:
    """Write the file and its key, and give the file's path."""
    place = settings.user_directory(environ)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = place / "ssh_key"
    if not key.exists() or not key.with_suffix(".pub").exists():
        made = ssh.make_key(key)
        if not made.ok:
            raise DataError(f"no key could be made: {made.last_line}", f"look at {place}")
    file = place / "ssh_config"
    state.write(file, configuration(launcher, key))
    return file


def include(file: Path) -> str:
    """Give the line that makes ssh read the file."""
    return f'Include "{file}"' if " " in str(file) else f"Include {file}"


def install(line: str, home: Path) -> bool:
    """Make it the first line of ~/.ssh/config, where it holds for every host.

    Returns:
        Whether it was not there before.
    """
    config = home / ".ssh" / "config"
    config.parent.mkdir(mode=0o700, exist_ok=True)
    config = config.resolve()  # it may be a link to where such files are kept
    before = config.read_bytes() if config.exists() else b""
    if line.encode() in (known.strip() for known in before.splitlines()):
        return False
    partial = config.with_name(f"{config.name}.nddt")
    partial.touch(config.stat().st_mode & 0o777 if config.exists() else 0o600)
    partial.write_bytes(line.encode() + b"\n\n" + before if before else line.encode() + b"\n")
    partial.replace(config)
    return True


# -- the pipe -----------------------------------------------------------------------------------


def main(words: Sequence[str]) -> None:
    """Be the ProxyCommand for a host: become the command that is its server."""
    console.set_up_logging(verbose=False)
    try:
        with audit.recorded("ssh") as record:
            _become_server(words[0], record)
    except NddtError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def _become_server(host: str, record: audit.Record) -> NoReturn:
    name, chosen = sandbox_of(host)
    loaded = settings.from_here(name=name, persistent=True)
    audit.about(loaded)
    connection = _connection(loaded, chosen)
    key = settings.user_directory(loaded.process_environment) / "ssh_key.pub"
    try:
        public_key = key.read_text(encoding="ascii").strip()
    except OSError as error:
        raise DataError(f"{key} cannot be read", "run: inv ssh-config") from error
    command = inside.guest_server(public_key)
    record.code = None  # nobody of ours is there to see the end
    record.write()
    process.become(connection.session_argv("-T", "nddt", command))


def sandbox_of(host: str) -> tuple[str, tuple[str, ...]]:
    """Give the name of the sandbox that a host means, and the providers that may have it."""
    name = host.removesuffix(SUFFIX)
    for provider in providers.NAMES:
        if name.endswith(f".{provider}"):
            return name.removesuffix(f".{provider}"), (provider,)
    return name, providers.NAMES


def _connection(loaded: Settings, chosen: tuple[str, ...]) -> Connection:
    """Connect to the sandbox, whosever it is.

    Raises:
        UnavailableError: There is none.
    """
    works = tuple(_works(loaded, chosen))
    audit.sandbox(loaded.name)
    for work in works:
        if connection := connections.known(work, lifecycle.wanted(work)):
            audit.about(work.settings)
            return connection
    problems = []
    for work in works:
        try:
            found = work.provider.find(work.settings, loaded.name)
        except NddtError as error:
            problems.append(f"{work.provider.TITLE}: {error.message}")
            continue
        if found is not None:
            audit.about(work.settings)
            lifecycle.check_owner(work, found)
            return connections.existing(work, lifecycle.wanted(work))
    raise UnavailableError(
        f"there is no sandbox {loaded.name}", "see: inv list", detail="\n".join(problems)
    )


def _works(loaded: Settings, chosen: tuple[str, ...]) -> Iterator[Work]:
    """Give the providers that may have it, the usual one first; a cloud only with an account."""
    for name in sorted(chosen, key=lambda one: one != loaded.provider):
        if name == "daytona" and not loaded.daytona_api_key and len(chosen) > 1:
            continue
        yield lifecycle.work_with(loaded, name)
