"""What README says to type, typed by a newcomer without an account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.conftest import ON_DOCKER
from tests.test_documents import commands

if TYPE_CHECKING:
    from tests.integration.contract import Caller, Outside

TYPED = commands("README.md")
PROMPTS = [
    words
    for words in filter(None, TYPED)
    if " " in words[0] or set(words) & {"--prompt", "--prompt-file"}
]
KEPT = ["list", "cp", "stop", "cleanup"]
"""Of a sandbox that is there, in this order."""


@ON_DOCKER
def test_its_commands(kept: Caller, outside: Outside) -> None:
    """Each ends well: prompts with the demo's model, then those about the sandbox."""
    for name in ("notes.txt", "task.md"):
        (kept.directory / name).write_text("Say hello")
    # In scripts: the text is a variable of the shell's.
    for words in dict.fromkeys(one for one in PROMPTS if "$TEXT" not in one):
        done = kept(*dict.fromkeys((*words, "--demo")), stdin=b"diff")
        assert (done.code, bool(done.stdout)) == (0, True), (words, done.said)
    assert outside.sandboxes()
    for name in KEPT:
        words = next(one for one in TYPED if one[:1] == (name,))
        more = ("--yes",) if name == "cleanup" else ()
        done = kept(*words, *more)
        assert done.code == 0, (words, done.said)
    assert not outside.sandboxes()
