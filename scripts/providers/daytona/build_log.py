"""The log of a build at Daytona, which is read beside the waiting for its end."""

from __future__ import annotations

import contextlib
import http.client
import logging
from threading import Event, Thread
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from scripts.providers.daytona.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger("nddt")

REST_S = 4
"""How long the rest of the log may take after the build's end."""


@contextlib.contextmanager
def followed(
    look_up: Callable[[], str], headers: Mapping[str, str], show: Callable[[str], None]
) -> Iterator[None]:
    """Show the lines of a log as they come, until the block's end and a little longer.

    A log that cannot be read is no reason for a build to fail.

    Args:
        look_up: Asks for its address, at which it is all there when the build has ended.
        headers: What lets us read it. Where the address leads elsewhere, they stay behind.
        show: Called with each line, in another thread.
    """
    is_over = Event()

    def read() -> None:
        try:
            for line in _lines(look_up(), headers):
                if is_over.is_set():
                    return
                show(line)
        except (OSError, ValueError, http.client.HTTPException, Refusal) as error:
            if not is_over.is_set():
                log.warning("the log of the build cannot be read: %s", error)

    reader = Thread(target=read, daemon=True)  # nothing ends its wait for a silent builder
    reader.start()
    try:
        yield
        reader.join(REST_S)
    finally:
        is_over.set()


def _lines(url: str, headers: Mapping[str, str]) -> Iterator[str]:
    """Read an address line by line, by the proxies and certificates of the environment."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"its address is {url[:100]!r}")
    request = Request(f"{url}?follow=true")  # noqa: S310  (looked at above)
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    with urlopen(request) as answer:  # noqa: S310
        for line in answer:
            yield from line.decode("utf-8", "replace").splitlines()
