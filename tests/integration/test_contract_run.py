"""One prompt, one answer: what goes in, what comes out, and who owns the files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from scripts.demo.messages_api import last_prompt
from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import KEY, Caller, end
from tests.scripted_model import text, tool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.contract import Done, Outside
    from tests.scripted_model import ScriptedModel

DEMO_ANSWER = (
    b"This is nddt's demo endpoint: no model was asked. Image, sandbox, forwarding and agent "
    b"work; your prompt arrived as \xe2\x80\x9cSay hello\xe2\x80\x9d.\n"
)
AWKWARD = (
    "",
    " ",
    'it\'s "quoted"',
    "two\nlines\n",
    "-leading",
    "--dashes=1",
    "$HOME `id` $(id) \\ \\n",
    "*?[a-z]{a,b}~!#&|;<>",
    "%h %n %%",
    "grüße 日本語 🙂",
    "\t\r\x07",
)


# -- the first run --------------------------------------------------------------------------


def test_the_answer_is_all_there_is(nddt: Caller) -> None:
    """A run prints the answer and nothing else."""
    done = nddt("run", "--demo", "--prompt", "Say hello")

    assert (done.code, done.stdout, done.stderr) == (0, DEMO_ANSWER, b"")


@pytest.mark.same_everywhere
def test_a_loose_word_is_a_prompt(nddt: Caller) -> None:
    """What is no task is sent to the agent."""
    done = nddt("Say hello", "--demo")

    assert (done.code, done.stdout, done.stderr) == (0, DEMO_ANSWER, b"")


def test_verbose_shows_the_commands_but_no_secret(nddt: Caller) -> None:
    """The commands are on stderr; nothing is built; the key is nowhere."""
    caller = nddt.with_agent("echo answer").having(ANTHROPIC_API_KEY=KEY)

    done = caller("run", "--verbose", "--prompt", "Say hello")

    assert (done.code, done.stdout) == (0, b"answer\n")
    assert "nddt: + ssh " in done.said
    assert "building" not in done.said
    assert KEY not in done.said


@pytest.mark.same_everywhere
def test_dry_shows_the_plan_and_does_nothing(nddt: Caller, outside: Outside) -> None:
    """The plan has the command and no secret, and nothing is made."""
    caller = nddt.having(ANTHROPIC_API_KEY=KEY, NDDT_PERSISTENT="true")

    done = caller("run", "--dry", "--prompt", "Say hello")

    assert (done.code, done.stderr) == (0, b"")
    assert "ANTHROPIC_API_KEY=***" in done.stdout.decode()
    assert "'Say hello'" in done.stdout.decode()
    assert KEY not in done.stdout.decode()
    assert not outside.sandboxes()
    assert not list(caller.runtime.glob("*"))


# -- the real agent with a scripted model ---------------------------------------------------


@ON_DOCKER
def test_the_agent_writes_files_that_belong_to_the_caller(
    nddt: Caller, model: Callable[..., ScriptedModel], workspace: Path
) -> None:
    """Its tools work in the workspace, with the caller's user and group."""
    scripted = model(
        tool("Write", {"file_path": "/workspace/new/written.txt", "content": "grüße\n"}),
        tool("Bash", {"command": "cat new/written.txt > copied.txt", "description": "Copy"}),
        text("Both files are there."),
    )

    done = nddt.having(ANTHROPIC_BASE_URL=scripted.url)("run", "--yolo", "--prompt", "Write")

    assert (done.code, done.stdout, done.stderr) == (0, b"Both files are there.\n", b"")
    for path in (workspace / "new", workspace / "new/written.txt", workspace / "copied.txt"):
        assert (os.getuid(), os.getgid()) == (path.stat().st_uid, path.stat().st_gid)
    assert (workspace / "copied.txt").read_text(encoding="utf-8") == "grüße\n"


@ON_DOCKER
def test_a_refused_permission_is_explained(
    nddt: Caller, model: Callable[..., ScriptedModel], workspace: Path
) -> None:
    """Where only its own rules count, 76 and the exact option; by default it edits and runs."""
    scripted = model(
        tool("Write", {"file_path": "/workspace/no.txt", "content": "no"}), text("I may not.")
    )

    caller = nddt.having(ANTHROPIC_BASE_URL=scripted.url)
    done = caller.having(NDDT_PERMISSIONS="ask")("run", "--prompt", "Write")

    assert (done.code, done.stdout) == (76, b"I may not.\n")
    assert done.said.startswith("nddt: the agent was refused Write, ")
    assert "--allowedTools Write, or all with --yolo" in done.said
    assert len(done.said.splitlines()) == 1
    assert not (workspace / "no.txt").exists()


@ON_DOCKER
@pytest.mark.parametrize("words", [(), ("--allowedTools", "WebSearch")])
def test_it_edits_and_runs_by_default(
    nddt: Caller, model: Callable[..., ScriptedModel], workspace: Path, words: tuple[str, ...]
) -> None:
    """What the first example of README needs, also beside tools that the user allows."""
    scripted = model(
        tool("Write", {"file_path": "/workspace/yes.txt", "content": "yes"}),
        tool("Bash", {"command": "cp yes.txt too.txt", "description": "Copy"}),
        text("Done."),
    )

    done = nddt.having(ANTHROPIC_BASE_URL=scripted.url)("Fix the failing test", *words)

    assert (done.code, done.stdout, done.said) == (0, b"Done.\n", "")
    assert (workspace / "too.txt").read_text() == "yes"


@ON_DOCKER
def test_nothing_new_outside_by_default(nddt: Caller, model: Callable[..., ScriptedModel]) -> None:
    """A tool that asks somebody elsewhere is refused, and named."""
    scripted = model(
        tool("WebFetch", {"url": "https://example.org/", "prompt": "x"}), text("I may not.")
    )

    done = nddt.having(ANTHROPIC_BASE_URL=scripted.url)("Look it up")

    assert (done.code, done.stdout) == (76, b"I may not.\n")
    assert "--allowedTools WebFetch, or all with --yolo" in done.said


def test_the_key_reaches_the_model(nddt: Caller, model: Callable[..., ScriptedModel]) -> None:
    """A key that the user has is the one that the agent uses."""
    scripted = model(text("ok"))
    caller = nddt.having(ANTHROPIC_BASE_URL=scripted.url, ANTHROPIC_API_KEY=KEY)

    done = caller("run", "--model", "opus", "--output-format", "json", "--prompt", "Hi")

    assert (done.code, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["result"] == "ok"
    (request,) = scripted.conversation
    assert request.headers["x-api-key"] == KEY
    assert "opus" in request.body["model"]


@pytest.mark.same_everywhere
def test_long_prompts_arrive_from_a_file_and_from_pipes(
    nddt: Caller, model: Callable[..., ScriptedModel], workspace: Path
) -> None:
    """200 KB reach the model unchanged, by each way that has no limit."""
    scripted = model(text("read"))
    caller = nddt.having(ANTHROPIC_BASE_URL=scripted.url)
    prompt = "".join(f"line {i}: grüße $HOME 'x' \"y\"\n" for i in range(6000))[:200_000] + "end"
    (workspace / "prompt file.md").write_text(prompt, encoding="utf-8")

    ways = (
        caller("run", "--prompt-file", "prompt file.md"),
        caller("run", "--prompt-file", "-", stdin=prompt.encode()),
        caller("run", stdin=prompt.encode()),
    )

    assert [(way.code, way.stdout, way.stderr) for way in ways] == [(0, b"read\n", b"")] * 3
    assert [prompt] * 3 == [last_prompt(request) for request in scripted.conversation]


def test_a_prompt_and_a_pipe_go_together(nddt: Caller, model: Callable[..., ScriptedModel]) -> None:
    """`git diff | nddt run --prompt …` gives the agent both."""
    scripted = model(text("both"))

    caller = nddt.having(ANTHROPIC_BASE_URL=scripted.url)
    done = caller("run", "--prompt", "- Explain --this", stdin=b"piped text\n")

    assert (done.code, done.stdout, done.stderr) == (0, b"both\n", b"")
    sent = last_prompt(scripted.conversation[0])
    assert "- Explain --this" in sent
    assert "piped text" in sent


@pytest.mark.parametrize("outside", ["daytona"], indirect=True)
def test_the_agent_writes_files_in_the_cloud(
    kept: Caller, model: Callable[..., ScriptedModel]
) -> None:
    """Its tools work there, too, and the files belong to the user inside."""
    scripted = model(
        tool("Write", {"file_path": "/workspace/new/written.txt", "content": "grüße\n"}),
        text("It is there."),
    )

    done = kept.having(ANTHROPIC_BASE_URL=scripted.url)("run", "--yolo", "--prompt", "Write")

    assert (done.code, done.stdout, done.stderr) == (0, b"It is there.\n", b"")
    seen = kept("shell", "--command", "cat new/written.txt; stat -c %u:%g new new/written.txt")
    assert seen.stdout.decode() == "grüße\n1000:1000\n1000:1000\n"


# -- any agent: codes, bytes and arguments --------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 3", 3),
        ("kill -TERM $$", 143),
        pytest.param("exit 255", 255, marks=pytest.mark.exhaustive),
        pytest.param("kill -KILL $$", 137, marks=pytest.mark.exhaustive),
        pytest.param("kill -SEGV $$", 139, marks=pytest.mark.exhaustive),
    ],
)
def test_the_agents_end_is_ours(nddt: Caller, script: str, code: int) -> None:
    """Its exit code is passed on, a signal's as 128 + n, and nobody comments on it."""
    done = nddt.with_agent(f"echo out; echo err >&2; {script}").having(ANTHROPIC_API_KEY=KEY)(
        "run", "--prompt", "x"
    )

    assert (code, b"out\n", b"err\n") == (done.code, done.stdout, done.stderr)


def test_a_missing_agent_is_127(nddt: Caller) -> None:
    """A program that is not there ends as in a shell."""
    caller = nddt.having(NDDT_COMMAND="/workspace/nothing", ANTHROPIC_API_KEY=KEY)

    assert caller("run", "--prompt", "x").code == 127


def test_many_bytes_arrive_unchanged(nddt: Caller) -> None:
    """50 MB on stdout and 5 MB on stderr, of all bytes, at the same time."""
    block = bytes(range(256)) * 4000
    caller = nddt.with_agent(
        "cd; python3 -c \"open('block', 'wb').write(bytes(range(256)) * 4000)\"; "
        "(for i in {1..5}; do cat block; done >&2) & for i in {1..49}; do cat block; done; wait"
    )

    done = caller.having(ANTHROPIC_API_KEY=KEY)("run", "--prompt", "x")

    assert done.code == 0
    assert hashlib.sha256(block * 49).digest() == hashlib.sha256(done.stdout).digest()
    assert hashlib.sha256(block * 5).digest() == hashlib.sha256(done.stderr).digest()


def test_a_reader_that_goes_away_ends_the_run(nddt: Caller) -> None:
    """`nddt run … | head -1` ends though the agent would print for ever."""
    caller = nddt.with_agent("while echo line; do :; done").having(ANTHROPIC_API_KEY=KEY)

    with caller.start("run", "--prompt", "x") as running:
        assert running.stdout
        assert running.stdout.readline() == b"line\n"
        running.stdout.close()
        assert running.wait(30) != 0


def test_stdin_arrives_unchanged(nddt: Caller) -> None:
    """All bytes are passed on, with no newline added, and the end is seen."""
    data = bytes(range(256)) * 8000 + b"\0no newline"

    done = nddt.with_agent("exec cat").having(ANTHROPIC_API_KEY=KEY)("run", stdin=data)

    assert (done.code, done.stderr) == (0, b"")
    assert data == done.stdout


def test_stdin_may_end_before_stdout(nddt: Caller) -> None:
    """A talk over pipes: an answer to each line, and a last word after the end of stdin."""
    caller = nddt.with_agent("while read -r line; do echo got $line; done; echo bye; exit 4")

    running = caller.having(ANTHROPIC_API_KEY=KEY).start("run", stdin=subprocess.PIPE)
    assert running.stdin
    assert running.stdout
    running.stdin.write(b"one\n")
    running.stdin.flush()
    assert running.stdout.readline() == b"got one\n"
    assert running.poll() is None
    running.stdin.write(b"two\n")
    running.stdin.close()
    running.stdin = None
    done = end(running)

    assert (done.code, done.stdout, done.stderr) == (4, b"got two\nbye\n", b"")


@pytest.mark.same_everywhere
def test_a_prompt_alone_leaves_stdin_empty(nddt: Caller) -> None:
    """An agent that reads stdin does not wait for anybody."""
    done = nddt.with_agent("cat; echo end").having(ANTHROPIC_API_KEY=KEY)("run", "--prompt", "x")

    assert (done.code, done.stdout, done.stderr) == (0, b"end\n", b"")


def arguments(done: Done) -> list[str]:
    """Read what the agent was called with, but for what nddt adds by itself."""
    words = done.stdout.decode().split("\0")[:-1]
    words.remove("--allowedTools=Bash,Edit,NotebookEdit,Write")
    at = words.index("--session-id")
    del words[at : at + 2]
    return words


def test_arguments_arrive_exactly(nddt: Caller) -> None:
    """After `--`, however awkward, and 200 KB of them."""
    long = ("x" * 100_000, "é" * 50_000)
    caller = nddt.with_agent("printf '%s\\0' \"$@\"").having(ANTHROPIC_API_KEY=KEY)

    done = caller("run", "--prompt", "last one", "--", *AWKWARD, *long)

    assert (done.code, done.stderr) == (0, b"")
    assert ["--print", *AWKWARD, *long, "--", "last one"] == arguments(done)


@pytest.mark.same_everywhere
@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param(one, marks=() if number % 3 == 0 else pytest.mark.exhaustive)
        for number, one in enumerate(AWKWARD[2:-1])
    ],
)
def test_awkward_prompts_arrive_exactly(nddt: Caller, prompt: str) -> None:
    """A prompt is one argument, whatever it looks like."""
    caller = nddt.with_agent("printf '%s\\0' \"$@\"").having(ANTHROPIC_API_KEY=KEY)

    done = caller("run", "--prompt", prompt)

    assert (0, ["--print", "--", prompt], "") == (done.code, arguments(done), done.said)


@pytest.mark.same_everywhere
def test_agent_args_are_split_as_in_a_shell(nddt: Caller) -> None:
    """--agent-args is one text with quotes."""
    caller = nddt.with_agent("printf '%s\\0' \"$@\"").having(ANTHROPIC_API_KEY=KEY)

    given = "--tool 'a b' \"it's\" '' $HOME \\* grüße"
    done = caller("run", "--prompt", "x", "--agent-args", given)

    expected = ["--print", "--tool", "a b", "it's", "", "$HOME", "*", "grüße", "--", "x"]
    assert (0, expected) == (done.code, arguments(done))


def test_wanted_variables_and_no_others_reach_the_agent(nddt: Caller, workspace: Path) -> None:
    """NDDT_ENV_VARS decides, with values of any content; a project's file once it is agreed to."""
    (workspace / ".env").write_text("FROM_FILE='a b'\nNDDT_ENV_VARS=MINE_*,FROM_FILE,TOKEN_A\n")
    caller = nddt.with_agent("env -0").having(
        ANTHROPIC_API_KEY=KEY, TOKEN_A="it's\n$x `y`", MINE_1="ü", OTHER="no"
    )

    hostile = caller("run", "--prompt", "x")
    assert hostile.code == 0, hostile.said
    assert "not used: NDDT_ENV_VARS (line 2)" in hostile.said
    assert not any(value in hostile.stdout for value in (b"a b", b"it's", "ü".encode()))
    agreed = caller("trust", "--yes")
    assert agreed.lines == [
        "FROM_FILE=a b  # line 1",
        "NDDT_ENV_VARS=MINE_*,FROM_FILE,TOKEN_A  # line 2",
    ]
    done = caller.having(ANTHROPIC_BASE_URL="http://127.0.0.1:9")("run", "--prompt", "x")

    found = dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item)
    wanted = {"FROM_FILE": "a b", "TOKEN_A": "it's\n$x `y`", "MINE_1": "ü"}
    assert done.code == 0, done.said
    assert wanted == {name: found.get(name) for name in wanted}
    assert not {"OTHER", "ANTHROPIC_API_KEY", "NDDT_ENV_VARS"} & set(found)


# -- many at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, pytest.param(20, marks=pytest.mark.exhaustive)])
def test_many_runs_at_once(nddt: Caller, count: int) -> None:
    """Each gets its own answer, and nothing is left."""
    started = [nddt.start("run", "--demo", "--prompt", f"I am number {i}.") for i in range(count)]

    ended = [end(one, 120) for one in started]

    assert [(one.code, one.said) for one in ended] == [(0, "")] * count
    for number, one in enumerate(ended):
        assert f"“I am number {number}.”".encode() in one.stdout


def test_nothing_is_shared_without_a_workspace(nddt: Caller, mine_name: str) -> None:
    """With NDDT_WORKSPACE=none the directory stays out of sight."""
    (nddt.directory / "here").touch()
    caller = nddt.having(NDDT_WORKSPACE="none", NDDT_NAME=mine_name)

    done = caller("shell", "--command", "pwd; ls -A; touch made; ls")

    assert (done.code, done.stdout, done.stderr) == (0, b"/workspace\nmade\n", b"")
    assert [path.name for path in nddt.directory.iterdir()] == ["here"]


@ON_DOCKER
@pytest.mark.parametrize(
    "name",
    [
        *("a,b", 'say "hi"', "grüße 日本語", "x\ny"),
        *(
            pytest.param(one, marks=pytest.mark.exhaustive)
            for one in ("two words", "c:d", "it's", "$HOME;%h", "-d")
        ),
    ],
)
def test_awkward_directories_work(nddt: Caller, name: str) -> None:
    """Any directory's name can be shown to the agent, ephemeral and persistent."""
    directory = nddt.directory / name
    directory.mkdir()
    agent = "cat seen >copy; echo ok"
    caller = nddt.to(directory).with_agent(agent).having(ANTHROPIC_API_KEY=KEY)
    (directory / "seen").write_text("seen")

    done = caller("run", "--prompt", "x")

    assert (done.code, done.stdout, done.said) == (0, b"ok\n", "")
    assert (directory / "copy").read_text() == "seen"


def test_letters_and_the_clock_are_the_users(nddt: Caller) -> None:
    """Programs count letters, not bytes, and know the time zone."""
    look = "printf ü | wc -m; date -d '2026-07-01 12:00 UTC' +%H:%M"

    done = nddt.having(TZ="Europe/Berlin")("shell", "--command", look)

    assert (done.code, done.stdout, done.said) == (0, b"1\n14:00\n", "")
