"""What a sandbox reaches, and what reaches it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scripts.brings import ports
from scripts.errors import UnavailableError, UsageError
from scripts.machine import audit, console
from scripts.network import fence
from scripts.run import connections
from scripts.run.work import wanted
from scripts.settings import parsing

if TYPE_CHECKING:
    from scripts.commands.common import Common

log = logging.getLogger("nddt")


def _port(text: str) -> int:
    try:
        return parsing.port(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no port", f"it is {error}") from error


def show_ports(common: Common, *, add: str | None, remove: str | None, browse: str | None) -> None:
    """Print which ports of a sandbox are open and what listens, or open or close one."""
    numbers = [_port(text) for text in (add, remove, browse) if text is not None]
    if len(numbers) > 1:
        raise UsageError("--add, --remove and --open exclude each other", "give one of them")
    work = common.work()
    want = wanted(work)
    connection = connections.existing(work, want, start=False)
    if not numbers:
        openings = ports.of(work.environ, work.key(want.name))
        found = ports.listening(connection, work.provider.LISTENERS)
        print(console.table(ports.table(openings, found)))
        return
    there = (work.environ, work.key(want.name), connection, numbers[0])
    if remove is not None:
        one = ports.close_port(*there)
    else:
        one = ports.open_port(*there, start=work.settings.port_range_start)
    print(one.url)
    if browse is not None:
        import webbrowser  # noqa: PLC0415  (only for this)

        if not webbrowser.open(one.url):
            raise UnavailableError("there is no browser here", f"open {one.url} yourself")


def show_network(common: Common, *, allowed: bool) -> None:
    """Print what the directory's sandboxes were refused, or what they may reach."""
    loaded = common.work().settings
    print(console.table(fence.allowed(loaded) if allowed else fence.blocked(loaded)))


def allow(common: Common, host: str) -> None:
    """Allow a host to the directory's sandboxes, also to those that run, and print it."""
    loaded = common.work().settings
    if loaded.network == "open":
        log.warning("NDDT_NETWORK is open: all hosts are reached anyway")
    audit.note(host=host)
    print(fence.allow(loaded, host))


def deny(common: Common, host: str) -> None:
    """Take back what `allow` has allowed, and print it."""
    audit.note(host=host)
    print(fence.deny(common.work().settings, host))
