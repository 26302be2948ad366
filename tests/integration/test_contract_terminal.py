"""At a terminal of 132 by 43: what is seen, what the keys do, and how it is given back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.contract import GONE_S, KEY, Caller, Terminal, eventually, processes
from tests.scripted_model import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.contract import Outside
    from tests.scripted_model import ScriptedModel

TALK = (
    'echo "I am number $$."; '
    'while read -r line; do [ "$line" = end ] && exit 7; echo "You said $line."; done'
)


def say(terminal: Terminal, words: str) -> None:
    """Type into the agent's screen and send it once it stands there."""
    terminal.forget()
    terminal.type(words)
    assert terminal.shows(words), terminal.text
    terminal.type("\r")


def is_ruled(terminal: Terminal, columns: int) -> bool:
    """Tell whether the agent has drawn a line over the whole width."""
    return eventually(lambda: bool(re.search(f"(?<!─)─{{{columns}}}(?!─)", terminal.text)), 10)


def with_credential(nddt: Caller, model: Callable[..., ScriptedModel], variable: str) -> Caller:
    """Have a key or token, and a model that answers."""
    scripted = model(text("Hello from the script."))
    return nddt.having(**{"ANTHROPIC_BASE_URL": scripted.url, variable: KEY})


# -- the real agent -------------------------------------------------------------------------


def test_the_agents_screen(nddt: Caller) -> None:
    """It has the terminal's size, follows it, and gets the keys; leaving restores the terminal."""
    with Terminal(nddt, "run", "--demo") as terminal:
        assert terminal.shows("Claude Code v"), terminal.text
        assert is_ruled(terminal, 132)
        say(terminal, "Say hello")
        assert terminal.shows("your prompt arrived as “Say hello”"), terminal.text
        terminal.forget()
        terminal.resize(30, 90)
        assert is_ruled(terminal, 90), terminal.text
        terminal.forget()
        terminal.type("\x03")
        assert terminal.shows("Press Ctrl-C again to exit"), terminal.text
        terminal.type("\x03")
        assert terminal.code() == 0, terminal.text
        assert terminal.before == terminal.attributes


@pytest.mark.parametrize(
    "variable",
    [
        *("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"),
        pytest.param("ANTHROPIC_AUTH_TOKEN", marks=pytest.mark.exhaustive),
    ],
)
def test_a_first_conversation_asks_nothing(
    nddt: Caller, model: Callable[..., ScriptedModel], variable: str
) -> None:
    """No theme, no trust, no key question, no warning: the first thing typed is the prompt."""
    caller = with_credential(nddt, model, variable)

    with Terminal(caller, "run", "--yolo") as terminal:
        assert terminal.shows("bypass permissions on"), terminal.text
        say(terminal, "Say hello")
        assert terminal.shows("Hello from the script."), terminal.text
        say(terminal, "/exit")
        assert terminal.code() == 0, terminal.text


def test_a_kept_conversation_survives_its_terminal(kept: Caller) -> None:
    """The agent's screen comes back with `attach`, in the size of the new terminal."""
    with Terminal(kept, "run", "--demo") as terminal:
        assert terminal.shows("Claude Code v"), terminal.text
        say(terminal, "Remember this")
        assert terminal.shows("your prompt arrived as “Remember this”"), terminal.text
        terminal.hang_up()
        assert terminal.code(GONE_S) is not None

    with Terminal(kept, "attach", rows=30, columns=100) as terminal:
        assert terminal.shows("your prompt arrived as “Remember this”"), terminal.text
        assert is_ruled(terminal, 100)
        say(terminal, "Are you there")
        assert terminal.shows("your prompt arrived as “Are you there”"), terminal.text
        say(terminal, "/exit")
        assert terminal.code() == 0, terminal.text
        assert terminal.before == terminal.attributes


# -- any agent ------------------------------------------------------------------------------


def test_the_size_inside_follows_the_terminal(nddt: Caller) -> None:
    """Programs inside see the size from the start, and each change."""
    with Terminal(nddt, "shell", "--command", "stty size; exit 5") as terminal:
        assert terminal.code() == 5
        assert "43132" in terminal.text

    loop = "trap 'echo now $(stty size)' WINCH; echo listening; while :; do read -rt 0.1 x; done"
    with Terminal(nddt, "shell", "--command", loop) as terminal:
        assert terminal.shows("listening"), terminal.text
        for rows, columns in ((30, 90), (50, 200)):
            terminal.resize(rows, columns)
            assert terminal.shows(f"now {rows} {columns}", 10), terminal.text


@pytest.mark.parametrize("persistent", ["false", "true"])
def test_ctrl_c_is_the_agents(nddt: Caller, outside: Outside, persistent: str) -> None:
    """A program that traps it goes on, and its exit code is ours."""
    loop = (
        "trap 'echo caught; n=$((n + 1)); [ $n -lt 2 ] || exit 6' INT; "
        "stty -echo; echo listening; while :; do read -rt 0.1 x; done"
    )
    caller = nddt.having(NDDT_PERSISTENT=persistent)

    with Terminal(caller, "shell", "--command", loop) as terminal:
        assert terminal.shows("listening"), terminal.text
        terminal.type("\x03")
        assert terminal.shows("caught"), terminal.text
        assert terminal.process.poll() is None
        terminal.type("\x03")
        assert terminal.code() == 6, terminal.text
        assert terminal.before == terminal.attributes

    for name in outside.sandboxes():
        assert caller("cleanup", "--name", name, "--yes").code == 0


def test_ctrl_c_ends_a_run_with_a_prompt(nddt: Caller, outside: Outside) -> None:
    """There the terminal is ours: 130, and nothing is left."""
    caller = nddt.with_agent("echo listening; sleep 100").having(ANTHROPIC_API_KEY=KEY)

    with Terminal(caller, "run", "--prompt", "x") as terminal:
        assert terminal.shows("listening"), terminal.text
        terminal.type("\x03")
        assert terminal.code() == 130, terminal.text
        assert "Traceback" not in terminal.text
        assert terminal.before == terminal.attributes
    assert not outside.sandboxes()


def test_a_run_with_a_prompt_leaves_the_keyboard_alone(nddt: Caller) -> None:
    """What is typed meanwhile is for the shell afterwards."""
    caller = nddt.with_agent("cat; echo end").having(ANTHROPIC_API_KEY=KEY)

    with Terminal(caller, "run", "--prompt", "x") as terminal:
        assert terminal.code() == 0, terminal.text
        assert "end" in terminal.text


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_an_ended_conversation_gives_the_terminal_back(
    nddt: Caller, outside: Outside, name: str
) -> None:
    """A signal in the midst of a full screen: no raw mode, no mouse reports, no other screen."""
    agent = "printf '\\033[?1049h\\033[?1000h'; stty raw; echo listening; sleep 100"

    with Terminal(nddt.with_agent(agent).having(ANTHROPIC_API_KEY=KEY), "run") as terminal:
        assert terminal.shows("listening"), terminal.text
        assert terminal.before != terminal.attributes
        number = {"SIGTERM": 15, "SIGHUP": 1}[name]
        terminal.process.send_signal(number)
        assert 128 + number == terminal.code(), terminal.text
        assert terminal.before == terminal.attributes
        assert terminal.output.rfind(b"\x1b[?1049l") > terminal.output.rfind(b"\x1b[?1049h")
        assert b"\x1b[?1000l" in terminal.output
    assert outside.is_gone(lambda: not outside.sandboxes())


def test_a_lost_terminal_ends_an_ephemeral_conversation(nddt: Caller, outside: Outside) -> None:
    """Nobody can come back to it, so nothing is left."""
    with Terminal(nddt.with_agent(TALK).having(ANTHROPIC_API_KEY=KEY), "run") as terminal:
        assert terminal.shows("I am number"), terminal.text
        terminal.hang_up()
        assert terminal.code(2 * GONE_S) is not None
    assert outside.is_gone(lambda: not outside.sandboxes() and not processes(nddt.runtime))


def test_a_kept_agent_is_come_back_to(kept: Caller) -> None:
    """After a lost terminal and after a detach; its end gives its code."""
    caller = kept.with_agent(TALK).having(ANTHROPIC_API_KEY=KEY)
    with Terminal(caller, "run") as terminal:
        assert terminal.shows("I am number"), terminal.text
        number = re.search(r"Iamnumber(\d+)\.", terminal.text)
        assert number
        terminal.hang_up()
        assert terminal.code(GONE_S) is not None

    with Terminal(caller, "attach") as terminal:
        assert terminal.shows(number[0]), terminal.text
        say(terminal, "this")
        assert terminal.shows("You said this."), terminal.text
        terminal.type("\x1c")
        assert terminal.code() == 0, terminal.text
        assert terminal.before == terminal.attributes

    with Terminal(kept, kept.task("attach")) as terminal:
        assert terminal.shows("You said this."), terminal.text
        assert number[0] in terminal.text
        say(terminal, "end")
        assert terminal.code() == 7, terminal.text


def test_a_shell_at_the_terminal(nddt: Caller) -> None:
    """`shell` without a command talks, in the workspace, and gives its code."""
    with Terminal(nddt, "shell") as terminal:
        say(terminal, "echo in $PWD as $((40 + 2))")
        assert terminal.shows("in /workspace as 42"), terminal.text
        say(terminal, "exit 9")
        assert terminal.code() == 9, terminal.text


@pytest.mark.same_everywhere
@pytest.mark.parametrize("persistent", ["false", "true"])
def test_a_failure_before_the_agent_leaves_the_screen_alone(
    nddt: Caller, outside: Outside, persistent: str
) -> None:
    """Nothing was drawn, so nothing is cleared: that would move the cursor. No file stays."""
    caller = nddt.having(NDDT_PERSISTENT=persistent, **outside.unreachable())

    with Terminal(caller, "run", "--demo") as terminal:
        assert terminal.code() == 69, terminal.text
        assert b"\x1b[?1049l" not in terminal.output
    assert not list(nddt.runtime.glob("*"))
