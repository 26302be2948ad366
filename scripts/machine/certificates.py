"""Certificates of extra authorities, which a user names: what else is in their files stays here."""

from __future__ import annotations

import binascii
import re
from itertools import islice
from typing import TYPE_CHECKING

from scripts.errors import ConfigError
from scripts.machine.own_files import OwnFiles

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 1 << 20
"""Bytes of a file."""
MOST_FILES = 10_000
"""Files of a directory that are looked at."""
MOST = 90_000
"""Bytes of all certificates, as an image's build takes them."""

_BEGIN = re.compile(r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----")
_CERTIFICATE = re.compile(
    r"-----BEGIN ((?:TRUSTED )?CERTIFICATE)-----\r?\n([A-Za-z0-9+/=\s]*)-----END \1-----\r?\n?"
)


def read_certificates(path: Path, home: Path, *, is_chosen: bool) -> str:
    """Read the certificates of a file, or of all `.crt` and `.pem` files below a directory.

    Args:
        path: A link of the user's there is followed once, none behind it.
        home: The user's.
        is_chosen: The user names it with NDDT_CA_CERTS; else it may be missing, and hold none.

    Returns:
        PEM text.

    Raises:
        ConfigError: There is anything else than certificates, or too much.
    """
    path = path.absolute()
    if is_chosen and not path.exists():
        raise ConfigError(f"NDDT_CA_CERTS names {path}, which does not exist", "correct it")
    own = OwnFiles(path.parent, home)
    files = _files(own, path) if path.is_dir() else [path.name] if path.exists() else []
    found = "".join(one for file in files for one in _of_file(own, file, path.parent / file))
    if is_chosen and "BEGIN CERTIFICATE" not in found:
        raise ConfigError(f"{path} holds no PEM certificate", "correct NDDT_CA_CERTS")
    if len(found) > MOST:
        raise ConfigError(
            f"the CA certificates have {len(found)} bytes; a build takes {MOST}",
            "name the few that matter with NDDT_CA_CERTS",
        )
    return found


def _files(own: OwnFiles, directory: Path) -> list[str]:
    names = list(islice(own.names(directory.name), MOST_FILES + 1))
    if len(names) > MOST_FILES:
        problem = f"{directory} has more than {MOST_FILES} files"
        raise ConfigError(problem, "name the file that matters with NDDT_CA_CERTS")
    return [one for end in (".crt", ".pem") for one in sorted(names) if one.endswith(end)]


def _of_file(own: OwnFiles, name: str, path: Path) -> list[str]:
    try:
        text = own.read(name, LIMIT)[0].decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"{path} is no PEM certificate: {reason}", "correct it") from error
    if "PRIVATE KEY-----" in text:
        step = "name a file of certificates alone with NDDT_CA_CERTS"
        raise ConfigError(f"{path} holds a private key", step)
    found = list(_CERTIFICATE.finditer(text))
    if len(found) != len(_BEGIN.findall(text)) or not all(_is_whole(one[2]) for one in found):
        raise ConfigError(f"{path} holds something that is no PEM certificate", "correct it")
    return [f"{one[0].rstrip()}\n" for one in found]


def _is_whole(body: str) -> bool:
    """Tell whether it is one value of ASN.1's DER, a SEQUENCE, as a certificate is (RFC 5280)."""
    try:
        data = binascii.a2b_base64(body)
    except binascii.Error:
        return False
    if len(data) < 2 or data[0] != 0x30:
        return False
    more = data[1] & 0x7F if data[1] & 0x80 else 0
    length = int.from_bytes(data[2 : 2 + more]) if more else data[1]
    return more < 5 and 2 + more + length <= len(data)
