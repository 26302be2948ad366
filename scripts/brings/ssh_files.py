"""What of ~/.ssh comes along, and how the ssh, scp and sftp of a session are told of it.

Those read a file of the session's own (`-F`), which includes what the sandbox has itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scripts.contracts.provisions import File, Provision
from scripts.machine import process
from scripts.machine.own_files import OwnFiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PLACE = "${NDDT_SESSION}/ssh"
"""As ssh_config(5) and a shell take it."""
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*?)\s*")
_KEPT = {"hostname", "port", "user", "hostkeyalias", "proxyjump"}
"""What of a host makes sense elsewhere; the rest names files, programs and sockets."""
_USUAL = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
"""The keys that ssh offers unasked, in its order."""
_NAME = re.compile(r"[\w.@+ -]+")
_LIMIT = 4 << 20
"""Bytes of a file that is brought along, at most: `known_hosts` can be long."""
_MOST_BYTES = 65_536
"""No private key is longer."""


@dataclass(frozen=True, kw_only=True)
class PrivateKey:
    """A private key of ~/.ssh, as it is known by its public part."""

    path: Path
    fingerprint: str
    comment: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.fingerprint} {self.comment} ({self.path.name})"


def private_keys(directory: Path) -> tuple[PrivateKey, ...]:
    """Find the private keys in a directory, those that ssh offers unasked first."""
    return tuple(_private_keys(directory))


def _private_keys(directory: Path) -> Iterator[PrivateKey]:
    files = sorted(directory.iterdir()) if directory.is_dir() else []
    files.sort(key=lambda one: _USUAL.index(one.name) if one.name in _USUAL else len(_USUAL))
    for path in files:
        content = _read(path) if _NAME.fullmatch(path.name) else b""
        if re.match(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", content[:_MOST_BYTES]):
            done = process.capture(("ssh-keygen", "-l", "-f", str(path)))
            told = re.fullmatch(r"\d+ (SHA256:\S+) (.*) \(\S+\)", done.stdout.strip())
            fingerprint, comment = (told[1], told[2]) if told else ("", "")
            yield PrivateKey(path=path, fingerprint=fingerprint, comment=comment, content=content)


def _read(path: Path) -> bytes:
    """Read a regular file of the user's; empty if it is none, or not for us."""
    try:
        return OwnFiles(path.parent, path.parent.parent).read(path.name, _LIMIT)[0]
    except OSError:
        return b""


def hosts(config: str, private: Iterable[str] = ()) -> str:
    """Return what makes sense elsewhere of a configuration: hosts, their ports and users.

    Args:
        config: Its text. What it includes, or says for a `Match`, is left out.
        private: Names of the private keys that come along: they stay what a host asks for.
    """
    lines, is_kept, names = [], True, set(private)
    for line in config.splitlines():
        found = _LINE.fullmatch(line)
        keyword, value = (found[1].lower(), found[2]) if found else ("", "")
        if keyword in {"host", "match"}:
            is_kept = keyword == "host"
            lines += [f"Host {value}"] if is_kept else []
        elif is_kept and keyword in _KEPT:
            lines.append(f"  {keyword} {value}")
        elif is_kept and keyword == "identityfile":
            name = value.strip('"').rpartition("/")[2]
            lines += [f'  IdentityFile "{PLACE}/{name}"'] if name in names else []
        elif is_kept and keyword == "identitiesonly" and names:
            lines.append(f"  IdentitiesOnly {value}")
    return "".join(f"{line}\n" for line in lines)


def bring_ssh_files(
    home: Path, user: str, place: str, private: tuple[PrivateKey, ...]
) -> Provision:
    """Bring hosts, what is known of them, and keys along.

    Args:
        home: Where .ssh is.
        user: The name under which ssh logs in unless told otherwise.
        place: Path in the sandbox for programs of the session's own.
        private: The keys.
    """
    directory = home / ".ssh"
    config = _read(directory / "config").decode("utf-8", "replace")
    offered = "".join(f'  IdentityFile "{PLACE}/{one.path.name}"\n' for one in private)
    text = (
        f"Include ~/.ssh/config\n{hosts(config, (one.path.name for one in private))}"
        f'Host *\n  UserKnownHostsFile ~/.ssh/known_hosts "{PLACE}/known_hosts"\n{offered}'
        f"Include /etc/ssh/ssh_config\nHost *\n  User {user}\n"
    )
    files = {"config": text.encode(), "known_hosts": _read(directory / "known_hosts")}
    for one in private:
        files[one.path.name] = one.content
        for ending in (".pub", "-cert.pub"):
            public = _read(one.path.with_name(one.path.name + ending))
            files |= {one.path.name + ending: public} if public else {}
    # Not in the session's directory, from which nothing can be run: /dev/shm is noexec.
    wrap = (
        f"mkdir -p -m 700 {place}; for p in ssh scp sftp; do "
        'printf "%s\\n" "#!/bin/sh" "export NDDT_SESSION=$NDDT_SESSION" '
        '"exec $(command -v $p) -F $NDDT_SESSION/ssh/config \\"\\$@\\"" '
        f">{place}/$p; chmod 700 {place}/$p; done; export PATH={place}:$PATH"
    )
    return Provision(
        files={f"session/ssh/{name}": File(content=content) for name, content in files.items()},
        before=(wrap,),
    )
