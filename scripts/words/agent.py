"""Run the agent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from scripts.cli import lazy, remainder, task
from scripts.words.options import dry, help_, several

if TYPE_CHECKING:
    from invoke.context import Context

    from scripts.commands import common as common_commands
    from scripts.commands import run as run_commands
else:
    common_commands = lazy("scripts.commands.common")
    run_commands = lazy("scripts.commands.run")


@task(
    plans=True,
    iterable=["mount"],
    help=help_(
        "provider",
        "name",
        "persistent",
        "timeout",
        "ports",
        "mount",
        "profile",
        "keyless",
        "demo",
        "yes",
        "verbose",
        prompt="What the agent is to do.",
        **{
            "prompt-file": "File with the prompt; - for stdin.",
            "agent-args": "More arguments for the agent, quoted as in a shell; or after --.",
            "continue": "Go on with the directory's last conversation.",
            "output-format": "text, json or stream-json; default text.",
            "yolo": "Let the agent do all without asking for permission.",
        },
        model="Model, such as opus; default: the agent's.",
        resume="Id of the conversation to go on with.",
    ),
)
def run(
    c: Context,
    prompt: str | None = None,
    prompt_file: str | None = None,
    model: str | None = None,
    continue_: bool = False,
    resume: str | None = None,
    yolo: bool = False,
    output_format: str | None = None,
    agent_args: str | None = None,
    name: str | None = None,
    persistent: bool = False,
    provider: str | None = None,
    timeout: str | None = None,
    ports: str | None = None,
    mount: list[str] | None = None,
    profile: str | None = None,
    keyless: bool = False,
    demo: bool = False,
    yes: bool = False,
    verbose: bool = False,
) -> int:
    """Run the agent in a sandbox; --dry only shows the plan."""
    common = common_commands.Common(
        provider=provider,
        name=name,
        persistent=persistent,
        timeout=timeout,
        ports=ports,
        mounts=several(mount),
        profile=profile,
        keyless=keyless,
        yes=yes,
        verbose=verbose,
        dry=dry(c),
    )
    asked = run_commands.Asked(
        prompt=prompt,
        prompt_file=prompt_file,
        model=model,
        resume=resume,
        resume_last=continue_,
        yolo=yolo,
        output_format=output_format,
        agent_args=agent_args,
        arguments=remainder(sys.argv),
        demo=demo,
    )
    return run_commands.run(common, asked)
