"""Claude Code's command line, variables, first-run files and the hint after a refusal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import agents
from scripts.agents import claude
from scripts.contracts.agent import Agent, Request
from scripts.transport import inside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import Project

NAMES = [pytest.param(name, id=name) for name in agents.NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_each_agent_answers_everything(project: Project, name: str) -> None:
    """What the protocol asks, and which version is wanted."""
    agent = agents.get(name)
    attributes = [*Agent.__annotations__, *(n for n in vars(Agent) if n[0] != "_")]

    assert not [one for one in attributes if not hasattr(agent, one)]
    assert name == agent.NAME
    assert agent.version(project.load())


# -- the command line -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(Request(), (), id="conversation"),
        pytest.param(Request(headless=True), ("--print",), id="prompt-on-stdin"),
        pytest.param(Request(headless=True, prompt="Hi"), ("--print", "--", "Hi"), id="prompt"),
        pytest.param(Request(prompt="Hi"), ("--", "Hi"), id="first-words-of-a-conversation"),
        pytest.param(Request(prompt="-p it"), ("--", "-p it"), id="prompt-with-a-dash"),
        pytest.param(Request(prompt=""), ("--", ""), id="empty-prompt"),
        pytest.param(Request(model="opus"), ("--model", "opus"), id="model"),
        pytest.param(Request(resume="id"), ("--resume", "id"), id="resume"),
        pytest.param(Request(resume_last=True), ("--continue",), id="continue"),
        pytest.param(Request(permissions="all"), ("--dangerously-skip-permissions",), id="yolo"),
        pytest.param(Request(permissions="edit"), (f"--allowedTools={claude.ALLOWED}",), id="edit"),
        pytest.param(
            Request(permissions="edit", arguments=("--permission-mode", "plan")),
            ("--permission-mode", "plan"),
            id="a-mode-of-the-user-s",
        ),
        pytest.param(
            Request(conversation="id", headless=True),
            ("--print", "--session-id", "id"),
            id="its-id",
        ),
        pytest.param(
            Request(headless=True, output_format="json"),
            ("--print", "--output-format", "json"),
            id="json",
        ),
        pytest.param(
            Request(headless=True, output_format="stream-json"),
            ("--print", "--output-format", "stream-json", "--verbose"),
            id="stream-json-needs-verbose",
        ),
        pytest.param(
            Request(headless=True, output_format="stream-json", arguments=("--verbose",)),
            ("--print", "--output-format", "stream-json", "--verbose"),
            id="verbose-is-not-given-twice",
        ),
        pytest.param(
            Request(headless=True, prompt="Hi", arguments=("-p", "--max-turns", "3")),
            ("-p", "--max-turns", "3", "--", "Hi"),
            id="print-is-not-given-twice",
        ),
        pytest.param(
            Request(headless=True, prompt="Hi", arguments=("--tools", "", "--")),
            ("--print", "--tools", "", "--", "Hi"),
            id="dashes-are-not-given-twice",
        ),
        pytest.param(
            Request(arguments=("--", "-x", "--")), ("--", "-x", "--"), id="arguments-as-they-are"
        ),
    ],
)
def test_command(request_: Request, expected: tuple[str, ...]) -> None:
    """Each option, and the prompt last."""
    assert claude.command(request_, ("claude",)) == ("claude", *expected)


def test_command_with_everything() -> None:
    """In one order, after the program."""
    request = Request(
        prompt="Hi",
        headless=True,
        model="opus",
        resume="id",
        permissions="all",
        output_format="json",
        arguments=("--allowedTools", "Edit Read"),
    )

    assert claude.command(request, ("/workspace/other", "--first", "a b")) == (
        "/workspace/other",
        *("--first", "a b"),
        "--print",
        *("--model", "opus", "--resume", "id", "--output-format", "json"),
        "--dangerously-skip-permissions",
        *("--allowedTools", "Edit Read", "--", "Hi"),
    )


@given(prompt=st.text(), arguments=st.lists(st.text(), max_size=4))
def test_prompt_and_arguments_are_exact(prompt: str, arguments: list[str]) -> None:
    """The prompt is last, behind a `--`, and the arguments are together."""
    words = claude.command(Request(prompt=prompt, arguments=tuple(arguments)), ("claude",))
    rest = ("--", prompt) if "--" not in arguments else (prompt,)

    assert words == ("claude", *arguments, *rest)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ("--append-system-prompt", "ours")),
        (("--append-system-prompt", "x", "-c"), ("--append-system-prompt", "ours\nx", "-c")),
        (("--append-system-prompt=x=y",), ("--append-system-prompt", "ours\nx=y")),
        (("--", "--append-system-prompt"), ("--append-system-prompt", "ours", "--")),
    ],
)
def test_what_it_is_told_is_told_once(
    arguments: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """The last one of several options would be the only one that counts."""
    words = claude.command(Request(system_prompt_lines=("ours",), arguments=arguments), ("claude",))

    assert words[: len(expected) + 1] == ("claude", *expected)


def test_arguments_stay_if_nothing_is_told() -> None:
    """As the user gave them."""
    arguments = ("--append-system-prompt", "x", "--append-system-prompt=y")

    assert claude.command(Request(arguments=arguments), ("claude",)) == ("claude", *arguments)


@pytest.mark.parametrize("word", ["-p", "--print", "-v", "--version", "-h", "--help"])
def test_arguments_that_ask_for_one_answer(word: str) -> None:
    """Among others."""
    assert claude.asks_nothing(("--model", "opus", word))


@pytest.mark.parametrize(
    "arguments", [(), ("--verbose",), ("print",), ("--", "-p"), ("--printer",)]
)
def test_arguments_that_do_not(arguments: tuple[str, ...]) -> None:
    """What follows a `--` is a prompt."""
    assert not claude.asks_nothing(arguments)


# -- variables ------------------------------------------------------------------------------


def test_variables() -> None:
    """The agent of a model elsewhere brings its own credential."""
    assert dict(claude.variables(None)) == {"IS_SANDBOX": "1", "DISABLE_AUTOUPDATER": "1"}


def test_variables_for_a_model_on_this_machine() -> None:
    """Which asks for no credential; the agent does."""
    found = claude.variables("http://127.0.0.1:1")

    assert found["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
    assert found["ANTHROPIC_AUTH_TOKEN"]
    assert "ANTHROPIC_API_KEY" not in found


# -- files and hints, by the real programs --------------------------------------------------


@dataclass(frozen=True)
class Home:
    """A home directory in which an agent's shell text runs."""

    path: Path

    def sh(self, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run shell text."""
        return subprocess.run(
            ["sh", "-c", text],
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(self.path), "PATH": os.environ["PATH"], **environ},
        )

    def session(self, after: str, code: int = 0, *, working: str = ":") -> tuple[int, str]:
        """Run a whole session; give its exit code and what it says at the end."""
        run = self.path / "run"
        run.mkdir(exist_ok=True)
        (run / "env").touch()
        program = ("sh", "-c", f"sleep 0.02; {working}; exit {code}")
        script = inside.script(program, {}, directory="/", after=after)
        (run / "one.sh").write_text(script)
        done = self.sh(inside.run_stored("one"), NDDT_RUN=str(run))
        return done.returncode, done.stderr

    def read(self, name: str) -> Mapping[str, object]:
        """Read a JSON file."""
        found = json.loads((self.path / name).read_text())
        assert isinstance(found, dict)
        return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Make an empty home directory; its name is no plain one."""
    path = tmp_path / "the home's"
    path.mkdir()
    return Home(path)


needs_jq = pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
KEY = "sk-ant-api03-0123456789abcdefghij"
TAIL = KEY[-20:]
FOLDER = {"/workspace": {"hasTrustDialogAccepted": True}}
ANSWERED = {"approved": [TAIL], "rejected": []}


@needs_jq
@pytest.mark.parametrize(
    ("known", "key", "expected"),
    [
        pytest.param(None, "", {}, id="first-time-without-a-key"),
        pytest.param("", "", {}, id="empty-file"),
        pytest.param(None, KEY, {"customApiKeyResponses": ANSWERED}, id="first-time-with-a-key"),
        pytest.param(
            {"customApiKeyResponses": ANSWERED},
            KEY,
            {"customApiKeyResponses": ANSWERED},
            id="key-is-known",
        ),
        pytest.param(
            {"customApiKeyResponses": {"approved": ["a"], "rejected": [TAIL, "b"]}},
            KEY,
            {"customApiKeyResponses": {"approved": ["a", TAIL], "rejected": ["b"]}},
            id="key-was-refused",
        ),
        pytest.param(
            {"customApiKeyResponses": {"approved": ["a"]}},
            "",
            {"customApiKeyResponses": {"approved": ["a"]}},
            id="no-key-this-time",
        ),
        pytest.param(
            {"theme": "dark", "numStartups": 7}, "", {"theme": "dark", "numStartups": 7}, id="rest"
        ),
        pytest.param(
            None,
            "a'\"\\$(id)`",
            {"customApiKeyResponses": {"approved": ["a'\"\\$(id)`"], "rejected": []}},
            id="short-and-odd-key",
        ),
    ],
)
def test_first_run_questions_are_answered(
    home: Home, known: object, key: str, expected: dict[str, object]
) -> None:
    """Once and for all; what else the file holds stays."""
    file = home.path / ".claude.json"
    if known is not None:
        file.write_text(known if isinstance(known, str) else json.dumps(known))
    environ = {"ANTHROPIC_API_KEY": key} if key else {}

    done = [home.sh(claude.before(Request()), **environ) for _ in range(2)]

    answers = {"hasCompletedOnboarding": True, "projects": FOLDER}
    assert [(one.returncode, one.stdout, one.stderr) for one in done] == [(0, "", "")] * 2
    assert home.read(".claude.json") == answers | expected
    assert home.read(".claude/settings.json") == {"skipDangerousModePermissionPrompt": True}
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in home.path.iterdir()) == [".claude", ".claude.json"]


@needs_jq
def test_other_folders_and_settings_stay(home: Home) -> None:
    """The agent's own file has much more in it."""
    (home.path / ".claude").mkdir()
    (home.path / ".claude" / "settings.json").write_text('{"model": "opus"}')
    known = {"projects": {"/other": {"a": 1}, "/workspace": {"b": 2}}}
    (home.path / ".claude.json").write_text(json.dumps(known))

    home.sh(claude.before(Request()))

    assert home.read(".claude.json")["projects"] == {
        "/other": {"a": 1},
        "/workspace": {"b": 2, "hasTrustDialogAccepted": True},
    }
    assert home.read(".claude/settings.json")["model"] == "opus"


@needs_jq
def test_broken_file_stays_as_it_is(home: Home) -> None:
    """The agent has its own way to deal with it."""
    (home.path / ".claude.json").write_text("{broken")

    home.sh(claude.before(Request()))

    assert (home.path / ".claude.json").read_text() == "{broken"
    assert home.read(".claude/settings.json")


def test_headless_run_only_makes_its_file() -> None:
    """It asks no questions, but of several at once each would make the file."""
    before = claude.before(Request(headless=True))

    assert before == "[ -e ~/.claude.json ] || echo '{}' >~/.claude.json"


HINT = "nddt: the agent was refused a permission, and nobody was there to ask"
DENIED = (
    '{"type":"user","timestamp":"9999-01-01T00:00:00.000Z",'
    '"toolUseResult":{"toolDenialKind":"user-rejected"}}'
)


def says(text: str, name: str = "one.jsonl") -> str:
    """Give what an agent does that writes a line to its log."""
    return f'd=~/.claude/projects/-workspace; mkdir -p "$d"; echo \'{text}\' >>"$d/{name}"'


@pytest.mark.parametrize(
    ("working", "hint"),
    [
        pytest.param(":", False, id="no-log"),
        pytest.param(says('{"type":"user"}'), False, id="nothing-refused"),
        pytest.param(says(DENIED), True, id="refused"),
        pytest.param(says(DENIED, "a b.jsonl"), True, id="odd-name"),
        pytest.param(says(DENIED, "one.txt"), False, id="another-file"),
        pytest.param(says(DENIED.replace("9999", "2020")), False, id="refused-in-an-earlier-run"),
    ],
)
@pytest.mark.parametrize("code", [0, 1])
def test_hint_after_a_refusal(home: Home, working: str, hint: bool, code: int) -> None:  # noqa: FBT001
    """Names the way out, on stderr; the exit code is 76, unless the agent has one of its own."""
    found, said = home.session(claude.after(Request(headless=True)), code, working=working)

    assert found == (code or (76 if hint else 0))
    assert said.startswith(HINT) is hint
    assert bool(said) is hint
    assert ("--yolo" in said) is hint


def test_hint_names_the_tool(home: Home) -> None:
    """Of this run alone, though another one in the directory was refused something, too."""
    use = '{"message":{"content":[{"type":"tool_use","id":"a","name":"WebFetch"}]}}'
    denied = DENIED.replace('"type":"user",', '"message":{"content":[{"tool_use_id":"a"}]},')
    other = f"{says(use.replace('WebFetch', 'Task'))}; {says(denied)}"
    working = f"{other}; {says(use, 'my-id.jsonl')}; {says(denied, 'my-id.jsonl')}"

    found, said = home.session(
        claude.after(Request(headless=True, conversation="my-id")), 0, working=working
    )

    assert (found, said.count("WebFetch"), "Task" in said) == (76, 2, False)
    assert "--allowedTools WebFetch, or all with --yolo" in said


def test_refusal_of_an_earlier_run_gives_no_hint(home: Home) -> None:
    """Only what this one has written counts."""
    home.sh(says(DENIED))
    old = home.path / ".claude/projects/-workspace/one.jsonl"
    os.utime(old, (1e9, 1e9))

    assert home.session(claude.after(Request(headless=True))) == (0, "")


@pytest.mark.parametrize(
    "request_", [Request(), Request(headless=True, permissions="all")], ids=["talk", "yolo"]
)
def test_no_hint_is_looked_for(request_: Request) -> None:
    """Where somebody was there to ask, or nothing is refused."""
    assert claude.after(request_) == ":"
