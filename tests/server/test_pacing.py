"""A drain is as fast as those who take the sockets can stand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shards.router.control import WorkerRecord, WorkerState
from shards.server.pacing import GRACE_MS, Pace, Strain, hint_ms, strain_on

AT_EASE, STRAINED = Strain(5.0, 30.0), Strain(500.0, 30.0)
BUSY = Strain(5.0, 99.0)

sockets = st.integers(0, 20_000)
windows_ms = st.integers(1000, 600_000)


def sent(pace: Pace, strains: list[Strain]) -> float:
    """Give how many sockets are sent away in as many seconds."""
    total = 0.0
    for strain in strains:
        total += pace.rate
        pace = pace.after(strain)
    return total


@given(sockets, windows_ms)
def test_all_are_sent_away_in_half_of_the_time_where_the_others_are_at_ease(count: int, drain_ms: int) -> None:
    seconds = max(1, -(-drain_ms // 2000))
    assert sent(Pace.begin(count, drain_ms), [AT_EASE] * seconds) > count - 0.001


@given(sockets, windows_ms, st.sampled_from([STRAINED, BUSY]))
def test_it_halves_its_pace_at_once_where_they_are_not(count: int, drain_ms: int, strain: Strain) -> None:
    pace = Pace.begin(count, drain_ms)
    assert pace.after(strain).rate == pace.rate / 2
    assert sent(pace, [strain] * 10) < sent(pace, [AT_EASE] * 10) / 4


@given(sockets, windows_ms, st.lists(st.sampled_from([AT_EASE, STRAINED, BUSY]), max_size=50))
def test_it_never_stands_still_and_recovers(count: int, drain_ms: int, strains: list[Strain]) -> None:
    pace = Pace.begin(count, drain_ms)
    for strain in strains:
        pace = pace.after(strain)
        assert pace.rate > 0
    for _ in range(10):
        pace = pace.after(AT_EASE)
    assert pace.rate >= pace.first


@given(st.floats(0, 60_000))
def test_a_client_that_was_told_to_go_is_closed_before_the_time_is_over(left_ms: float) -> None:
    within = hint_ms(left_ms)
    assert within >= 0
    assert within == 0 or within + GRACE_MS <= left_ms


def worker(replica: str, state: WorkerState, accept_ms: float, cpu: float) -> WorkerRecord:
    return WorkerRecord(f"{replica}/1", "blue", replica, "1", 1, state, 0, "r", 1, 0.0, accept_ms, cpu)


def test_the_strain_is_that_of_the_worst_of_those_who_serve() -> None:
    workers = [
        worker("blue-0", "draining", 900.0, 99.0),
        worker("blue-1", "active", 800.0, 98.0),
        worker("green-0", "active", 20.0, 50.0),
        worker("green-1", "active", 10.0, 70.0),
    ]
    assert strain_on(workers, "blue-1") == Strain(20.0, 70.0)


def test_clients_are_sent_away_slowly_where_nobody_is_there_to_take_them() -> None:
    draining = [worker("blue-0", "draining", 10.0, 5.0), worker("blue-1", "active", 10.0, 5.0)]
    assert strain_on(draining, "blue-1").too_much
    assert Pace.begin(100, 10_000).after(strain_on(draining, "blue-1")).rate < Pace.begin(100, 10_000).rate
