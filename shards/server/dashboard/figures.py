"""What the dashboard shows, made of what the control Redis knows. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from shards.metrics import Buckets, quantile
from shards.router.control import Event, WorkerRecord
from shards.router.table import SlotTable
from shards.server.exposition import samples_of

_DELIVERY = "app_delivery_seconds_bucket"
_RATES = {
    "app_messages_delivered_total": "delivered",
    "app_messages_published_total": "published",
    "app_connections_total": "connects",
}
_TROUBLE = {
    "app_gaps_total": "gaps",
    "app_slow_consumers_closed_total": "slow consumers closed",
    "app_errors_total": "error frames",
    "app_failures_total": "failures of the app",
    "app_connections_refused_total": "connections refused",
    "app_layer_dropped_total": "layer messages dropped",
    "shards_connection_losses_total": "shard connections lost",
}
_OF_CUTOVER = ("verb", "old", "new", "step")
_GONE = " is gone without a word"
_MEMORY = "process_resident_memory_bytes"
_WANTED = {*_RATES, *_TROUBLE, _DELIVERY, _MEMORY}

Counts = Mapping[tuple[str, str], float]
"""Of one worker: (a sample's name, the bound of a bucket or '') → value, summed over other labels."""


@dataclass(frozen=True)
class Reading:
    """What the registry said at one moment.

    Attributes:
        at: when, in seconds of any clock that only goes on.
        workers: those that live, by name.
        counts: of each, by its name.
        table: the slot table; None: there is none yet.
        cutover: its journal; None: none is under way.
        resharding: whether slots are being moved.
        events: the newest first.
        down: names of Redis servers that do not answer.
    """

    at: float
    workers: Sequence[WorkerRecord]
    counts: Mapping[str, Counts]
    table: SlotTable | None = None
    cutover: Mapping[str, Any] | None = None
    resharding: bool = False
    events: Sequence[Event] = ()
    down: Sequence[str] = ()


def counts_of(samples: Iterable[bytes]) -> dict[str, Counts]:
    """Pick what is shown out of what workers have encoded (`shards.server.exposition.encode`)."""
    found: dict[str, defaultdict[tuple[str, str], float]] = defaultdict(lambda: defaultdict(float))
    for worker, name, labels, value in samples_of(samples):
        if name in _WANTED:
            found[worker][name, labels.get("le", "")] += value
    return {worker: dict(counts) for worker, counts in found.items()}


def shown(now: Reading, earlier: Reading | None) -> dict[str, Any]:
    """Give what a page draws.

    Args:
        now: the newest reading.
        earlier: one of some seconds before, from which rates and latencies count; None: there is none yet.
    """
    did = _since(earlier, now) if earlier and earlier.at < now.at else None
    totals = _total(now.counts.values())
    return {
        "connections": sum(worker.connections for worker in now.workers),
        # Strangers may see this: why a step failed is for those who gave the command, and may be the app's own words.
        "cutover": now.cutover and {name: now.cutover.get(name) for name in _OF_CUTOVER},
        "resharding": now.resharding,
        "down": list(now.down),
        "missing": missing(now.workers, now.events),
        "replicas": _replicas(now),
        "ring": _ring(now.table),
        "rates": _rates(did, now.at - earlier.at) if did is not None and earlier else None,
        "latency_ms": _latency(did or {}),
        "trouble": {what: totals.get((name, ""), 0.0) for name, what in _TROUBLE.items()},
        "events": [{"at_ms": event.at_ms, "kind": event.kind, "text": event.text} for event in now.events],
    }


def missing(workers: Sequence[WorkerRecord], events: Iterable[Event]) -> list[str]:
    """Name the replicas of colors that serve which have gone without a word, and have not come back since.

    Args:
        workers: those that live.
        events: the newest first; of what is not among them any more, nothing is known.
    """
    serving = {worker.color for worker in workers if worker.state == "active"}
    last: dict[str, str] = {}
    for event in events:
        if event.kind == "worker":
            worker, _, what = event.text.partition(" ")
            last.setdefault(worker.partition("/")[0], f" {what}")
    there = {worker.replica for worker in workers}
    gone = {replica for replica, what in last.items() if what == _GONE and replica.partition("-")[0] in serving}
    return sorted(gone - there)


def _total(counts: Iterable[Counts]) -> dict[tuple[str, str], float]:
    total: dict[tuple[str, str], float] = defaultdict(float)
    for of_one in counts:
        for key, value in of_one.items():
            total[key] += value
    return total


def _since(earlier: Reading, now: Reading) -> dict[tuple[str, str], float]:
    """Give what workers counted in between; all that one which is new has counted is new."""
    before = {worker: earlier.counts.get(worker, {}) for worker in now.counts}
    return _total(
        {key: value - before[worker].get(key, 0.0) for key, value in counts.items()}
        for worker, counts in now.counts.items()
    )


def _rates(did: Counts, seconds: float) -> dict[str, float]:
    return {what: round(did.get((name, ""), 0.0) / seconds, 1) for name, what in _RATES.items()}


def _latency(did: Counts) -> dict[str, float] | None:
    buckets: Buckets = {float(bound): value for (name, bound), value in did.items() if name == _DELIVERY}
    if max(buckets.values(), default=0.0) <= 0:
        return None
    return {f"p{share * 100:.0f}": round(quantile(buckets, share) * 1000, 2) for share in (0.5, 0.99)}


def _replicas(now: Reading) -> list[dict[str, Any]]:
    by_replica = groupby(sorted(now.workers, key=lambda worker: worker.replica), key=lambda worker: worker.replica)
    return [_replica(name, list(workers), now.counts) for name, workers in by_replica]


def _replica(name: str, workers: Sequence[WorkerRecord], counts: Mapping[str, Counts]) -> dict[str, Any]:
    states = {worker.state for worker in workers}
    return {
        "name": name,
        "color": workers[0].color,
        "state": states.pop() if len(states) == 1 else "mixed",
        "release": workers[0].release,
        "workers": len(workers),
        "connections": sum(worker.connections for worker in workers),
        "cpu_percent": round(sum(worker.cpu_percent for worker in workers), 1),
        "rss_bytes": sum(int(counts.get(worker.name, {}).get((_MEMORY, ""), 0)) for worker in workers),
        "ring_version": min(worker.ring_version for worker in workers),
    }


def _ring(table: SlotTable | None) -> dict[str, Any] | None:
    """Give who owns which slots: runs of neighbours that one shard owns, since 1024 names a second are much to send."""
    if table is None:
        return None
    names = [shard.name for shard in table.shards]
    runs = [[names.index(owner), len(list(slots))] for owner, slots in groupby(table.owner_names())]
    return {"version": table.version, "shards": names, "runs": runs}
