"""What a step does and sees to before it is through, without a fleet: parts that do not do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from shards.errors import PartFailed
from shards.fleet import actions, health, probe, roundtrip
from shards.fleet.actions import Actions, Options
from shards.fleet.cutover import Action, Cutover, Step
from shards.fleet.drain import Drained
from shards.fleet.engines.base import EdgePart, Part, Route, Running
from shards.fleet.fleet import Fleet
from shards.fleet.roundtrip import Depth, Finding
from shards.fleet.spec import FleetSpec
from shards.fleet.state import LOOPBACK, Deployment, FleetDir, FleetState, Place
from shards.router.control import Orders

CUTOVER = Cutover("1", "promote", "blue", "green", "new", step=Step.SWITCH)

GONE = Place("gone", "192.0.2.1")
HERE = Place("here", LOOPBACK)


class Engine:
    """Writes down where requests shall go; its edges take that up when they like. It may have lost a host."""

    def __init__(self, taken_up: list[bool], lost: tuple[str, ...] = ()) -> None:
        self.taken_up, self.lost = taken_up, lost
        self.routes: list[Route] = []
        self.added: list[str] = []
        self.removed: list[str] = []
        self.stay: list[set[str]] = []

    async def check_app(self, release: str) -> str | None:
        return None

    async def add(self, parts: Sequence[Part]) -> None:
        self.added += [part.name for part in parts]

    def free_port(self, taken: Collection[int]) -> int:
        raise AssertionError("each part has a port")

    def place(self, state: FleetState, only: Collection[str] | None = None) -> dict[str, Place]:
        return {name: HERE if only is None or name in only else place for name, place in state.places.items()}

    async def route(self, route: Route) -> None:
        self.routes.append(route)

    async def lost_hosts(self) -> tuple[str, ...]:
        return self.lost

    async def ask_edge(self, edge: EdgePart, path: str) -> probe.Answer | None:
        return await probe.get(edge.port, path)

    async def routed(self, edge: object, route: Route) -> bool:
        return self.taken_up.pop(0) if len(self.taken_up) > 1 else self.taken_up[0]

    async def running(self) -> dict[str, Running]:
        return {"blue-0": Running(True), "green-0": Running(True)}

    async def remove(self, names: Collection[str]) -> None:
        self.removed += names

    async def forget_releases(self, stay: Collection[str]) -> None:
        self.stay.append(set(stay))

    async def log(self, name: str) -> Path:
        return Path("/nonexistent")


class Orderly:
    """A control plane that takes any order."""

    async def order(self, orders: object) -> None:
        pass


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


@asynccontextmanager
async def with_a_lost_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: str = "blue"
) -> AsyncIterator[tuple[Engine, Actions]]:
    """Give the actions of a fleet whose edge, and both of whose replicas, were on a host that is gone."""
    async with answers(b"OK") as port:
        engine = Engine([True], (GONE.address,))
        monkeypatch.setattr(Fleet, "engine", lambda self, spec: engine)
        acted = made(tmp_path, engine, replica=port)
        ports = {**acted.state.ports, "blue-0": port}
        places = dict.fromkeys(("edge-0", "blue-0", "green-0"), GONE)
        acted.state = replace(acted.state, ports=ports, places=places, active=cast(Any, active))
        yield engine, acted


async def test_a_promote_places_what_it_starts_and_waits_for_no_edge_on_a_host_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_a_lost_host(tmp_path, monkeypatch) as (engine, acted):
        acted.control = cast(Any, Orderly())
        await acted.perform(Action.START_NEW, CUTOVER)
        assert acted.state.places == {"edge-0": GONE, "blue-0": GONE, "green-0": HERE}
        assert engine.added == ["green-0"]
        await asyncio.wait_for(acted.perform(Action.ROUTE_NEW, CUTOVER), 5)
    assert [route.active for route in engine.routes] == ["green"]


@pytest.mark.parametrize(("active", "led"), [("blue", []), ("green", ["green"])])
async def test_replicas_of_a_host_that_is_lost_amid_a_promote_begin_anew_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: str, led: list[str]
) -> None:
    async with with_a_lost_host(tmp_path, monkeypatch, active) as (engine, acted):
        await acted.perform(Action.AWAIT_NEW, CUTOVER)
    assert acted.state.places == {"edge-0": GONE, "blue-0": GONE, "green-0": HERE}
    assert acted.fleet.directory.read() == acted.state, "a run that goes on from here knows it"
    assert engine.added == ["green-0"]
    assert [route.active for route in engine.routes] == led, "edges that send requests there are told where it is now"
    for route in engine.routes:
        assert [part.host for part in route.replicas["green"]] == [HERE.address]


async def test_the_way_back_begins_elsewhere_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_a_lost_host(tmp_path, monkeypatch, "green") as (engine, acted):
        await acted.perform(Action.START_OLD, replace(CUTOVER, step=Step.REVIVE, release="old"))
    assert acted.state.places == {"edge-0": GONE, "blue-0": HERE, "green-0": GONE}
    assert engine.added == ["blue-0"]


async def test_where_no_host_is_lost_nothing_is_started_that_is_waited_for(tmp_path: Path) -> None:
    async with answers(b"OK") as port:
        engine = Engine([True])
        await made(tmp_path, engine, replica=port).perform(Action.AWAIT_NEW, CUTOVER)
    assert (engine.added, engine.routes) == ([], [])


async def test_a_new_release_is_not_compared_with_a_replica_on_a_host_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    async def try_out(fleet: object, engine: object, parts: object, serves: object, path: str) -> str:
        asked.append(serves)
        return ""

    monkeypatch.setattr(actions, "try_out", try_out)
    async with with_a_lost_host(tmp_path, monkeypatch) as (_, acted):
        await acted.perform(Action.PROBE_NEW, CUTOVER)
    assert asked == [None]


async def remaining(tmp_path: Path, action: Action, active: str, cutover: Cutover) -> tuple[Engine, FleetState]:
    """End a promote; gives who was told which releases stay, and what is remembered."""
    async with answers(b"OK") as port:
        engine = Engine([True])
        acted = made(tmp_path, engine, port)
        acted.control = cast(Any, Orderly())
        # As the switch has left it.
        acted.state = replace(acted.state, active=cast(Any, active), previous="old")
        await acted.perform(action, cutover)
    return engine, acted.state


async def test_what_a_rollback_would_go_back_to_stays_after_a_promote(tmp_path: Path) -> None:
    engine, state = await remaining(tmp_path, Action.STOP_OLD, "green", replace(CUTOVER, step=Step.RETIRE))
    assert (engine.removed, engine.stay) == (["blue-0"], [{"new", "old"}])
    assert (state.active, state.previous) == ("green", "old")


async def test_what_a_rollback_would_go_back_to_stays_after_one_that_was_taken_back(tmp_path: Path) -> None:
    """Its switch has remembered the release that serves now as the one before."""
    undone = replace(CUTOVER, step=Step.WITHDRAW, previous="older")
    engine, state = await remaining(tmp_path, Action.STOP_NEW, "green", undone)
    assert (engine.removed, engine.stay) == (["green-0"], [{"old", "older"}])
    assert (state.active, state.previous) == ("blue", "older")
