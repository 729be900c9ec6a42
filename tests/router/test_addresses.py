"""Addresses of clients, and the networks they are in."""

import pytest

from router.addresses import within


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.7", "2001:db8::7", "::ffff:10.1.2.3"])
def test_address_in_one_of_the_networks_is_within(address: str) -> None:
    assert within(["10.0.0.0/8", "192.168.0.7/32", "2001:db8::/32"])(address)


@pytest.mark.parametrize("address", ["11.0.0.1", "192.168.0.8", "2001:db9::7", "::1", "", "unix", "10.1.2", "::a00:1"])
def test_address_elsewhere_or_nowhere_is_not(address: str) -> None:
    assert not within(["10.0.0.0/8", "192.168.0.7/32", "2001:db8::/32"])(address)
