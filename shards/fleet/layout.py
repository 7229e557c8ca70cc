"""Which parts a fleet has: from what is remembered of it to names, ports and routes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from shards.fleet.engines.base import EdgePart, RedisPart, ReplicaPart, Route
from shards.fleet.shard_list import FleetShard
from shards.fleet.spec import COLORS, Color
from shards.fleet.state import FleetState
from shards.router.table import Shard

CONTROL = "redis_shared"


def local_shard_names(state: FleetState) -> list[str]:
    """Name the shards that are parts of the fleet itself, and not lost."""
    return [shard.name for shard in state.shards if not shard.url and not shard.lost]


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
    return local_shard_names(state) + redis_names(state) + replicas + edge_names(state)


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
    return [RedisPart(name, state.ports[name]) for name in local_shard_names(state) + redis_names(state)]


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
    return Shard(shard.name, shard.url or f"redis://127.0.0.1:{state.ports.get(shard.name, 0)}/0", shard.weight)


def shards(state: FleetState) -> list[Shard]:
    """Give the shards that are not lost as the slot table knows them."""
    return [as_shard(state, one) for one in state.shards if not one.lost]
