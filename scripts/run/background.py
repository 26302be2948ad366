"""What runs on this machine while a session does."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@contextmanager
def running(services: Iterable[Callable[[], AbstractContextManager[object]]]) -> Iterator[None]:
    """Start these services in their order; at the block's end stop them, the last one first."""
    with ExitStack() as stack:
        for start in services:
            stack.enter_context(start())
        yield
