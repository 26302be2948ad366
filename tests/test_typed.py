"""What a command line means: what is run, what is a prompt, and what is told instead."""

from __future__ import annotations

import random
import shlex
from collections import Counter
from itertools import pairwise

import pytest

from scripts import agents, naming
from scripts.cli import program
from scripts.command_line import Known, Typed
from scripts.errors import UsageError
from scripts.typed import read
from tests.test_documents import known as all_tasks

PROMPTS = ("Fix the failing test", "what does main.py do?", "list all files", "stop the server")
AGENTS = (
    *("-p", "--print", "-c", "--continue", "--dangerously-skip-permissions"),
    *("--model opus", "--permission-mode plan", "--allowedTools Edit Write", "--max-turns 3"),
    *("--output-format json", "-r 5f0c3a52", "--add-dir ../lib", "--verbose"),
)
OWN = ("--yes", "--dry", "--persistent", "--name x", "--yolo", "--ports 3000", "--timeout 60")
STRANGE = (
    *("help", "doctor", "version", "logs", "ls", "ps", "rm", "status", "login", "init", "update"),
    *("please", "explain", "fix", "hello", "claude", "mcp", "config.set", "netwrok", "atach"),
    *("--bogus", "-T", "--list-depth=x", "-e", "docker", "daytona", "@file", "3000", "."),
)
KNOWN = all_tasks()
TASKS = sorted(KNOWN.tasks)


def what(*words: str) -> Typed:
    """Read a command line as the launcher does."""
    given = words[: words.index("--")] if "--" in words else words
    return read(given, KNOWN, has_rest="--" in words)


def sent(typed: Typed) -> list[str]:
    """List the prompts that would go to a model."""
    return [
        value
        for one in typed.calls
        if one.task == "run"
        for name, value in one.options
        if name == "--prompt" and value is not None
    ]


def newcomers_line(rng: random.Random) -> list[str]:
    """Make up what somebody types who has read half of the README."""
    kinds = [TASKS, AGENTS, OWN, STRANGE, PROMPTS, ["--prompt", "run", "list", "stop", "test"]]
    words: list[str] = []
    for _ in range(rng.randint(1, 3)):
        one = rng.choice(rng.choice(kinds))
        words += [one] if one in PROMPTS else one.split()
    return words


def test_200_lines_of_newcomers() -> None:
    """Send nothing that was not meant as a prompt, and each error names the next step."""
    rng = random.Random(20)  # noqa: S311  (no secret)
    seen: Counter[str] = Counter()
    errors: list[tuple[UsageError, list[str]]] = []
    for _ in range(200):
        words = newcomers_line(rng)
        meant = {*PROMPTS}
        meant |= {b for a, b in pairwise(words) if a in NAMING_A_PROMPT}
        try:
            typed = what(*words)
        except UsageError as error:
            errors.append((error, words))
            continue
        seen[typed.shows or "run"] += 1
        assert {*sent(typed)} <= meant, shlex.join(words)
        assert len(sent(typed)) <= sum(one.task == "run" for one in typed.calls)
    assert min(seen["run"], len(errors)) > 50, seen
    assert [words for error, words in errors if naming.said("") not in error.next_step] == []


NAMING_A_PROMPT = {"--prompt", "-p", "--print"}


@pytest.mark.parametrize("name", [one for one in STRANGE if not one.startswith("-")])
def test_one_word_is_no_prompt(name: str) -> None:
    """But an error that says how it is sent all the same; `help` shows help."""
    if name == "help":
        assert what(name).shows == "help"
        return
    with pytest.raises(UsageError, match=f"nddt run --prompt {name}"):
        what(name)


@pytest.mark.parametrize(
    ("words", "prompt", "agent", "options"),
    [
        ("-p 'fix it now'", "fix it now", "-p", ""),
        ("'fix it now' -p", "fix it now", "-p", ""),
        ("-p hello", "hello", "-p", ""),
        ("--yolo 'fix it'", "fix it", "", "--yolo"),
        ("--model opus 'fix it'", "fix it", "", "--model opus"),
        ("'fix it' --model=opus", "fix it", "", "--model opus"),
        ("run 'fix it' --yes", "fix it", "", "--yes"),
        ("--yolo run 'fix it'", "fix it", "", "--yolo"),
        ("-c 'go on now'", "go on now", "", "--continue"),
        ("-r 5f0c", None, "", "--resume 5f0c"),
        ("-r", None, "--resume", ""),
        ("--resume -p 'fix it'", "fix it", "--resume -p", ""),
        ("--dangerously-skip-permissions", None, "", "--yolo"),
        ("--permission-mode plan 'fix it'", "fix it", "--permission-mode plan", ""),
        (
            "--allowedTools Edit 'Bash(git log:*)' 'fix it'",
            "fix it",
            "--allowedTools Edit 'Bash(git log:*)'",
            "",
        ),
        ("'fix it' --allowedTools=Edit,Write", "fix it", "--allowedTools=Edit,Write", ""),
        ("--output-format json -p 'fix it'", "fix it", "-p", "--output-format json"),
        ("run --prompt list", "list", "", ""),
        ("'- fix it'", "- fix it", "", ""),
        ("''", "", "", ""),
    ],
)
def test_what_the_agent_takes_works_before_and_after(
    words: str, prompt: str | None, agent: str, options: str
) -> None:
    """So that `alias claude=nddt` does."""
    (call,) = what(*shlex.split(words)).calls

    assert call.task == "run"
    assert shlex.join(call.agent) == agent
    own = [(name, value) for name, value in call.options if name != "--prompt"]
    assert shlex.join(word for one in own for word in one if word) == options
    assert sent(Typed(calls=[call])) == ([] if prompt is None else [prompt])


@pytest.mark.parametrize(
    "words",
    [
        *("please stop", "explain diff", "fix test", "run fix test", "'fix it' stop"),
        *("run 'fix it' stop", "run --prompt fix test", "run --prompt please stop", "-p go stop"),
        *("'fix it' 'and that'", "--prompt a 'b c'", "shell 'make test'", "list files in src"),
        *("--yolo stop", "--model opus hello", "stop please", "run hello", "list --prompt x"),
    ],
)
def test_what_could_be_a_mistake_runs_nothing(words: str) -> None:
    """Neither the prompt nor the task beside it."""
    with pytest.raises(UsageError) as caught:
        what(*shlex.split(words))

    assert "nddt " in caught.value.next_step


@pytest.mark.parametrize(
    ("words", "tasks"),
    [
        ("run --prompt 'Fix it' docker.cleanup --yes", ["run", "docker.cleanup"]),
        ("run --prompt=Fix pull", ["run", "pull"]),
        ("docker.create-sandbox docker.stop", ["docker.create-sandbox", "docker.stop"]),
        ("docker create-sandbox", ["docker.create-sandbox"]),
        ("network allow a.org list", ["network.allow", "list"]),
        ("cp list stop", ["cp"]),
        ("network list", ["network", "list"]),
        ("network", ["network"]),
        ("-- -p x", ["run"]),
    ],
)
def test_tasks_follow_each_other(words: str, tasks: list[str]) -> None:
    """What fills a place or a value is no task."""
    assert [one.task for one in what(*shlex.split(words)).calls] == tasks


@pytest.mark.parametrize("word", ["list", "stop", "cleanup"])
def test_a_group_s_task_is_pointed_to(word: str) -> None:
    """Where it is a task by itself, too."""
    with pytest.raises(UsageError, match=rf"type nddt docker\.{word}"):
        what("docker", word)


def test_without_a_run_task_nothing_is_a_prompt() -> None:
    """Nor is what an agent takes."""
    few = Known(tasks={"attach": {}}, places={}, groups=(), agent=program._words_of_agents)

    with pytest.raises(UsageError, match="no task"):
        read(["say hello"], few)


def test_arguments_for_the_agent_need_one() -> None:
    """They are not dropped."""
    with pytest.raises(UsageError, match="stop does not start"):
        what("stop", "--", "x")


def test_what_is_shown() -> None:
    """Wherever it is asked for."""
    assert [what(*line.split()).about for line in ("help cp", "cp -h", "--help cp")] == ["cp"] * 3
    assert what("--list", "docker").about == "docker"
    assert what("--list=docker").about == "docker"
    assert what("help", "network", "allow").about == "network.allow"
    assert what("--yolo", "-h").about == "run"
    with pytest.raises(UsageError, match="did you mean list"):
        what("help", "ls")


@pytest.mark.parametrize("name", agents.NAMES)
def test_an_agent_s_words_fit_together(name: str) -> None:
    """What is the same as an option of run's is one of run's."""
    agent = agents.get(name)

    assert {*agent.SAME.values()} <= {*KNOWN.tasks["run"]}
    assert {*agent.BEFORE_PROMPT} <= {*agent.OPTIONS}
    assert not {*agent.SAME} & {*agent.OPTIONS}
