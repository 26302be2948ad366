"""All tasks: `nddt --list`. The words are in scripts/words, what they do in scripts/commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.collection import Collection

from scripts import providers
from scripts.words import agent, development, here, inside, of_one_provider, sandboxes

if TYPE_CHECKING:
    from scripts.cli import NddtTask


def _of(provider: str | None) -> dict[str, NddtTask]:
    return sandboxes.tasks_of(provider) | inside.tasks_of(provider)


def _namespace() -> Collection:
    root = Collection(
        agent.run,
        here.protected,
        here.ssh_config,
        here.setup,
        here.trust,
        here.config,
        development.lint,
        development.bench,
    )
    tests = Collection(
        "test",
        development.all_,
        development.daytona_double,
        development.hostile,
        development.journeys,
    )
    tests.add_task(development.quick, name="quick", default=True)
    root.add_collection(tests)
    reach = Collection("network", here.allow, here.deny)
    reach.add_task(here.network, name="show", default=True)
    root.add_collection(reach)
    for name in (
        "attach",
        "shell",
        "ports",
        "cp",
        "push",
        "pull",
        "diff",
        "list",
        "stop",
        "cleanup",
    ):
        root.add_task(_of(None)[name])
    for name in providers.NAMES:
        own = of_one_provider.tasks_of(name)
        root.add_collection(Collection(name, *_of(name).values(), *own))
    return root


ns = _namespace()
