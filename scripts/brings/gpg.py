"""GPG in a sandbox: signs with this machine's agent; the secret keys stay here.

Between the sandbox and the agent is `gpg_agent`. Behind it is the agent's extra socket, which
neither exports nor changes keys for whoever comes through it (gpg-agent(1), --extra-socket).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

from scripts.brings import gpg_agent
from scripts.contracts.provisions import File, Provision
from scripts.errors import ConfigError, UnavailableError
from scripts.machine import process, search_path
from scripts.transport.forwards import Socket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

ANSWER_S = 30
"""How long one command may take."""


@dataclass(kw_only=True)
class Subkey:
    """A key that signs, the primary one or another."""

    key_id: str
    fingerprint: str = ""
    keygrip: str = ""


@dataclass(kw_only=True)
class SecretKey:
    """What the user calls a key: a primary key with its names, and the keys that sign for it."""

    key_id: str
    fingerprint: str = ""
    names: list[str] = field(default_factory=list)
    """Such as `Ada <ada@example.org>`."""
    signing: list[Subkey] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.key_id} {self.names[0] if self.names else ''}".rstrip()


def bring_gpg(
    environ: Mapping[str, str], names: Sequence[str], outside: Path, place: str
) -> Provision:
    """Bring the agent and the public halves of the secret keys along.

    Args:
        environ: Our own environment.
        names: Fingerprints, key ids or e-mail addresses of the only keys; all without any.
        outside: Path of the socket on this machine.
        place: Path of the socket in the sandbox.

    Raises:
        ConfigError: There is no such secret key that signs.
        UnavailableError: GPG is not here, or its agent does not start.
    """
    if not search_path.find_program("gpg") or not search_path.find_program("gpgconf"):
        raise UnavailableError(
            "NDDT_GPG_FORWARD is true, but gpg is not installed here",
            "install GnuPG, or set NDDT_GPG_FORWARD=false",
        )
    words = ("--batch", "--with-colons", "--with-keygrip", "--list-secret-keys")
    keys = named(secret_keys(_told(environ, "gpg", *words)), names)
    if not keys:
        raise ConfigError(
            "NDDT_GPG_FORWARD is true, but gpg has no secret key that signs",
            "make one: gpg --quick-generate-key NAME, or set NDDT_GPG_FORWARD=false",
        )
    _told(environ, "gpgconf", "--launch", "gpg-agent")
    upstream = unquote(_told(environ, "gpgconf", "--list-dirs", "agent-extra-socket").strip())
    found = tuple(one.fingerprint for one in keys)
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
    grips = {sub.keygrip: _description(one, sub) for one in keys for sub in one.signing}
    return Provision(
        forwards=(Socket(place, str(outside)),),
        files={f"session/gnupg/{name}": File(content=text.encode()) for name, text in items},
        before=(take,),
        background_services=(partial(gpg_agent.serve_gpg_agent, outside, upstream, grips),),
        plan_lines=(("gpg", f"signs by this machine's agent with {', '.join(map(str, keys))}"),),
    )


def _description(key: SecretKey, subkey: Subkey) -> str:
    return (
        f"Please enter the passphrase of the OpenPGP key\n{str(key)[:200]}\n"
        f"({subkey.key_id}), with which a sandbox of nddt wants to sign."
    )


def secret_keys(listing: str) -> tuple[SecretKey, ...]:
    """Read the keys that can sign from a listing with colons (GnuPG's doc/DETAILS)."""
    found: list[SecretKey] = []
    now: list[SecretKey | Subkey] = []
    for line in listing.splitlines():
        match line.split(":"):
            case ["sec", validity, _, _, key_id, *rest]:
                found.append(SecretKey(key_id=key_id))
                now = [found[-1], *_signing(found[-1], key_id, validity, rest)]
            case ["ssb", validity, _, _, key_id, *rest]:
                now = [*_signing(found[-1], key_id, validity, rest)]
            case ["fpr", *rest]:
                for one in now:
                    one.fingerprint = rest[8]
            case ["grp", *rest]:
                for one in now:
                    if isinstance(one, Subkey):
                        one.keygrip = rest[8]
            case ["uid", *rest]:
                found[-1].names.append(_unescaped(rest[8]))
    return tuple(one for one in found if one.signing)


def _signing(owner: SecretKey, key_id: str, validity: str, rest: Sequence[str]) -> Iterator[Subkey]:
    """Note a key that signs, is good, and whose secret part is here or on a card."""
    # Fields 12 and 15: capabilities, where capitals are those of the whole; where it is.
    if "s" in rest[6] and validity not in set("idren") and rest[9] != "#":
        owner.signing.append(Subkey(key_id=key_id))
        yield owner.signing[-1]


def _unescaped(name: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), name)


def named(keys: Iterable[SecretKey], names: Sequence[str]) -> tuple[SecretKey, ...]:
    """Pick the keys that are meant; all of them without names.

    Raises:
        ConfigError: There is none of such a name.
    """
    there, picked = tuple(keys), []
    for name in names:
        if not any(_meant(one, name) for one in there):
            problem = f"NDDT_GPG_KEYS names {name!r}, and gpg has no such secret key that signs"
            listed = ", ".join(map(str, there)) or "no key at all"
            raise ConfigError(problem, f"there is: {listed}")
    for one in there:
        subkeys = [sub for sub in one.signing if any(sub in _meant(one, n) for n in names)]
        if subkeys or not names:
            picked.append(replace(one, signing=subkeys or one.signing))
    return tuple(picked)


def _meant(key: SecretKey, name: str) -> list[Subkey]:
    """Tell which of a key's a name means: all of a primary key's, or one."""
    wanted = name.removeprefix("0x").upper()
    addresses = {found.lower() for text in key.names for found in re.findall(r"<([^<>]+)>$", text)}
    if wanted in {key.key_id, key.fingerprint} or name.lower() in addresses:
        return key.signing
    return [one for one in key.signing if wanted in {one.key_id, one.fingerprint}]


def _told(environ: Mapping[str, str], *argv: str) -> str:
    done = process.capture(argv, env=environ, timeout_s=ANSWER_S)
    if not done.ok:
        raise UnavailableError(
            f"{argv[0]} does not answer: {done.last_line}", f"see what is wrong: {' '.join(argv)}"
        )
    return done.stdout
