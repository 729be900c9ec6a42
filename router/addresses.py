"""Addresses of clients, and the networks they are in."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

REMEMBERED = 4096
"""Addresses whose answer is kept: reading one takes longer than all the rest of a decision."""


def within(networks: Sequence[str]) -> Callable[[str], bool]:
    """What says whether an address is in one of the networks. What is no address is in none."""
    parsed = [ip_network(network) for network in networks]

    @lru_cache(maxsize=REMEMBERED)
    def test(address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in network for network in parsed)

    return test


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An IPv4 address that an IPv6 socket reports (::ffff:10.0.0.1) is an IPv4 address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
