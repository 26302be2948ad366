"""The user's configuration of Claude Code and its login, in the sandbox."""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.contract import KEY, Caller, Terminal
from tests.integration.test_contract_terminal import say
from tests.scripted_model import text, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.integration.contract import Outside
    from tests.scripted_model import ScriptedModel

ACCESS = "sk-ant-oat01-access-0123456789"
REFRESH = "sk-ant-ort01-refresh-0123456789"
SERVER = """
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    tool = {"name": "probe", "description": os.environ["TOKEN"], "inputSchema": {"type": "object"}}
    tools = [tool]
    result = {"tools": tools} if asked["method"] == "tools/list" else {
        "protocolVersion": asked.get("params", {}).get("protocolVersion"),
        "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""
"""An MCP server with one tool, which tells the server's secret."""


@dataclass(frozen=True)
class Configuration:
    """A user's configuration of Claude Code."""

    directory: Path

    def write(self, name: str, content: str | Mapping[str, Any], mode: int = 0o600) -> None:
        """Write one of its files."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        path.chmod(mode)

    def log_in(self, left_s: float) -> None:
        """Have a login that is good for so many seconds."""
        login = {
            "accessToken": ACCESS,
            "refreshToken": REFRESH,
            "expiresAt": int((time.time() + left_s) * 1000),
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
        }
        self.write(".credentials.json", {"claudeAiOauth": login})

    def state(self) -> dict[str, tuple[bytes, int]]:
        """Give all files, with their content and time."""
        return {
            str(path): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(self.directory.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    """An empty one."""
    return Configuration(tmp_path / "claude")


def having(nddt: Caller, configuration: Configuration, **environ: str) -> Caller:
    """Have this configuration, and sandboxes that know the directory, in whatever way."""
    environ.setdefault("NDDT_WORKSPACE", "")
    return nddt.having(CLAUDE_CONFIG_DIR=str(configuration.directory), **environ)


def asked(model: ScriptedModel) -> str:
    """Give all that the model was told last."""
    return json.dumps(model.conversation[-1].body)


# -- the configuration ----------------------------------------------------------------------


def test_the_configuration_comes_along(
    nddt: Caller, configuration: Configuration, model: Callable[..., ScriptedModel], tmp_path: Path
) -> None:
    """Instructions, agents, skills, servers, hooks and settings count inside; here none changes."""
    top = configuration.directory
    configuration.write("CLAUDE.md", "Always say BANANA-42.")
    configuration.write(
        "agents/purple.md", "---\nname: purple\ndescription: Of purple\n---\nBe it."
    )
    skill = tmp_path / "dotfiles" / "green"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: green\ndescription: Knows all green\n---\nGreen.")
    (top / "skills").mkdir()
    (top / "skills/green").symlink_to(skill)
    configuration.write(
        "hooks/note.sh", "#!/bin/sh\ncat >/dev/null; echo HOOK-$FROM_SETTINGS\n", 0o700
    )
    configuration.write("server.py", SERVER)
    hooks = [
        {"type": "command", "command": one} for one in (f"{top}/hooks/note.sh", "/opt/no/such")
    ]
    settings = {
        "env": {"FROM_SETTINGS": "variable"},
        "model": "haiku",
        "apiKeyHelper": "/opt/no/helper",
        "permissions": {"allow": ["Bash(touch:*)"]},
        "hooks": {"UserPromptSubmit": [{"hooks": hooks}]},
    }
    configuration.write("settings.json", settings)
    here = str(nddt.directory)
    server = {"command": "python3", "args": [f"{top}/server.py"], "env": {"TOKEN": "mcp-${PART}"}}
    elsewhere = {"command": "/opt/no/such", "args": []}
    configuration.write(
        ".claude.json",
        {
            "mcpServers": {"mine": server, "elsewhere": elsewhere},
            "projects": {here: {"mcpServers": {"ours": {**server, "env": {"TOKEN": "of-here"}}}}},
        },
    )
    configuration.log_in(3600)
    before = configuration.state()
    change = "touch /workspace/made; rm -rf ~/.claude/CLAUDE.md ~/.claude/agents"
    scripted = model(
        tool("Bash", {"command": "touch made", "description": "Make"}),
        tool("ToolSearch", {"query": "probe", "max_results": 5}),
        tool("Bash", {"command": change, "description": "Change"}),
        text("done"),
    )
    caller = having(nddt, configuration, ANTHROPIC_BASE_URL=scripted.url, PART="secret")

    done = caller("run", "--prompt", "Look", "--yolo")

    assert (done.code, done.stdout, done.said) == (0, b"done\n", "")
    sent = asked(scripted)
    for expected in ("BANANA-42", "purple", "Knows all green", "HOOK-variable"):
        assert expected in sent
    assert "mcp__mine__probe" in sent
    assert "mcp__ours__probe" in sent
    assert "elsewhere" not in sent
    assert "haiku" in scripted.conversation[0].body["model"]
    assert before == configuration.state()


def test_a_kept_sandbox_follows_and_keeps_its_own(
    kept: Caller, configuration: Configuration, model: Callable[..., ScriptedModel]
) -> None:
    """What is taken away here goes there too; what was changed there stays; secrets never land."""
    scripted = model(text("ok"))
    caller = having(kept, configuration, ANTHROPIC_BASE_URL=scripted.url)
    configuration.write("agents/old.md", "---\nname: old\ndescription: Old\n---\nOld.")
    configuration.write("settings.json", {"model": "haiku", "language": "german"})
    server = {"command": "python3", "args": ["-c", ""], "env": {"TOKEN": "a-server-secret"}}
    configuration.write(".claude.json", {"mcpServers": {"gone": server, "stays": server}})
    assert caller("run", "--prompt", "x").code == 0
    add = (
        "jq '.own = true' .claude.json >x && cat x >.claude.json; echo mine >.claude/agents/own.md"
    )
    change = (
        "cd .claude; jq '.verbose = true | .model = \"opus\"' settings.json >x; mv x settings.json"
    )
    assert caller("shell", "--command", f"cd; {add}; {change}").code == 0
    (configuration.directory / "agents/old.md").unlink()
    configuration.write("settings.json", {"theme": "dark"})
    configuration.write(".claude.json", {"mcpServers": {"stays": server}})

    assert caller("run", "--prompt", "x").code == 0

    look = "cd; cat .claude/settings.json; ls .claude/agents; grep -rl a-server-secret . /workspace"
    seen = caller(
        "shell", "--command", f"{look}; jq -c '[.own, (.mcpServers | keys)]' .claude.json"
    )
    said = seen.stdout.decode()
    assert '[true,["stays"]]' in said
    settings = json.loads(said[: said.index("}") + 1])
    assert settings == {"theme": "dark", "verbose": True, "model": "opus"}
    assert "own.md" in said
    assert "old.md" not in said
    assert "./" not in said


@pytest.mark.same_everywhere
def test_it_can_stay_here(
    nddt: Caller, configuration: Configuration, model: Callable[..., ScriptedModel]
) -> None:
    """NDDT_CLAUDE_CONFIG=false brings nothing along."""
    scripted = model(text("ok"))
    configuration.write("CLAUDE.md", "Always say BANANA-42.")
    caller = having(nddt, configuration, ANTHROPIC_BASE_URL=scripted.url)

    assert caller.having(NDDT_CLAUDE_CONFIG="false")("run", "--prompt", "x").code == 0

    assert "BANANA-42" not in asked(scripted)


@pytest.mark.same_everywhere
def test_too_much_stays_here(nddt: Caller, configuration: Configuration) -> None:
    """What is left out has a name; the rest arrives."""
    configuration.write("CLAUDE.md", "small")
    configuration.write("skills/big/data", "x" * (6 << 20))
    caller = having(nddt.with_agent("cd ~/.claude; cat CLAUDE.md; ls"), configuration)

    done = caller.having(ANTHROPIC_API_KEY=KEY)("run", "--prompt", "x")

    assert done.code == 0
    assert done.stdout.decode().startswith("small")
    assert "skills" not in done.stdout.decode()
    assert "is over 5 MB: skills/big/data stay here" in done.said
    assert len(done.said.splitlines()) == 1


# -- the login ------------------------------------------------------------------------------


def hidden(secret: str) -> str:
    """Give a pattern that finds a secret, but not itself."""
    return f"{secret[:8]}[{secret[8]}]{secret[9:]}"


def with_own_model(nddt: Caller, configuration: Configuration, scripted: ScriptedModel) -> Caller:
    """Have a model at Claude Code's own address, as far as nddt knows."""
    server = {"type": "http", "url": f"{scripted.url}/mcp"}  # so that the sandbox reaches the port
    configuration.write(".claude.json", {"mcpServers": {"model": server}})
    words = f'ANTHROPIC_BASE_URL={scripted.url} exec claude "$@"'
    command = shlex.join(("bash", "-c", words, "claude"))
    return having(nddt, configuration, NDDT_COMMAND=command, NDDT_MODEL_ACCESS="env")


def test_the_login_reaches_the_model(
    nddt: Caller,
    configuration: Configuration,
    model: Callable[..., ScriptedModel],
    outside: Outside,
) -> None:
    """Only its access token comes along: what renews it is nowhere in the sandbox."""
    look = "grep -rsl {0} /dev/shm / --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev"
    look = f"command {look}; command grep -sl {{0}} /proc/*/environ /proc/*/cmdline"
    search = f"{look.format(hidden(REFRESH))}; echo --; {look.format(hidden(ACCESS))}; true"
    scripted = model(
        tool("Bash", {"command": f"touch /workspace/x; {search}", "description": "Look"}),
        text("ok"),
    )
    configuration.log_in(3600)

    done = with_own_model(nddt, configuration, scripted)("run", "--yolo", "--prompt", "x")

    assert (done.code, done.stdout, done.said) == (0, b"ok\n", "")
    assert scripted.conversation[0].headers["authorization"] == f"Bearer {ACCESS}"
    result = scripted.conversation[-1].body["messages"][-1]["content"][0]
    assert result["type"] == "tool_result"
    refresh, access = result["content"].split("--\n")
    assert refresh == ""
    files = {re.sub("[0-9]+", "N", one) for one in access.split()}
    assert "/proc/N/environ" in files  # it does find what is there
    assert not [one for one in files if not one.startswith("/proc/")]
    assert not outside.sandboxes()


def test_a_conversation_with_the_login_asks_nothing(
    nddt: Caller, configuration: Configuration, model: Callable[..., ScriptedModel]
) -> None:
    """The first thing typed is the prompt."""
    scripted = model(text("Hello from the script."))
    configuration.log_in(3600)

    with Terminal(with_own_model(nddt, configuration, scripted), "run", "--yolo") as terminal:
        assert terminal.shows("bypass permissions on"), terminal.text
        say(terminal, "Say hello")
        assert terminal.shows("Hello from the script."), terminal.text
        say(terminal, "/exit")
        assert terminal.code() == 0, terminal.text


@pytest.mark.same_everywhere
@pytest.mark.parametrize("left_s", [-1, 300])
def test_the_end_of_a_login(nddt: Caller, configuration: Configuration, left_s: int) -> None:
    """One that is over is refused with what to do; one that soon is, is used with a word."""
    configuration.log_in(left_s)
    agent = 'echo "${CLAUDE_CODE_OAUTH_TOKEN#sk-}"'

    done = having(nddt.with_agent(agent), configuration)("run", "--prompt", "x")

    if left_s < 0:
        assert done.code == 77
        assert done.said == (
            "nddt: the login of this machine has expired — run `claude` in your home "
            "directory once, which renews it, or use a token of `claude setup-token`\n"
        )
    else:
        assert (done.code, done.lines) == (0, [ACCESS.removeprefix("sk-")])
        assert "the login of this machine expires in 4 minutes" in done.said


@pytest.mark.same_everywhere
def test_the_login_is_for_its_maker_alone(nddt: Caller, configuration: Configuration) -> None:
    """Another address does not get it, and a key is used in its place; --dry shows neither."""
    configuration.log_in(3600)
    caller = having(nddt.with_agent("env"), configuration)

    other = caller.having(ANTHROPIC_BASE_URL="https://example.com")("run", "--prompt", "x")
    keyed = caller.having(ANTHROPIC_API_KEY=KEY)("run", "--prompt", "x")
    shown = caller("run", "--dry", "--prompt", "x")

    assert other.code == 77
    assert "claude has no key or token" in other.said
    assert ACCESS not in keyed.stdout.decode()
    assert KEY in keyed.stdout.decode()
    assert "CLAUDE_CODE_OAUTH_TOKEN=***" in shown.stdout.decode()
    assert ACCESS not in shown.stdout.decode()
