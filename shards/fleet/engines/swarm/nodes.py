"""The nodes of a swarm, and which part goes to which of them. Pure.

What has data stays where it began: a shard's volume is on its node. The Redis servers that are not shards are on a
manager, beside what commands need anyway. Everything else is spread, and goes elsewhere where its node is gone. Both
colors' replicas of a number share a node, since only there sockets can be handed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shards.errors import ShardsError
from shards.fleet.spec import COLORS, other_color
from shards.fleet.state import Place

_NANO = 1e9


@dataclass(frozen=True)
class Node:
    """A host of the swarm.

    Attributes:
        id: of the swarm's.
        name: its hostname.
        address: by which the others reach it.
        usable: it answers, and takes parts.
        answers: the swarm hears from it.
        manager: it is one.
        cores: how many it has.
    """

    id: str
    name: str
    address: str
    usable: bool
    answers: bool
    manager: bool
    cores: float

    @property
    def place(self) -> Place:
        """The node as a place of parts."""
        return Place(self.name, self.address)


def read(said: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Read what the daemon says of the nodes; managers come first."""
    nodes = [_node(one) for one in said]
    return sorted(nodes, key=lambda node: (not node.manager, node.name, node.id))


def _node(said: Mapping[str, Any]) -> Node:
    description, status, manager = said.get("Description", {}), said.get("Status", {}), said.get("ManagerStatus", {})
    answers = status.get("State") == "ready"
    return Node(
        id=str(said["ID"]),
        name=str(description.get("Hostname", said["ID"])),
        address=_address(str(status.get("Addr", "")), str(manager.get("Addr", ""))),
        usable=answers and said.get("Spec", {}).get("Availability") == "active",
        answers=answers,
        manager=bool(manager),
        cores=description.get("Resources", {}).get("NanoCPUs", 0) / _NANO,
    )


def _address(own: str, manager: str) -> str:
    """A manager may know itself as 0.0.0.0, but said which address it has to the others."""
    return own if own not in ("", "0.0.0.0", "127.0.0.1") else manager.rpartition(":")[0] or own


def check(nodes: Sequence[Node]) -> None:
    """See whether parts can be told apart by their nodes' names.

    Raises:
        ShardsError: two nodes have the same, or none takes parts.
    """
    names = [node.name for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise ShardsError(f"two nodes of the swarm are called {name}: give one another hostname, and join it anew")
    if not any(node.usable for node in nodes):
        raise ShardsError("no node of the swarm takes parts: see `docker node ls`")


def place(names: Sequence[str], known: Mapping[str, Place], nodes: Sequence[Node]) -> dict[str, Place]:
    """Say where each part is.

    Args:
        names: of the parts.
        known: where parts are, or were.
        nodes: the swarm's.

    Returns:
        The places of the parts, and of those that were known besides: one that was stopped may come back.
    """
    today = {node.name: node for node in nodes}
    # A node may come back under another address.
    placed = {name: today[one.node].place if one.node in today else one for name, one in known.items()}
    usable = [node for node in nodes if node.usable]
    for name in names:
        there = today.get(placed[name].node) if name in placed else None
        if name in placed and (_has_data(name) or (there and there.usable)):
            continue
        placed.pop(name, None)
        if usable:
            placed[name] = _choose(name, placed, names, usable).place
    return placed


def _choose(name: str, placed: Mapping[str, Place], names: Sequence[str], usable: Sequence[Node]) -> Node:
    by_name = {node.name: node for node in usable}
    kind = _kind(name)
    if kind == "redis":
        return usable[0]
    if (twin := placed.get(_twin(name))) and twin.node in by_name:
        return by_name[twin.node]
    same = [placed[one].node for one in names if one in placed and _kind(one) == kind]
    return min(usable, key=lambda node: same.count(node.name))


def _kind(name: str) -> str:
    return name.split("_", maxsplit=1)[0].split("-", maxsplit=1)[0]


def _twin(name: str) -> str:
    """Name the other color's replica of the same number; empty where the part is no replica."""
    color, _, number = name.partition("-")
    return next((f"{other_color(one)}-{number}" for one in COLORS if one == color), "")


def _has_data(name: str) -> bool:
    return _kind(name) in {"shared", "redis"}
