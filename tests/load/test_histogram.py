"""Percentiles come from the sum of all counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shards.load.histogram import Histogram, steps

durations = st.lists(st.integers(0, 10**10), min_size=1, max_size=200)
PERCENTILES = [1, 50, 90, 99, 100]


def histogram(*parts: list[int]) -> Histogram:
    made = Histogram()
    for part in parts:
        made.record(steps(part))
    return made


@given(durations, durations)
def test_merged_is_the_same_as_recorded_in_one(a: list[int], b: list[int]) -> None:
    merged = histogram(a)
    merged.add(histogram(b))
    one = histogram(a + b)
    assert merged.count == one.count == len(a) + len(b)
    assert merged.percentiles_ms(PERCENTILES) == one.percentiles_ms(PERCENTILES)
    assert merged.max_ms == one.max_ms


@given(durations)
def test_percentiles_are_right_to_three_digits(values: list[int]) -> None:
    median = sorted(values)[int(len(values) * 0.5 + 0.5) - 1] / 1e6
    measured = histogram(values).percentiles_ms([50])[0]
    assert abs(measured - median) <= 0.011 + 0.001 * median


def test_averaged_percentiles_would_be_wrong() -> None:
    fast, slow = [1_000_000] * 990, [500_000_000] * 10
    assert histogram(fast, slow).percentiles_ms([99])[0] < 2


def test_nothing_recorded_and_out_of_range() -> None:
    assert Histogram().percentiles_ms([50, 99]) == [0, 0]
    assert Histogram().max_ms == 0
    extremes = histogram([-5_000_000, 10**15])
    assert extremes.count == 2
    assert extremes.max_ms >= 600_000
