"""What a step does and sees to before it is through, without a fleet: parts that do not do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from shards.errors import PartFailed
from shards.fleet import actions, health, probe, roundtrip
from shards.fleet.actions import Actions, Options
from shards.fleet.cutover import Action, Cutover, Step
from shards.fleet.drain import Drained
from shards.fleet.engines.base import EdgePart, Route, Running
from shards.fleet.fleet import Fleet
from shards.fleet.roundtrip import Depth, Finding
from shards.fleet.spec import FleetSpec
from shards.fleet.state import Deployment, FleetDir, FleetState
from shards.router.control import Orders

CUTOVER = Cutover("1", "promote", "blue", "green", "new", step=Step.SWITCH)


class Engine:
    """Writes down where requests shall go; its edges take that up when they like."""

    def __init__(self, taken_up: list[bool]) -> None:
        self.taken_up = taken_up
        self.routes: list[Route] = []

    async def route(self, route: Route) -> None:
        self.routes.append(route)

    async def lost_hosts(self) -> tuple[str, ...]:
        return ()

    async def ask_edge(self, edge: EdgePart, path: str) -> probe.Answer | None:
        return await probe.get(edge.port, path)

    async def routed(self, edge: object, route: Route) -> bool:
        return self.taken_up.pop(0) if len(self.taken_up) > 1 else self.taken_up[0]

    async def running(self) -> dict[str, Running]:
        return {}

    def log(self, name: str) -> Path:
        return Path("/nonexistent")


@asynccontextmanager
async def answers(body: bytes) -> AsyncIterator[int]:
    """Answer every HTTP request so; gives the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def made(tmp_path: Path, engine: Engine, edge: int = 1, replica: int = 6) -> Actions:
    """Give the actions of a fleet with both colors, one replica each, and one edge."""
    directory = FleetDir(tmp_path, "f")
    directory.create()
    ports = {"edge-0": edge, "redis_blue": 2, "redis_green": 3, "redis_shared": 4, "blue-0": 5, "green-0": replica}
    deployed = {color: Deployment(release, 1, 1) for color, release in (("blue", "old"), ("green", "new"))}
    state = FleetState(FleetSpec(edges=1, replicas=1), ports, "blue", cast(Any, deployed), None, True)
    fleet = Fleet(directory, cast(Any, None), lambda _: None)
    return Actions(fleet, cast(Any, engine), cast(Any, None), state, Options(5.0))


async def test_a_switch_is_through_when_the_edges_say_so_and_not_when_they_were_told(tmp_path: Path) -> None:
    async with answers(b"OK") as port:
        engine = Engine([False, False, True])
        switched = made(tmp_path, engine, port)
        await switched.perform(Action.ROUTE_NEW, CUTOVER)
    assert [route.active for route in engine.routes] == ["green"]
    assert engine.taken_up == [True], "it was asked until it had"
    assert switched.state.active == "green"


async def test_an_edge_that_does_not_take_it_up_fails_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "EDGE_S", 0.3)
    async with answers(b"OK") as port:
        switched = made(tmp_path, Engine([False]), port)
        with pytest.raises(PartFailed, match="has not taken up its route"):
            await switched.perform(Action.ROUTE_NEW, CUTOVER)
    assert switched.state.active == "blue"


@pytest.mark.parametrize(
    ("said", "well"),
    [
        (b'{"replica":"green-0","release":"new"}', True),
        (b'{"replica":"green-0","release":"old"}', False),
        (b'{"replica":"another-0","release":"new"}', False),
        (b"hello", False),
    ],
)
async def test_what_answers_at_a_replicas_port_must_be_that_replica_of_that_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, well: bool
) -> None:
    async def find_out(port: int, path: str, token: str, host: str) -> Finding:
        return Finding(Depth.ROUND_TRIP)

    monkeypatch.setattr(roundtrip, "find_out", find_out)
    async with answers(said) as port:
        probed = made(tmp_path, Engine([True]), replica=port).perform(Action.PROBE_NEW, CUTOVER)
        if well:
            await probed
        else:
            with pytest.raises(PartFailed, match="says it is"):
                await probed


@pytest.mark.parametrize(
    ("action", "source", "target"), [(Action.MOVE_TO_NEW, "blue", "green"), (Action.MOVE_TO_OLD, "green", "blue")]
)
async def test_sockets_move_by_an_order_to_both_colors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Action, source: str, target: str
) -> None:
    given: list[tuple[Mapping[str, Orders | None], list[str], float, Mapping[str, Orders | None]]] = []

    async def drain(
        fleet: object, engine: object, control: object, orders: Any, drained: list[str], seconds: float, back: Any
    ) -> Drained:
        given.append((orders, drained, seconds, back))
        return Drained()

    monkeypatch.setattr(actions, "drain", drain)
    await made(tmp_path, Engine([True])).perform(action, CUTOVER)
    whole = {target: Orders("active"), source: Orders("draining", 5000, (f"{target}-0",))}
    orders = {"blue-0": None, "green-0": None, **whole}
    assert given == [(orders, [f"{source}-0"], 5.0, {source: Orders("active")})]
