"""Runs nddt, and writes how its main thread goes from room to room.

    python tests/traced.py FILE SECRET TASK WORD…

FILE gets, from the task's beginning to its end: the calls from one module of nddt's into another,
each once, in the order of the first time; and the modules that had the secret in their hands, as an
argument or as what a function returned.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

ROOT = str(Path(__file__).parents[1])
HOUSE = f"{ROOT}/scripts/"


class Trace:
    """What the main thread does.

    Args:
        secret: What is looked for.
        task: The function that does the task; what comes before and after it is left out.
    """

    def __init__(self, secret: str, task: str) -> None:
        self._secret, self._task = secret, task
        self._first: FrameType | None = None
        self._known: set[tuple[str, str]] = set()
        self.calls: list[tuple[str, str]] = []
        """Of functions, as `run/workflow.run`: the one by which a module was entered that calls
        another one, and that one."""
        self.holders: dict[str, str] = {}
        """Module that had the secret → the first function of it that had."""

    def __call__(self, frame: FrameType, event: str, value: object) -> None:
        """Note a call or a return; what `sys.setprofile` takes."""
        module, name = _module(frame), frame.f_code.co_name
        if module is None or event not in {"call", "return"} or name == "<module>":
            return
        if self._first is None and module.startswith("words/") and name == self._task:
            self._first = frame
        if self._first is None:
            return
        if event == "call" and frame is not self._first:
            self._note_call(frame, module)
        if module not in self.holders:
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            held = (frame.f_locals.get(one) for one in names) if event == "call" else (value,)
            if any(map(self._has, held)):
                self.holders[module] = code.co_qualname
        if event == "return" and frame is self._first:
            sys.setprofile(None)

    def _note_call(self, frame: FrameType, module: str) -> None:
        back = _caller(frame)
        if back is None or (caller := _module(back)) == module:
            return
        while (further := _caller(back)) and _module(further) == caller:
            back = further
        pair = (f"{caller}.{back.f_code.co_qualname}", f"{module}.{frame.f_code.co_qualname}")
        if pair not in self._known:
            self._known.add(pair)
            if not (_is_import(back) or _is_value(frame)):
                self.calls.append(pair)

    def _has(self, value: object) -> bool:
        """Look for the secret in a text, and in what has texts."""
        if isinstance(value, str):
            return self._secret in value
        if isinstance(value, bytes):
            return self._secret.encode() in value
        if isinstance(value, dict):
            value = tuple(value.values())
        if not isinstance(value, tuple | list):
            return False
        return any(self._has(one) for one in value if isinstance(one, str | bytes))


def _module(frame: FrameType) -> str | None:
    file = frame.f_code.co_filename
    return file[len(HOUSE) :].removesuffix(".py") if file.startswith(HOUSE) else None


def _caller(frame: FrameType) -> FrameType | None:
    """Find who of ours has called a function."""
    back = frame.f_back
    while back and _module(back) is None:
        back = back.f_back
    return back


def _is_import(frame: FrameType | None) -> bool:
    """Tell whether a frame belongs to the import of one of our modules."""
    while frame:
        if _module(frame) and frame.f_code.co_name == "<module>":
            return True
        frame = frame.f_back
    return False


def _is_value(frame: FrameType) -> bool:
    """Tell whether a call only reads a value of an object, or adds two."""
    name, of = frame.f_code.co_name, frame.f_locals.get("self")
    return isinstance(getattr(type(of), name, None), property) or name == "__add__"


def main(file: str, secret: str, words: list[str]) -> None:
    """Run nddt with these words."""
    sys.path.insert(0, ROOT)
    from scripts.quick_start import main as start  # noqa: PLC0415

    trace = Trace(secret, words[0])
    sys.setprofile(trace)
    try:
        start(words)
    finally:
        sys.setprofile(None)
        found = {"calls": trace.calls, "holders": trace.holders}
        Path(file).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
