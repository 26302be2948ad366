"""Tasks as nddt has them: their failures end a command, and `--dry` stops them."""

from __future__ import annotations

import importlib.util
import os
import resource
import select
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from invoke.exceptions import Exit
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from scripts.errors import EndedBySignalError, NddtError
from scripts.machine import audit, console
from scripts.machine.console import is_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType


def _forbid_core_dumps() -> None:
    """Leave no image of memory if we or our programs crash: it would be where the agent is.

    It is written to the current directory, which the sandbox may see, and holds keys.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


class NddtTask(Task["Callable[..., Any]"]):
    """A task whose failures end the whole command with their exit code.

    Its body returns None or 0 to go on, or an exit code to stop with. With `--dry` it is not run
    at all, unless the task says that it `plans`: then the body itself changes nothing. One that
    `tidies` runs also after a task that has failed.
    Tasks are equal only if they are one object: invoke compares code, and of two tasks made
    by one function (`ONE.cleanup OTHER.cleanup`) it would run only the first.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401  (invoke's own)
        plans: bool = False,
        tidies: bool = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self.plans, self.tidies = plans, tidies

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, D102  (invoke's own)
        _forbid_core_dumps()
        if args[0].config.run.dry and not self.plans:
            console.complain(f"nddt: not done (--dry): {self.__doc__}")
            return None
        try:
            name = self.name.replace("_", "-")
            with quiet_if_nobody_reads(), audit.recorded(name) as record:
                result = super().__call__(*args, **kwargs)
                if isinstance(result, int):
                    record.code = result
        except (NddtError, EndedBySignalError) as error:
            raise Exit(str(error), code=error.exit_code) from error
        except KeyboardInterrupt:
            if is_terminal(2):
                sys.stderr.write("\n")  # the shell's prompt would stand beside the ^C
            raise Exit(code=130) from None
        if isinstance(result, int) and not isinstance(result, bool) and result != 0:
            raise Exit(code=result)
        return result


class OwnTask(NddtTask):
    """A task about nddt itself, for its own repository alone."""


@overload
def task(body: Callable[..., object], /) -> NddtTask: ...
@overload
def task(**options: Any) -> Callable[[Callable[..., object]], NddtTask]: ...  # noqa: ANN401
def task(*body: Any, **options: Any) -> Any:
    """Make a task; takes the options of invoke's decorator, `plans` and `tidies`.

    No short flags: they would depend on the order of the parameters.
    """
    return invoke_task(*body, **{"klass": NddtTask, "auto_shortflags": False, **options})


def lazy(name: str) -> ModuleType:
    """Import a module when it is first used: `--list` and completion do without."""
    if name in sys.modules:
        return sys.modules[name]
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


@contextmanager
def quiet_if_nobody_reads() -> Iterator[None]:
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
