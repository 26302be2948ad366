"""Images and sandboxes: made, listed, started, stopped, removed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scripts.commands.common import Common, make_plan
from scripts.contracts.agent import Request
from scripts.keyless import remotes
from scripts.run import consent, housekeeping, images, sandboxes, workflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.contracts.sandbox import Sandbox
    from scripts.run.work import Work


def build_image(common: Common) -> None:
    """Build the image, and print its name."""
    work = common.work()
    made = make_plan(work, Request(), command=("true",))
    print(made.image(made.version) if common.dry else images.build_image(work, made))


def create_sandbox(common: Common) -> None:
    """Make the directory's sandbox, running, and print its name."""
    work = replace(common, persistent=True).work()
    made = make_plan(work, Request(), command=("true",))
    consent.ask_for_consent(work)
    if common.dry:
        print(made.describe())
        return
    remotes.note_first_use(work.settings)
    print(sandboxes.create_sandbox(work, made))
    workflow.begin_to_watch(work, made)


def list_sandboxes(common: Common, *, all_owners: bool, as_json: bool) -> None:
    """Print the sandboxes."""
    print(housekeeping.listing(common.work(), all_owners=all_owners, as_json=as_json))


def _with_one(common: Common, act: Callable[[Work, Sandbox], str]) -> None:
    work = common.work()
    name = housekeeping.this_name(work)
    print(name if common.dry else act(work, sandboxes.existing(work, name)))


def start(common: Common) -> None:
    """Start a sandbox, and print its name."""
    _with_one(common, housekeeping.start_and_tell)


def stop(common: Common) -> None:
    """Stop a sandbox, and print its name."""
    _with_one(common, housekeeping.stop_and_tell)


def clean_up(
    common: Common, *, everything: bool, older_than: str | None, images: bool, discard: bool
) -> None:
    """Remove sandboxes, and print the name of each."""
    limit_s = housekeeping.seconds(older_than) if older_than else 0
    work = common.work()
    chosen = housekeeping.chosen(
        work, everything=everything, name=common.name, older_than_s=limit_s
    )
    if common.dry:
        for one in chosen:
            print(one.name)
        return
    housekeeping.clean_up(work, chosen, images=images, discard=discard, report=print)
