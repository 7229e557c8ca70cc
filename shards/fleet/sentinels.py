"""What the Sentinels of a fleet are told: which pairs there are. Whom they make the primary is their business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from redis.exceptions import RedisError

from shards.errors import PartFailed
from shards.fleet import layout, probe
from shards.fleet.engines.base import SentinelPart
from shards.fleet.fleet import CONTROL_S, Fleet
from shards.fleet.state import FleetState

QUORUM = layout.SENTINELS // 2 + 1

DOWN_AFTER_MS = 2000
"""A primary that is silent for so long is down, if a quorum finds it so."""

SWITCH_MS = 3000
"""A switch that takes longer is given up; the next try begins after twice that."""

Watched = Mapping[str, Mapping[str, Any]]


async def watch_pairs(fleet: Fleet, state: FleetState) -> None:
    """Have every Sentinel watch the pairs that there are, and no others; what they know of a pair stays.

    Raises:
        PartFailed: a Sentinel does not do its part.
    """
    sentinels = layout.sentinel_parts(state)
    watched = {part.name: await _watched(fleet, state, part) for part in sentinels}
    known: dict[str, tuple[int, int]] = {}
    for pairs in watched.values():
        for name, pair in pairs.items():
            known[name] = max(known.get(name, (-1, 0)), (int(pair["config-epoch"]), int(pair["port"])))
    for part in sentinels:
        for shard in layout.local_shard_names(state):
            if shard not in watched[part.name]:
                first = state.ports[state.primaries.get(shard, shard)]
                await _add(fleet, state, part, shard, known.get(shard, (0, first))[1])
        for shard in set(watched[part.name]) - set(layout.local_shard_names(state)):
            await _tell(fleet, state, part, "REMOVE", shard)


async def _watched(fleet: Fleet, state: FleetState, part: SentinelPart) -> Watched:
    return cast(Watched, await _tell(fleet, state, part, "MASTERS"))


async def _add(fleet: Fleet, state: FleetState, part: SentinelPart, shard: str, port: int) -> None:
    await _tell(fleet, state, part, "MONITOR", shard, "127.0.0.1", port, QUORUM)
    limits = ("down-after-milliseconds", DOWN_AFTER_MS, "failover-timeout", SWITCH_MS)
    await _tell(fleet, state, part, "SET", shard, "auth-pass", fleet.directory.password(), *limits)


async def _tell(fleet: Fleet, state: FleetState, part: SentinelPart, command: str, *words: str | int) -> Any:
    client: Any = probe.redis_client(part.port, fleet.directory.password(), CONTROL_S)
    try:
        return await client.execute_command(f"SENTINEL {command}", *words)
    except (RedisError, OSError) as error:
        log = str(await fleet.engine(state.spec).log(part.name))
        raise PartFailed(part.name, f"refuses SENTINEL {command}: {error}", log) from None
    finally:
        await client.aclose()
