"""Claude Code, as it comes from npm.

Facts about its files and options were tried with version 2.1.330.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts.agents.claude import options
from scripts.contracts.provisions import Provision
from scripts.sandbox_places import WORKSPACE
from scripts.settings import parsing
from scripts.settings.declaring import variable
from scripts.settings.orders import never

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scripts.contracts.agent import Request
    from scripts.demo.messages_api import Reply
    from scripts.settings.fields import Settings

NAME = "claude"
TITLE = "Claude Code"
PACKAGE = "@anthropic-ai/claude-code"
PROGRAM = "claude"
OPTIONS, SAME, BEFORE_PROMPT = options.OPTIONS, options.SAME, options.BEFORE_PROMPT
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
HOSTS = ("api.anthropic.com",)
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
STEERING = ("ANTHROPIC_*", "CLAUDE_*", "VERTEX_*", "CLOUD_ML_REGION", "MCP_*")
HARMLESS = (
    "ANTHROPIC_DEFAULT_*_MODEL",
    "ANTHROPIC_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "API_TIMEOUT_MS",
    "BASH_*_TIMEOUT_MS",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "CLAUDE_CODE_MAX_*",
    "DISABLE_TELEMETRY",
    "MAX_THINKING_TOKENS",
)
WAYS_IN = (
    "put ANTHROPIC_API_KEY=… into ~/.config/nddt/.env, or log in here by running `claude`, or run "
    "`claude setup-token` where you are logged in and set CLAUDE_CODE_OAUTH_TOKEN, or see it "
    "work without an account: --demo"
)
CONVERSATIONS = f".claude/projects/{WORKSPACE.replace('/', '-')}"


@dataclass(frozen=True, kw_only=True)
class ClaudeSettings:
    """What there is to set for it alone."""

    config: bool = variable(
        "NDDT_CLAUDE_CONFIG",
        parsing.boolean,
        "true",
        "Bring along a copy of Claude Code's configuration and, without another credential, its "
        "login.",
        order=never("it has the user's login, and also the user's rules that forbid"),
    )
    version: str = variable(
        "NDDT_CLAUDE_VERSION",
        parsing.like(parsing.AGENT_VERSION, "latest, stable, next or a version such as 2.1.330"),
        "latest",
        "Claude Code: latest, stable and next are looked up once a day; a version never is.",
        order=never("an old one has known holes, and a new one may"),
    )


SETTINGS = ClaudeSettings

TOLD = "--append-system-prompt"
ALLOWED = "Bash,Edit,NotebookEdit,Write"
"""Tools that change what is in the sandbox, and reach nothing outside that its network forbids."""
REFUSED = 76
"""Exit code of a run that was refused a permission, and that its agent ended with 0."""

_ANSWERS = (
    '(env.ANTHROPIC_API_KEY // "")[-20:] as $k | .hasCompletedOnboarding = true '
    f'| .projects["{WORKSPACE}"].hasTrustDialogAccepted = true '
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
    """Build the command line; a prompt comes last, where nothing takes it for an option."""
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
    words += ["--dangerously-skip-permissions"] if request.permissions == "all" else []
    words += [f"--allowedTools={ALLOWED}"] if _may_edit(request) else []
    words += ["--session-id", request.conversation] if _is_new(request) else []
    words += ["--verbose"] if _must_be_verbose(request) else []
    words += arguments
    if request.prompt is not None:
        words += [request.prompt] if "--" in arguments else ["--", request.prompt]
    return tuple(words)


def _may_edit(request: Request) -> bool:
    """Tell whether it may edit and run commands unasked, and the user has not chosen a mode."""
    options = takewhile(lambda word: word != "--", request.arguments)
    chosen = any(word.partition("=")[0] == "--permission-mode" for word in options)
    return request.permissions == "edit" and not chosen


def _is_new(request: Request) -> bool:
    """Tell whether its conversation has the id that we know."""
    options = {word.partition("=")[0] for word in request.arguments}
    others = {"--session-id", "--no-session-persistence", "--worktree", "-w", "--from-pr"}
    return bool(request.conversation) and not recalls(request) and options.isdisjoint(others)


def _told(request: Request) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put what the user appends to the system prompt to ours: only the last one would count.

    Returns:
        The lines, and the user's arguments without theirs.
    """
    told, rest, words = list(request.system_prompt_lines), [], iter(request.arguments)
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


def variables(model_url: str | None, *, stands_for: str = "") -> Mapping[str, str]:
    """Build what keeps it quiet in a sandbox, and what it is to know of the model's address."""
    # IS_SANDBOX lets root skip permissions; the image, not the agent, decides its version.
    fixed = {"IS_SANDBOX": "1", "DISABLE_AUTOUPDATER": "1"}
    if model_url is None:
        return fixed
    # A model of this machine asks for no key, but the agent will not start without one.
    local = {"ANTHROPIC_AUTH_TOKEN": "none", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    if urlsplit(stands_for).hostname == urlsplit(API_URL).hostname:
        # Else it does without what only its maker's own API is known to have, as tool search.
        local |= {"_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL": "1"}
    return {**fixed, **local, BASE_URL: model_url}


def version(settings: Settings) -> str:
    """Tell which version is wanted: a number, or `latest` and the like."""
    return settings.of(ClaudeSettings).version


def configuration(settings: Settings, sandbox_home: str) -> tuple[Provision, Mapping[str, str]]:
    """Bring along a copy of the user's own, if that is wanted."""
    from scripts.agents.claude import user_files  # noqa: PLC0415  (not for a command)

    if not settings.of(ClaudeSettings).config:
        return Provision(), {}
    return user_files.read_configuration(settings, sandbox_home)


def login_files(settings: Settings) -> tuple[Path, ...]:
    """Tell where `claude` keeps its login: in its directory, the usual one or a chosen one."""
    from scripts.agents.claude.user_files import LOGIN  # noqa: PLC0415  (not for a command)

    environ = settings.process_environment
    places = {Path(environ.get("HOME", "/"), ".claude")}
    if chosen := environ.get("CLAUDE_CONFIG_DIR"):
        places.add(Path(chosen))
    return tuple(one / LOGIN for one in places)


def login(settings: Settings) -> Mapping[str, str]:
    """Read the token of this machine's login, if that may come along."""
    from scripts.agents.claude import user_login  # noqa: PLC0415  (only without a key)

    return user_login.variables(settings) if settings.of(ClaudeSettings).config else {}


def renewed(settings: Settings, variable: str, value: str) -> Callable[[], str] | None:
    """Tell what reads a token of this machine's login anew, if it is one."""
    from scripts.agents.claude import user_login  # noqa: PLC0415  (only for its variable)

    if variable != user_login.VARIABLE or value == settings.environment.get(variable):
        return None
    login = user_login.of(settings)
    return login if settings.of(ClaudeSettings).config and login.read()[0] == value else None


def demo() -> Reply | None:
    """Choose what answers in the place of its maker's API."""
    from scripts.demo.messages_api import demo_reply  # noqa: PLC0415  (nobody else needs it)

    return demo_reply


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


_DENIED = (
    "[inputs] | (map(.message.content? | arrays[] | objects | "
    'select(.type == "tool_use") | {(.id): .name}) | add // {}) as $names | .[] | '
    'select(any(.. | objects; has("toolDenialKind")) and .timestamp >= $since) | '
    '[.message.content? | arrays[] | objects | $names[.tool_use_id // ""] // empty] | '
    '.[0] // "" | select(test("^[A-Za-z0-9_-]*$"))'
)
"""jq program: names the tool of each refusal since a time, or an empty line if it is not known."""


def after(request: Request) -> str:
    """Say how to allow it when a headless run was refused something, and end with REFUSED."""
    if not request.headless or request.permissions == "all":
        return ":"
    # Other files may be of another run in the directory, other lines of an earlier one.
    which = f'-path "*/{request.conversation}*" ' if _is_new(request) else ""
    return (
        f'p=${{0%.sh}}.pid; nddt_refused=$(find ~/.claude/projects {which}-name "*.jsonl" '
        '-type f -newer "$p" -exec grep -hE \'toolDenialKind|"tool_use"\' {} + 2>/dev/null | '
        f'jq -rn --arg since "$(date -u -r "$p" +%FT%T)" \'{_DENIED}\' 2>/dev/null | '
        "sort -u | { n=; a=; while read -r t; do n=1; a=$a${t:+,$t}; done; echo $n$a; }); "
        'if [ -n "$nddt_refused" ]; then nddt_refused=${nddt_refused#1}; t=${nddt_refused#,}; '
        'echo "nddt: the agent was refused ${t:-a permission}, and nobody was there to ask — allow '
        '${t:+it with --allowedTools $t, or }all with --yolo" >&2; '
        f'[ "$code" != 0 ] || code={REFUSED}; fi'
    )
