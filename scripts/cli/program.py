"""The program behind ./nddt: what was typed, as tasks of invoke's, and the help that it shows."""

from __future__ import annotations

import copy
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit
from invoke.executor import Executor
from invoke.loader import FilesystemLoader
from invoke.parser.parser import ParseResult
from invoke.program import Program

from scripts import __version__, help_text, naming, typed
from scripts.cli.tasks import OwnTask, quiet_if_nobody_reads
from scripts.command_line import NOTHING, ONE, RUN, Call, Known, Typed, Words
from scripts.errors import EndedBySignalError, UsageError
from scripts.machine import console
from scripts.machine.console import is_terminal
from scripts.naming import said

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from invoke.parser.argument import Argument
    from invoke.parser.context import ParserContext
    from invoke.tasks import Task
    from invoke.vendor.lexicon import Lexicon

_ROOT = str(Path(__file__).resolve().parents[2])


def main(argv: Sequence[str], typed: str = naming.PROGRAM) -> None:
    """Run the tasks of this repository.

    Args:
        argv: Tasks and their arguments.
        typed: The launcher, as the user named it; messages do so, too.
    """
    sys.argv = [typed, *argv]
    program = _NddtProgram(
        __version__, name="nddt", binary="nddt", loader_class=_OwnTasks, executor_class=_Chain
    )
    try:
        with quiet_if_nobody_reads():
            program.run()
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # of which invoke makes a 1
            sys.exit(130)
        raise


class _OwnTasks(FilesystemLoader):
    """Finds the tasks beside this package, wherever the caller is."""

    def __init__(self, start: str | None = None, **options: Any) -> None:  # noqa: ANN401
        super().__init__(start or _ROOT, **options)


class _Chain(Executor):
    """Runs tasks one after the other; after one that has failed, only those that tidy up."""

    def execute(self, *tasks: Any) -> dict[Task[Any], Any]:  # noqa: ANN401  (invoke's own)
        """Run them.

        Raises:
            Exit: One has failed; what has been said of it is not in it. Or somebody ends all.
        """
        failure: Exit | None = None
        for one in tasks:
            if failure and not getattr(self.collection[one.name], "tidies", False):
                continue
            try:
                super().execute(one)
            except Exit as error:
                cause = error.__cause__ or error.__context__
                if isinstance(cause, KeyboardInterrupt | EndedBySignalError):
                    raise
                if error.message:
                    console.complain(error.message)
                failure = failure or Exit(code=error.code)
        if failure:
            raise failure
        return {}


_CORE = {"complete", "dry", "help", "list", "print-completion-script", "version"}
"""Options of invoke's that are ours. None chooses what code is run: where a prompt is meant, there
may be somebody else's text."""


class _NddtProgram(Program):
    """Like invoke's own, but reads what was typed as `typed` does, and shows help of ours."""

    read: Typed
    """What was typed."""

    def core_args(self) -> list[Argument]:
        return [one for one in super().core_args() if one.name in _CORE]

    def task_args(self) -> list[Argument]:
        return []

    @property
    def args(self) -> Lexicon:
        """What was given, and the defaults of what cannot be given."""
        args = super().args
        for one in (*super().core_args(), *super().task_args()):
            args.setdefault(one.name, one)
        return args

    def parse_core_args(self) -> None:
        if not self._completes:
            self.argv, self._words = self.argv[:1], self.argv[1:]
        super().parse_core_args()

    @property
    def _completes(self) -> bool:
        return self.argv[1:2] in (["--complete"], ["--print-completion-script"])

    def load_collection(self) -> None:
        sys.dont_write_bytecode = False  # invoke would compile our modules anew each time
        super().load_collection()

    def parse_tasks(self) -> None:
        if self._completes:
            super().parse_tasks()
            return
        self.parser = self._make_parser()
        words = tuple(self._words)
        given = words[: words.index("--")] if "--" in words else words
        try:
            self.read = typed.read(given, self._known(), has_rest="--" in words)
            if not words:
                self._nothing_typed()
            self._check_own()
        except UsageError as error:
            raise Exit(str(error), code=error.exit_code) from error
        self.args.dry.value = self.read.dry
        self.tasks = ParseResult() if self.read.shows else self._contexts()

    def _known(self) -> Known:
        contexts = self.parser.contexts
        names = (*contexts, *(alias for one in contexts.values() for alias in one.aliases))
        return Known(
            tasks={
                name: {flag: ONE if one.takes_value else NOTHING for flag, one in flags}
                for name in names
                for flags in [contexts[name].flags.items()]
            },
            places={
                name: tuple(str(one.name) for one in contexts[name].positional_args)
                for name in names
            },
            groups=self.collection.collections,
            agent=_words_of_agents,
        )

    def _nothing_typed(self) -> None:
        """Begin a conversation at a terminal, answer what comes by a pipe, or show help."""
        if RUN in self.parser.contexts and (
            (is_terminal(0) and is_terminal(1)) or console.is_piped()
        ):
            self.read.calls.append(Call(task=RUN))
        else:
            self.read.shows = "help"

    def _check_own(self) -> None:
        """Refuse tasks about nddt itself in another project.

        Raises:
            UsageError: There is one.
        """
        with suppress(FileNotFoundError):  # it is gone, which others tell
            if self.read.shows or Path.cwd().is_relative_to(_ROOT):
                return
        for one in self.read.calls:
            if isinstance(self.collection[one.task], OwnTask):
                how = f"to send it as a prompt: {said(f'run --prompt {one.task}')}; {one.task} of "
                how += f"nddt: cd {shlex.quote(_ROOT)} && ./nddt {one.task}"
                raise UsageError(f"{one.task} is for nddt's own repository, not this one", how)

    def _contexts(self) -> ParseResult:
        found = ParseResult()
        found.extend(map(self._context, self.read.calls))
        return found

    def _context(self, call: Call) -> ParserContext:
        context: ParserContext = copy.deepcopy(self.parser.contexts[call.task])
        for argument, word in zip(context.positional_args, call.places, strict=False):
            argument.value = word
        for name, value in call.options:
            argument = context.flags[name]
            argument.set_value(True if value is None else value, cast=value is not None)
        if call.agent:
            more = context.flags["--agent-args"]
            more.value = " ".join(filter(None, (shlex.join(call.agent), more.value)))
        return context

    def parse_cleanup(self) -> None:
        if self._completes:
            super().parse_cleanup()
        elif self.read.shows:
            self._show(self.read.shows, self.read.about)
            raise Exit

    def _show(self, what: str, about: str) -> None:
        if what == "version":
            self.print_version()
        elif about and about in self.parser.contexts and what == "help":
            self._show_task(about)
        elif about:
            self._show_columns(f"Tasks of {about}", self._texts(f"{about}.").items())
        else:
            if what == "help":
                print(help_text.usage(), end="\n\n")
                self._show_columns("Examples", help_text.EXAMPLES)
            for title, rows in help_text.listed(self._texts()):
                self._show_columns(title, rows)
            if what == "help" and RUN in self.parser.contexts:
                flags = self.parser.contexts[RUN].help_tuples()
                self._show_columns("Options of run; those of the agent work, too", flags)
            print(f"One task: {said('help TASK')}")

    def _show_task(self, name: str) -> None:
        context = self.parser.contexts[name]
        places = tuple(str(one.name) for one in context.positional_args)
        print(help_text.usage(places, name), end="\n\n")
        print(f"  {self.collection[name].__doc__}", end="\n\n")
        self._show_columns("Options", context.help_tuples())

    def _show_columns(self, title: str, rows: Iterable[tuple[str, str | None]]) -> None:
        print(f"{title}:\n")
        self.print_columns([*rows] or [("none", "")])

    def _texts(self, prefix: str = "") -> dict[str, str]:
        """Explain each task; a group's by its own name, too, where that runs one of them."""
        found = {}
        for name, aliases in self.collection.task_names.items():
            if name.startswith(prefix):
                shown = f"{name} ({', '.join(aliases)})" if aliases else name
                found[shown] = (self.collection[name].__doc__ or "").splitlines()[0]
        return found


def _words_of_agents() -> Words:
    """Collect what the command lines of agents have, so that theirs are understood here."""
    from scripts import agents  # noqa: PLC0415  (only for their words)

    found = [agents.get(name) for name in reversed(agents.NAMES)]
    return Words(
        options={k: v for one in found for k, v in one.OPTIONS.items()},
        same={k: v for one in found for k, v in one.SAME.items()},
        before_prompt=[word for one in found for word in one.BEFORE_PROMPT],
    )
