"""What each event did to the clients: who lost a socket to it, and for how long. Pure.

A client is counted with the event during which it lost its socket, not with the one during which it was back. Clients
say in which tenth of a second they lost it, and the last event that had begun by the end of that is the one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from shards.load.histogram import Histogram

Events = Sequence[Mapping[str, Any]]

HOLDERS = ("worker", "replica", "edge")
"""Kinds of parts that hold sockets: whoever kills one cuts clients off."""


def begins(events: Events) -> list[tuple[float, str]]:
    """Give when each event that was performed began, and what it is called."""
    found = []
    for event in events:
        name = str(event["name"])
        if name.startswith("kill ") and "pid" in event:
            found.append((float(event["t"]), name))
        elif name.endswith(": start"):
            found.append((float(event["t"]), name.removesuffix(": start")))
    return sorted(found)


def disruptions(
    events: Events, lost_in: Mapping[int, Mapping[int, int]], slow_ms: Mapping[int, float]
) -> list[dict[str, Any]]:
    """Tell of each event what it did.

    Args:
        events: as the report has them.
        lost_in: tenth of a second → how long those were away who lost their socket in it, as `histogram.steps` counts.
        slow_ms: second → the p99 of its deliveries.

    Returns:
        For each: when it began (``t``, ``name``), how many ``clients`` lost their socket, the ``p50_ms``, ``p95_ms``
        and ``max_ms`` until they were subscribed again (None where nobody was cut), and the p99 of the slowest second
        until the next event (``slowest_p99_ms``).
    """
    begun = begins(events)
    away: list[Counter[int]] = [Counter() for _ in begun]
    for tenth, counts in lost_in.items():
        index = _last_before(begun, (tenth + 1) / 10)
        if index is not None:
            away[index].update(counts)
    ends = [t for t, _ in begun[1:]] + [float("inf")]
    return [
        {"t": t, "name": name, **_told(counts), "slowest_p99_ms": _slowest(slow_ms, t, end)}
        for (t, name), counts, end in zip(begun, away, ends, strict=False)
    ]


def kills(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Give those of what `disruptions` gave that killed a part which holds sockets."""
    return [one for one in found if one["name"].startswith(tuple(f"kill {kind}: " for kind in HOLDERS))]


def _last_before(begun: Sequence[tuple[float, str]], moment: float) -> int | None:
    earlier = [index for index, (t, _) in enumerate(begun) if t <= moment]
    return earlier[-1] if earlier else None


def _told(counts: Counter[int]) -> dict[str, Any]:
    histogram = Histogram()
    histogram.record(counts)
    if not histogram.count:
        return {"clients": 0, "p50_ms": None, "p95_ms": None, "max_ms": None}
    p50, p95 = histogram.percentiles_ms([50, 95])
    return {"clients": histogram.count, "p50_ms": p50, "p95_ms": p95, "max_ms": histogram.max_ms}


def _slowest(slow_ms: Mapping[int, float], begin: float, end: float) -> float:
    return max((ms for second, ms in slow_ms.items() if int(begin) <= second < end), default=0.0)
