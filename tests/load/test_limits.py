"""Ports and descriptors: how many connections a host can open, and from which addresses."""

from __future__ import annotations

import resource
import shutil
import socket
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import UsageError
from shards.load.limits import Limits, bound_socket, check_proxy, is_loopback, proxy_files, source_address
from shards.load.schedule import even_groups, mixed_groups, shares

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
        (39_610, 2, True, "at most 39600, or --processes 3"),
        (22_586, 2, False, "at most 22585"),
        (9_000_000, 500, True, "ports .* at most 5646250"),
    ],
    ids=["descriptors", "ports", "ports of all addresses"],
)
def test_too_many_says_which_limit_and_the_most(connections: int, processes: int, loopback: bool, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        LIMITS.check(even_groups(connections, 10, 1), processes, loopback)


def test_files_of_the_whole_host_are_a_limit_and_on_loopback_the_servers_count() -> None:
    few = replace(LIMITS, files=30_000)
    few.check_connections(15_000, loopback=True)
    with pytest.raises(UsageError, match=r"30000, fs.file-max\): at most 15000"):
        few.check_connections(15_001, loopback=True)
    few.check_connections(22_000, loopback=False)


def test_a_fleet_of_its_own_holds_what_its_parts_may_open() -> None:
    LIMITS.check_fleet(156_000, replicas=10, workers=1)
    with pytest.raises(UsageError, match="at most 156000, by 16 edges, the most of a host, each with 20000 desc"):
        LIMITS.check_fleet(156_001, replicas=10, workers=1)
    with pytest.raises(UsageError, match="at most 58500, by 3 workers of replicas with 20000 descriptors"):
        LIMITS.check_fleet(58_501, replicas=3, workers=1)
    with pytest.raises(UsageError, match="at most 10000, by 40000 more files on this host"):
        replace(LIMITS, files=40_000).check_fleet(10_001, replicas=3, workers=1)


def test_who_asks_for_too_few_edges_is_told() -> None:
    assert LIMITS.lack_of_edges(48_750, edges=5) is None
    told = LIMITS.lack_of_edges(50_000, edges=5)
    assert told
    assert told.startswith("5 edges hold 48750 sockets at most (20000 descriptors each, 2 a socket), not 50000")


def test_dockers_proxy_holds_a_sixth_of_its_files_and_is_told_of() -> None:
    check_proxy(3_166, files=20_000)
    with pytest.raises(UsageError, match=r"at most 3166; with .*userland-proxy.*: false"):
        check_proxy(3_167, files=20_000)


def test_the_proxy_of_a_port_is_found_by_what_it_was_told(tmp_path: Path) -> None:
    shutil.copy("/bin/sh", tmp_path / "docker-proxy")
    words = [str(tmp_path / "docker-proxy"), "-c", "read _; exit", "-proto", "tcp", "-host-port", "18777"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as proxy:
        try:
            assert proxy_files(18_777) == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            assert proxy_files(18_778) is None
        finally:
            proxy.kill()


def test_as_many_as_possible_is_not_too_many() -> None:
    LIMITS.check(even_groups(39_600, 10, 1), 2, True)
    LIMITS.check(even_groups(22_585, 10, 1), 2, False)


def test_there_is_a_process_for_each_core_though_fewer_could_open_all() -> None:
    groups = even_groups(10_000, 10, 1000)
    assert [replace(LIMITS, cores=cores).processes_for(groups) for cores in (1, 2, 8, 96)] == [2, 2, 8, 20]


@pytest.mark.parametrize(("connections", "processes"), [(1, 2), (39_600, 2), (39_601, 3), (50_000, 3)])
def test_processes_are_counted_from_what_each_may_open(connections: int, processes: int) -> None:
    assert LIMITS.processes_for(even_groups(connections, 10, 1000)) == processes


@settings(max_examples=20)
@given(connections=st.integers(1, 60_000), seed=st.integers(0, 50))
def test_groups_of_all_sizes_fit_into_the_processes_counted_for_them(connections: int, seed: int) -> None:
    groups = mixed_groups(connections, 5000, seed)
    parts = shares(groups, LIMITS.processes_for(groups))
    assert max(sum(group.size for group in part) for part in parts) <= LIMITS.sockets_per_process


def test_a_group_that_no_process_can_hold_is_refused() -> None:
    with pytest.raises(UsageError, match=r"25000 connections in one process.*at most 19800"):
        LIMITS.processes_for(even_groups(25_000, 25_000, 100))


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
