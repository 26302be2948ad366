"""Addresses of names, and which of them are on the public internet."""

from __future__ import annotations

import ipaddress
import socket

_PRIVATE = tuple(
    ipaddress.ip_network(one)
    for one in (
        "0.0.0.0/8",  # this network (RFC 1122), which leads to this machine
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # behind a provider's NAT (RFC 6598), and a cloud's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's own services for its machines
        "169.254.0.0/16",  # link-local (RFC 3927), and most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments (RFC 6890), and a cloud's metadata
        "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
_GLOBAL = ipaddress.IPv6Network("2000::/3")
_NO_HOSTS = tuple(
    ipaddress.IPv6Network(one)
    for one in (
        "2001::/23",  # protocol assignments (RFC 2928), such as Teredo
        "2002::/16",  # 6to4, which holds an IPv4 address
    )
)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""What a network without IPv4 makes of IPv4 addresses (RFC 6052)."""


def look_up_addresses(name: str, port: int) -> tuple[str, ...]:
    """Look up the addresses of a name.

    Raises:
        OSError: There are none.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(one[4][0]) for one in found))


def is_public(address: str) -> bool:
    """Tell whether an address is one of the public internet's, and not this machine's own."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return _is_global(found) and not _is_ours(address)


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in one for one in _PRIVATE)
    if address in _TRANSLATED:
        return _is_global(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL and not any(address in one for one in _NO_HOSTS)


def _is_ours(address: str) -> bool:
    """Tell whether packets to an address would not leave this machine; none is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address)
        except OSError:
            return False  # there is no way to it at all
