"""Edges that go: their sockets can't be handed over, so their clients are asked to come back through the others.

An edge that is told to stop listens no more and waits for the sockets that it has. From then on the replicas, which are
told from which addresses and ports those come to them, ask their clients to reconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from shards import aio
from shards.addresses import Peer
from shards.fleet.engines.base import EdgePart, Engine, ReplicaPart
from shards.fleet.fleet import Fleet
from shards.fleet.probe import insist, until
from shards.router.control import Control, Orders

WINDOW_S = 6.0
"""Within which clients are asked to go. An edge waits longer than that: `shards.fleet.engines.edge.GRACE_S`."""

_CLOSED_S = 10.0
"""Within which an edge that is told to stop takes no more connections, wherever it runs."""


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
    fleet.note(f"stopping {', '.join(names)}: the clients that came through come back through the others")
    through = await _connected_from(engine, edges)
    stopping = asyncio.create_task(engine.remove(names), name="edges")
    try:
        # Who was asked sooner might come back to one that goes.
        await until(lambda: _are_closed(engine, edges, stopping), _CLOSED_S)
        through |= await _connected_from(engine, edges)
        order = Orders("active", round(min(drain_s, WINDOW_S) * 1000), through=tuple(sorted(through)))
        # To all: who has a socket now need not be the one to which the edge has connected it.
        orders = {replica.name: order for replica in replicas} if through else {}
        await insist(lambda: control.order(orders))
        try:
            await stopping
        finally:
            await insist(lambda: control.order(dict.fromkeys(orders)))
    finally:
        await aio.end([stopping])


async def _connected_from(engine: Engine, edges: Collection[EdgePart]) -> set[Peer]:
    return set().union(*[await engine.connects_from(edge) for edge in edges])


async def _are_closed(engine: Engine, edges: Collection[EdgePart], stopping: asyncio.Task[None]) -> bool:
    """Tell whether the edges take no more connections: they close all their ports when they are told to stop."""
    if stopping.done():
        return True
    answers = [await engine.ask_edge(edge, "/ping") for edge in edges]
    return all(answer is None or answer.status != 200 for answer in answers)
