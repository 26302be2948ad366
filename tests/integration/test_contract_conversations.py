"""Conversations that go on in another sandbox."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.contract import KEY, Caller, Daytona, Terminal, end, ended, eventually
from tests.scripted_model import slow_text, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.integration.contract import Mine
    from tests.scripted_model import ScriptedModel


@pytest.fixture
def synced(nddt: Caller) -> Caller:
    """Somebody whose sandboxes know the directory, in whatever way."""
    return nddt.having(NDDT_WORKSPACE="")


def remembered(model: ScriptedModel) -> list[str]:
    """Give what the user has said in the conversation that the model was asked last."""
    return said(model.conversation[-1].body)


def said(body: Mapping[str, Any]) -> list[str]:
    """Give the last text of each message of the user."""
    messages = [one["content"] for one in body["messages"] if one["role"] == "user"]
    return [one if isinstance(one, str) else one[-1].get("text", "") for one in messages]


def ask(caller: Caller, prompt: str, *words: str) -> str:
    """Have one answer, and give the conversation's id."""
    done = caller("run", "--prompt", prompt, "--output-format", "json", *words)
    assert (done.code, done.said) == (0, ""), done.said
    return str(json.loads(done.stdout)["session_id"])


def test_a_new_sandbox_remembers(synced: Caller, model: Callable[..., ScriptedModel]) -> None:
    """The last conversation, or one by its id, goes on where it stopped."""
    scripted = model()
    caller = synced.having(ANTHROPIC_BASE_URL=scripted.url)

    first = ask(caller, "My number is 4711.")
    ask(caller, "My word is apple.")
    ask(caller, "What is my word?", "--continue")
    assert remembered(scripted) == ["My word is apple.", "What is my word?"]
    ask(caller, "What is my number?", "--resume", first)
    assert remembered(scripted) == ["My number is 4711.", "What is my number?"]
    ask(caller, "And again?", "--", "--continue")
    assert remembered(scripted)[0] == "My number is 4711."


def test_a_conversation_at_the_terminal_is_kept(
    synced: Caller, model: Callable[..., ScriptedModel]
) -> None:
    """What was said there is known to a later run, and the other way round."""
    scripted = model(*(text(f"Answer {i}.") for i in range(5)))
    caller = synced.having(ANTHROPIC_BASE_URL=scripted.url)
    with Terminal(caller, "run") as terminal:
        assert terminal.shows("Claude Code v"), terminal.text
        terminal.type("I am at the terminal")
        assert terminal.shows("I am at the terminal"), terminal.text
        terminal.type("\r")
        assert terminal.shows("Answer 0."), terminal.text
        terminal.hang_up()
        assert terminal.code() is not None

    ask(caller, "Where am I?", "--continue")
    assert remembered(scripted) == ["I am at the terminal", "Where am I?"]
    with Terminal(caller, "run", "--continue") as terminal:
        assert terminal.shows("Where am I?"), terminal.text
        terminal.type("/exit")
        assert terminal.shows("/exit"), terminal.text
        terminal.type("\r")
        assert terminal.code() == 0, terminal.text


def test_directories_have_their_own(nddt: Caller, model: Callable[..., ScriptedModel]) -> None:
    """What was said elsewhere is not known here, nor where nothing is shared."""
    scripted = model()
    caller = nddt.having(ANTHROPIC_BASE_URL=scripted.url)
    other = nddt.directory / "other"
    other.mkdir()
    ask(caller.having(NDDT_WORKSPACE=""), "A secret of here.")

    at_other = caller.to(other).having(NDDT_WORKSPACE="")
    assert at_other("run", "--prompt", "What?", "--continue").code != 0 or remembered(scripted) == [
        "What?"
    ]
    ask(caller.having(NDDT_WORKSPACE="none", XDG_STATE_HOME=str(other)), "Nothing shared.")
    ask(
        caller.having(NDDT_WORKSPACE="none", XDG_STATE_HOME=str(other)).to(other),
        "What?",
        "--continue",
    )
    assert remembered(scripted) == ["Nothing shared.", "What?"]


def test_a_kept_sandbox_exchanges(
    synced: Caller,
    model: Callable[..., ScriptedModel],
    outside: Any,  # noqa: ANN401
) -> None:
    """What is said in it is known outside of it, and the other way round."""
    scripted = model()
    caller = synced.having(ANTHROPIC_BASE_URL=scripted.url)
    kept = caller.having(NDDT_PERSISTENT="true")
    ask(kept, "In the kept one.")
    ask(caller, "Outside.", "--continue")
    assert remembered(scripted) == ["In the kept one.", "Outside."]
    ask(kept, "Back.", "--continue")
    assert remembered(scripted) == ["In the kept one.", "Outside.", "Back."]
    for name in outside.sandboxes():
        assert kept("cleanup", "--name", name, "--yes").code == 0


@pytest.mark.parametrize("outside", ["docker"], indirect=True)
def test_from_docker_to_daytona_and_back(
    nddt: Caller, mine: Mine, model: Callable[..., ScriptedModel]
) -> None:
    """A conversation goes wherever its directory does."""
    scripted = model()
    caller = nddt.having(ANTHROPIC_BASE_URL=scripted.url)
    cloud = Daytona(mine)
    try:
        # What Daytona keeps must be the same as what Docker does.
        environ = {**cloud.environ(), "NDDT_WORKSPACE": ""}
        here = caller.having(XDG_STATE_HOME=environ["XDG_STATE_HOME"])
        there = here.having(**{**environ, "NDDT_PROVIDER": "daytona"})
        built = there("daytona.build-image", within_s=600)
        assert built.code == 0, built.said
        ask_quietly(here, "One.")
        ask_quietly(there, "Two.", "--continue")
        assert remembered(scripted) == ["One.", "Two."]
        ask_quietly(here, "Three.", "--continue")
        assert remembered(scripted) == ["One.", "Two.", "Three."]
    finally:
        cloud.close()


def ask_quietly(caller: Caller, prompt: str, *words: str) -> None:
    """Have one answer, whatever is said about the way to it."""
    done = caller("run", "--prompt", prompt, *words)
    assert done.code == 0, done.said


@pytest.mark.parametrize("outside", ["docker"], indirect=True)
def test_killed_in_between(nddt: Caller, model: Callable[..., ScriptedModel]) -> None:
    """What had been said before everything was killed is not lost."""
    scripted = model(slow_text(["very "] * 1000, 0.1), text("ok"))
    caller = nddt.having(ANTHROPIC_BASE_URL=scripted.url)
    running = caller.start("run", "--prompt", "Remember plum.")
    assert eventually(lambda: scripted.conversation)
    os.killpg(running.pid, signal.SIGKILL)
    end(running)

    ask(caller, "What?", "--continue")

    assert remembered(scripted)[0] == "Remember plum."


def _is_written(outside: Daytona, words: str) -> bool:
    """Tell whether a conversation in the only sandbox has these words, also half done."""
    look = ("sh", "-c", 'grep -rqse "$0" ~/.claude/projects', words)
    for name in outside.sandboxes():
        with suppress(LookupError):  # it is not made yet
            argv = ("docker", "exec", outside.double.container_of(name), *look)
            return subprocess.run(argv, check=False, capture_output=True).returncode == 0
    return False


@pytest.mark.parametrize("outside", ["daytona"], indirect=True)
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGALRM, 124), (signal.SIGTERM, 143)])
def test_ended_in_between(
    synced: Caller,
    outside: Daytona,
    model: Callable[..., ScriptedModel],
    signum: signal.Signals,
    code: int,
) -> None:
    """A run in the cloud that its time limit, an alarm, or a signal ends is known afterwards."""
    scripted = model(slow_text(["very "] * 1000, 0.1), text("ok"))
    caller = synced.having(ANTHROPIC_BASE_URL=scripted.url)

    with ended(caller.start("run", "--prompt", "Remember plum.", "--timeout", "3600")) as running:
        assert eventually(lambda: _is_written(outside, "Remember plum"), 60)
        running.send_signal(signum)
        done = end(running, 60)
    assert done.code == code, done.said
    ask(caller, "What?", "--continue")
    assert remembered(scripted)[0] == "Remember plum."


def hostile(tmp: Path) -> Iterator[str]:
    """Give shell words that leave traps among the conversations."""
    yield "cd ~/.claude/projects/-workspace"
    yield f"ln -s {tmp}/secret.txt {uuid.uuid4()}.jsonl"
    yield f"ln -s {tmp} linked; mkfifo fifo.jsonl; ln -s /etc/passwd x.jsonl"
    yield "mkdir -p deep; echo '{}' >deep/fine.jsonl; echo no >run.sh; echo '{}' >ok.jsonl"
    yield "echo '{}' >'-rf.jsonl'; echo '{}' >'a b.jsonl'"


@pytest.mark.parametrize("outside", ["daytona"], indirect=True)
def test_a_hostile_sandbox(synced: Caller, tmp_path: Path) -> None:
    """Links, pipes and programs stay there; plain conversations come back."""
    script = "; ".join(("mkdir -p ~/.claude/projects/-workspace", *hostile(tmp_path)))
    caller = synced.with_agent(script).having(
        ANTHROPIC_API_KEY=KEY, XDG_STATE_HOME=str(tmp_path / "state")
    )

    done = caller("run", "--prompt", "x")

    assert (done.code, done.said) == (0, ""), done.said
    (store,) = (tmp_path / "state/nddt/conversations/claude").iterdir()
    found = sorted(str(one.relative_to(store)) for one in store.rglob("*") if one.is_file())
    assert found == ["-rf.jsonl", "deep/fine.jsonl", "ok.jsonl"]
    shutil.rmtree(tmp_path / "state")


@pytest.mark.parametrize("outside", ["daytona"], indirect=True)
def test_what_cannot_come_back_is_said(synced: Caller, tmp_path: Path) -> None:
    """The run's own code stays, and one line says what is lost."""
    (tmp_path / "state/nddt").mkdir(parents=True)
    (tmp_path / "state/nddt/conversations").write_text("in the way")
    script = (
        "cd; mkdir -p .claude/projects/-workspace; echo '{}' >.claude/projects/-workspace/a.jsonl"
    )
    caller = synced.with_agent(f"{script}; exit 5").having(
        ANTHROPIC_API_KEY=KEY, XDG_STATE_HOME=str(tmp_path / "state")
    )

    done = caller("run", "--prompt", "x")

    assert done.code == 5
    assert len(done.said.splitlines()) == 1
    assert "nddt: the conversation could not be brought back: " in done.said
