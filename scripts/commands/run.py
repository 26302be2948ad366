"""Run the agent, come back to it, or run something else where it would run."""

from __future__ import annotations

import logging
import os
import shlex
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from scripts import agents, plan
from scripts.commands import demo_model
from scripts.commands.common import Common, make_plan
from scripts.contracts.agent import Agent, Request
from scripts.contracts.provisions import Provision
from scripts.errors import CredentialsError, UsageError
from scripts.machine import console, state
from scripts.naming import said
from scripts.run import collecting, consent, housekeeping, keeper, sandboxes, workflow

if TYPE_CHECKING:
    from scripts.run.work import Work

log = logging.getLogger("nddt")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `run` is asked; None means not given."""

    prompt: str | None = None
    prompt_file: str | None = None
    model: str | None = None
    resume: str | None = None
    resume_last: bool = False
    yolo: bool = False
    output_format: str | None = None
    agent_args: str | None = None
    arguments: tuple[str, ...] = ()
    """Everything after `--`."""
    demo: bool = False


def _agent_arguments(asked: Asked) -> tuple[str, ...]:
    try:
        return (*shlex.split(asked.agent_args or ""), *asked.arguments)
    except ValueError as error:
        raise UsageError(f"--agent-args cannot be read: {error}", "quote it as in a shell") from (
            error
        )


def _request(asked: Asked, agent: Agent, permissions: str) -> Request:
    """Decide between one answer and a conversation.

    Raises:
        UsageError: There is neither a prompt nor a terminal.
    """
    arguments = _agent_arguments(asked)
    if asked.prompt is not None and asked.prompt_file is not None:
        raise UsageError("--prompt and --prompt-file exclude each other", "give one of them")
    given = asked.prompt is not None or asked.prompt_file is not None
    headless = given or agent.asks_nothing(arguments) or console.is_piped()
    if asked.prompt is not None and not asked.prompt.strip() and not console.is_piped():
        raise UsageError("the prompt is empty", "say what is to be done")
    if not headless and not (console.is_terminal(0) and console.is_terminal(1)):
        raise UsageError(
            "there is no prompt, and no terminal for a conversation",
            'give --prompt "…" or --prompt-file PATH, or pipe a prompt in',
        )
    return Request(
        prompt=asked.prompt,
        headless=headless,
        model=asked.model,
        resume=asked.resume,
        resume_last=asked.resume_last,
        permissions="all" if asked.yolo else permissions,
        conversation=str(uuid.uuid4()) if headless else "",
        output_format=asked.output_format,
        arguments=arguments,
    )


def _open_prompt(path: str) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise UsageError(
            f"the prompt file {path} cannot be read: {error.strerror}", "correct --prompt-file"
        ) from error


def run(common: Common, asked: Asked) -> int:
    """Run the agent and give its exit code."""
    work = common.work()
    agent = agents.get(work.settings.agent)
    request = _request(asked, agent, work.settings.permissions)
    with ExitStack() as stack:
        stdin: IO[bytes] | None = None
        if asked.prompt_file not in {None, "-"}:
            stdin = stack.enter_context(_open_prompt(str(asked.prompt_file)))
        elif request.headless and not console.is_piped():
            # `ssh` would read a terminal that nobody means to be the agent's.
            stdin = stack.enter_context(Path(os.devnull).open("rb"))
        endpoint, services = None, Provision()
        lasts = work.settings.persistent and not request.headless
        if lasts:
            work = _as_begun(work)
        if asked.demo:
            note = demo_model.port_note(work) if lasts else None
            endpoint = stack.enter_context(demo_model.endpoint(work, note))
            services = Provision(
                background_services=(partial(demo_model.answering, endpoint, note),)
            )
        made = make_plan(work, request, terminal=not request.headless)
        url = endpoint.url if endpoint else None
        made = collecting.collect(work, made, demo_url=url, dry=common.dry).bringing(services)
        consent.ask_for_consent(work)
        if common.dry:
            print(made.describe())
            return 0
        return workflow.run(work, made, stdin=stdin)


def _keyless_note(work: Work) -> Path:
    """Name the file with the placeholder of an agent that lasts, in tmux, and has no key."""
    key = work.key(housekeeping.this_name(work))
    return state.sandbox_directory(work.environ, key) / state.PLACEHOLDER


def _as_begun(work: Work) -> Work:
    """Go on without keys in the sandbox, where a conversation without them may go on."""
    if not _keyless_note(work).exists():
        return work
    return replace(work, settings=replace(work.settings, model_access="tunnel"))


def _coming_back(work: Work) -> plan.Plan:
    """Plan to come back to an agent: it goes on as it began, with a key inside or without."""
    made = make_plan(work, Request())
    if (note := _keyless_note(work)).exists():
        kept_here = replace(work, settings=replace(work.settings, model_access="tunnel"))
        try:
            return collecting.collect(kept_here, made)
        except CredentialsError as error:
            if not keeper.find_keeper(note.parent):
                log.warning("the agent does not reach its model: %s", error.message)
    entered = replace(work, settings=replace(work.settings, model_access="env"))
    return collecting.collect(entered, made, has_begun=True)


def attach(common: Common, *, demo: bool) -> int:
    """Come back to the agent of an existing sandbox, or start it there."""
    work = replace(common, persistent=True).work()
    if not (console.is_terminal(0) and console.is_terminal(1)):
        otherwise = said('run --persistent --prompt "…"')
        raise UsageError("attach needs a terminal", f"without one: {otherwise}")
    found = sandboxes.existing(work, housekeeping.this_name(work))
    if found.mode == "ephemeral":
        raise UsageError(
            f"the agent in {found.name} belongs to the terminal that started it",
            f"look inside with: {said(f'shell --name {found.name}')}",
        )
    if not demo and not demo_model.port_note(work).exists():
        code = workflow.come_back(replace(work, as_it_is=True), _coming_back(work))
        if code is not None:
            return code
    again = replace(common, name=found.name, persistent=True)
    return run(again, Asked(demo=demo or demo_model.port_note(work).exists()))


def shell(common: Common, command: str | None) -> int:
    """Run a shell, or one command, in the directory's sandbox or in one for this alone."""
    work = common.work()
    name = housekeeping.this_name(work)
    if common.name or not work.settings.persistent:
        found = work.provider.find(work.settings, name)
        if found is not None:
            sandboxes.check_owner(work, found)
            if common.mounts:
                raise UsageError(
                    f"sandbox {name} is there, and shows what it was made with",
                    f"leave out --mount, or remove it first: {said(f'cleanup --name {name}')}",
                )
            chosen = replace(work.settings, name=name, persistent=True)
            work = replace(work, settings=chosen, as_it_is=True)
    terminal = console.is_terminal(0) and console.is_terminal(1)
    argv = ("bash", "-c", command) if command is not None else ("bash",)
    made = make_plan(work, Request(), terminal=terminal, command=argv)
    made = collecting.collect(work, made, dry=common.dry)
    consent.ask_for_consent(work)
    if common.dry:
        print(made.describe())
        return 0
    return workflow.run(work, made)
