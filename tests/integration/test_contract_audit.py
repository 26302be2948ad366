"""What the audit log says of a day's work, with each provider."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.integration.contract import KEY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.contract import Caller


def test_each_action_has_a_line_without_secrets(nddt: Caller, tmp_path: Path) -> None:
    """Whatever came of it; what was asked and answered is not in it."""
    log = tmp_path / "log"
    caller = nddt.with_agent("echo private-answer; exit 5").having(
        ANTHROPIC_API_KEY=KEY, NDDT_LOG=str(log)
    )

    assert caller("run", "--prompt", "private-question").code == 5
    name = caller.make_sandbox()
    assert caller("shell", "--name", name, "--command", "echo private-command").code == 0
    assert caller("stop").code == 0
    assert caller("cleanup", "--yes").code == 0

    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    (ephemeral,) = lines[0]["sandboxes"]
    assert ephemeral != name
    assert [(one["action"], one["sandboxes"], one["exit"]) for one in lines] == [
        ("run", [ephemeral], 5),
        ("create-sandbox", [name], 0),
        ("shell", [name], 0),
        ("stop", [name], 0),
        ("cleanup", [name], 0),
    ]
    shown = "" if nddt.environ.get("NDDT_WORKSPACE") == "none" else str(nddt.directory)
    assert {(one["provider"], one["workspace"]) for one in lines} == {(nddt.provider, shown)}
    assert "private" not in text
    assert KEY not in text
