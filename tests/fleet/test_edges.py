"""The order in which edges go: who is asked to come back must find none that is about to go."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from shards.addresses import Peer
from shards.errors import PartFailed
from shards.fleet import edges
from shards.fleet.edges import remove_edges
from shards.fleet.engines.base import EdgePart, ReplicaPart
from shards.fleet.fleet import Fleet
from shards.fleet.probe import Answer
from shards.fleet.state import FleetDir
from shards.router.control import Orders

EDGES = [cast(EdgePart, type("Edge", (), {"name": name})()) for name in ("edge-1", "edge-2")]
REPLICAS = [cast(ReplicaPart, type("Replica", (), {"name": name})()) for name in ("blue-0", "blue-1")]


class Engine:
    """Stops edges: they close their ports a while after they were told, and end when their last client has gone.

    Args:
        told: what was done, in its order.
        closes: how often each edge still answers that all is well.
        fails: it can't stop them.
    """

    def __init__(self, told: list[str], closes: int = 3, fails: bool = False) -> None:
        self.told, self.fails = told, fails
        self.open = {edge.name: closes for edge in EDGES}
        self.peers = {"edge-1": {("10.0.0.1", 1001)}, "edge-2": {("10.0.0.2", 1001)}}
        self.gone = asyncio.Event()

    async def connects_from(self, edge: EdgePart) -> set[Peer]:
        self.told.append(f"peers of {edge.name}")
        return set(self.peers[edge.name])

    async def remove(self, names: Collection[str]) -> None:
        self.told.append(f"stop {' '.join(names)}")
        # Who comes between the first question and the close.
        self.peers["edge-2"].add(("10.0.0.2", 2002))
        if self.fails:
            raise PartFailed("edge-1", "does not stop", "")
        await self.gone.wait()
        self.told.append("stopped")

    async def ask_edge(self, edge: EdgePart, path: str) -> Answer | None:
        if not self.open[edge.name]:
            return None
        self.open[edge.name] -= 1
        self.told.append("open")
        return Answer(200, b"OK")


class Control:
    """Writes down orders; once clients were asked to come back, the edges end."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.orders: list[Mapping[str, Orders | None]] = []

    async def order(self, orders: Mapping[str, Orders | None]) -> None:
        self.orders.append(orders)
        self.engine.told.append("order")
        self.engine.gone.set()


async def remove(tmp_path: Path, engine: Engine, drain_s: float = 60.0) -> Control:
    nothing: Any = None
    control = Control(engine)
    fleet = Fleet(FleetDir(tmp_path, "p"), nothing, lambda text: None)
    async with asyncio.timeout(60):
        await remove_edges(fleet, cast(Any, engine), cast(Any, control), EDGES, REPLICAS, drain_s)
    return control


async def test_clients_are_asked_to_come_back_when_no_edge_that_goes_listens_any_more(tmp_path: Path) -> None:
    told: list[str] = []
    engine = Engine(told)
    control = await remove(tmp_path, engine)
    asked = told.index("order")
    assert told.index("peers of edge-1") < told.index("stop edge-1 edge-2") < asked
    assert "open" not in told[asked:], "whoever came back now might meet one that goes"
    assert told.count("open") == 6
    assert told[asked - 2 : asked] == ["peers of edge-1", "peers of edge-2"]
    assert told[asked + 1 :] == ["stopped", "order"]
    assert set(control.orders[0]) == {"blue-0", "blue-1"}
    order = control.orders[0]["blue-0"]
    assert order is not None
    assert order.through == (("10.0.0.1", 1001), ("10.0.0.2", 1001), ("10.0.0.2", 2002)), (
        "those too who came before it closed"
    )
    assert control.orders[1] == {"blue-0": None, "blue-1": None}


async def test_an_edge_that_does_not_close_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edges, "_CLOSED_S", 0.3)
    control = await remove(tmp_path, Engine([], closes=10**9))
    assert control.orders[-1] == {"blue-0": None, "blue-1": None}


async def test_an_edge_that_can_not_be_stopped_is_told_and_orders_are_taken_back(tmp_path: Path) -> None:
    told: list[str] = []
    engine = Engine(told, fails=True)
    with pytest.raises(PartFailed, match="does not stop"):
        await remove(tmp_path, engine)
    assert told[-2:] == ["order", "order"]


async def test_where_no_client_came_through_nobody_is_asked(tmp_path: Path) -> None:
    engine = Engine([])
    engine.peers = {"edge-1": set(), "edge-2": set()}
    engine.remove = stop_at_once  # type: ignore[method-assign]
    control = await remove(tmp_path, engine)
    assert control.orders == [{}, {}]


async def stop_at_once(names: Collection[str]) -> None:
    """Stop edges that have no client."""
