"""Which fleet is at an address: only one of this host is, which `inv` knows of."""

from __future__ import annotations

import socket

import pytest

from shards.load import target


@pytest.mark.parametrize(
    ("fleet", "url", "same"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/ws/", True),
        ("http://127.0.0.1:8000", "ws://localhost:8000/ws/", True),
        ("https://127.0.0.1:443", "wss://127.0.0.1/ws/", True),
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8001/ws/", False),
        ("http://127.0.0.1:8000", "ws://203.0.113.9:8000/ws/", False),
        ("http://203.0.113.9:8000", "ws://203.0.113.9:8000/ws/", True),
        ("http://127.0.0.1:8000", "ws://no-such-host.invalid:8000/ws/", False),
        ("None", "ws://127.0.0.1:8000/ws/", False),
    ],
)
def test_the_fleet_at_an_address_is_that_of_its_host_and_port(fleet: str, url: str, same: bool) -> None:
    assert target.same_place(fleet, url) is same


def test_every_address_of_this_host_is_this_host() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 9))
        assert target.is_this_host(sock.getsockname()[0])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://127.0.0.1:8000/ws/", "ws://127.0.0.1:8000/ws/"),
        ("wss://me:pass@a.example/ws/room/?token=t&x=1", "wss://a.example/ws/room/?…"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert target.public(url) == shown
