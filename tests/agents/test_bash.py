"""The agent that runs its prompt as a script: its command line, and what it has no use for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts.agents import bash
from scripts.contracts.agent import Request
from scripts.errors import UsageError

if TYPE_CHECKING:
    from tests.conftest import Project


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(Request(), (), id="conversation"),
        pytest.param(Request(headless=True), ("-s", "--"), id="script-on-stdin"),
        pytest.param(Request(headless=True, prompt="ls"), ("-c", "ls", "bash"), id="prompt"),
        pytest.param(Request(prompt="-x"), ("-c", "-x", "bash"), id="with-a-dash"),
        pytest.param(
            Request(headless=True, prompt="ls", arguments=("a", "-b")),
            ("-c", "ls", "bash", "a", "-b"),
            id="arguments",
        ),
        pytest.param(
            Request(headless=True, arguments=("-c", "ls")), ("-c", "ls"), id="script-among-them"
        ),
    ],
)
def test_command(request_: Request, expected: tuple[str, ...]) -> None:
    """The prompt is one word, and its arguments are `$1` and so on."""
    assert bash.command(request_, ("bash",)) == ("bash", *expected)


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        pytest.param(Request(model="opus"), "--model", id="model"),
        pytest.param(Request(resume="id"), "--resume", id="resume"),
        pytest.param(Request(resume_last=True), "--continue", id="continue"),
        pytest.param(Request(output_format="json"), "--output-format", id="format"),
    ],
)
def test_what_a_script_has_no_use_for(request_: Request, option: str) -> None:
    """Is refused by its name."""
    with pytest.raises(UsageError, match=f"{option} means nothing to bash"):
        bash.before(request_)


def test_it_is_chosen_by_its_word(project: Project) -> None:
    """As any agent; a project cannot."""
    project.write("NDDT_AGENT=bash\n")
    theirs = project.load().agent
    project.environ["NDDT_AGENT"] = "bash"

    assert (theirs, project.load().agent) == ("claude", "bash")


def test_it_has_no_other_agents_keys(project: Project) -> None:
    """Unless the user names them for the sandbox."""
    project.environ["NDDT_AGENT"] = "bash"
    project.write("NDDT_PROFILE=strict\n")
    by_default = project.load()
    project.environ["NDDT_ENV_VARS"] = "ANTHROPIC_API_KEY"

    assert by_default.env_vars == ("GH_TOKEN",)
    assert project.load().env_vars == ("ANTHROPIC_API_KEY",)
