"""The one door to JSON that a sandbox, a project's file or an interrupted write may have spoilt.

What comes in is small, flat and finite, or it is one line of an error: never a traceback, and
never much more memory than the text itself.
"""

from __future__ import annotations

import json
import math
import os
import stat
from typing import TYPE_CHECKING, Any

from scripts.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

MOST = 1 << 20
"""Bytes of a text; whoever needs more says so."""
DEPTH = 32
"""Arrays and objects inside each other."""


class ForeignJsonError(DataError, ValueError):
    """It is not JSON, or more of it than there should be."""


def parse(text: bytes | str, *, what: str, most: int = MOST, next_step: str = "") -> Any:  # noqa: ANN401  (JSON)
    """Parse JSON that somebody else has written.

    Args:
        text: The JSON.
        what: What it is, as the subject of a message: "the answer of the sandbox".
        most: Bytes, or characters, that it may have. In memory it can be 25 times as large.
        next_step: What the user does about it.

    Raises:
        ForeignJsonError: It is too large, too deep, or no JSON; as a DataError it ends the
            command with one line, and as a ValueError it is caught where that is.
    """

    def refuse(reason: str) -> NoReturn:
        raise ForeignJsonError(f"{what} {reason}", next_step)

    if len(text) > most:
        refuse(f"has more than {most} bytes")
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        refuse("is nested too deeply")
    except ValueError:
        refuse("is no JSON")
    if not _is_flat(value):
        refuse("is nested too deeply")
    return value


def read_json(path: Path, *, most: int = MOST) -> Any:  # noqa: ANN401  (JSON)
    """Read a file with JSON.

    Args:
        path: The file; what is not a regular one is not opened for long.
        most: See `parse`.

    Raises:
        OSError: It cannot be read.
        ForeignJsonError: See `parse`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ForeignJsonError(f"{path} is no file", "remove it")
        text = file.read(most + 1)
    return parse(text, what=str(path), most=most, next_step="correct it, or remove it")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _is_flat(value: object) -> bool:
    level = [value]
    for _ in range(DEPTH + 1):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return True
    return False
