"""Where nddt meets invoke: our Task class, exact arguments, and the program behind ./nddt."""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import select
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from invoke.exceptions import Exit, ParseError
from invoke.loader import FilesystemLoader
from invoke.program import Program
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from scripts import __version__, audit
from scripts.console import is_terminal, printable
from scripts.errors import EndedBySignalError, NddtError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from types import ModuleType

_ROOT = str(Path(__file__).resolve().parent.parent)


def _forbid_core_dumps() -> None:
    """Leave no image of memory if we or our programs crash: it would be where the agent is.

    It is written to the current directory, which the sandbox may see, and holds keys.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


class NddtTask(Task["Callable[..., Any]"]):
    """A task whose failures end the whole command with their exit code.

    Its body returns None or 0 to go on, or an exit code to stop with.
    Tasks are equal only if they are one object: invoke compares code, and of two tasks made
    by one function (`docker.cleanup daytona.cleanup`) it would run only the first.
    """

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, D102  (invoke's own)
        _forbid_core_dumps()
        try:
            name = self.name.replace("_", "-")
            with _quiet_if_nobody_reads(), audit.recorded(name) as record:
                result = super().__call__(*args, **kwargs)
                if isinstance(result, int):
                    record.code = result
        except (NddtError, EndedBySignalError) as error:
            raise Exit(printable(str(error)), code=error.exit_code) from error
        except KeyboardInterrupt:
            if is_terminal(2):
                sys.stderr.write("\n")  # the shell's prompt would stand beside the ^C
            raise Exit(code=130) from None
        if isinstance(result, int) and not isinstance(result, bool) and result != 0:
            raise Exit(code=result)
        return result


@overload
def task(body: Callable[..., object], /) -> NddtTask: ...
@overload
def task(**options: Any) -> Callable[[Callable[..., object]], NddtTask]: ...  # noqa: ANN401
def task(*body: Any, **options: Any) -> Any:
    """Make a task; takes the options of invoke's decorator.

    No short flags: they would depend on the order of the parameters.
    """
    return invoke_task(*body, klass=NddtTask, auto_shortflags=False, **options)


def lazy(name: str) -> ModuleType:
    """Import a module when it is first used: `inv --list` and completion do without."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def remainder(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the exact arguments after the first `--`; invoke joins them by spaces."""
    words = tuple(argv)
    return words[words.index("--") + 1 :] if "--" in words else ()


def main(argv: Sequence[str]) -> None:
    """Run the tasks of this repository, as `inv` with these arguments would."""
    sys.argv = ["nddt", *argv]
    program = _NddtProgram(__version__, name="nddt", binary="nddt", loader_class=_OwnTasks)
    try:
        with _quiet_if_nobody_reads():
            program.run()
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # of which invoke makes a 1
            sys.exit(130)
        raise


class _OwnTasks(FilesystemLoader):
    """Finds the tasks beside this package, wherever the caller is."""

    def __init__(self, start: str | None = None, **options: Any) -> None:  # noqa: ANN401
        super().__init__(start or _ROOT, **options)


class _NddtProgram(Program):
    """Like `inv`, but takes a first word that is no task as a prompt."""

    def load_collection(self) -> None:
        sys.dont_write_bytecode = False  # inv would compile our modules anew each time
        super().load_collection()

    def parse_tasks(self) -> None:
        names = self.collection.task_names
        known = set(names).union(*names.values())
        try:
            words = in_group(self.core.unparsed, known)
            if len(words) == 2 and words[0] in known and words[1] in {"--help", "-h"}:
                # Where a task has an argument, invoke takes it for that.
                self.args.help.value, words = words[0], []
            self.core.unparsed[:] = with_prompt(words, known, self.collection.collections)
            super().parse_tasks()
        except (UsageError, ParseError) as error:
            mistake = _mistake(error) if isinstance(error, ParseError) else error
            raise Exit(str(mistake), code=mistake.exit_code) from error


def _mistake(error: ParseError) -> UsageError:
    """Say what invoke's parser did not understand, and where one finds what it would."""
    said = str(error).rstrip("!.")
    lacking = re.match(r"Flag <Argument: (\w+).* needed value", said)
    if lacking:
        said = f"--{lacking[1].replace('_', '-')} needs a value"
    name = error.context.name if error.context else None
    look = f"./nddt {name} --help" if name else "./nddt --list"
    return UsageError(said[:1].lower() + said[1:], f"see: {look}")


def in_group(words: list[str], tasks: Collection[str]) -> list[str]:
    """Take `GROUP TASK …` for `GROUP.TASK …`, unless the second word is a task by itself."""
    if len(words) > 1 and words[1] not in tasks and f"{words[0]}.{words[1]}" in tasks:
        return [f"{words[0]}.{words[1]}", *words[2:]]
    return words


def with_prompt(words: list[str], tasks: Collection[str], groups: Collection[str]) -> list[str]:
    """Turn `WORD …` into `run --prompt WORD …`, unless the word is a task or an option.

    Raises:
        UsageError: The word looks like a mistake, not like a prompt.
    """
    if not words or words[0] in tasks or words[0].startswith("-") or "run" not in tasks:
        return words
    word = words[0]
    as_prompt = f"to send it as a prompt: ./nddt run --prompt {shlex.quote(word)}"
    if word in groups:
        raise UsageError(f"{word} is a group of tasks: ./nddt --list {word}", as_prompt)
    if len(word.split()) == 1:
        import difflib  # noqa: PLC0415  (only for mistakes)

        similar = difflib.get_close_matches(word, tasks, n=1, cutoff=0.8)
        if similar:
            raise UsageError(f"{word} is no task; did you mean {similar[0]}?", as_prompt)
    if len(words) > 1 and words[1] not in tasks and not words[1].startswith("-"):
        ends = (i for i, other in enumerate(words) if other.startswith("-"))
        prompt = " ".join(words[: next(ends, len(words))])
        raise UsageError("a prompt is one argument", f"quote it: ./nddt {shlex.quote(prompt)}")
    return ["run", "--prompt", *words]


@contextmanager
def _quiet_if_nobody_reads() -> Iterator[None]:
    """End without a traceback when stdout's reader has gone away (`… | head`)."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # it is, if the caller closed it
                sys.stdout.flush()
    except BrokenPipeError:
        poll = select.poll()
        poll.register(1, 0)
        if not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
            raise  # another pipe broke
        # Python flushes what is left at its end, which would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
