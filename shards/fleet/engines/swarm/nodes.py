"""The nodes of a swarm, and which part goes to which of them. Pure.

What has data stays where it began: a shard's volume is on its node. The Redis servers that are not shards are on a
manager, beside what commands need anyway. Everything else is spread, and goes elsewhere where its node is gone. Both
colors' replicas of a number share a node, since only there sockets can be handed over; so does what stands in for a
part that is restarted, since only there it is found at the same address.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shards.errors import ShardsError
from shards.fleet.spec import COLORS, other_color
from shards.fleet.state import Place

OLDEST = (20, 10)
"""Docker whose services can say how many files their tasks may open (API 1.41)."""

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
        drained: the swarm has ended what ran there, and starts nothing.
        engine: the version of its Docker; empty: not known.
    """

    id: str
    name: str
    address: str
    usable: bool
    answers: bool
    manager: bool
    cores: float
    drained: bool = False
    engine: str = ""

    @property
    def bears(self) -> bool:
        """Whether what is on it runs; one that is paused gets nothing new, and that is all."""
        return self.answers and not self.drained

    @property
    def place(self) -> Place:
        """The node as a place of parts."""
        return Place(self.name, self.address)


def read(said: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Read what the daemon says of the nodes; managers come first."""
    nodes = [_node(one) for one in said]
    answering = [node for node in nodes if node.answers]
    there = {node.name for node in answering}
    # A host that has left the swarm and joined it anew is listed as often.
    silent = {node.name: node for node in nodes if node.name not in there}
    return sorted([*answering, *silent.values()], key=lambda node: (not node.manager, node.name, node.id))


def _node(said: Mapping[str, Any]) -> Node:
    description, status, manager = said.get("Description", {}), said.get("Status", {}), said.get("ManagerStatus", {})
    answers, availability = status.get("State") == "ready", said.get("Spec", {}).get("Availability")
    return Node(
        id=str(said["ID"]),
        name=str(description.get("Hostname", said["ID"])),
        address=_address(str(status.get("Addr", "")), str(manager.get("Addr", ""))),
        usable=answers and availability == "active",
        answers=answers,
        manager=bool(manager),
        cores=description.get("Resources", {}).get("NanoCPUs", 0) / _NANO,
        drained=availability == "drain",
        engine=str(description.get("Engine", {}).get("EngineVersion", "")),
    )


def _address(own: str, manager: str) -> str:
    """A manager may know itself as 0.0.0.0, but said which address it has to the others."""
    return own if own not in ("", "0.0.0.0", "127.0.0.1") else manager.rpartition(":")[0] or own


def check(nodes: Sequence[Node]) -> None:
    """See whether parts can be told apart by their nodes' names, and whether nodes can run them.

    Raises:
        ShardsError: two nodes have the same name, one's Docker is too old, or none takes parts.
    """
    names = [node.name for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise ShardsError(f"two nodes of the swarm are called {name}: give one another hostname, and join it anew")
    for node in _usable(nodes):
        if _is_older(node.engine):
            oldest = ".".join(map(str, OLDEST))
            raise ShardsError(
                f"node {node.name} has Docker {node.engine}: every node of the swarm needs {oldest} or newer"
            )


def _usable(nodes: Sequence[Node]) -> list[Node]:
    usable = [node for node in nodes if node.usable]
    if not usable:
        raise ShardsError("no node of the swarm takes parts: see `docker node ls`")
    return usable


def _is_older(version: str) -> bool:
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    return bool(numbers) and numbers < OLDEST


def lost(places: Iterable[Place], nodes: Sequence[Node]) -> set[str]:
    """Give the addresses at which nothing runs: of nodes that do not answer, or are drained, or left the swarm.

    Args:
        places: where parts are.
        nodes: the swarm's.
    """
    bear = [node for node in nodes if node.bears]
    names, addresses = {node.name for node in bear}, {node.address for node in bear}
    everywhere = [*places, *(node.place for node in nodes)]
    # A host that was made anew may have the address of the one that it was.
    return {place.address for place in everywhere if place.node not in names} - addresses


def place(
    names: Sequence[str],
    known: Mapping[str, Place],
    nodes: Sequence[Node],
    only: Collection[str] | None = None,
    beside: Mapping[str, str] | None = None,
) -> dict[str, Place]:
    """Say where each part is.

    Args:
        names: of the parts.
        known: where parts are, or were.
        nodes: the swarm's.
        only: the names of those that are started now; the others stay where they are known to be. None: all are.
        beside: what each shall share a node with, where that takes parts; by name.

    Returns:
        The places of the parts, and of those that were known besides: one that was stopped may come back.

    Raises:
        ShardsError: there is no node for a part.
    """
    today = {node.name: node for node in nodes}
    # A node may come back under another address.
    placed = {name: today[one.node].place if one.node in today else one for name, one in known.items()}
    for name in names if only is None else [name for name in names if name in only]:
        there = today.get(placed[name].node) if name in placed else None
        if name in placed and (has_data(name) or (there and there.bears)):
            continue
        placed.pop(name, None)
        company = (beside or {}).get(name) or _twin(name)
        placed[name] = _choose(name, company, placed, names, _usable(nodes)).place
    return placed


def _choose(name: str, company: str, placed: Mapping[str, Place], names: Sequence[str], usable: Sequence[Node]) -> Node:
    by_name = {node.name: node for node in usable}
    kind = _kind(name)
    if kind == "redis":
        return usable[0]
    if (there := placed.get(company)) and there.node in by_name:
        return by_name[there.node]
    same = [placed[one].node for one in names if one in placed and _kind(one) == kind]
    return min(usable, key=lambda node: same.count(node.name))


def _kind(name: str) -> str:
    return name.split("_", maxsplit=1)[0].split("-", maxsplit=1)[0]


def _twin(name: str) -> str:
    """Name the other color's replica of the same number; empty where the part is no replica."""
    color, _, number = name.partition("-")
    return next((f"{other_color(one)}-{number}" for one in COLORS if one == color), "")


def has_data(name: str) -> bool:
    """Tell whether a part keeps data, by its name."""
    return _kind(name) in {"shared", "redis"}
