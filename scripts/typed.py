"""What was typed: which tasks it means, with which options, and what is a prompt.

Nothing is run, read or asked here. A prompt costs money, so a word is one only if it has a space,
or stands behind an option that says so; what could be a mistake is an error with the next step.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from scripts.command_line import MANY, MAYBE, NOTHING, ONE, RUN, Call, Known, Typed
from scripts.errors import UsageError
from scripts.naming import said

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWING = {
    "--help": "help",
    "-h": "help",
    "help": "help",
    "--list": "list",
    "-l": "list",
    "--version": "version",
    "-V": "version",
    "-v": "version",
}


def read(words: Sequence[str], known: Known, *, has_rest: bool = False) -> Typed:
    """Read a command line.

    Args:
        words: What was typed before the first `--`.
        known: What can be typed.
        has_rest: Whether there was such a `--`: what follows it is the agent's.

    Raises:
        UsageError: It is not understood, or could be a mistake that costs something.
    """
    reader = _Reader(list(words), known)
    typed = reader.read()
    if has_rest and not typed.shows and RUN in known.tasks:
        if not typed.calls:
            typed.calls.append(Call(task=RUN, is_typed=False))
        if all(one.task != RUN for one in typed.calls):
            last = typed.calls[-1].task
            raise UsageError(
                f"what follows -- is for the agent, which {last} does not start",
                f"see: {said(f'{last} --help')}",
            )
    return typed


def _is_prompt(word: str) -> bool:
    return len(word.split()) != 1 or word != word.strip()


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not _is_prompt(word.partition("=")[0])


class _Reader:
    def __init__(self, words: list[str], known: Known) -> None:
        self.all, self.known, self.left = tuple(words), known, words
        self.typed = Typed()

    @property
    def call(self) -> Call | None:
        return self.typed.calls[-1] if self.typed.calls else None

    def read(self) -> Typed:
        """Read all words, or those up to what is to be shown."""
        while self.left and not self.typed.shows:
            word = self.left.pop(0)
            name, _, value = word.partition("=")
            if name in _SHOWING and (_is_option(word) or not self.call):
                self.left[:0] = [value] if value else []
                self._show(_SHOWING[name])
            elif word == "--dry":
                self.typed.dry = True
            elif _is_option(word):
                self._option(word)
            else:
                self._word(word)
        for one in () if self.typed.shows else self.typed.calls:
            lacking = self.known.places.get(one.task, ())[len(one.places) :]
            if lacking:
                text = f"{one.task} needs {' and '.join(map(str.upper, lacking))}"
                raise UsageError(text, _see(one.task))
        return self.typed

    # -- what is shown instead ------------------------------------------------------------------

    def _show(self, what: str) -> None:
        self.typed.shows = what
        rest = [one for one in self.left if not _is_option(one)]
        if what != "version" and rest and not self.call:
            self.typed.about = self._task_of(rest) or rest[0]
            if self.typed.about not in {*self.known.tasks, *self.known.groups}:
                raise self._no_task(rest[0])
        elif self.call:
            self.typed.about = self.call.task

    def _task_of(self, words: list[str]) -> str:
        """Take `GROUP TASK` for GROUP.TASK, unless the second is a task by itself."""
        first, second = (*words, "", "")[:2]
        joined = f"{first}.{second}"
        if joined in self.known.tasks and second not in self.known.tasks:
            return joined
        return first if first in self.known.tasks else ""

    # -- options --------------------------------------------------------------------------------

    def _option(self, word: str) -> None:
        call = self.call
        name, is_joined, value = word.partition("=")
        if call is None:
            if not self._of_run(name):
                raise UsageError(f"no idea what {name!r} is", f"see: {said('--help')}")
            call = Call(task=RUN, is_typed=False)
            self.typed.calls.append(call)
        takes = self.known.tasks[call.task].get(name)
        if takes is None and call.task == RUN:
            return self._option_of_agent(call, word)
        if takes is None:
            raise UsageError(f"no idea what {name!r} is", _see(call.task))
        if takes == NOTHING and is_joined:
            raise UsageError(f"{name} takes no value", _see(call.task))
        if takes == ONE and not is_joined:
            if call.task == RUN and self._may_lack_its_value(name):
                call.agent.append(name)
                return None
            if not self.left:
                raise UsageError(f"{name} needs a value", _see(call.task))
            value = self.left.pop(0)
        self._note(call, name, None if takes == NOTHING else value, is_joined=bool(is_joined))
        return None

    def _note(self, call: Call, name: str, value: str | None, *, is_joined: bool) -> None:
        call.options.append((name, value))
        if name == "--prompt" and call.task == RUN and value is not None:
            if call.prompt is not None:
                raise UsageError("a prompt is one argument", f"quote all of it: {said(_QUOTED)}")
            call.prompt = None if is_joined or _is_prompt(value) else value

    def _of_run(self, name: str) -> bool:
        words = self.known.agent() if name not in self.known.tasks.get(RUN, {}) else None
        return words is None or name in words.options or name in words.same

    def _may_lack_its_value(self, name: str) -> bool:
        """Tell whether an option of run's is the agent's, too, and stands here without a value."""
        if self.left and not _is_option(self.left[0]) and not _is_prompt(self.left[0]):
            return False
        return self.known.agent().options.get(name) == MAYBE

    def _option_of_agent(self, call: Call, word: str) -> None:
        name, is_joined, value = word.partition("=")
        words = self.known.agent()
        if name in words.same:
            self.left.insert(0, words.same[name] + is_joined + value)
            return
        takes = words.options.get(name)
        if takes is None:
            how = f"an option of the agent's own stands after --; see: {said('run --help')}"
            raise UsageError(f"no idea what {name!r} is", how)
        call.agent.append(word)
        if is_joined or takes == NOTHING:
            if name in words.before_prompt and self.left and self._is_free(call, self.left[0]):
                self._note(call, "--prompt", self.left.pop(0), is_joined=False)
            return
        if takes in {ONE, MANY}:
            if not self.left:
                raise UsageError(f"{name} needs a value", _see(RUN))
            call.agent.append(self.left.pop(0))
        more = {MANY: len(self.left), MAYBE: 1}.get(takes, 0)
        while self.left and more and self._is_value(self.left[0]):
            call.agent.append(self.left.pop(0))
            more -= 1

    def _is_free(self, call: Call, word: str) -> bool:
        return call.prompt is None and not _is_option(word) and not _is_prompt(word)

    def _is_value(self, word: str) -> bool:
        """Tell whether a word goes on with an option's values: `Edit`, `Bash(git log:*)`."""
        if _is_option(word) or word in self.known.tasks:
            return False
        head, opens, rest = word.partition("(")
        return not _is_prompt(head if opens and rest.endswith(")") else word)

    # -- words ----------------------------------------------------------------------------------

    def _word(self, word: str) -> None:
        call = self.call
        if call and len(call.places) < len(self.known.places.get(call.task, ())):
            call.places.append(word)
        elif call and call.task == RUN:
            self._word_after_run(call, word)
        elif call is None and _is_prompt(word) and RUN in self.known.tasks:
            self.typed.calls.append(Call(task=RUN, is_typed=False))
            self._as_prompt(self.typed.calls[-1], word)
        else:
            self._as_task(word)

    def _as_prompt(self, call: Call, word: str) -> None:
        if any(name == "--prompt" for name, _ in call.options):
            raise UsageError("a prompt is one argument", f"quote all of it: {said(_QUOTED)}")
        call.options.append(("--prompt", word))
        call.prompt = word

    def _as_task(self, word: str) -> None:
        task = self._task_of([word, *self.left])
        if not task:
            raise self._no_task(word)
        if task != word:
            self.left.pop(0)
        self.typed.calls.append(Call(task=task))

    def _word_after_run(self, call: Call, word: str) -> None:
        if _is_prompt(word):
            self._as_prompt(call, word)
            return
        task = self._task_of([word, *self.left])
        if call.prompt is not None:
            raise self._follows(call.prompt, word, task)
        if task == RUN and not call.is_typed:
            call.is_typed = True
        elif task and call.is_typed:
            self._as_task(word)
        elif task:
            options = " ".join(self.all[: self.all.index(word)])
            how = f"{_as_prompt(word)}; the task: {said(f'{task} {options}')}"
            raise UsageError(f"options stand after their task, which {word} could be", how)
        else:
            raise self._no_task(word)

    # -- mistakes -------------------------------------------------------------------------------

    def _follows(self, prompt: str, word: str, task: str) -> UsageError:
        rest = [word, *(one for one in self.left if not _is_option(one))]
        whole = said(f"run --prompt {shlex.quote(' '.join((prompt, *rest)))}")
        how = f"quote all of it: {whole}"
        if task:
            how += f"; {word} after it: {said(f'run --prompt={shlex.quote(prompt)} {task}')}"
        return UsageError(f"a prompt is one argument, and {word} follows it", how)

    def _no_task(self, word: str) -> UsageError:
        if _is_prompt(word) and self.call:
            how = f"{_as_prompt(word)}; options of {self.call.task}: {said(f'{self.call.task} -h')}"
            return UsageError(f"{self.call.task} takes no prompt", how)
        whole = " ".join(one for one in self.all if not _is_option(one))
        how = _as_prompt(whole)
        if word in self.known.groups:
            inside = f"{word}.{self.left[0]}" if self.left else ""
            if inside in self.known.tasks:
                return UsageError(
                    f"{' '.join(inside.split('.'))} is {inside}", f"type {said(inside)}"
                )
            return UsageError(f"{word} is a group of tasks: {said(f'--list {word}')}", how)
        near = self.known.nearest(word)
        question = f"; did you mean {near}?" if near else ""
        return UsageError(f"{word} is no task{question}", f"{how}; all tasks: {said('--list')}")


_QUOTED = "run --prompt '…'"


def _see(task: str) -> str:
    return f"see: {said(f'{task} --help')}"


def _as_prompt(text: str) -> str:
    return f"to send it as a prompt: {said(f'run --prompt {shlex.quote(text)}')}"
