"""Edges that go: their sockets can't be handed over, so their clients are asked to come back through the others.

An edge that is told to stop listens no more and waits for the sockets that it has. Meanwhile the replicas, which are
told by what ports those come to them, ask their clients to reconnect.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from shards.fleet.engines.base import EdgePart, Engine, ReplicaPart
from shards.fleet.fleet import Fleet
from shards.fleet.probe import insist
from shards.router.control import Control, Orders

WINDOW_S = 6.0
"""Within which clients are asked to go. An edge waits longer than that: `shards.fleet.engines.edge.GRACE_S`."""


async def remove_edges(
    fleet: Fleet,
    engine: Engine,
    control: Control,
    edges: Collection[EdgePart],
    replicas: Sequence[ReplicaPart],
    drain_s: float,
) -> None:
    """Stop edges; others listen on the port already.

    Args:
        fleet: told what is done.
        engine: has them.
        control: where orders are given.
        edges: those that go.
        replicas: those that serve.
        drain_s: the window in which clients shall reconnect, in seconds; at most `WINDOW_S` is used.

    Raises:
        ShardsError: one does not stop.
    """
    names = [edge.name for edge in edges]
    through: set[int] = set().union(*[await engine.ports_of(edge) for edge in edges])
    fleet.note(f"stopping {', '.join(names)}: the clients that came through come back through the others")
    order = Orders("active", round(min(drain_s, WINDOW_S) * 1000), through=tuple(sorted(through)))
    # To all: who has a socket now need not be the one to which the edge has connected it.
    orders = {replica.name: order for replica in replicas} if through else {}
    await insist(lambda: control.order(orders))
    try:
        await engine.remove(names)
    finally:
        await insist(lambda: control.order(dict.fromkeys(orders)))
