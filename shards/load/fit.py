"""A straight line through measurements, and how far they are from it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Fit:
    """y = base + slope * x.

    Attributes:
        base: y where x is 0.
        slope: y a unit of x.
        error: the slope's standard error.
        residual: the greatest distance of a measurement from the line, in y.
        points: how many measurements there were.
    """

    base: float
    slope: float
    error: float
    residual: float
    points: int


def fit(points: Sequence[Point]) -> Fit:
    """Fit a line by least squares.

    Raises:
        ValueError: there are fewer than three points, or all have the same x: no error could be given.
    """
    count = len(points)
    if count < 3 or len({x for x, _ in points}) < 2:
        raise ValueError("a line with an error takes three measurements or more, at different places")
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    base = mean_y - slope * mean_x
    distances = [abs(y - base - slope * x) for x, y in points]
    error = math.sqrt(sum(d * d for d in distances) / (count - 2) / spread)
    return Fit(base, slope, error, max(distances), count)
