"""A keeper and who starts it: neither waits for the other, or for a sandbox, without an end."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from scripts.errors import TransportLostError
from scripts.machine import process, running
from scripts.run import keeper, keeping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.machine.running import Started


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be less patient than with a real sandbox."""
    for module in (keeper, keeping):
        monkeypatch.setattr(module, "START_S", 1)
        monkeypatch.setattr(module, "END_S", 1)


def started(code: str) -> Started:
    """Start a program in place of a keeper."""
    words = (sys.executable, "-I", "-c", f"import os, sys, time; told = sys.stdin.read(); {code}")
    return process.spawn(words, pipes=True)


# -- who starts it --------------------------------------------------------------------------


def test_one_that_is_ready() -> None:
    """Goes on, also if it has printed more than a pipe holds."""
    code = "sys.stderr.write('x' * 1_000_000); sys.stderr.flush(); print('ready', flush=True);"
    one = started(f"{code} os.close(1); os.close(2); time.sleep(100)")
    try:
        keeper.tell(one, b"message")
        assert one.poll() is None
    finally:
        running.finish(one, 0)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("time.sleep(100)", ""),
        ("sys.stderr.write('why not'); sys.exit(74)", "why not"),
        ("sys.stdout.write('x' * 1_000_000)", ""),
        ("sys.stderr.write('because\\n'); print('no', flush=True); time.sleep(100)", "because"),
        ("os.fork() or time.sleep(4)", ""),
    ],
)
def test_one_that_is_not(code: str, why: str) -> None:
    """Is ended, and says why if it does, whoever holds its pipes."""
    one = started(code)

    with pytest.raises(TransportLostError, match="needs of this machine is not there") as caught:
        keeper.tell(one, b"message")

    assert why in caught.value.detail
    assert one.poll() is not None


# -- itself ---------------------------------------------------------------------------------


@contextmanager
def awaited() -> Iterator[int]:
    """Have a pipe for our stdout, and give its other end."""
    before = os.dup(1)
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(writer)
    try:
        yield reader
    finally:
        os.dup2(before, 1)
        os.close(before)


@pytest.mark.parametrize(
    ("said", "is_answer"),
    [
        (b"ready\n", True),
        (b"ready\nmore", True),
        (b"rea", False),
        (b"", False),
        (b"not yet\n", False),
        (b"x" * 5000, False),
    ],
)
def test_a_sandbox_that_answers_or_does_not(said: bytes, *, is_answer: bool) -> None:
    """In time, whether its session goes on or not."""
    for goes_on in (True, False):
        reader, writer = os.pipe()
        os.write(writer, said)
        if not goes_on:
            os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            with awaited() as client:
                assert keeping._await_answer(pipe, is_first=True) is is_answer
            os.close(client)
        if goes_on:
            os.close(writer)


def test_a_keeper_whom_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not wait for the sandbox either; one that has been ready is not asked for."""
    monkeypatch.setattr(keeping, "START_S", 60)
    reader, writer = os.pipe()
    began = time.monotonic()
    with os.fdopen(reader, "rb") as pipe, awaited() as client:
        os.close(client)
        assert not keeping._await_answer(pipe, is_first=True)
        assert time.monotonic() - began < 30

        threading.Timer(1.5, os.write, (writer, keeper.READY)).start()
        assert keeping._await_answer(pipe, is_first=False)
    os.close(writer)
