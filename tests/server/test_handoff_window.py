"""As many sockets on their way at a time as the host bears."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shards.server.handoff.window import FIRST, LEAST, MOST, QUICK_SECONDS, SLOW_SECONDS, Window

seconds = st.floats(0, 10)


@given(st.lists(seconds, max_size=200))
def test_it_stays_within_its_bounds_and_recovers(took: list[float]) -> None:
    window, now = Window(), 0.0
    for one in took:
        now += one
        window.took(one, now)
        assert LEAST <= window.size <= MOST
    for _ in range(500):
        window.took(QUICK_SECONDS / 2, now)
    assert window.size == MOST


def test_what_was_on_its_way_already_makes_it_smaller_once() -> None:
    window = Window()
    for number in range(FIRST):
        window.took(2 * SLOW_SECONDS, float(number))
    assert window.size == LEAST
    window = Window()
    for _ in range(2000):
        window.took(QUICK_SECONDS / 2, 0.0)
    window.took(2 * SLOW_SECONDS, 1.0)
    once = window.size
    assert LEAST < once < MOST
    window.took(2 * SLOW_SECONDS, 1.0 + SLOW_SECONDS)
    assert window.size == once
    window.took(2 * SLOW_SECONDS, 1.0 + 3 * SLOW_SECONDS)
    assert window.size < once


def test_what_is_neither_quick_nor_slow_leaves_it_as_it_is() -> None:
    window = Window()
    window.took((QUICK_SECONDS + SLOW_SECONDS) / 2, 1.0)
    assert window.size == FIRST
