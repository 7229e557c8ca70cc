"""Which parts a fleet has: from what is remembered of it to names, ports and routes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from shards.fleet.engines.base import EdgePart, RedisPart, ReplicaPart, Route, SentinelPart, Twin
from shards.fleet.shard_list import FleetShard
from shards.fleet.spec import COLORS, Color
from shards.fleet.state import FleetState
from shards.log.pair import Pair
from shards.router.table import Shard

CONTROL = "redis_shared"
SENTINELS = 3


def local_shard_names(state: FleetState) -> list[str]:
    """Name the shards that are parts of the fleet itself, and not lost."""
    return [shard.name for shard in state.shards if not shard.url and not shard.lost]


def is_replicated(state: FleetState) -> bool:
    """Tell whether each shard of the fleet's own is a pair of servers."""
    return state.spec.durability == "replicated"


def server_names(state: FleetState, shard: str) -> list[str]:
    """Name the servers of a shard of the fleet's own: it, and its twin where it has one; either may be the primary."""
    return [shard, f"{shard}-twin"] if is_replicated(state) else [shard]


def sentinel_names(state: FleetState) -> list[str]:
    """Name the Sentinels."""
    return [f"sentinel-{i}" for i in range(SENTINELS)] if is_replicated(state) else []


def redis_names(state: FleetState) -> list[str]:
    """Name the Redis servers that hold no groups' logs: each color's own, and the control Redis."""
    return [f"redis_{color}" for color in COLORS] + [CONTROL]


def replica_names(state: FleetState, color: Color) -> list[str]:
    """Name the replicas of a color; none where it is not deployed."""
    deployment = state.deployed.get(color)
    return [f"{color}-{i}" for i in range(deployment.replicas)] if deployment else []


def edge_names(state: FleetState) -> list[str]:
    """Name the edges."""
    return [f"edge-{i}" for i in range(state.spec.edges)]


def names(state: FleetState) -> list[str]:
    """Name every part."""
    replicas = [name for color in COLORS for name in replica_names(state, color)]
    servers = [name for shard in local_shard_names(state) for name in server_names(state, shard)]
    return servers + sentinel_names(state) + redis_names(state) + replicas + edge_names(state)


def with_ports(state: FleetState, choose: Callable[[Iterable[int]], int]) -> FleetState:
    """Give every part a port, and leave those that have one theirs.

    Args:
        state: the fleet.
        choose: gives a port that is free and not among those it is told.
    """
    ports = dict(state.ports)
    for name in names(state):
        if name not in ports:
            ports[name] = choose([state.spec.port, *ports.values()])
    return replace(state, ports=ports)


def without_ports(state: FleetState, gone: Iterable[str]) -> FleetState:
    """Take the ports of parts that are gone back."""
    left = set(gone)
    return replace(state, ports={name: port for name, port in state.ports.items() if name not in left})


def redis_parts(state: FleetState) -> list[RedisPart]:
    """Give the Redis servers that are parts of the fleet."""
    servers = [part for shard in local_shard_names(state) for part in server_parts(state, shard)]
    return servers + [RedisPart(name, state.ports[name]) for name in redis_names(state)]


def server_parts(state: FleetState, shard: str) -> list[RedisPart]:
    """Give the servers of a shard of the fleet's own."""
    names, sync_first = server_names(state, shard), state.spec.durability == "always"
    if len(names) == 1:
        return [RedisPart(shard, state.ports[shard], sync_first)]
    ports = [state.ports[name] for name in names]
    leads = state.primaries.get(shard, shard)
    sentinels = tuple(sentinel_ports(state))
    return [
        RedisPart(name, port, twin=Twin(shard, other, name == leads, sentinels))
        for name, port, other in zip(names, ports, reversed(ports), strict=True)
    ]


def sentinel_ports(state: FleetState) -> list[int]:
    """Give the ports of the Sentinels."""
    return [state.ports[name] for name in sentinel_names(state)]


def sentinel_parts(state: FleetState) -> list[SentinelPart]:
    """Give the Sentinels."""
    pairs = tuple(local_shard_names(state))
    return [SentinelPart(name, state.ports[name], pairs) for name in sentinel_names(state)]


def replica_parts(state: FleetState, color: Color) -> list[ReplicaPart]:
    """Give the replicas of a color."""
    deployment = state.deployed.get(color)
    if deployment is None:
        return []
    return [
        ReplicaPart(
            name,
            state.ports[name],
            color,
            deployment.workers,
            deployment.release,
            state.ports[f"redis_{color}"],
            state.ports[CONTROL],
        )
        for name in replica_names(state, color)
    ]


def edge_parts(state: FleetState) -> list[EdgePart]:
    """Give the edges."""
    return [EdgePart(name, state.ports[name]) for name in edge_names(state)]


def route(state: FleetState, active: Color | None = None) -> Route:
    """Give the route to a color (the active one), all deployed ones being known to the edges."""
    return Route(active or state.active, {color: replica_parts(state, color) for color in sorted(state.deployed)})


def as_shard(state: FleetState, shard: FleetShard) -> Shard:
    """Give a shard as the slot table knows it."""
    return Shard(shard.name, shard.url or _url(state, shard.name), shard.weight)


def _url(state: FleetState, shard: str) -> str:
    if is_replicated(state):
        return Pair(shard, tuple(("127.0.0.1", port) for port in sentinel_ports(state))).url
    return f"redis://127.0.0.1:{state.ports.get(shard, 0)}/0"


def shards(state: FleetState) -> list[Shard]:
    """Give the shards that are not lost as the slot table knows them."""
    return [as_shard(state, one) for one in state.shards if not one.lost]
