"""Whether something grows without end: pure arithmetic on samples.

A process under an even load grows while it warms up, in steps when its allocator or garbage collector takes more, and
settles. A leak goes on. So growth counts only as far as it is *sustained*: seen in each half of the time after the
warm-up, by the median of all slopes between two samples (Theil and Sen), which a step or an outlier hardly moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import median

Point = tuple[float, float]

WARM_UP = 1 / 3
"""The part of a load that is left out at its begin."""

_MOST_POINTS = 150
_FEWEST_POINTS = 6
_EDGE = 0.2

RISEN_PART = 1 - _EDGE
"""What `risen` tells of a growth that is even."""


def slope(points: Sequence[Point]) -> float:
    """Give the median slope, in y a unit of x; 0 where there are fewer than two different x.

    Args:
        points: (x, y) in any order; beyond 150 of them, evenly chosen ones count.
    """
    step = max(1, len(points) // _MOST_POINTS)
    pairs = combinations(points[::step], 2)
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs if x1 != x2]
    return median(slopes) if slopes else 0.0


def sustained(points: Sequence[Point]) -> float | None:
    """Give the growth, in y a unit of x, that both halves of `points` show; None where they are too few to tell."""
    if len(points) < 2 * _FEWEST_POINTS:
        return None
    middle = len(points) // 2
    return max(0.0, min(slope(points[:middle]), slope(points[middle:])))


def after_warm_up(points: Sequence[Point], begin: float, end: float) -> list[Point]:
    """Give the points of a load that lasted from `begin` to `end`, without its warm-up."""
    warm = begin + (end - begin) * WARM_UP
    return [(x, y) for x, y in points if warm <= x <= end]


def risen(points: Sequence[Point]) -> float | None:
    """Tell how much higher the last fifth of `points` lies than the first, in medians; None where they are too few."""
    edge = int(len(points) * _EDGE)
    if not edge:
        return None
    first, last = points[:edge], points[-edge:]
    return median(y for _, y in last) - median(y for _, y in first)
