"""Who lost a socket is counted with the event that took it, however long they were away."""

from __future__ import annotations

import pytest

from shards.load.disruptions import begins, disruptions

EVENTS = [
    {"t": 1.0, "name": "connected"},
    {"t": 5.0, "name": "promote: start"},
    {"t": 15.0, "name": "promote: end", "exit": 0},
    {"t": 20.0, "name": "kill edge: edge-1", "pid": 7},
    {"t": 25.0, "name": "kill shard: none is running"},
]


def steps_of(seconds: float) -> int:
    return int(seconds * 100_000)


def test_only_what_was_performed_begins() -> None:
    assert begins(EVENTS) == [(5.0, "promote"), (20.0, "kill edge: edge-1")]


def test_clients_count_with_the_event_that_took_their_socket() -> None:
    lost_in = {60: {steps_of(0.5): 100}, 198: {steps_of(15.0): 2}, 200: {steps_of(1.0): 30}, 30: {steps_of(0.1): 9}}
    promote, edge = disruptions(EVENTS, lost_in, {7: 12.0, 15: 40.0, 21: 300.0})
    assert (promote["name"], promote["clients"]) == ("promote", 102)
    assert promote["p50_ms"] == pytest.approx(500, rel=0.01)
    assert promote["max_ms"] == pytest.approx(15_000, rel=0.01)
    assert (edge["clients"], edge["slowest_p99_ms"]) == (30, 300.0)
    assert promote["slowest_p99_ms"] == 40.0


def test_an_event_that_cut_nobody_is_told_too() -> None:
    _, edge = disruptions(EVENTS, {}, {})
    assert (edge["clients"], edge["p95_ms"], edge["slowest_p99_ms"]) == (0, None, 0.0)


def test_nothing_happened() -> None:
    assert disruptions([], {4: {steps_of(1): 3}}, {}) == []
