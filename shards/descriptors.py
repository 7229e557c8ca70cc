"""How many sockets fit into what processes may open: arithmetic that fleets, `inv doctor` and loads share. Pure."""

from __future__ import annotations

EDGE_RESERVE = 500
"""Descriptors that an edge keeps for itself: logs, probes, its API, idle connections to replicas."""

REPLICA_RESERVE = 500
"""Descriptors that a worker keeps for itself: Redis, probes, logs, sockets on their way to another color."""

DESCRIPTORS_A_SOCKET = 2
"""An edge holds a socket to the client and one to the replica."""

MOST_EDGES = 16
"""Of one host."""


def sockets_per_edge(descriptors: int) -> int:
    """Count the sockets that an edge can hold: it opens two files for each."""
    return max(0, (descriptors - EDGE_RESERVE) // DESCRIPTORS_A_SOCKET)


def sockets_per_replica(descriptors: int) -> int:
    """Count the sockets that a worker of a replica can hold: it opens one file for each."""
    return max(0, descriptors - REPLICA_RESERVE)
