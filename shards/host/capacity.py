"""How many parts and hosts a number of sockets takes: arithmetic on measured costs. Pure, but for reading these.

The costs were measured on one machine (`python -m shards.load.scaling`, docs/scaling.md) and are linear: a base for
each process, and so much a socket and a message. Beyond what was measured this is an extrapolation, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import msgspec

from shards.descriptors import MOST_EDGES, sockets_per_edge, sockets_per_replica
from shards.errors import UsageError

CPU_LIMIT = 0.8
"""The part of a core, and of a host, that may be busy: the rest is for what is uneven."""

MEMORY_LIMIT = 0.8
PORTS_LIMIT = 0.8
CONNTRACK_A_SOCKET = 2
"""The kernel keeps an entry for the connection to the edge, and one for that to the replica."""


class Cost(msgspec.Struct, frozen=True):
    """What one tier costs.

    Attributes:
        base_bytes: memory of a process that does nothing.
        socket_bytes: memory of a socket more.
        socket_bytes_error: the standard error of that.
        socket_cpu_s: CPU seconds a second, of a socket that is silent.
        socket_cpu_s_error: the standard error of that.
        message_cpu_s: CPU seconds of one message more that is delivered.
        message_cpu_s_error: the standard error of that.
    """

    base_bytes: float
    socket_bytes: float
    socket_bytes_error: float
    socket_cpu_s: float
    socket_cpu_s_error: float
    message_cpu_s: float
    message_cpu_s_error: float


class Costs(msgspec.Struct, frozen=True):
    """All tiers' costs, and where they are from.

    Attributes:
        tiers: edges, replicas and shards.
        most_sockets: up to how many sockets was measured.
        host: what was measured on.
        measured: when.
        runs: the measurements themselves.
    """

    tiers: dict[str, Cost]
    most_sockets: int
    host: dict[str, Any]
    measured: str
    runs: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Host:
    """A host, as far as it limits what it can hold.

    Attributes:
        cores: CPUs.
        memory_bytes: RAM.
        descriptors: files that one process may open (the hard limit).
        ports: from which a process may connect to one address.
    """

    cores: int
    memory_bytes: int
    descriptors: int
    ports: int


@dataclass(frozen=True)
class Fleet:
    """The parts that a host runs, as far as they limit what it holds.

    Attributes:
        edges: how many; None: as many as the sockets take.
        replicas: app servers of a color.
        workers: processes of each.
        shards: Redis servers that own slots.
        edge_memory_bytes: what the container of an edge may use; None: it is in none.
        replica_memory_bytes: the same of a replica.
    """

    edges: int | None = None
    replicas: int = 3
    workers: int = 1
    shards: int = 2
    edge_memory_bytes: int | None = None
    replica_memory_bytes: int | None = None

    def edges_for(self, connections: int, host: Host) -> int:
        """Count the edges it has where it shall hold `connections`."""
        held = sockets_per_edge(host.descriptors)
        return self.edges or min(MOST_EDGES, max(1, math.ceil(connections / held) if held else 1))


@dataclass(frozen=True)
class Limit:
    """What one resource allows.

    Attributes:
        name: ``nofile``, ``ports``, ``conntrack``, ``memory``, ``container memory`` or ``cpu``.
        sockets: how many it allows.
        of: what is counted.
    """

    name: str
    sockets: int
    of: str


@dataclass(frozen=True)
class Tier:
    """How many of one tier it takes.

    Attributes:
        count: how many processes.
        because: which limit asks for the most: ``descriptors``, ``ports``, ``cpu``, ``memory`` or ``at least one``.
        cores: what they use together.
        memory_bytes: what they hold together.
    """

    count: int
    because: str
    cores: float
    memory_bytes: float


@dataclass(frozen=True)
class Answer:
    """What a number of sockets takes.

    Attributes:
        connections: sockets.
        delivered_per_s: messages delivered a second, to all together.
        tiers: edges, replicas and shards.
        hosts: how many like the given one.
        hosts_because: which limit asks for the most hosts: ``cpu`` or ``memory``.
        extrapolated: how many times more sockets than were measured; at most 1: none.
        cpu_error: the relative standard error of the CPU, from those of the fits, of silent sockets and of messages.
    """

    connections: int
    delivered_per_s: float
    tiers: dict[str, Tier]
    hosts: int
    hosts_because: str
    extrapolated: float
    cpu_error: float


def measured_costs() -> Costs:
    """Give the costs that come with this package."""
    return msgspec.json.decode((files("shards.host") / "costs.json").read_bytes(), type=Costs)


def sockets_per_port(ports: int) -> int:
    """Count the sockets between the edges of a host and one replica: each takes a port, and some wait in TIME_WAIT."""
    return int(PORTS_LIMIT * ports)


def limits(
    connections: int,
    fleet: Fleet,
    costs: Costs,
    host: Host,
    memory_bytes: int | None = None,
    conntrack: int | None = None,
) -> list[Limit]:
    """Count the sockets that each resource lets a fleet on one host hold, the fewest first.

    Args:
        connections: what the fleet is set up for: its edges are counted from it.
        fleet: its parts.
        costs: see `measured_costs`.
        host: what it runs on.
        memory_bytes: what others on it leave to the fleet; None: unknown.
        conntrack: connections that the kernel has room to track; None: it tracks none.
    """
    edges, workers = fleet.edges_for(connections, host), fleet.replicas * fleet.workers
    per_edge, per_worker = sockets_per_edge(host.descriptors), sockets_per_replica(host.descriptors)
    per_replica = sockets_per_port(host.ports)
    found = [
        Limit("nofile", edges * per_edge, f"{_count(edges, 'edge')}, {per_edge:,} each"),
        Limit("nofile", workers * per_worker, f"{_count(workers, 'worker')}, {per_worker:,} each"),
        Limit("ports", fleet.replicas * per_replica, f"{_count(fleet.replicas, 'replica')}, {per_replica:,} each"),
        _by_memory({"edges": edges, "replicas": workers, "shards": fleet.shards}, costs, host, memory_bytes),
        Limit("cpu", _by_cpu(costs, host), f"{CPU_LIMIT:.0%} of the cores, with silent sockets"),
        *_by_containers(edges, fleet, costs),
    ]
    if conntrack is not None:
        found.append(Limit("conntrack", max(0, conntrack) // CONNTRACK_A_SOCKET, "two entries a socket"))
    return sorted(found, key=lambda limit: limit.sockets)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _by_memory(counts: Mapping[str, int], costs: Costs, host: Host, memory_bytes: int | None) -> Limit:
    """Count by the memory that may be filled, or that others leave, whichever is less."""
    most, of = MEMORY_LIMIT * host.memory_bytes, f"{MEMORY_LIMIT:.0%} of the memory"
    if memory_bytes is not None and memory_bytes < most:
        most, of = memory_bytes, f"the {memory_bytes / 1e9:,.1f} GB of memory that others leave"
    left = most - sum(count * costs.tiers[name].base_bytes for name, count in counts.items())
    return Limit("memory", max(0, int(left / sum(costs.tiers[name].socket_bytes for name in counts))), of)


def _by_cpu(costs: Costs, host: Host) -> int:
    each = sum(cost.socket_cpu_s for cost in costs.tiers.values())
    return int(CPU_LIMIT * host.cores / each) if each else 2**31


def _by_containers(edges: int, fleet: Fleet, costs: Costs) -> list[Limit]:
    kinds = [
        ("edges", edges, 1, fleet.edge_memory_bytes),
        ("replicas", fleet.replicas, fleet.workers, fleet.replica_memory_bytes),
    ]
    found = []
    for tier, count, processes, memory in kinds:
        if memory is not None:
            cost = costs.tiers[tier]
            each = max(0, int((MEMORY_LIMIT * memory - processes * cost.base_bytes) / cost.socket_bytes))
            found.append(Limit("container memory", count * each, f"{_count(count, tier[:-1])}, {each:,} each"))
    return found


def carried(connections: int, fleet: Fleet, costs: Costs, host: Host) -> int:
    """Count the messages a second that a fleet on one host can deliver to sockets, before its CPU is full.

    A worker and a shard each work on one core; edges on as many as there are.
    """
    tiers = costs.tiers
    left = CPU_LIMIT * host.cores - connections * sum(cost.socket_cpu_s for cost in tiers.values())
    allowed = [left / sum(cost.message_cpu_s for cost in tiers.values())]
    for name, processes in (("replicas", fleet.replicas * fleet.workers), ("shards", fleet.shards)):
        cost = tiers[name]
        allowed.append((CPU_LIMIT * processes - connections * cost.socket_cpu_s) / cost.message_cpu_s)
    return max(0, int(min(allowed)))


def needed(connections: int, delivered_per_s: float, costs: Costs, host: Host) -> Answer:
    """Count what sockets take.

    Args:
        connections: how many.
        delivered_per_s: messages delivered a second, to all together, in groups of ten.
        costs: see `measured_costs`.
        host: what each host is like.

    Raises:
        UsageError: a process of such a host cannot hold a single socket.
    """
    memory = MEMORY_LIMIT * host.memory_bytes
    held: dict[str, dict[str, float]] = {
        "edges": {"descriptors": sockets_per_edge(host.descriptors)},
        "replicas": {"descriptors": sockets_per_replica(host.descriptors), "ports": sockets_per_port(host.ports)},
        "shards": {},
    }
    tiers = {name: _tier(connections, delivered_per_s, costs.tiers[name], most, memory) for name, most in held.items()}
    asks = {
        "cpu": sum(tier.cores for tier in tiers.values()) / (CPU_LIMIT * host.cores),
        "memory": sum(tier.memory_bytes for tier in tiers.values()) / memory,
    }
    because = max(asks, key=lambda name: asks[name])
    return Answer(
        connections=connections,
        delivered_per_s=delivered_per_s,
        tiers=tiers,
        hosts=max(1, math.ceil(asks[because])),
        hosts_because=because,
        extrapolated=connections / costs.most_sockets,
        cpu_error=_cpu_error(connections, delivered_per_s, costs, tiers),
    )


def _tier(connections: int, delivered_per_s: float, cost: Cost, held: Mapping[str, float], memory: float) -> Tier:
    cores = connections * cost.socket_cpu_s + delivered_per_s * cost.message_cpu_s
    sockets_bytes = connections * cost.socket_bytes
    asks = {
        "at least one": 1.0,
        **{limit: connections / most if most else math.inf for limit, most in held.items()},
        "cpu": cores / CPU_LIMIT,
        "memory": sockets_bytes / max(1.0, memory - cost.base_bytes),
    }
    because = max(asks, key=lambda name: asks[name])
    if asks[because] == math.inf:
        raise UsageError(f"not one socket fits: the {because} of this host are too few; raise their limit")
    count = math.ceil(asks[because])
    return Tier(count, because, cores, sockets_bytes + count * cost.base_bytes)


def _cpu_error(connections: int, delivered_per_s: float, costs: Costs, tiers: Mapping[str, Tier]) -> float:
    """Add the errors of all fits up by their squares: each was made apart from the others."""
    cores = sum(tier.cores for tier in tiers.values())
    errors = [
        error
        for cost in (costs.tiers[name] for name in tiers)
        for error in (connections * cost.socket_cpu_s_error, delivered_per_s * cost.message_cpu_s_error)
    ]
    return math.hypot(*errors) / cores if cores else 0.0
