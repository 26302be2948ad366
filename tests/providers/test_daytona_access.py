"""The way to a sandbox's SSH gateway, as Daytona's answer names it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from scripts.errors import CannotCreateError
from scripts.providers.daytona.access import Access


def answer(command: str, token: str = "") -> SimpleNamespace:
    """Answer a request for access as the API does."""
    return SimpleNamespace(
        ssh_command=command, token=token, expires_at=datetime.now(UTC) + timedelta(hours=1)
    )


@pytest.mark.parametrize(
    ("command", "token", "expected"),
    [
        ("ssh -p 2222 abc-_.1@ssh.a.example", "", ("abc-_.1", "ssh.a.example", 2222)),
        ("ssh abc@127.0.0.1", "t0k+/=~.x", ("t0k+/=~.x", "127.0.0.1", 22)),
        ("ssh -p 22 abc@fd00::1", "", ("abc", "fd00::1", 22)),
    ],
)
def test_what_it_names(command: str, token: str, expected: tuple[str, str, int]) -> None:
    """Token, host and port."""
    found = Access.read(answer(command, token))

    assert (found.token, found.host, found.port) == expected


@pytest.mark.parametrize(
    ("command", "token"),
    [
        ("ssh abc@gateway", "tok\n  ProxyCommand touch evil"),
        ("ssh 'abc\n  ProxyCommand touch evil@gateway'", ""),
        ("ssh 'abc@gateway\n  ProxyCommand touch evil'", ""),
        ("ssh abc@-oProxyCommand=evil", ""),
        ("ssh 'abc@gate way'", ""),
        ("ssh abc@gateway", "-x"),
        ("ssh abc@gateway", '"x'),
        ("ssh abc@gateway", "x%h"),
        ("ssh -p 22x abc@gateway", ""),
        ("ssh", ""),
    ],
)
def test_what_could_mean_more_to_ssh(command: str, token: str) -> None:
    """It is refused: what is in its configuration is run."""
    with pytest.raises(CannotCreateError, match="names no SSH gateway"):
        Access.read(answer(command, token))
