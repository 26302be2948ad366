"""Threads in the background, which serve somebody else: no fault is a traceback on a terminal."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("nddt")


def start_thread(work: Callable[..., object], *words: object, name: str) -> threading.Thread:
    """Start one that ends with the process; what it does not expect is for `--verbose` to tell.

    Args:
        work: What it does.
        words: What that is called with.
        name: Says of whom a fault is.
    """

    def guarded() -> None:
        try:
            work(*words)
        except Exception as error:  # noqa: BLE001  (what a sandbox sends is not to show on a terminal)
            log.debug("%s broke off: %s: %s", name, type(error).__name__, error)

    thread = threading.Thread(target=guarded, daemon=True, name=name)
    thread.start()
    return thread
