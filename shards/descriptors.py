"""How many sockets fit into what processes may open, as fleets, `inv doctor` and loads reckon.

Arithmetic first, then the little that asks the system.
"""

from __future__ import annotations

import contextlib
import resource

EDGE_RESERVE = 500
"""Descriptors that an edge keeps for itself: logs, probes, its API, idle connections to replicas."""

REPLICA_RESERVE = 500
"""Descriptors that a worker keeps for itself: Redis, probes, logs, sockets on their way to another color."""

DESCRIPTORS_A_SOCKET = 2
"""An edge holds a socket to the client and one to the replica."""

MOST_EDGES = 16
"""Of one host."""

_MOST_DESCRIPTORS = 1_048_576


def sockets_per_edge(descriptors: int) -> int:
    """Count the sockets that an edge can hold: it opens two files for each."""
    return max(0, (descriptors - EDGE_RESERVE) // DESCRIPTORS_A_SOCKET)


def sockets_per_replica(descriptors: int) -> int:
    """Count the sockets that a worker of a replica can hold: it opens one file for each."""
    return max(0, descriptors - REPLICA_RESERVE)


def descriptor_limit() -> int:
    """Tell how many files a process of this host may open: the hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)


def raise_descriptor_limit() -> None:
    """Let this process, and those it starts, open as many files as `descriptor_limit` says."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # macOS says "infinite" and means less; what it starts with does there.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor_limit(), hard))
