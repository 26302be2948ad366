"""What of the user's configuration of Claude Code comes along, and the login."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from scripts.agents import claude
from scripts.agents.claude import user_files, user_login
from scripts.errors import CredentialsError
from scripts.machine import shown_places
from scripts.transport.forwards import SamePort
from tests.test_plan import make

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.contracts.provisions import Provision
    from tests.conftest import Project

INSIDE = "/home/nddt"


def write(project: Project, name: str, content: str | dict[str, Any]) -> None:
    """Write a file in the home directory."""
    path = project.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def brought(project: Project) -> Provision:
    """Give what comes along."""
    return claude.configuration(project.load_for_provider(), INSIDE)[0]


def names(provision: Provision) -> set[str]:
    """Give the names of the files."""
    return {name for name in provision.files if not name.startswith("session/")}


def inside(project: Project, name: str) -> dict[str, Any]:
    """Give the object that a new sandbox gets."""
    found = json.loads(brought(project).files[f"session/claude/{name}"].content)
    assert isinstance(found, dict)
    return found


# -- files ----------------------------------------------------------------------------------


def test_nothing(project: Project) -> None:
    """Is what comes along where there is none, or one that cannot be read."""
    assert brought(project).unpack() == ":"
    write(project, ".claude.json", "{broken")
    write(project, ".claude/settings.json", "[1]")
    assert brought(project).unpack() == ":"


def test_only_what_is_the_users(project: Project) -> None:
    """No credential, no history, no cache."""
    for name in (
        *("CLAUDE.md", "more.md", "agents/a.md", "commands/deep/b.md", "skills/c/SKILL.md"),
        *("output-styles/d.md", "rules/e.md", "keybindings.json"),
    ):
        write(project, f".claude/{name}", "x")
    expected = names(brought(project))
    for name in (
        *(".credentials.json", "history.jsonl", "projects/p/c.jsonl", "todos/t.json"),
        *("shell-snapshots/s.sh", "statsig/s", "ide/1.lock", "cache/c", "plugins/p/x.md"),
        *("skills/c/node_modules/m.js", "skills/c/.git/config"),
    ):
        write(project, f".claude/{name}", "x")

    assert names(brought(project)) == expected
    assert len(expected) == 8


def test_links_are_followed_once(project: Project, tmp_path: Path) -> None:
    """As in a repository of dotfiles; a loop, a pipe and a link to nowhere are no trouble."""
    write(project, "dotfiles/agents/a.md", "x")
    top = project.home / ".claude"
    top.mkdir()
    (top / "agents").symlink_to(project.home / "dotfiles" / "agents")
    (top / "agents" / "loop").symlink_to(top / "agents")
    (top / "agents" / "nowhere.md").symlink_to(tmp_path / "nowhere")
    os.mkfifo(top / "agents" / "pipe.md")

    assert names(brought(project)) == {".claude/agents/a.md"}


def test_programs_stay_programs(project: Project) -> None:
    """A script can be run in the sandbox, too."""
    write(project, ".claude/hooks/run.sh", "x")
    (project.home / ".claude/hooks/run.sh").chmod(0o755)
    write(project, ".claude/hooks/text", "x")

    files = brought(project).files
    assert files[".claude/hooks/run.sh"].mode == 0o700
    assert files[".claude/hooks/text"].mode == 0o600


def test_too_much(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Stays here, and is named; what is small comes along."""
    for number in range(5):
        write(project, f".claude/agents/{number}.md", "x" * (2 << 20))
    write(project, ".claude/rules/small.md", "x")

    with caplog.at_level(logging.WARNING, "nddt"):
        found = names(brought(project))

    assert found == {f".claude/{name}" for name in ("agents/0.md", "agents/1.md", "rules/small.md")}
    (message,) = caplog.messages
    assert "agents/2.md, agents/3.md, agents/4.md stay here" in message


def test_another_place(project: Project, tmp_path: Path) -> None:
    """CLAUDE_CONFIG_DIR has both, also the servers."""
    write(project, ".claude/CLAUDE.md", "not this")
    project.environ["CLAUDE_CONFIG_DIR"] = str(tmp_path / "own")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/CLAUDE.md").write_text("this")
    (tmp_path / "own/.claude.json").write_text('{"mcpServers": {"a": {"command": "npx"}}}')

    assert brought(project).files[".claude/CLAUDE.md"].content == b"this"
    assert inside(project, ".claude.json") == {"mcpServers": {"a": {"command": "npx"}}}


@pytest.mark.parametrize("where", ["directory", "deep", "mount", "earlier", "itself", "link"])
def test_a_directory_that_a_sandbox_may_change(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """Names no variable, and no file by a link: it is no longer the user's own."""
    (project.home / "key").write_text("secret")
    shared = tmp_path / "shared"
    places = {"directory": project.directory / ".claude", "deep": project.directory / "a/b"}
    places["link"] = project.directory / "link"
    top = places.get(where, shared / ".claude")
    real = tmp_path / "real" if where == "link" else top
    (real / "agents").mkdir(parents=True)
    if where == "link":
        top.symlink_to(real)
    (real / "agents/a.md").symlink_to(project.home / "key")
    (real / "CLAUDE.md").write_text("words")
    server = {"command": "cat", "env": {"LEAK": "${OPENAI_API_KEY}"}}
    (real / ".claude.json").write_text(json.dumps({"mcpServers": {"a": server}}))
    project.environ.update({"OPENAI_API_KEY": "sk-openai", "CLAUDE_CONFIG_DIR": str(top)})
    if where == "mount":
        project.environ["NDDT_MOUNTS"] = f"{shared}:/shared"
    if where in {"earlier", "itself"}:
        shown_places.note_shown(project.environ, (top if where == "itself" else shared,))

    found = brought(project)

    assert (found.variables, names(found)) == ({}, set())
    assert caplog.messages == [
        f"{top} stays here, since a sandbox may change it — move it elsewhere"
    ]
    if where == "mount":
        project.environ["NDDT_MOUNTS"] += ":ro"
        assert list(brought(project).variables.values()) == ["sk-openai"]


# -- settings -------------------------------------------------------------------------------


def test_settings(project: Project) -> None:
    """Variables are the session's; programs and directories of this machine stay."""
    write(
        project,
        ".claude/settings.json",
        {
            "model": "opus",
            "apiKeyHelper": "/bin/key",
            "enabledPlugins": {"a@b": True},
            "env": {"A": "1", "PATH": "/x", "HTTPS_PROXY": "p", "bad-name": "x", "N": 2},
            "permissions": {"allow": ["Bash"], "additionalDirectories": ["/x"]},
        },
    )

    found = brought(project)

    assert inside(project, "settings.json") == {
        "model": "opus",
        "permissions": {"allow": ["Bash"]},
    }
    assert found.variables == {"A": "1", "N": "2"}
    assert found.secret == {"A", "N"}
    assert dict(found.plan_lines)["stays here"] == "apiKeyHelper, enabledPlugins"


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("~/.claude/line.sh", "/home/nddt/.claude/line.sh"),
        ("bash $HOME/.claude/line.sh -x", "bash /home/nddt/.claude/line.sh -x"),
        ('"{home}/.claude/line.sh"', '"/home/nddt/.claude/line.sh"'),
        ("python3 '{home}/.claude/line.sh'", "python3 '/home/nddt/.claude/line.sh'"),
        ("jq -r .model", "jq -r .model"),
        ("/usr/bin/env python3 -V", "/usr/bin/env python3 -V"),
        ('"$CLAUDE_PROJECT_DIR"/hook.sh', '"$CLAUDE_PROJECT_DIR"/hook.sh'),
        ("{directory}/hook.sh", "/workspace/hook.sh"),
        ("/opt/homebrew/bin/line", None),
        ("{home}/bin/line", None),
        ("node ~/bin/line.js", None),
        ("./line", None),
        ("{home}/.claude-other/line.sh", None),
        ("", None),
    ],
)
def test_programs(project: Project, here: str, there: str | None) -> None:
    """Come along if they are in the configuration; others run if they are there."""
    write(project, ".claude/line.sh", "x")
    command = here.replace("{home}", str(project.home))
    command = command.replace("{directory}", str(project.directory))
    hook = {"type": "command", "command": command}
    hooks = {"Stop": [{"matcher": "x", "hooks": [hook]}]}
    write(project, ".claude/settings.json", {"x": 1, "statusLine": hook, "hooks": hooks})

    found = inside(project, "settings.json")

    assert ("line.sh" in here and there is not None) == (
        ".claude/line.sh" in brought(project).files
    )
    if there is None:
        assert found == {"x": 1, "hooks": {}}
        assert dict(brought(project).plan_lines)["stays here"] == "a hook of Stop, statusLine"
    else:
        assert found["statusLine"]["command"].split("|| exit 0; ")[-1] == there
        assert found["hooks"]["Stop"][0]["hooks"] == [found["statusLine"]]


def test_a_program_that_is_not_there_does_nothing(project: Project) -> None:
    """And says nothing; one that is there does what it does."""
    for program, said in (("no-such-program-here -x", ""), ("echo yes", "yes\n")):
        hook = {"type": "command", "command": program}
        write(project, ".claude/settings.json", {"statusLine": hook})
        command = inside(project, "settings.json")["statusLine"]["command"]
        done = subprocess.run(("sh", "-c", command), check=True, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == (said, "")


# -- servers --------------------------------------------------------------------------------


def test_servers_keep_their_secrets_in_variables(project: Project) -> None:
    """What they refer to is looked up here, as Claude Code would."""
    project.environ["TOKEN"] = "secret"
    servers = {
        "a": {"command": "npx", "args": ["-y", "x"], "env": {"T": "Bearer ${TOKEN} ${NO:-none}"}},
        "b": {"type": "http", "url": "https://example.com", "headers": {"Authorization": "plain"}},
    }
    write(project, ".claude.json", {"mcpServers": servers, "userID": "stays"})

    found = brought(project)
    kept = inside(project, ".claude.json")["mcpServers"]

    assert sorted(found.variables.values()) == ["Bearer secret none", "plain"]
    assert found.secret == set(found.variables)
    assert found.variables[kept["a"]["env"]["T"][2:-1]] == "Bearer secret none"
    assert found.variables[kept["b"]["headers"]["Authorization"][2:-1]] == "plain"
    assert b"secret" not in b"".join(file.content for file in found.files.values())
    assert "userID" not in inside(project, ".claude.json")


@pytest.mark.parametrize("how", ["file", "directory"])
def test_servers_by_a_link_name_no_other_variables(
    project: Project, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """A sandbox may have written where it leads: only what enters anyway is looked up for it."""
    project.environ.update({"TOKEN": "secret", "MINE": "wanted", "NDDT_ENV_VARS": "MINE"})
    texts = {"T": "a ${TOKEN:-none} ${OTHER}", "M": "b ${MINE}"}
    server = {"command": "npx", "env": texts, "headers": {"H": "c ${TOKEN}"}}
    write(project, ".claude.json", {"mcpServers": {"a": server}})
    before = sorted(brought(project).variables.values())
    caplog.clear()
    written = project.home / ".claude.json"
    dotfiles = project.home / "dotfiles"
    dotfiles.mkdir()
    written.rename(dotfiles / ".claude.json")
    if how == "file":
        written.symlink_to(dotfiles / ".claude.json")
    else:
        (project.home / "chosen").symlink_to(dotfiles)
        project.environ["CLAUDE_CONFIG_DIR"] = str(project.home / "chosen")

    after = sorted(brought(project).variables.values())

    assert before == ["a secret ", "b wanted", "c secret"]
    assert after == ["a none ", "b wanted", "c "]
    (said,) = caplog.messages
    assert said.endswith(
        "its MCP servers get no TOKEN — name them in NDDT_ENV_VARS if they are to enter"
    )


def test_servers_of_the_directory(project: Project) -> None:
    """Are those of /workspace there, with what has been answered; not if nothing is shared."""
    ours = {"mcpServers": {"a": {"command": "npx"}}, "enabledMcpjsonServers": ["b"], "history": []}
    other = {"mcpServers": {"c": {"command": "npx"}}}
    write(project, ".claude.json", {"projects": {str(project.directory): ours, "/other": other}})

    assert inside(project, ".claude.json") == {
        "projects": {
            "/workspace": {
                "mcpServers": {"a": {"command": "npx"}},
                "enabledMcpjsonServers": ["b"],
            }
        }
    }
    project.environ["NDDT_WORKSPACE"] = "none"
    assert brought(project).unpack() == ":"


def test_servers_that_cannot_be_there(project: Project) -> None:
    """Are named; those of the configuration and the directory have their places there."""
    servers = {
        "gone": {"command": "/opt/server"},
        "mine": {"command": "node", "args": [f"{project.home}/code/server.js"]},
        "ours": {"command": "node", "args": [f"{project.directory}/server.js"]},
        "near": {"command": "~/.claude/server"},
    }
    write(project, ".claude.json", {"mcpServers": servers})
    write(project, ".claude/server", "x")

    kept = inside(project, ".claude.json")["mcpServers"]

    assert kept == {
        "ours": {"command": "node", "args": ["/workspace/server.js"]},
        "near": {"command": "/home/nddt/.claude/server"},
    }
    assert ".claude/server" in brought(project).files
    assert (
        dict(brought(project).plan_lines)["stays here"]
        == "the MCP server gone, the MCP server mine"
    )


def test_servers_on_this_machine(project: Project) -> None:
    """Are reached under the same address; a port that needs root is not tried."""
    servers = {
        name: {"type": "http", "url": url}
        for name, url in {
            "here": "http://localhost:8123/mcp",
            "low": "http://localhost/mcp",
            "there": "https://example.com:8443/mcp",
            "none": "http://localhost:x/",
        }.items()
    }
    write(project, ".claude.json", {"mcpServers": servers})

    made = make(project, ANTHROPIC_API_KEY="key")

    assert made.brings.forwards == (SamePort("localhost", 8123),)


# -- the plan -------------------------------------------------------------------------------


def test_a_key_of_the_configuration(project: Project) -> None:
    """Is one, but not for an address that comes from elsewhere."""
    variables = {"ANTHROPIC_API_KEY": "of-settings", "ANTHROPIC_MODEL": "x"}
    write(project, ".claude/settings.json", {"env": variables})

    assert make(project).brings.variables["ANTHROPIC_API_KEY"] == "of-settings"
    other = make(project, ANTHROPIC_API_KEY="of-environment", ANTHROPIC_MODEL="y").brings
    assert other.variables["ANTHROPIC_API_KEY"] == "of-environment"
    assert other.variables["ANTHROPIC_MODEL"] == "y"
    del project.environ["ANTHROPIC_API_KEY"]
    project.write_user_file("ANTHROPIC_BASE_URL=https://example.com")
    with pytest.raises(CredentialsError):
        make(project)


def test_an_address_of_the_configuration(project: Project) -> None:
    """A model on this machine is reached from the sandbox."""
    write(project, ".claude/settings.json", {"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:4"}})

    brings = make(project).brings

    assert brings.forwards == (SamePort("127.0.0.1", 4),)
    assert brings.variables["ANTHROPIC_AUTH_TOKEN"] == "none"


@pytest.mark.parametrize("way", ["off", "demo", "command"])
def test_where_nothing_comes_along(project: Project, way: str) -> None:
    """If it is not wanted, in a demo, and for another program than the agent."""
    write(project, ".claude/CLAUDE.md", "x")
    log_in(project)
    project.environ["NDDT_CLAUDE_CONFIG"] = str(way != "off").lower()
    if way == "off":
        with pytest.raises(CredentialsError):
            make(project)
        project.environ["ANTHROPIC_API_KEY"] = "key"

    made = make(
        project,
        demo_url="http://127.0.0.1:9" if way == "demo" else None,
        command=("true",) if way == "command" else (),
    )

    assert not [path for path in made.brings.files if "claude" in path]
    assert user_login.VARIABLE not in made.brings.variables


# -- the login ------------------------------------------------------------------------------


def log_in(project: Project, **changed: object) -> None:
    """Have a login."""
    login = {
        "accessToken": "access",
        "refreshToken": "refresh",
        "expiresAt": int((time.time() + 3600) * 1000),
        "scopes": ["user:inference"],
    }
    write(project, ".claude/.credentials.json", {"claudeAiOauth": login | changed})


def test_login(project: Project) -> None:
    """Its access token is used, if there is nothing else, and masked."""
    log_in(project)

    made = make(project)

    assert made.brings.variables[user_login.VARIABLE] == "access"
    assert "CLAUDE_CODE_OAUTH_TOKEN=***" in made.describe()
    assert "refresh" not in str(dict(made.brings.variables))
    assert user_login.VARIABLE not in make(project, ANTHROPIC_API_KEY="key").brings.variables


@pytest.mark.parametrize(
    "changed",
    [{"accessToken": ""}, {"accessToken": 1}, {"scopes": ["org:create_api_key"]}],
)
def test_login_that_is_none(project: Project, changed: dict[str, object]) -> None:
    """It is as if nobody had logged in."""
    log_in(project, **changed)

    with pytest.raises(CredentialsError, match="claude has no key or token"):
        make(project)


def test_login_that_has_expired(project: Project) -> None:
    """There is something to do about it."""
    log_in(project, expiresAt=1000)

    with pytest.raises(CredentialsError, match="the login of this machine has expired") as caught:
        make(project)
    assert caught.value.exit_code == 77
    assert "run `claude` in your home directory once" in caught.value.next_step


def test_login_in_the_keychain(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS `security` is asked, by the name that the configuration's place gives it."""
    programs = project.home / "bin"
    programs.mkdir()
    answer = json.dumps({"claudeAiOauth": {"accessToken": "of-keychain"}})
    (programs / "security").write_text(f'#!/bin/sh\n[ "$3" = "$NAME" ] && echo \'{answer}\'\n')
    (programs / "security").chmod(0o755)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("NAME", "Claude Code-credentials")

    assert user_login.variables(project.load()) == {user_login.VARIABLE: "of-keychain"}
    project.environ["CLAUDE_CONFIG_DIR"] = "/own"
    assert user_login.variables(project.load()) == {}
    monkeypatch.setenv("NAME", "Claude Code-credentials-4840ee37")
    assert user_login.variables(project.load()) == {user_login.VARIABLE: "of-keychain"}


# -- in a sandbox ---------------------------------------------------------------------------


def session(project: Project, home: Path) -> None:
    """Begin a session in a sandbox with this home directory."""
    home.mkdir(exist_ok=True)
    place = home.parent / "session.d"
    environ = {"HOME": str(home), "NDDT_SESSION": str(place), "PATH": os.environ["PATH"]}
    project.environ["NDDT_PERSISTENT"] = "true"
    text = brought(project).unpack()
    subprocess.run(("sh", "-eu"), input=text.encode(), env=environ, check=True)
    subprocess.run(("rm", "-rf", place), check=True)


def test_a_sandbox_follows(project: Project, tmp_path: Path) -> None:
    """New values replace old ones, and what is taken away here goes there, unless changed there."""
    home = tmp_path / "inside"
    servers = {name: {"command": "npx"} for name in ("gone", "stays")}
    write(project, ".claude/settings.json", {"a": 1, "b": 1, "c": 1})
    write(project, ".claude.json", {"mcpServers": servers})
    write(project, ".claude/agents/old one.md", "x")
    session(project, home)
    settings, state = home / ".claude/settings.json", home / ".claude.json"
    assert json.loads(settings.read_text()) == {"a": 1, "b": 1, "c": 1}
    assert json.loads(state.read_text()) == {"mcpServers": servers}
    settings.write_text(json.dumps({"a": 1, "b": 7, "c": 1, "own": 1}))
    state.write_text(json.dumps({"mcpServers": servers, "hasCompletedOnboarding": True}))
    write(project, ".claude/settings.json", {"c": 2})
    write(project, ".claude.json", {"mcpServers": {"stays": servers["stays"]}})
    (project.home / ".claude/agents/old one.md").unlink()

    session(project, home)

    assert json.loads(settings.read_text()) == {"b": 7, "c": 2, "own": 1}
    assert json.loads(state.read_text()) == {
        "mcpServers": {"stays": servers["stays"]},
        "hasCompletedOnboarding": True,
    }
    assert not (home / ".claude/agents/old one.md").exists()
    assert stat_mode(state) == 0o600


def stat_mode(path: Path) -> int:
    """Give the permissions."""
    return path.stat().st_mode & 0o777


def test_an_unchanged_configuration_touches_nothing(project: Project, tmp_path: Path) -> None:
    """An agent that runs there may be writing these files."""
    home = tmp_path / "inside"
    write(project, ".claude/settings.json", {"a": 1})
    session(project, home)
    files = [home / ".claude.json", home / ".claude/settings.json"]
    before = [(path.stat().st_mtime_ns, path.stat().st_ino) for path in files]

    session(project, home)

    assert before == [(path.stat().st_mtime_ns, path.stat().st_ino) for path in files]


def test_limit_of_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to all of a disk does not make a run wait for it."""
    monkeypatch.setattr(user_files, "MOST_FILES", 3)
    for number in range(9):
        write(project, f".claude/agents/{number}.md", "x")

    assert len(names(brought(project))) == 3
