"""What is sent to a sandbox runs there by itself."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from scripts.transport import inside
from scripts.workspace.copies import answering

if TYPE_CHECKING:
    from pathlib import Path


def test_it_needs_nothing_that_is_not_sent(tmp_path: Path) -> None:
    """Where there is no module of ours but those that come, it looks at a repository."""
    top = tmp_path / "top"
    subprocess.run(("git", "init", "-q", top), check=True)
    (top / ".gitignore").write_text("*.log\n")
    (top / "a.log").touch()
    (top / "a").touch()
    text = inside.bundle(answering, answering.SENT)
    words = shlex.split(inside.python("answering", len(text), str(top)))[1:]
    wish = {"do": "entries", "unless": "", "identity": "me", "exchange": ""}
    asked = text + json.dumps(wish).encode() + b"\n"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        words, input=asked, cwd=tmp_path, env=environ, capture_output=True, check=True
    )
    first, *rows = (json.loads(line) for line in done.stdout.splitlines() if line)
    assert first == ["me", False, False]
    names = {path for path, *_ in rows}
    assert {"a", ".gitignore", ".git/HEAD"} <= names
    assert "a.log" not in names
