"""Latencies to three digits: a thin cover over HdrHistogram, and the compact form in which processes send theirs.

Counts of many processes and seconds are *added*, and percentiles read from the sum: averaged percentiles mean
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hdrh.histogram import HdrHistogram

_STEP_NS = 10_000
_HIGHEST_US = 600_000_000


def steps(durations_ns: Iterable[int]) -> Counter[int]:
    """Count durations by their number of whole 10 µs steps.

    A generator process does only this, in C and many at a time: recording one by one would cost it more than
    receiving the message did.
    """
    return Counter([ns // _STEP_NS for ns in durations_ns])


class Histogram:
    """Counts of durations up to 10 minutes; a longer one counts as 10 minutes, a negative one as 0."""

    def __init__(self) -> None:
        self._hdr = HdrHistogram(1, _HIGHEST_US, 3)

    def record(self, counts: Mapping[int, int]) -> None:
        """Add what `steps` counted."""
        for step, count in counts.items():
            microseconds = step * _STEP_NS // 1000
            self._hdr.record_value(min(max(0, microseconds), _HIGHEST_US), count)

    def add(self, other: Histogram) -> None:
        """Add another histogram's counts."""
        self._hdr.add(other._hdr)

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return int(self._hdr.get_total_count())

    @property
    def max_ms(self) -> float:
        """The longest duration, in milliseconds."""
        return float(self._hdr.get_max_value()) / 1000

    @property
    def mean_ms(self) -> float:
        """The mean, in milliseconds, for comparing with those who have nothing better; 0 where nothing was recorded."""
        return float(self._hdr.get_mean_value()) / 1000 if self.count else 0.0

    def percentiles_ms(self, percentiles: Sequence[float]) -> list[float]:
        """Give the value at each percentile (0-100), in milliseconds; 0 where nothing was recorded."""
        if not self.count:
            return [0.0] * len(percentiles)
        values = self._hdr.get_percentile_to_value_dict(list(percentiles))
        return [values[percentile] / 1000 for percentile in percentiles]
