"""How the highest rate is looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bench.climb import climb, common, highest, missed


@dataclass
class Tried:
    rate: float
    passed: bool


def server(most: float, stumbles: int = 0) -> Callable[[float], Tried]:
    """Carry up to `most`; so many tries, the first ones, are missed all the same."""
    left = stumbles

    def attempt(rate: float) -> Tried:
        nonlocal left
        left -= 1
        return Tried(rate, left < 0 and rate <= most)

    return attempt


def of(tried: list[Tried]) -> list[tuple[float, bool]]:
    return [(one.rate, one.passed) for one in tried]


def test_it_climbs_to_the_first_rate_that_is_missed_twice() -> None:
    tried = climb([1, 2, 3, 4], server(2))
    assert of(tried) == [(1, True), (2, True), (3, False), (3, False)]
    best, lost = highest(tried), missed(tried)
    assert best and lost
    assert (best.rate, lost.rate) == (2, 3)


def test_one_miss_alone_is_the_machines() -> None:
    tried = climb([1, 2, 3], server(9, stumbles=1))
    assert of(tried) == [(1, False), (1, True), (2, True), (3, True)]
    assert missed(tried) is None


def test_below_the_first_rate_it_looks_at_halves() -> None:
    tried = climb([8, 16], server(2))
    assert of(tried) == [(8, False), (8, False), (4, False), (4, False), (2, True)]
    best, lost = highest(tried), missed(tried)
    assert best and lost
    assert (best.rate, lost.rate) == (2, 4)


def test_what_carries_nothing_is_not_tried_forever() -> None:
    tried = climb([8], server(0))
    assert len(tried) == 8
    assert highest(tried) is None


@pytest.mark.parametrize(("most", "at"), [(40, 20), (20, 20), (10, 10), (0, 10)])
def test_cpu_is_compared_at_a_common_rate_or_below(most: float, at: float) -> None:
    one = common([Tried(rate, rate <= most) for rate in (10, 20, 30, 40)], 25)
    assert one is not None
    assert one.rate == at


def test_nothing_tried_is_nothing() -> None:
    assert highest([]) is missed([]) is common([], 1) is None
