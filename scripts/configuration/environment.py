"""The environment of this process, and so of all that it starts: the only reader of it."""

from __future__ import annotations

import logging
import os
import pwd
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from scripts.errors import ConfigError
from scripts.machine import search_path, shown_places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

log = logging.getLogger("nddt")

_PLACES = re.compile(
    r"HOME|XDG_\w+_(HOME|DIR)|TMPDIR|TEMP|TMP|TMUX_TMPDIR|GNUPGHOME|\w+_CONFIG_DIR"
    r"|DOCKER_(CONFIG|CERT_PATH)|GIT_CONFIG_(GLOBAL|SYSTEM)"
)
"""Where programs keep what is the user's own."""
_EMPTY_MEANS_NONE = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM")
_NAME_PROGRAMS = ("DOCKER_CONFIG", "GNUPGHOME")
"""What is in these says which programs docker and gpg run."""


def clean(directory: Path, shown: Sequence[Path] = ()) -> Mapping[str, str]:
    """Take out of our environment what leads to where a sandbox may have put something.

    Args:
        directory: The caller's.
        shown: More directories that a sandbox may change.

    Returns:
        All of it.

    Raises:
        ConfigError: What names programs is there.
    """
    _take_out_relative_places()
    suspect = shown_places.known(os.environ, (*shown_places.around(directory), *shown))
    path = search_path.absolute(os.environ.get("PATH"))
    os.environ["PATH"] = shown_places.outside(path, suspect)
    _check_what_names_programs(suspect)
    return os.environ


def _take_out_relative_places() -> None:
    """A relative one would be another wherever one is, in a project one of the project's own.

    The specification of the XDG_ ones wants the same.
    """
    for name in [one for one in os.environ if _PLACES.fullmatch(one)]:
        value = os.environ[name]
        if value.startswith("/") or (not value and name in _EMPTY_MEANS_NONE):
            continue
        del os.environ[name]
        if value:
            log.warning("%s=%r is no absolute path, so it is not used — correct it", name, value)
    if "HOME" not in os.environ:
        with suppress(KeyError):  # nobody whom the system knows
            os.environ["HOME"] = pwd.getpwuid(os.getuid()).pw_dir or "/"


def _check_what_names_programs(suspect: AbstractSet[object]) -> None:
    for name in _NAME_PROGRAMS:
        place = os.environ.get(name)
        if place and shown_places.leads_into(place, suspect):
            raise ConfigError(
                f"{name} is {place}, which a sandbox may change, and programs are named there",
                f"move that directory, or unset {name}",
            )
