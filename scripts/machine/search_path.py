"""Where programs are looked for."""

from __future__ import annotations

import os
import shutil

passed_over: list[str] = []
"""Entries of PATH that are absolute, and no program is looked for there: see `shown_places.py`."""


def absolute(path: str | None) -> str:
    """Take out of PATH what is relative: it means another directory wherever one is.

    In a project that would be one of the project's own, with a `git` or a `docker` of its own. The
    launcher, `nddt`, does likewise before it starts anything.

    Args:
        path: PATH, None if it is not set.
    """
    places = (path or "").split(os.pathsep)
    return os.pathsep.join(filter(os.path.isabs, places)) or os.defpath


def find_program(program: str) -> str | None:
    """Look a program up on PATH.

    The administrator's directories count too: an ordinary user's PATH may lack them. A relative
    path names none: it would be one of the caller's directory.
    """
    if "/" in program and program[0] != "/":
        return None
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
