"""Another agent than the usual one: what all else knows of it is what its module says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.contract import Caller


def test_an_agent_that_needs_no_key_and_no_package(nddt: Caller) -> None:
    """Runs its prompt in the directory, by an image that has the tools alone."""
    script = 'pwd; echo "it is" | tee file; whoami >&2; command -v claude; exit "$1"'
    caller = nddt.having(NDDT_AGENT="bash")
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"):
        assert name not in caller.environ

    done = caller("run", "--prompt", script, "--yes", "--", "7")
    demo = caller("run", "--demo", "--prompt", "x")

    assert (done.code, done.lines) == (7, ["/workspace", "it is"]), done.said
    assert done.said.splitlines()[-1] in {"nddt", "root"}
    assert (demo.code, demo.lines) == (64, [])
    assert demo.said == "nddt: bash asks no model — leave --demo out\n"
