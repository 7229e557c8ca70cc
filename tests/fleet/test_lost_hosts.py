"""What commands do where a host is gone: all that needs not wait for it goes on elsewhere, and they say what does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from shards.errors import ShardsError
from shards.fleet import layout, reconcile, replicas, restart, rotate, sharding
from shards.fleet.engines.base import Part, Route, Running
from shards.fleet.fleet import Fleet
from shards.fleet.shard_list import FleetShard
from shards.fleet.spec import FleetSpec
from shards.fleet.state import Deployment, FleetDir, FleetState, Place

GONE, HERE = Place("n2", "10.0.0.2"), Place("n1", "10.0.0.1")


class Engine:
    """Keeps parts on one host, after it has lost another."""

    def __init__(self) -> None:
        self.added: list[str] = []
        self.removed: list[str] = []
        self.routes: list[Route] = []
        self.free = iter(range(100, 200))

    def free_port(self, taken: Collection[int]) -> int:
        return next(self.free)

    def place(self, state: FleetState, only: Collection[str] | None = None) -> dict[str, Place]:
        names = layout.names(state) if only is None else only
        data = ("redis_", "shared-")
        moved = {name: HERE for name in names if not (name in state.places and name.startswith(data))}
        return {**state.places, **moved}

    async def lost_hosts(self) -> set[str]:
        return {GONE.address}

    async def add(self, parts: Sequence[Part]) -> None:
        self.added += [part.name for part in parts]

    async def remove(self, names: Collection[str]) -> None:
        self.removed += names

    async def running(self) -> dict[str, Running]:
        return {}

    async def route(self, route: Route) -> None:
        self.routes.append(route)

    def holds(self, release: str) -> str:
        return release


class Control:
    """Takes any order."""

    async def order(self, orders: object) -> None:
        pass

    async def journal(self, procedure: str = "cutover") -> None:
        return None


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine of every fleet."""
    made = Engine()
    monkeypatch.setattr(Fleet, "engine", lambda self, spec: made)
    return made


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    directory = FleetDir(tmp_path, "f")
    directory.create()
    return Fleet(directory, cast(Any, None), lambda _: None)


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names the parts that were waited for; all are well at once."""
    names: list[str] = []

    async def until_healthy(fleet: object, engine: object, parts: Sequence[Part], *rest: object) -> None:
        names.extend(part.name for part in parts)

    monkeypatch.setattr("shards.fleet.health.until_healthy", until_healthy)
    return names


def state(shard_on: Place = HERE) -> FleetState:
    """Give a fleet of two of each, the second ones on the host that is gone."""
    spec = FleetSpec(engine="swarm", replicas=2, shards=2, edges=2)
    shards = (FleetShard("shared-0"), FleetShard("shared-1"))
    found = FleetState(spec, deployed={"blue": Deployment("r", 2, 1)}, up=True, shards=shards)
    places = {name: GONE if name.endswith("-1") else HERE for name in layout.names(found)}
    return layout.with_ports(replace(found, places={**places, "shared-1": shard_on}), lambda taken: len(list(taken)))


async def test_who_needs_a_shard_on_a_host_that_is_gone_is_told_what_can_be_done(engine: Engine) -> None:
    with pytest.raises(ShardsError) as refused:
        await sharding.refuse_stranded(cast(Any, engine), state(GONE))
    assert str(refused.value) == (
        "shared-1 is on n2, which is gone or drained, with its data: bring it back, or give the shard up with "
        "`inv reshard --without shared-1`; no new replica gets ready before"
    )
    with pytest.raises(ShardsError, match=r"with its data: bring it back$"):
        await sharding.refuse_stranded(cast(Any, engine), state(GONE), runs=False)
    await sharding.refuse_stranded(cast(Any, engine), state())


async def test_a_server_on_a_host_that_is_gone_is_not_waited_for(
    fleet: Fleet, engine: Engine, waited: list[str]
) -> None:
    await sharding.start_redis(fleet, cast(Any, engine), state(GONE))
    there = ["shared-0", "redis_blue", "redis_green", "redis_shared"]
    assert (engine.added, waited) == (there, there)


@pytest.mark.parametrize("shard_on", [HERE, GONE])
async def test_up_heals_what_is_not_on_the_host_that_is_gone_and_waits_for_what_can_get_ready(
    fleet: Fleet, engine: Engine, waited: list[str], monkeypatch: pytest.MonkeyPatch, shard_on: Place
) -> None:
    told: list[Collection[str]] = []

    async def accept(fleet: object, state: object, lost: Collection[str]) -> None:
        told.append(lost)

    monkeypatch.setattr(reconcile, "accept", accept)
    monkeypatch.setattr("shards.fleet.sharding.start_redis", nothing)
    placed = fleet.placed(state(shard_on))
    assert placed.places["shared-1"] == shard_on
    await reconcile._heal(fleet, cast(Any, engine), cast(Any, Control()), placed, placed.spec)
    assert engine.added == ["blue-0", "blue-1", "edge-0", "edge-1"]
    assert told == [{GONE.address}]
    # A new replica is not ready before it has a connection to each shard.
    assert waited == ([] if shard_on is GONE else ["blue-0", "blue-1"]) + ["edge-0", "edge-1"]
    with pytest.raises(ShardsError, match="shared-1 is on n2") if shard_on is GONE else nullcontext():
        await sharding.refuse_stranded(cast(Any, engine), placed)


async def test_users_are_not_told_to_a_server_on_a_host_that_is_gone(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def tell(fleet: object, state: object, part: Part, commands: object) -> None:
        told.append(part.name)

    monkeypatch.setattr(rotate, "_tell", tell)
    await rotate.accept(fleet, state(GONE), {GONE.address})
    assert told == ["shared-0", "redis_blue", "redis_green", "redis_shared"]


async def test_a_reshard_moves_no_other_part_and_refuses_a_shard_that_is_gone(
    fleet: Fleet, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "_start_shards", nothing)
    monkeypatch.setattr(sharding, "move_slots", nothing)

    async def drop_shards(fleet: object, engine: object, state: FleetState, after: object) -> FleetState:
        return state

    monkeypatch.setattr(sharding, "_drop_shards", drop_shards)
    before = state()
    wanted = replace(before.spec, shards=3)
    after = await sharding.reshape(fleet, cast(Any, engine), cast(Any, None), before, wanted)
    assert after.places == {**before.places, "shared-2": HERE}
    with pytest.raises(ShardsError, match="inv reshard --without shared-1"):
        await sharding.reshape(fleet, cast(Any, engine), cast(Any, None), state(GONE), wanted)
    given_up = replace(before, shards=(before.shards[0], replace(before.shards[1], lost=True)))
    await sharding.reshape(fleet, cast(Any, engine), cast(Any, None), given_up, replace(wanted, shards=1))


async def test_more_replicas_move_no_edge(fleet: Fleet, engine: Engine, waited: list[str]) -> None:
    before = state()
    more = Deployment("r", 3, 1)
    after = await replicas.grow(fleet, cast(Any, engine), cast(Any, Control()), before, more)
    assert after.places == {**before.places, "blue-1": HERE, "blue-2": HERE}
    assert waited == ["blue-0", "blue-1", "blue-2", "edge-0"], "nobody waits for an edge on the host that is gone"


async def test_replicas_stay_where_they_run(fleet: Fleet, engine: Engine) -> None:
    """Also on a node that takes nothing new, from which the engine would move them."""
    paused = Place("n3", "10.0.0.3")
    before = state()
    before = replace(before, places={**before.places, "blue-0": paused})
    after = await replicas.housed(fleet, cast(Any, engine), before, "blue")
    assert after.places == {**before.places, "blue-1": HERE}


async def test_an_edge_that_is_restarted_and_its_stand_in_have_a_host(
    fleet: Fleet, engine: Engine, waited: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[FleetState] = []

    async def remove_edges(fleet: Fleet, *rest: object) -> None:
        found = fleet.directory.read()
        assert found is not None
        seen.append(found)

    monkeypatch.setattr(restart, "remove_edges", remove_edges)
    before = state()
    one = restart._Restart(fleet, cast(Any, engine), cast(Any, Control()), "edge-0", 5.0, "")
    after = await one.edge(before)
    assert [found.places["edge-2"] for found in seen] == [HERE, HERE]
    assert layout.stand_ins(seen[0]) == {"edge-2": "edge-0"}, "by which the engine knows what to put it beside"
    assert after == before


async def nothing(*arguments: object) -> None:
    """Do nothing."""
