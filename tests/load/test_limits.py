"""Ports and descriptors: how many connections a host can open, and from which addresses."""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from shards.errors import UsageError
from shards.load.limits import Limits, bound_socket, is_loopback, source_address

LIMITS = Limits(ports=28_232, descriptors=20_000)


def test_one_address_serves_as_many_as_its_ports_allow() -> None:
    each = LIMITS.sockets_per_address
    addresses = Counter(source_address(client, each) for client in range(50_000))
    assert list(addresses) == [None, "127.0.0.2", "127.0.0.3"]
    assert max(addresses.values()) == each < LIMITS.ports


def test_a_source_address_is_one_even_past_255() -> None:
    assert source_address(300, 1) == "127.0.1.45"


@pytest.mark.parametrize(
    ("connections", "processes", "loopback", "says"),
    [
        (39_601, 2, True, "at most 39600, or --processes 3"),
        (22_586, 2, False, "at most 22585"),
    ],
    ids=["descriptors", "ports"],
)
def test_too_many_says_which_limit_and_the_most(connections: int, processes: int, loopback: bool, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        LIMITS.check(connections, processes, loopback)
    LIMITS.check(connections - 1, processes, loopback)


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("::1", False),
        ("a.b", False),
    ],
)
def test_loopback(host: str, is_it: bool) -> None:
    assert is_loopback(host) is is_it


def test_a_bound_socket_connects_from_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, bound_socket("127.0.0.2") as client:
        client.setblocking(True)
        client.connect(server.getsockname())
        accepted, peer = server.accept()
        accepted.close()
        assert peer[0] == "127.0.0.2"
