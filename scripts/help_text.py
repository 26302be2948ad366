"""What `--help` and `--list` show: usage, examples, and the tasks in groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Row = tuple[str, str]

EXAMPLES: tuple[Row, ...] = (
    ("nddt", "A conversation, in this directory."),
    ('nddt "Fix the failing test"', "One answer on stdout, files in this directory."),
    ('git diff | nddt -p "Review this"', "The same, with more on stdin."),
    ("nddt --continue", "Go on with the directory's last conversation."),
    ("nddt run --persistent", "Keep the sandbox; nddt attach comes back to it."),
    ("nddt list cleanup", "Tasks follow each other: see them, and remove this directory's."),
)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "The agent": ("run", "attach", "shell"),
    "Sandboxes": ("list", "stop", "cleanup"),
    "Files": ("cp", "push", "pull", "diff", "protected"),
    "Reach": ("ports", "ssh-config", "network"),
    "This machine": ("setup", "config", "trust"),
    "nddt itself": ("lint", "test", "bench"),
}
"""Title → tasks, and groups of tasks."""


def usage(places: tuple[str, ...] = (), task: str = "") -> str:
    """Write how a command line is built: any, or a task's."""
    if not task:
        return 'Usage: nddt "PROMPT" [OPTIONS OF run]\n       nddt TASK [OPTIONS] [TASK …]'
    return " ".join((f"Usage: nddt {task}", *map(str.upper, places), "[OPTIONS]"))


def listed(texts: Mapping[str, str]) -> Iterator[tuple[str, list[Row]]]:
    """Sort tasks into groups; those of one provider alone once, by what they do.

    Args:
        texts: Task → its explanation.

    Yields:
        A title, and its tasks.
    """
    left = dict(texts)
    for title, names in GROUPS.items():
        chosen = [one for one in texts if {one.split()[0], one.partition(".")[0]} & {*names}]
        if chosen:
            yield title, [(one, left.pop(one)) for one in chosen]
    known = {text for name, text in texts.items() if name not in left}
    same: dict[str, list[str]] = {}
    for name, text in left.items():
        if text not in known:
            same.setdefault(text, []).append(name)
    rows = [(", ".join(names), text) for text, names in same.items()]
    alike = sorted({name.partition(".")[0] for name, text in left.items() if text in known})
    if alike:
        shown = ", ".join(f"{one}.list" for one in alike)
        rows.append((f"{shown} …", "The tasks above, at that provider."))
    if rows:
        yield "One provider's", rows
