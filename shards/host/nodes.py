"""What the nodes of a swarm have together, as its manager says it: of what else they have, it knows nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from shards.errors import ShardsError
from shards.fleet.engines.docker import daemon

_NANO = 10**9


def cores_and_memory(said: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Add up the cores, and the memory in bytes, of the nodes that answer and take parts.

    Args:
        said: what the daemon says of each node.

    Raises:
        ShardsError: there is no such node.
    """
    usable = [node["Description"]["Resources"] for node in said if _usable(node)]
    if not usable:
        raise ShardsError("no node of the swarm takes parts: see `docker node ls`")
    return sum(node["NanoCPUs"] for node in usable) // _NANO, sum(node["MemoryBytes"] for node in usable)


def _usable(node: Mapping[str, Any]) -> bool:
    return bool(node["Status"]["State"] == "ready" and node["Spec"]["Availability"] == "active")


def ask() -> tuple[int, int]:
    """Ask the manager that the environment names for `cores_and_memory`.

    Raises:
        ShardsError: there is none, or it has no node that takes parts.
    """
    with contextlib.closing(daemon.connect()) as client, daemon.errors():
        return cores_and_memory(client.api.nodes())
