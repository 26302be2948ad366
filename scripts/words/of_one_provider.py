"""Tasks that one provider alone has: made from what its module says of them."""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

from scripts import providers
from scripts.cli import NddtTask, lazy, task
from scripts.words.options import common_options, help_

if TYPE_CHECKING:
    from invoke.context import Context

    from scripts.commands import own_tasks
    from scripts.contracts.action import Action
else:
    own_tasks = lazy("scripts.commands.own_tasks")


def tasks_of(provider: str) -> tuple[NddtTask, ...]:
    """Make a provider's own tasks."""
    return tuple(_task(provider, one) for one in providers.get(provider).ACTIONS)


def _task(provider: str, action: Action) -> NddtTask:
    def body(c: Context, **given: Any) -> None:  # noqa: ANN401  (each option's)
        usual = (given.get("name"), bool(given.get("yes")), bool(given["verbose"]))
        options = {name: given[name] for name in action.options}
        own_tasks.act(common_options(provider, c, *usual), action, options)

    usual: dict[str, str | bool | None] = {"name": None} if action.about else {}
    usual |= {"yes": False} if action.asks else {}
    usual |= {"verbose": False}
    own = {name: one.default for name, one in action.options.items()}
    parameters = [Parameter("c", Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, default in (own | usual).items()
    ]
    body.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    body.__doc__ = action.text
    explained = {name: one.help for name, one in action.options.items()}
    made: NddtTask = task(name=action.name, help=help_(*usual, **explained))(body)
    return made
