"""Claude Code, as it comes from npm.

Facts about its files and options were tried with version 2.1.330.
"""

from __future__ import annotations

import re
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

from scripts.provisions import Provision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.agents import Request
    from scripts.settings import Settings

NAME = "claude"
PACKAGE = "@anthropic-ai/claude-code"
PROGRAM = "claude"
CREDENTIALS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
)
KEYS = {
    "ANTHROPIC_API_KEY": "x-api-key: {}",
    "ANTHROPIC_AUTH_TOKEN": "authorization: Bearer {}",
    "CLAUDE_CODE_OAUTH_TOKEN": "authorization: Bearer {}",
}
BASE_URL = "ANTHROPIC_BASE_URL"
API_URL = "https://api.anthropic.com"
# Files, batches and the like of an account may be other people's.
API = re.compile(r"POST /v1/messages(/count_tokens)?|GET /v1/models(/[A-Za-z0-9][\w.:@-]*)?")
CONFIGURATION = (
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_DEFAULT_*",
    "ANTHROPIC_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "API_TIMEOUT_MS",
    "BASH_*_TIMEOUT_MS",
    "CLAUDE_CODE_DISABLE_*",
    "CLAUDE_CODE_MAX_*",
    "CLAUDE_CODE_USE_*",
    "DISABLE_TELEMETRY",
    "MAX_THINKING_TOKENS",
)
WAYS_IN = (
    "put ANTHROPIC_API_KEY=… into .env, or log in here by running `claude`, or run "
    "`claude setup-token` where you are logged in and set CLAUDE_CODE_OAUTH_TOKEN, or see it "
    "work without an account: --demo"
)
CONVERSATIONS = ".claude/projects/-workspace"

TOLD = "--append-system-prompt"

_ANSWERS = (
    '(env.ANTHROPIC_API_KEY // "")[-20:] as $k | .hasCompletedOnboarding = true '
    '| .projects["/workspace"].hasTrustDialogAccepted = true '
    '| if $k == "" then . else '
    ".customApiKeyResponses.approved |= ((. // []) - [$k] + [$k]) "
    "| .customApiKeyResponses.rejected |= ((. // []) - [$k]) end"
)
"""jq program: it knows a key by its last 20 characters, and one refused before is never used."""


def asks_nothing(arguments: tuple[str, ...]) -> bool:
    """Tell whether `-p` is among the arguments; what follows a `--` is a prompt."""
    options = takewhile(lambda word: word != "--", arguments)
    return not {"-p", "--print", "-v", "--version", "-h", "--help"}.isdisjoint(options)


def command(request: Request, program: tuple[str, ...]) -> tuple[str, ...]:
    """Give the command line; a prompt comes last, where nothing takes it for an option."""
    told, arguments = _told(request)
    options = {
        "--model": request.model,
        "--resume": request.resume,
        "--output-format": request.output_format,
        TOLD: "\n".join(told),
    }
    words = [*program]
    words += ["--print"] if request.headless and not asks_nothing(request.arguments) else []
    words += [word for name, value in options.items() if value for word in (name, value)]
    words += ["--continue"] if request.resume_last else []
    words += ["--dangerously-skip-permissions"] if request.skip_permissions else []
    words += ["--verbose"] if _must_be_verbose(request) else []
    words += arguments
    if request.prompt is not None:
        words += [request.prompt] if "--" in arguments else ["--", request.prompt]
    return tuple(words)


def _told(request: Request) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put what the user appends to the system prompt to ours: only the last one would count.

    Returns:
        The lines, and the user's arguments without theirs.
    """
    told, rest, words = list(request.told), [], iter(request.arguments)
    for word in words if told else ():
        if word == "--":
            rest.append(word)
            break
        name, is_joined, value = word.partition("=")
        if name == TOLD:
            told.append(value if is_joined else next(words, ""))
        else:
            rest.append(word)
    return tuple(told), (*rest, *words)


def _must_be_verbose(request: Request) -> bool:
    # It refuses `--print --output-format stream-json` without it.
    streams = request.headless and request.output_format == "stream-json"
    return streams and "--verbose" not in request.arguments


def variables(model_url: str | None) -> Mapping[str, str]:
    """Give what keeps it quiet in a sandbox."""
    # IS_SANDBOX lets root skip permissions; the image, not the agent, decides its version.
    fixed = {"IS_SANDBOX": "1", "DISABLE_AUTOUPDATER": "1"}
    if model_url is None:
        return fixed
    # A model of this machine asks for no key, but the agent will not start without one.
    local = {"ANTHROPIC_AUTH_TOKEN": "none", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    return {**fixed, **local, BASE_URL: model_url}


def configuration(settings: Settings, sandbox_home: str) -> tuple[Provision, Mapping[str, str]]:
    """Bring along a copy of the user's own, if that is wanted."""
    from scripts.agents.claude import user_files  # noqa: PLC0415  (not for a command)

    if not settings.claude_config:
        return Provision(), {}
    return user_files.read(settings, sandbox_home)


def login(settings: Settings) -> Mapping[str, str]:
    """Give the token of this machine's login, if that may come along."""
    from scripts.agents.claude import user_login  # noqa: PLC0415  (only without a key)

    return user_login.variables(settings) if settings.claude_config else {}


def recalls(request: Request) -> str | None:
    """Tell which conversations it can come back to: `*`, `last`, an id, or None."""
    if not request.headless:
        return "*"
    words = tuple(takewhile(lambda word: word != "--", request.arguments))
    for word, following in pairwise((*words, "")):
        found = re.fullmatch(r"(?:--resume|-r)(?:=(.*))?", word)
        if found:
            return found[1] or following or "*"
    if request.resume:
        return request.resume
    return "last" if request.resume_last or {"--continue", "-c"} & set(words) else None


def before(request: Request) -> str:
    """Answer the questions of a first conversation; a headless run asks none."""
    if request.headless:
        # Several that start at once must not see each other make it.
        return "[ -e ~/.claude.json ] || echo '{}' >~/.claude.json"
    return (
        "mkdir -p ~/.claude; "
        + _merged("~/.claude.json", _ANSWERS)
        + _merged("~/.claude/settings.json", ".skipDangerousModePermissionPrompt = true")
    )


def _merged(path: str, program: str) -> str:
    return (
        f"[ -s {path} ] || echo '{{}}' >{path}; "
        f"(umask 077; jq '{program}' {path} >{path}.nddt && mv {path}.nddt {path}); "
    )


def after(request: Request) -> str:
    """Say how to allow it when a headless run was refused something."""
    if not request.headless or request.skip_permissions:
        return ":"
    hint = (
        "nddt: the agent was refused a permission that nobody was there to give — allow it with "
        "--yolo, or name it: -- --allowedTools Edit"
    )
    # Other lines may be of an earlier run: conversations are kept.
    return (
        'p=${0%.sh}.pid; if find ~/.claude/projects -name "*.jsonl" -type f -newer "$p" '
        "-exec grep -h toolDenialKind {} + 2>/dev/null | "
        'jq -en --arg since "$(date -u -r "$p" +%FT%T)" \'any(inputs; .timestamp >= $since)\' '
        f">/dev/null 2>&1; then echo '{hint}' >&2; fi"
    )
