"""Who is who by their addresses."""

from __future__ import annotations

import pytest

from shards.addresses import is_loopback, network_of, plain


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_the_network_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["128.0.0.1", "::2", "", "localhost"])
def test_what_is_no_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize(
    ("address", "written"),
    [("::FFFF:10.0.0.1", "10.0.0.1"), ("10.0.0.1", "10.0.0.1"), ("FE80:0::1", "fe80::1"), ("", "")],
)
def test_an_address_is_always_written_alike(address: str, written: str) -> None:
    assert plain(address) == written
