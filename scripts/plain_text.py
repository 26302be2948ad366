"""Text that somebody else wrote, as a person at the terminal may see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def printable(text: str) -> str:
    r"""Make a text that a terminal shows and does not obey: an escape character becomes \x1b."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Make a text that may hold anything one line; of one that is, nothing changes."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def some(names: Sequence[str]) -> str:
    """Write the first five of some names, as a part of one line."""
    return ", ".join(map(one_line, names[:5])) + (" …" if len(names) > 5 else "")
