"""Run a double by hand until it is interrupted."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING

from tests.daytona_double import DaytonaDouble

if TYPE_CHECKING:
    from tests.daytona_double import Request


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.daytona_double", description=__doc__)
    parser.add_argument("--latency", type=float, default=0, help="wait before answers, in ms")
    parser.add_argument("--minute", type=float, default=60, help="a platform minute, in seconds")
    parser.add_argument("--list-lag", type=float, default=0, help="how late lists are, in seconds")
    parser.add_argument("--version", choices=("0.226", "0.190"), default="0.226")
    parser.add_argument("--port", type=int, default=0, help="the API's port; 0 for any")
    return parser.parse_args()


def _show(request: Request) -> None:
    print(f"{request.status or '---'} {request.line}", file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Print what to export, and a line for each request, until Ctrl-C or SIGTERM."""
    options = _options()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with DaytonaDouble(
        latency_s=options.latency / 1000,
        minute_s=options.minute,
        list_lag_s=options.list_lag,
        version=options.version,
        port=options.port,
        label="by-hand",
        listener=_show,
    ) as double:
        for name, value in double.environ.items():
            print(f"export {name}={value}", flush=True)  # noqa: T201  # a shell evaluates it
        ended.wait()


if __name__ == "__main__":
    main()
