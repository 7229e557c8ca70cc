"""A drain is spread over its time, and over by its end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shards.server.pacing import Drain

STEP_MS = 100.0


def steps(drain: Drain, sockets: int) -> list[int]:
    """Give how many sockets are closed in each step, where none leaves of its own accord."""
    closed, elapsed = [], 0.0
    while sockets and elapsed < drain.drain_ms + 10 * STEP_MS:
        closed.append(min(sockets, drain.to_close(elapsed, sockets, STEP_MS)))
        sockets -= closed[-1]
        elapsed += STEP_MS
    assert sockets == 0
    return closed


@given(st.integers(1000, 60_000), st.integers(1, 20_000))
def test_nobody_is_closed_while_clients_may_still_come_of_their_own_accord(drain_ms: int, sockets: int) -> None:
    drain = Drain(drain_ms)
    closed = steps(drain, sockets)
    assert sum(closed[: int(drain.within_ms / STEP_MS)]) == 0


@given(st.integers(5000, 60_000), st.integers(100, 20_000))
def test_the_rest_is_closed_evenly(drain_ms: int, sockets: int) -> None:
    drain = Drain(drain_ms)
    closing = [count for count in steps(drain, sockets) if count]
    available = (drain_ms - drain.within_ms) / STEP_MS - 2  # a step is not cut where a phase ends
    assert max(closing) <= sockets / available + 1
    assert closing == sorted(closing, reverse=True), "no rush at the end"


@given(st.integers(0, 100))
def test_a_drain_without_time_closes_all_at_once(sockets: int) -> None:
    assert Drain(0).to_close(0.0, sockets, STEP_MS) == sockets
