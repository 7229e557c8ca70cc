"""What processes took during a load, summed up: by tier, and whether one grows without end. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shards.load.growth import RISEN_PART, Point, after_warm_up, risen, sustained

Resources = Sequence[Mapping[str, Any]]

_TIERS = (
    ("edge-", "edges"),
    ("shared-", "shards"),
    ("redis_", "redis"),
    ("sentinel-", "redis"),
    ("generator-", "generator"),
)
_COVERED = 0.9
_SOON = 5.0
"""Seconds by which samples may come late: each process gets one a second, as far as there is time for it."""
_COLLECTED_LATER = 0.5
"""An edge is a Go program: until its next garbage collection, which may be minutes away, what it no longer needs piles
up, to half of what it does need (GOGC=50). Only a rise beyond that is growth."""


def tier_of(process: str) -> str:
    """Tell which tier a process belongs to, by its name: edges, replicas, shards, redis or generator."""
    return next((tier for prefix, tier in _TIERS if process.startswith(prefix)), "replicas")


def _samples(process: Mapping[str, Any], name: str, begin: float, end: float) -> list[Point]:
    return [(s["t"], s[name]) for s in process["samples"] if name in s and begin <= s["t"] <= end]


def tiers(resources: Resources, begin: float, end: float) -> dict[str, dict[str, float]]:
    """Sum up each tier between two times.

    Returns:
        tier → ``cpu_percent`` (of one core) and ``rss_bytes``, both the mean over the time, of all its processes
        together.
    """
    found: dict[str, dict[str, float]] = {}
    seconds = max(1.0, end - begin)
    for process in resources:
        sums = found.setdefault(tier_of(process["name"]), {"cpu_percent": 0.0, "rss_bytes": 0.0})
        for name in sums:
            values = [value for _, value in _samples(process, name, begin, end)]
            # A process that was there for a part of the time counts for that part.
            there = min(1.0, len(values) / seconds) if len(values) < _COVERED * seconds else 1.0
            sums[name] += there * sum(values) / len(values) if values else 0.0
    return {tier: {name: round(value, 1) for name, value in sums.items()} for tier, sums in found.items()}


def cpu_percent(resources: Resources, part: str, begin: float, end: float) -> float | None:
    """Give what a part and its workers used of the CPU between two times, of one core; None: nobody looked."""
    own = [one for one in resources if one["name"] == part or one["name"].startswith(f"{part}/")]
    samples = [_samples(one, "cpu_percent", begin, end) for one in own]
    if not any(samples):
        return None
    return sum(sum(value for _, value in found) / len(found) for found in samples if found)


_LEAST_BYTES = 1 << 20
"""Of growth of a process in all: a heap that is warm takes and keeps pages by chance. Of several processes chance adds
up by squares."""
_LEAST_SHARED_BYTES = 8 << 20
"""The same where growth is told as a share of what a process had: a small one may double."""
_LONG = 400.0
"""Seconds after the warm-up from which on garbage is no excuse: Go collects each two minutes or sooner."""


def wear(resources: Resources, begin: float, end: float) -> list[dict[str, Any]]:
    """Tell of each process of the fleet how it grows under a load, after its warm-up.

    The generator is left out: its ledger grows by design. So is who was not there all the time.

    Args:
        resources: as in a report.
        begin, end: of the load.

    Returns:
        For each: ``name``; ``rss_bytes_per_s``, as far as sustained; ``files_risen``: how many more files it has open
        at the end.
    """
    found = []
    for process in resources:
        points = after_warm_up(_samples(process, "rss_bytes", begin, end), begin, end)
        if tier_of(process["name"]) != "generator" and _there(points, begin, end):
            files = risen(_samples(process, "files", begin, end))
            growth = round(sustained(points) or 0.0, 1)
            found.append({"name": process["name"], "rss_bytes_per_s": growth, "files_risen": files})
    return found


def together(resources: Resources, begin: float, end: float, messages: float) -> list[dict[str, Any]]:
    """Tell how the processes of a tier grow together, after the warm-up: a message leaves its mark on one of them.

    Replicas count by color, since another color may be there for a part of the time.

    Args:
        resources, begin, end: as in `wear`.
        messages: published in all.

    Returns:
        For each tier: ``name``; ``bytes_per_message``: how much it grew, as far as sustained, spread over the messages;
        0 for less than 1 MiB in all, which an allocator may keep, and for what a garbage collector may yet take back;
        ``least_bytes_per_message``: what a leak must have for that not to be 0, None where nothing was published;
        ``share``: of what it had after the warm-up, what has been added since, as far as sustained; 0 for less than
        8 MiB a process.
    """
    rate = messages / (end - begin) if end > begin else 0.0
    tiers_of: dict[str, list[list[Point]]] = {}
    for process in resources:
        points = after_warm_up(_samples(process, "rss_bytes", begin, end), begin, end)
        if tier_of(process["name"]) != "generator" and _there(points, begin, end):
            tiers_of.setdefault(_team(process["name"]), []).append(points)
    return [_grown(name, members, rate) for name, members in tiers_of.items()]


def _team(process: str) -> str:
    tier = tier_of(process)
    return process.partition("-")[0] if tier == "replicas" else tier


def _there(points: Sequence[Point], begin: float, end: float) -> bool:
    """Tell whether there are samples of all the time after the warm-up."""
    return sustained(points) is not None and points[-1][0] - points[0][0] >= _COVERED * (end - begin) * 2 / 3


def _grown(name: str, members: Sequence[Sequence[Point]], rate: float) -> dict[str, Any]:
    points = _added(members)
    span, had = points[-1][0] - points[0][0], points[0][1]
    rose = (sustained(points) or 0.0) * span
    least = chance = _LEAST_BYTES * math.sqrt(len(members))
    if name == "edges" and span < _LONG:
        least = max(chance, _COLLECTED_LATER * had / RISEN_PART)
        rose = rose if (risen(points) or 0.0) > _COLLECTED_LATER * had else 0.0
    told = rose if rose >= chance else 0.0
    share = rose / had if rose >= _LEAST_SHARED_BYTES * len(members) else 0.0
    published = rate * span
    return {
        "name": name,
        "bytes_per_message": round(told / published, 1) if published else 0.0,
        "least_bytes_per_message": round(least / published, 1) if published else None,
        "share": round(share, 4),
    }


def _added(members: Sequence[Sequence[Point]]) -> list[Point]:
    """Add samples up, second by second; seconds of which one has none are left out."""
    by_second = [{round(t): value for t, value in points} for points in members]
    seconds = sorted(set.intersection(*(set(one) for one in by_second)))
    return [(float(second), sum(one[second] for one in by_second)) for second in seconds]


def ended(resources: Resources, begin: float, end: float) -> list[str] | None:
    """Name the processes of the fleet that a load began with and that were gone before its end.

    How such a one would have grown nobody knows: it may have been killed because it did.

    Returns:
        Their names; None where the load began with no process that is known.
    """
    there = [one for one in resources if tier_of(one["name"]) != "generator" and _first(one) <= begin + _SOON]
    return [one["name"] for one in there if one["samples"][-1]["t"] < end - _SOON] if there else None


def _first(process: Mapping[str, Any]) -> float:
    return float(process["samples"][0]["t"]) if process["samples"] else math.inf


def clients(fleet: Mapping[str, Any]) -> list[int]:
    """Sum up the clients of a fleet's Redis servers, as `inv status --json` has them; empty where one is unknown."""
    counts = [part.get("clients") for part in (*fleet.get("shards", ()), *fleet.get("redis", ()))]
    return [sum(counts)] if counts and None not in counts else []
