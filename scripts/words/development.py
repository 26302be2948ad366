"""Tasks for who works on nddt itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scripts.cli import OwnTask, lazy, task
from scripts.words.options import help_

if TYPE_CHECKING:
    from invoke.context import Context

    from scripts.dev import development
else:
    development = lazy("scripts.dev.development")


own_task = partial(task, klass=OwnTask)
_TESTS = help_("yes", only="Run only tests whose names match, such as 'ssh and not slow'.")


@own_task(help=_TESTS)
def quick(c: Context, only: str | None = None, yes: bool = False) -> int:
    """Run all checks, and tests that try each promise."""
    return development.test(only=only, yes=yes, exhaustive=False)


@own_task(name="all", help=_TESTS)
def all_(c: Context, only: str | None = None, yes: bool = False) -> int:
    """Run all checks and all tests."""
    return development.test(only=only, yes=yes, exhaustive=True)


@own_task(
    help={
        "latency": "Milliseconds before each answer; default 0.",
        "minute": "Seconds that a minute of the platform's lasts; default 60.",
    }
)
def daytona_double(c: Context, latency: str = "0", minute: str = "60") -> int:
    """Run a double of Daytona, and print what to export."""
    return development.daytona_double(latency=latency, minute=minute)


@own_task(
    help={
        "seed": "What the hostile programs do follows from it; default 12.",
        "minutes": "How long it is good or goes on; default 60, or 10 for tests.",
        **help_("yes"),
    }
)
def hostile(c: Context, seed: str = "12", minutes: str = "10", yes: bool = False) -> int:
    """Work with a directory that hostile sandboxes change."""
    return development.hostile(seed=seed, minutes=minutes, yes=yes)


@own_task(help=help_("yes"))
def journeys(c: Context, yes: bool = False) -> int:
    """Draw the way of a run through the rooms in CONTRIBUTING."""
    return development.journeys(yes=yes)


@own_task(
    help={
        "rooms": "Print what is in each room of the code, and what it imports, instead.",
        "docs": "Write what docs/settings.md has from the code, instead.",
    }
)
def lint(c: Context, rooms: bool = False, docs: bool = False) -> int:
    """Check style, types, import rules and the tasks."""
    if rooms:
        development.show_rooms()
        return 0
    if docs:
        development.write_documents()
        return 0
    return development.lint()


@own_task(help={"runs": "Measurements of each kind; default 10.", **help_("json", "yes")})
def bench(c: Context, runs: str = "10", json: bool = False, yes: bool = False) -> None:
    """Measure against docker and invoke by hand, side by side."""
    development.bench(runs=runs, as_json=json, yes=yes)
