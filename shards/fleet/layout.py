"""Which parts a fleet has: from what is remembered of it to names, ports and routes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from shards.fleet.engines.base import AddressLimits, EdgePart, RedisPart, ReplicaPart, Route, SentinelPart, Twin
from shards.fleet.shard_list import FleetShard
from shards.fleet.spec import COLORS, Color
from shards.fleet.state import LOOPBACK, FleetState
from shards.log.pair import Pair
from shards.router.table import Shard

CONTROL = "redis_shared"
SENTINELS = 3

_EDGE_ROOM = 4
"""Edges in containers share a network, whose ports are said when it is made: there is room for so many, or for as many
as there are at the start, and for one more that stands in while another is restarted."""

MONITORING = ("prometheus", "grafana")
"""No parts of a fleet: they watch one in containers, where that is asked for, at ports of this host."""

ROUTE = "route"
"""What tells the edges of a host where to send requests, where the engine has several hosts."""

REDIS_PORT = 6379
"""Where a Redis server in a container listens, in a network of its own."""


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
    """Name the edges; while one of them is restarted there is one more, which stands in for it."""
    return [f"edge-{i}" for i in range(state.spec.edges + state.restarts_an_edge)]


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
    for name in [*names(state), *_beforehand(state)]:
        if name not in ports:
            ports[name] = choose([state.spec.port, *ports.values()])
    return replace(state, ports=ports)


def in_containers(state: FleetState) -> bool:
    """Tell whether the parts are in networks of their own, where they go by their names."""
    return state.spec.engine == "docker"


def host(state: FleetState, part: str) -> str:
    """Give the address of the host that a part is on: this one, where the engine has only one."""
    place = state.places.get(part)
    return place.address if place else LOOPBACK


def url(state: FleetState) -> str:
    """Give the URL where the fleet answers: where there are several hosts, at its first edge."""
    return f"{'https' if state.spec.tls_certificate else 'http'}://{address(state)}:{state.spec.port}"


def address(state: FleetState) -> str:
    """Give the address where the fleet answers."""
    return host(state, "edge-0") if "edge-0" in state.places else state.spec.address


def _beforehand(state: FleetState) -> list[str]:
    """Name what else needs a port.

    What may come later, at ports that are said at the start: parts share networks of containers. And, of several hosts,
    what tells each one's edges where to send requests.
    """
    if state.spec.engine == "swarm":
        return [ROUTE]
    if not in_containers(state):
        return []
    numbers = range(max((deployment.replicas for deployment in state.deployed.values()), default=0))
    edges = [f"edge-{i}" for i in range(max(_EDGE_ROOM, state.spec.edges) + 1)]
    return [*(f"{color}-{i}" for color in COLORS for i in numbers), *edges, *MONITORING]


def edge_room(state: FleetState) -> int | None:
    """Count the edges that a fleet which runs may have; None: any number."""
    if not in_containers(state):
        return None
    said = len([name for name in state.ports if name.startswith("edge-")])
    return max(said - 1, state.spec.edges)


def without_ports(state: FleetState, gone: Iterable[str]) -> FleetState:
    """Take the ports of parts that are gone back; networks of containers, and their ports, outlast the parts."""
    left = set(gone)
    places = {name: place for name, place in state.places.items() if name not in left}
    if in_containers(state):
        left = {name for name in left if not name.startswith(("blue-", "green-", "edge-"))}
    return replace(state, ports={name: port for name, port in state.ports.items() if name not in left}, places=places)


def stand_ins(state: FleetState) -> dict[str, str]:
    """Give for which part another one stands in, by the latter's name, while one is restarted."""
    if state.restarting is None:
        return {}
    replicas, edges = replica_names(state, state.active)[state.spec.replicas :], edge_names(state)[state.spec.edges :]
    return dict.fromkeys(edges if state.restarts_an_edge else replicas, state.restarting)


def without_stand_in(state: FleetState) -> FleetState:
    """Give the state without the replica that stands in for one that is restarted; of an edge, the state as it is."""
    deployment = state.deployed.get(state.active)
    if state.restarting is None or deployment is None or state.restarts_an_edge:
        return state
    return state.with_deployed(state.active, replace(deployment, replicas=state.spec.replicas))


def without_color(state: FleetState, color: Color) -> FleetState:
    """Give the state in which nothing of `color` is deployed."""
    gone = [name for name in state.ports if name.startswith(f"{color}-")]
    to_renew = tuple(name for name in state.to_renew if name not in gone)
    return without_ports(replace(state.with_deployed(color, None), to_renew=to_renew), gone)


def redis_parts(state: FleetState) -> list[RedisPart]:
    """Give the Redis servers that are parts of the fleet."""
    servers = [part for shard in local_shard_names(state) for part in server_parts(state, shard)]
    return servers + [RedisPart(name, state.ports[name], host=host(state, name)) for name in redis_names(state)]


def server_parts(state: FleetState, shard: str) -> list[RedisPart]:
    """Give the servers of a shard of the fleet's own."""
    names, sync_first = server_names(state, shard), state.spec.durability == "always"
    if len(names) == 1:
        return [RedisPart(shard, state.ports[shard], sync_first, host=host(state, shard))]
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
            host=host(state, name),
        )
        for name in replica_names(state, color)
    ]


def edge_parts(state: FleetState) -> list[EdgePart]:
    """Give the edges."""
    return [EdgePart(name, state.ports[name], host(state, name)) for name in edge_names(state)]


def route(state: FleetState, active: Color | None = None) -> Route:
    """Give the route to a color (the active one), all deployed ones being known to the edges."""
    replicas = {color: replica_parts(state, color) for color in sorted(state.deployed)}
    limits = AddressLimits(state.spec.address_connects, state.spec.address_sockets)
    return Route(active or state.active, replicas, limits=limits)


def as_shard(state: FleetState, shard: FleetShard) -> Shard:
    """Give a shard as the slot table knows it."""
    return Shard(shard.name, shard.url or _url(state, shard.name), shard.weight)


def _url(state: FleetState, shard: str) -> str:
    if is_replicated(state):
        return Pair(shard, tuple(("127.0.0.1", port) for port in sentinel_ports(state))).url
    if in_containers(state):
        return f"redis://{shard}:{REDIS_PORT}/0"
    return here(state, shard)


def here(state: FleetState, shard: str) -> str:
    """Give the URL at which this host reaches a shard of the fleet's own."""
    return f"redis://{host(state, shard)}:{state.ports.get(shard, 0)}/0"


def reached(state: FleetState, url: str) -> str:
    """Give the URL at which this host reaches a shard that the slot table has under `url`."""
    own = {_url(state, name): here(state, name) for name in local_shard_names(state)}
    return url if is_replicated(state) else own.get(url, url)


def shards(state: FleetState) -> list[Shard]:
    """Give the shards that are not lost as the slot table knows them."""
    return [as_shard(state, one) for one in state.shards if not one.lost]
