"""The options of `claude` 2.1.332, as `claude --help` lists them, and those it keeps to itself."""

from __future__ import annotations

from scripts.command_line import MANY, MAYBE, NOTHING, ONE

_TAKING = {
    NOTHING: "--allow-dangerously-skip-permissions --ax-screen-reader --bare --brief --chrome "
    "--disable-slash-commands --exclude-dynamic-system-prompt-sections --fork-session "
    "--forward-subagent-text --ide --include-hook-events --include-partial-messages --no-chrome "
    "--no-session-persistence --print --replay-user-messages --restricted --safe-mode "
    "--strict-mcp-config -p",
    ONE: "--agent --agents --append-system-prompt --append-system-prompt-file --autocompact "
    "--debug-file --effort --fallback-model --input-format --json-schema --max-budget-usd "
    "--max-turns --permission-mode --permission-prompt-tool --permission-prompts --plugin-dir "
    "--plugin-url --session-id --setting-sources --settings --system-prompt "
    "--system-prompt-file --system-prompt-snapshot",
    MAYBE: "--debug --from-pr --prompt-suggestions --resume --worktree -d -w",
    MANY: "--add-dir --allowed-tools --allowedTools --betas --disallowed-tools --disallowedTools "
    "--file --mcp-config --tools",
}
OPTIONS = {name: takes for takes, names in _TAKING.items() for name in names.split()}
"""Option → what follows it. Left out is what means nothing in a sandbox, as `--cloud`."""
SAME = {
    "-c": "--continue",
    "-r": "--resume",
    "--dangerously-skip-permissions": "--yolo",
}
"""Option → that of `run` which is the same."""
BEFORE_PROMPT = ("-p", "--print")
"""Options that only a prompt can follow, be it one word."""
