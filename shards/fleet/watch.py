"""Watches a canary: reads both colors' figures from the registry and the engine, each second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from shards.errors import PartFailed
from shards.fleet import canary, layout, probe
from shards.fleet.canary import Figures, Limits
from shards.fleet.engines.base import Engine
from shards.fleet.fleet import Fleet
from shards.fleet.spec import Color
from shards.fleet.state import FleetState
from shards.router.control import Control
from shards.server.exposition import samples_of

_EVERY_S = 1.0
_FAILURES = {"app_errors_total", "app_failures_total", "app_connections_refused_total"}
_LATENCIES = {"app_publish_seconds_bucket": "publish", "app_delivery_seconds_bucket": "delivery"}
_COUNTED = {"app_connections_total", "app_messages_published_total", *_FAILURES, *_LATENCIES}

Counts = dict[tuple[str, str, str], float]
"""Of one worker: (sample's name, bound of a bucket or '', other label) → value."""


@dataclass(frozen=True)
class Reading:
    """What a color has counted, at one moment.

    Attributes:
        counts: by worker.
        sockets: open, by replica.
        rss_bytes: by replica.
        pids: by replica.
    """

    counts: Mapping[str, Counts] = field(default_factory=dict)
    sockets: Mapping[str, int] = field(default_factory=dict)
    rss_bytes: Mapping[str, int] = field(default_factory=dict)
    pids: Mapping[str, int | None] = field(default_factory=dict)


def since(before: Reading, now: Reading) -> Figures:
    """Give what a color did between two readings; what a worker that is new has counted is all new."""
    totals: Counts = {}
    for worker, counts in now.counts.items():
        earlier = before.counts.get(worker, {})
        for key, value in counts.items():
            totals[key] = totals.get(key, 0.0) + value - earlier.get(key, 0.0)

    def total(*names: str) -> float:
        return sum(value for (name, _, _), value in totals.items() if name in names)

    latencies: dict[str, dict[float, float]] = {what: {} for what in _LATENCIES.values()}
    for (name, bound, _), value in totals.items():
        if name in _LATENCIES:
            latencies[_LATENCIES[name]][float(bound)] = value
    return Figures(
        opened=total("app_connections_total"),
        published=total("app_messages_published_total"),
        failures=total(*_FAILURES),
        latencies=latencies,
        grown_bytes=_grown(before, now),
    )


def _grown(before: Reading, now: Reading) -> float:
    grown = [
        rss - before.rss_bytes[name] - canary.SOCKET_BYTES * max(0, now.sockets[name] - before.sockets[name])
        for name, rss in now.rss_bytes.items()
        if before.rss_bytes.get(name)
    ]
    return float(max(grown, default=0))


def counts_of(workers: Iterable[bytes]) -> dict[str, Counts]:
    """Pick what is compared out of the samples of workers."""
    found: dict[str, Counts] = {}
    for worker, name, labels, value in samples_of(workers):
        if name in _COUNTED:
            kind = labels.get("code") or labels.get("reason") or labels.get("kind") or ""
            found.setdefault(worker, {})[name, labels.get("le", ""), kind] = value
    return found


async def watch(
    fleet: Fleet, engine: Engine, control: Control, state: FleetState, old: Color, new: Color, limits: Limits
) -> str:
    """Watch a canary for as long as its limits say.

    Args:
        fleet: told how it does.
        engine: has the replicas.
        control: has their figures.
        state: of the fleet.
        old: the color that serves.
        new: the canary.
        limits: what is too much.

    Returns:
        How it did, for people.

    Raises:
        PartFailed: it is worse than it may be, or one of its replicas died.
    """

    async def read() -> dict[Color, Reading]:
        return await _read(engine, control, state, (old, new))

    before = now = await read()
    end = time.monotonic() + limits.seconds
    while time.monotonic() < end:
        await asyncio.sleep(min(_EVERY_S, max(0.0, end - time.monotonic())))
        now = await read()
        await _judge(engine, before, now, old, new, limits)
        fleet.say(f"watching {new} for {max(0.0, end - time.monotonic()):.0f} s more: {_said(before, now, new)}")
    return f"the canary is well: {_said(before, now, new)}"


def _said(before: Mapping[Color, Reading], now: Mapping[Color, Reading], new: Color) -> str:
    return canary.summary(since(before[new], now[new]))


async def _judge(
    engine: Engine,
    before: Mapping[Color, Reading],
    now: Mapping[Color, Reading],
    old: Color,
    new: Color,
    limits: Limits,
) -> None:
    for name, pid in before[new].pids.items():
        if now[new].pids.get(name) != pid:
            raise PartFailed(name, "died while it was watched as a canary", str(await engine.log(name)))
    wrong = canary.ailment(since(before[old], now[old]), since(before[new], now[new]), limits)
    if wrong:
        raise PartFailed(f"canary {new}", f"is worse than {old}: {wrong}")


async def _read(engine: Engine, control: Control, state: FleetState, colors: Iterable[Color]) -> dict[Color, Reading]:
    workers, running = await asyncio.gather(probe.insist(control.workers), engine.running())
    names = {color: layout.replica_names(state, color) for color in colors}
    all_names = [name for replicas in names.values() for name in replicas]
    usage = await engine.usage({name: running[name] for name in all_names if name in running})
    readings = {}
    for color, replicas in names.items():
        mine = [worker for worker in workers if worker.color == color]
        samples = await probe.insist(partial(control.metrics, [worker.name for worker in mine]))
        readings[color] = Reading(
            counts_of(samples),
            {name: sum(worker.connections for worker in mine if worker.replica == name) for name in replicas},
            {name: usage[name].rss_bytes for name in replicas if name in usage},
            {name: running[name].pid for name in replicas if name in running},
        )
    return readings
