"""GPG in a sandbox: signs with this machine's agent; the secret keys stay here.

What is forwarded is the agent's extra socket, which it made for that: who comes through it may
use keys, but neither export nor change them (gpg-agent(1), --extra-socket).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from scripts import process
from scripts.errors import ConfigError, UnavailableError
from scripts.provisions import File, Provision
from scripts.ssh import Socket

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_S = 30
"""How long one command may take."""


def provision(environ: Mapping[str, str], place: str) -> Provision:
    """Bring the agent and the public halves of the secret keys along.

    Args:
        environ: Our own environment.
        place: Path of the agent's socket in the sandbox.

    Raises:
        ConfigError: There is no secret key.
        UnavailableError: GPG is not here, or its agent does not start.
    """
    if not process.find("gpg") or not process.find("gpgconf"):
        raise UnavailableError(
            "NDDT_GPG_FORWARD is true, but gpg is not installed here",
            "install GnuPG, or set NDDT_GPG_FORWARD=false",
        )
    found = secret_keys(_told(environ, "gpg", "--batch", "--with-colons", "--list-secret-keys"))
    if not found:
        raise ConfigError(
            "NDDT_GPG_FORWARD is true, but gpg has no secret key",
            "make one: gpg --quick-generate-key NAME, or set NDDT_GPG_FORWARD=false",
        )
    _told(environ, "gpgconf", "--launch", "gpg-agent")
    socket = unquote(_told(environ, "gpgconf", "--list-dirs", "agent-extra-socket").strip())
    exported = _told(environ, "gpg", "--batch", "--armor", "--export", *found)
    items = (
        ("keys.asc", exported),
        # 6 is ultimate: they are the user's own.
        ("trust", "".join(f"{one}:6:\n" for one in found)),
        ("gpg.conf", "no-autostart\n"),
        # Where to find the agent's socket in place of this file; see gpg-agent(1).
        ("S.gpg-agent", f"%Assuan%\nsocket={place}\n"),
    )
    # It warns of an agent that is older than itself, which is of no interest here.
    take = (
        'export GNUPGHOME="$NDDT_SESSION/gnupg"; chmod 700 "$GNUPGHOME"; '
        'e=$(gpg --batch --quiet --import "$GNUPGHOME/keys.asc" 2>&1 && '
        'gpg --batch --quiet --import-ownertrust "$GNUPGHOME/trust" 2>&1) || '
        'printf "%s\\n" "$e" >&2; unset e'
    )
    return Provision(
        forwards=(Socket(place, socket),),
        files={f"session/gnupg/{name}": File(content=text.encode()) for name, text in items},
        before=(take,),
        shown=(("gpg", f"this machine's agent, with {', '.join(one[-16:] for one in found)}"),),
    )


def secret_keys(listing: str) -> tuple[str, ...]:
    """Give the fingerprints of the primary keys in a listing with colons."""
    found, is_primary = [], False
    for line in listing.splitlines():
        fields = line.split(":")
        if fields[0] == "fpr" and is_primary:
            found.append(fields[9])
        is_primary = fields[0] == "sec" or (is_primary and fields[0] != "fpr")
    return tuple(found)


def _told(environ: Mapping[str, str], *argv: str) -> str:
    done = process.capture(argv, env=environ, timeout_s=ANSWER_S)
    if not done.ok:
        raise UnavailableError(
            f"{argv[0]} does not answer: {done.last_line}", f"see what is wrong: {' '.join(argv)}"
        )
    return done.stdout
