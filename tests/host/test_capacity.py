"""How many parts and hosts sockets take follows from costs and limits, and the limit that asks for most is named."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest

from shards.errors import UsageError
from shards.host.capacity import Cost, Costs, Host, measured_costs, needed

EDGE = Cost(50e6, 60e3, 1e3, 0, 0, 26e-6, 1e-6)
REPLICA = Cost(70e6, 20e3, 1e3, 0, 0, 35e-6, 2e-6)
SHARD = Cost(5e6, 100, 10, 0, 0, 5e-6, 1e-6)
COSTS = Costs({"edges": EDGE, "replicas": REPLICA, "shards": SHARD}, 20_000, {}, "2026-01-01T00:00:00+00:00")
HOST = Host(cores=2, memory_bytes=24 * 10**9, descriptors=20_000, ports=28_232)
BIG = replace(HOST, cores=64, memory_bytes=256 * 10**9, descriptors=1_048_576)


def test_ten_thousand_sockets_fit_this_kind_of_host() -> None:
    answer = needed(10_000, 10_000, COSTS, HOST)
    assert answer.hosts == 1
    assert (answer.tiers["edges"].count, answer.tiers["edges"].because) == (2, "descriptors")
    assert answer.tiers["shards"].count == 1
    assert answer.extrapolated <= 1


def test_a_million_sockets_take_many_hosts_and_it_is_said_for_what() -> None:
    answer = needed(1_000_000, 1_000_000, COSTS, HOST)
    assert answer.tiers["edges"].count == -(-1_000_000 // 9_750)
    assert answer.tiers["replicas"].count == -(-1_000_000 // 19_500)
    assert (answer.tiers["shards"].count, answer.tiers["shards"].because) == (7, "cpu")
    assert (answer.hosts, answer.hosts_because) == (42, "cpu")
    assert answer.extrapolated == 50


def test_more_messages_ask_for_cpu_and_more_sockets_for_memory() -> None:
    busy = needed(10_000, 400_000, COSTS, HOST)
    assert busy.tiers["replicas"].because == "cpu"
    quiet = needed(1_000_000, 1, COSTS, replace(BIG, memory_bytes=24 * 10**9))
    assert quiet.hosts_because == "memory"
    assert quiet.tiers["edges"].because == "memory"


def test_ports_limit_a_replica_where_files_do_not() -> None:
    answer = needed(1_000_000, 1, COSTS, BIG)
    assert answer.tiers["replicas"].because == "ports"
    assert answer.tiers["replicas"].count == -(-1_000_000 // 22_585)


def test_a_host_where_not_one_socket_fits_is_refused() -> None:
    with pytest.raises(UsageError, match="not one socket fits: the descriptors"):
        needed(10, 10, COSTS, replace(HOST, descriptors=256))


def test_the_error_of_the_fits_is_passed_on() -> None:
    assert needed(10_000, 10_000, COSTS, HOST).cpu_error == pytest.approx(0.037, abs=0.001)


def test_the_error_of_silent_sockets_is_a_part_of_it() -> None:
    """A million sockets that are given next to nothing: all CPU is that of silent ones, 10 µs/s ± 2 µs/s each."""
    silent = msgspec.structs.replace(EDGE, socket_cpu_s=10e-6, socket_cpu_s_error=2e-6)
    costs = msgspec.structs.replace(COSTS, tiers={**COSTS.tiers, "edges": silent})
    assert needed(1_000_000, 1, costs, HOST).cpu_error == pytest.approx(0.2, abs=0.001)
    both = needed(100_000, 100_000, costs, HOST)
    assert both.cpu_error == pytest.approx(math.hypot(0.2, 0.1, 0.2, 0.1) / 7.6, abs=0.001)


def test_the_costs_that_come_with_the_package_are_measured_ones() -> None:
    costs = measured_costs()
    assert set(costs.tiers) == {"edges", "replicas", "shards"}
    assert len(costs.runs) >= 3
    for name in ("edges", "replicas"):
        assert costs.tiers[name].socket_bytes > 3 * costs.tiers[name].socket_bytes_error > 0
        assert costs.tiers[name].message_cpu_s > 0
