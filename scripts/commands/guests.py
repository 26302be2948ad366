"""Programs of the user's own that speak SSH: ssh, scp, sshfs, rsync, git, an editor.

One file of ssh's configuration, written once and without a secret of any sandbox, is good for
all of them: its ProxyCommand is this program, which finds the sandbox when it is needed. The
server that it reaches runs in a session of the connection that we keep anyway.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from scripts import providers
from scripts.configuration import reading
from scripts.errors import ConfigError, DataError, NddtError, UnavailableError
from scripts.machine import audit, console, files, process, shown_places
from scripts.naming import said
from scripts.run import connections, housekeeping, sandboxes
from scripts.run.work import wanted, work_with
from scripts.sandbox_places import USER
from scripts.settings import env_file
from scripts.transport import inside, ssh

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scripts.run.work import Work
    from scripts.settings.fields import Settings
    from scripts.transport.ssh import Connection

WORD = "--pipe"
"""The first argument of this program when it is a ProxyCommand."""
SUFFIX = ".nddt"
# A server's stderr is the user's: nothing of it may be obeyed by a terminal.
_PLAIN = (
    'exec 3>&1; "$@" 2>&1 >&3 3>&- | LC_ALL=C tr -d "\\000-\\011\\013-\\037\\177-\\377" >&2 3>&-'
)
_OPTIONS: Mapping[str, str] = {
    **ssh.THROUGH_A_PIPE,
    "User": USER,
    "ConnectTimeout": "300",
    # The first value counts, so the user's `Host *` hands a sandbox nothing by these.
    "AddKeysToAgent": "no",
    "CanonicalizeHostname": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ForwardX11Trusted": "no",
    "GSSAPIDelegateCredentials": "no",
    # Else the agent would sign for a sandbox that takes no key but the user's.
    "IdentityAgent": "none",
    "PermitLocalCommand": "no",
    "PKCS11Provider": "none",
    "ProxyUseFdpass": "no",
    "RemoteCommand": "none",
    "SetEnv": "NDDT_GUEST=1",
    "Tunnel": "no",
}
ANSWER_S = 10
"""How long ssh may take to read its configuration; a `Match exec` in it runs programs."""
_FORWARDS = re.compile(
    r"(remote|local|dynamic)forward .*"
    r"|sendenv (?!(LANG|LANGUAGE|LC_[\w*?]+|TERM|COLORTERM|NO_COLOR|TZ)$).*"
)
"""As `ssh -G` prints them. Language and colours are no secret, and many a system sends them."""

_FILE_OPTION = re.compile(rb"-[46AaCfGgKkMNnqsTtVvXxYy]*F(.*)", re.DOTALL)
"""Options without a value may stand before it in one word (ssh(1))."""

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
    return (
        "# Written by nddt (nddt ssh-config). With it `ssh NAME` reaches any sandbox whose name "
        f"begins\n# with nddt-, and `ssh NAME{SUFFIX}` each one.\n"
    ) + ssh.section(f'nddt-* *{SUFFIX} "!*\'*"', options)


def write_configuration(environ: Mapping[str, str], launcher: Path) -> Path:
    """Write the file and its key, and give the file's path."""
    place = env_file.user_directory(environ)
    files.make_private(place)
    key = place / "ssh_key"
    if not key.exists() or not key.with_suffix(".pub").exists():
        made = ssh.make_key(key)
        if not made.ok:
            raise DataError(f"no key could be made: {made.last_line}", f"look at {place}")
    file = place / "ssh_config"
    files.write(file, configuration(launcher, key))
    return file


def include(file: Path) -> str:
    """Write the line that makes ssh read the file."""
    return f'Include "{file}"' if " " in str(file) else f"Include {file}"


def install(line: str, environ: Mapping[str, str]) -> bool:
    """Make it the first line of ~/.ssh/config, where it holds for every host.

    Returns:
        Whether it was not there before.

    Raises:
        ConfigError: A sandbox could choose what is read and written there.
    """
    named = Path(environ.get("HOME", "/"), ".ssh", "config")
    if changed := shown_places.on_the_way(named, environ):
        raise ConfigError(
            f"{named} is reached through {changed}, which a sandbox was shown",
            f"look at what it says, and make this its first line yourself: {line}",
        )
    config = named.resolve()  # it may be a link to where such files are kept
    before = config.read_bytes() if config.exists() else b""
    if line.encode() in (known.strip() for known in before.splitlines()):
        return False
    mode = config.stat().st_mode & 0o777 if config.exists() else 0o600
    files.write(config, line.encode() + (b"\n\n" + before if before else b"\n"), mode=mode)
    return True


# -- the pipe -----------------------------------------------------------------------------------


def main(words: Sequence[str]) -> None:
    """Be the ProxyCommand for a host: become the command that is its server."""
    console.set_up_logging(verbose=False)
    try:
        with audit.recorded("ssh") as record:
            _become_server(words[0], record)
    except NddtError as error:
        console.complain(str(error))
        sys.exit(error.exit_code)


def _become_server(host: str, record: audit.Record) -> NoReturn:
    name, chosen = sandbox_of(host)
    loaded = reading.from_here(name=name, persistent=True)
    _check_inherited(host)
    audit.about(loaded)
    connection = _connection(loaded, chosen)
    key = env_file.user_directory(loaded.process_environment) / "ssh_key.pub"
    try:
        public_key = key.read_text(encoding="ascii").strip()
    except OSError as error:
        raise DataError(f"{key} cannot be read", f"run: {said('ssh-config')}") from error
    command = inside.guest_server(public_key)
    record.code = None  # nobody of ours is there to see the end
    record.write()
    process.become(("sh", "-c", _PLAIN, "nddt", *connection.session_argv("-T", "nddt", command)))


def _check_inherited(host: str) -> None:
    """Refuse what the user's ssh forwards to every host and no option of ours takes back.

    Raises:
        ConfigError: There is such a thing.
    """
    file = _file_of_our_ssh()
    inherited = sorted(forwarded(host, file) & forwarded("host.invalid", file))
    if inherited:
        raise ConfigError(
            f"your ssh would have this for every host, and so for a sandbox: {inherited[0]}",
            'put it below "Host * !nddt-* !*.nddt"',
        )


def forwarded(host: str, file: str | None) -> frozenset[str]:
    """Ask ssh for the ports, sockets and variables that its configuration has for a host.

    Args:
        host: Its name; it is not looked up.
        file: The configuration; None for the user's own and the system's.
    """
    which = () if file is None else ("-F", file)
    asked = ("ssh", *which, "-o", "CanonicalizeHostname=no", "-G", host)
    done = process.capture(asked, timeout_s=ANSWER_S)
    return frozenset(line for line in done.stdout.splitlines() if _FORWARDS.fullmatch(line))


def _file_of_our_ssh() -> str | None:
    """Tell which configuration the ssh was given whose ProxyCommand we are; None if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):  # another system, or no -F
        found = file_named(Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0"))
        return found and (found if found == "none" else os.path.abspath(found))  # noqa: PTH100
    return None


def file_named(words: Sequence[bytes]) -> str | None:
    """Read which configuration ssh's arguments name, as `-F FILE`, `-FFILE` or `-vFFILE`."""
    for number, word in enumerate(words):
        if match := _FILE_OPTION.fullmatch(word):
            return os.fsdecode(match[1] or words[number + 1])
    return None


def sandbox_of(host: str) -> tuple[str, tuple[str, ...]]:
    """Tell the name of the sandbox that a host means, and the providers that may have it."""
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
        if connection := connections.known(work, wanted(work)):
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
            sandboxes.check_owner(work, found)
            housekeeping.begin_to_watch(work, found)
            return connections.existing(work, wanted(work))
    raise UnavailableError(
        f"there is no sandbox {loaded.name}", f"see: {said('list')}", detail="\n".join(problems)
    )


def _works(loaded: Settings, chosen: tuple[str, ...]) -> Iterator[Work]:
    """List the providers that may have it, the usual one first; a cloud only with an account."""
    for name in sorted(chosen, key=lambda one: one != loaded.provider):
        work = work_with(loaded, name)
        if work.provider.is_set_up(work.settings) or len(chosen) == 1:
            yield work
