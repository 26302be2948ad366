"""Which hosts are allowed: rules, names, and addresses that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts import agents
from scripts.network import addresses
from scripts.settings import allowlist
from scripts.settings.allowlist import Allowlist, rule

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("text", ["example.org", "*.example.org", "a_b.example.org:8443", "host"])
def test_rules(text: str) -> None:
    """Are read, and written the same."""
    assert str(rule(f" {text} ")) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.*.org",
        "a*.org",
        "10.0.0.1",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::1]",
        "::1",
        "example.org:0",
        "example.org:65536",
        "example.org:",
        "https://example.org",
        "a@example.org",
        "ex ample.org",
        "exämple.org",
        f"{'a' * 64}.org",
    ],
)
def test_what_is_no_rule(text: str) -> None:
    """Is refused, addresses above all."""
    with pytest.raises(ValueError, match=r"such as example\.org"):
        rule(text)


@pytest.mark.parametrize(
    ("text", "name", "port", "is_tunnel", "expected"),
    [
        ("example.org", "example.org", 443, True, True),
        ("example.org", "example.org", 80, False, True),
        ("example.org", "example.org", 80, True, False),
        ("example.org", "example.org", 443, False, False),
        ("example.org", "example.org", 22, True, False),
        ("example.org", "www.example.org", 443, True, False),
        ("example.org", "notexample.org", 443, True, False),
        ("example.org", "example.org.evil.com", 443, True, False),
        ("*.example.org", "www.example.org", 443, True, True),
        ("*.example.org", "a.b.example.org", 443, True, True),
        ("*.example.org", "example.org", 443, True, False),
        ("*.example.org", "notexample.org", 443, True, False),
        ("example.org:22", "example.org", 22, True, True),
        ("example.org:22", "example.org", 443, True, False),
    ],
)
def test_what_a_rule_allows(
    text: str,
    name: str,
    port: int,
    is_tunnel: bool,  # noqa: FBT001  (a column of the table)
    expected: bool,  # noqa: FBT001
) -> None:
    """Is that name or what is below it, and the usual ports or that one."""
    assert rule(text).allows(name, port, is_tunnel=is_tunnel) is expected


def test_names() -> None:
    """Are compared in small letters and without the root's dot."""
    assert allowlist.name_of("Example.ORG.") == "example.org"


def test_a_file_that_changes(tmp_path: Path) -> None:
    """Counts at once; what cannot be read allows nothing."""
    file = tmp_path / "allowed"
    allowed = Allowlist((rule("a.org"),), file)

    def allows(name: str) -> bool:
        return allowed.allows(name, 443, is_tunnel=True)

    assert (allows("a.org"), allows("b.org")) == (True, False)
    file.write_text("# more\n\nb.org  # this one\n")
    assert (allows("a.org"), allows("b.org")) == (True, True)
    file.write_text("b.org\n???\n")
    assert (allows("a.org"), allows("b.org")) == (True, False)


def test_our_defaults() -> None:
    """Can be read, and so can those of each agent."""
    own = [rule(one) for name in agents.NAMES for one in agents.get(name).HOSTS]

    assert rule("github.com") in allowlist.read_rules(allowlist.DEFAULTS)
    assert rule("api.anthropic.com") in own


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104  (nobody binds to it)
        "10.1.2.3",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.17.0.1",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2001:0:102:304::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "example.org",
        "",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    """Are this machine's, a private network's, a cloud's own, or nobody's."""
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.15.0.1", "2606:4700::1111"])
def test_public_addresses(address: str) -> None:
    """Are all others."""
    assert addresses.is_public(address)


def test_translated_addresses() -> None:
    """Are public if what they hold is: so a network without IPv4 reaches it."""
    assert addresses.is_public("64:ff9b::808:808")
