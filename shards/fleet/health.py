"""Is a part well? Asked of the part itself; and the wait, with a deadline, until it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from shards.errors import PartFailed
from shards.fleet import probe
from shards.fleet.engines.base import EdgePart, Engine, Part, RedisPart, ReplicaPart, Route, Running, SentinelPart
from shards.fleet.engines.log_files import last_line_of
from shards.fleet.fleet import Fleet
from shards.router.control import WorkerRecord

REDIS_S, EDGE_S = 30.0, 30.0
"""How long parts may take to become healthy, in seconds. Redis may have data to load. Of replicas: `Fleet.ready_s`."""

_JUST_STARTED_S = 2.0
_GIVE_UP_STARTS, _GIVE_UP_S = 3, 3.0
"""A part that died more often while it was waited for, or for so long as soon as it was started, will not come up."""


def lives(worker: WorkerRecord, running: Mapping[str, Running]) -> bool:
    """Tell whether a worker lives, as far as this host can; what runs in a container it can't see into."""
    part = running.get(worker.replica, Running(False))
    return part.container is not None or (part.up and psutil.pid_exists(worker.pid))


async def ailment(fleet: Fleet, engine: Engine, part: Part, route: Route | None = None) -> str | None:
    """Ask a part how it is.

    Args:
        fleet: whose it is.
        engine: that keeps it.
        part: which.
        route: what an edge must work by; None: any route will do.

    Returns:
        None where it is well; else what is wrong, in a few words.
    """
    match part:
        case RedisPart():
            client = probe.redis_client(part.port, fleet.directory.password(), host=part.host)
            well = await probe.redis_clients(client) is not None
            return await _twin_ailment(fleet, part) if well else "does not answer PING"
        case SentinelPart():
            return await _sentinel_ailment(fleet, part)
        case ReplicaPart():
            return await _replica_ailment(part)
        case EdgePart():
            answer = await engine.ask_edge(part, "/ping")
            if answer is None or answer.status != 200:
                return "does not answer /ping"
            return None if route is None or await engine.routed(part, route) else "has not taken up its route"


async def _twin_ailment(fleet: Fleet, part: RedisPart) -> str | None:
    if part.twin is None:
        return None
    password = fleet.directory.password()
    said = await probe.ask_redis(part.port, password, "ROLE")
    if not isinstance(said, list):
        return "does not say its ROLE"
    if said[0] == b"slave":
        return None if said[3] == b"connected" else "is not linked to its primary"
    named = await probe.primary_port(part.twin.sentinels, password, part.twin.shard)
    return None if named in (None, part.port) else "takes itself for the primary, which its twin is"


async def _sentinel_ailment(fleet: Fleet, part: SentinelPart) -> str | None:
    password = fleet.directory.password()
    for pair in part.pairs:
        said = await probe.ask_redis(part.port, password, "SENTINEL CKQUORUM", pair)
        if said is None or isinstance(said, Exception):
            return f"sees no quorum for {pair}: {said or 'no answer'}"
        copies = await probe.ask_redis(part.port, password, "SENTINEL SLAVES", pair)
        # It asks them every ten seconds, and would go by what they said last.
        if not isinstance(copies, list) or not any(int(copy["slave-priority"]) for copy in copies):
            return f"knows no copy of {pair} that could take over"
    return None


async def _replica_ailment(part: ReplicaPart) -> str | None:
    answer = await probe.get(part.port, "/readyz", part.host)
    if answer is None:
        return "does not answer /readyz"
    if answer.status == 200:
        return None
    reason = answer.body.get("reason") if isinstance(answer.body, dict) else None
    return f"answers /readyz with {answer.status}" + (f" ({reason})" if reason else "")


async def until_healthy(
    fleet: Fleet, engine: Engine, parts: Sequence[Part], deadline_s: float, route: Route | None = None
) -> None:
    """Wait until parts are well.

    Args:
        fleet: whose they are.
        engine: that keeps them.
        parts: which.
        deadline_s: how long to wait, in seconds.
        route: what edges must work by.

    Raises:
        PartFailed: one is not by then, or dies again and again.
    """
    end, since = time.monotonic() + deadline_s, time.time()
    patience = {part.name: _Patience() for part in parts}
    waiting: list[Part] = list(parts)
    while True:
        ailments = await asyncio.gather(*(ailment(fleet, engine, part, route) for part in waiting))
        ill = {part.name: wrong for part, wrong in zip(waiting, ailments, strict=True) if wrong}
        if not ill:
            return
        waiting = [part for part in waiting if part.name in ill]
        running = await engine.running()
        for name, wrong in ill.items():
            if patience[name].ends(running.get(name)):
                raise await _failed(engine, name, "does not stay up", since)
            if time.monotonic() >= end:
                raise await _failed(engine, name, wrong, since)
        fleet.say(f"waiting for {_list(list(ill))}")
        await asyncio.sleep(0.1)


@dataclass
class _Patience:
    """Ends where a part dies again and again, rather than being slow."""

    pids: set[int] = field(default_factory=set)
    retried_since: float = 0.0

    def ends(self, known: Running | None) -> bool:
        """Take note of what the engine knows of the part, and tell whether that is hopeless."""
        if known is None:
            return False
        if known.pid:
            self.pids.add(known.pid)
        if known.retried and not self.retried_since:
            self.retried_since = time.monotonic()
        hopeless = known.retried and time.monotonic() - self.retried_since > _GIVE_UP_S
        return hopeless or len(self.pids) > _GIVE_UP_STARTS


async def _failed(engine: Engine, name: str, wrong: str, since: float) -> PartFailed:
    log = await engine.log(name)
    # What an earlier run has printed there would only mislead.
    said = last_line_of(log) if log.exists() and log.stat().st_mtime >= since - _JUST_STARTED_S else ""
    return PartFailed(name, f"{wrong}: {said or 'it printed nothing'}", str(log))


def _list(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
