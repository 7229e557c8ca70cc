"""The shards of a fleet, brought to what is wanted: start or meet those that come, move slots, drop those that go.

More:   start → move slots to them      Fewer: move their slots → stop
Lost:   end what may be left of it → its slots go to the others, empty → forget its data
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shards.errors import ShardsError, UsageError
from shards.fleet import external, health, layout, probe, processes
from shards.fleet.engines.base import Engine
from shards.fleet.fleet import Fleet
from shards.fleet.reshard import reshard, summary
from shards.fleet.shard_list import FleetShard, converge, union, without
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetState
from shards.log.move import newest_version
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Credentials

_BAR = 24
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_LOST_S = 5.0
"""How long a shard that is said to be lost, in seconds, has to show that it is not: a killed one comes back in one."""


async def meet_externals(
    fleet: Fleet, state: FleetState | None, wanted: FleetSpec, given: Mapping[str, Credentials]
) -> None:
    """See whether the shards that run elsewhere can be used, before anything is changed; remember their passwords."""
    shards = [Shard(one.name, one.url) for one in shards_with(state, wanted) if one.url and not one.lost]
    own = {f"{host}:{port}" for port in (state.ports if state else {}).values() for host in _LOOPBACK}
    for shard in shards:
        if shard.url.partition("://")[2].partition("/")[0] in own:
            raise UsageError(f"{shard.url} is a part of this fleet: give servers that run elsewhere, or a number")
    known = {**fleet.directory.external_credentials(), **given}
    shown = {shard.url: known.get(shard.url, Credentials()) for shard in shards}
    for warning in await external.check(shards, shown.__getitem__):
        fleet.say(f"warning: {warning}")
    fleet.directory.keep_credentials(shown)


def shards_with(remembered: FleetState | None, wanted: FleetSpec) -> tuple[FleetShard, ...]:
    """Give the shards that there are, and those that are wanted."""
    have = remembered.shards if remembered else ()
    return union(have, converge(have, wanted.shards))


async def first_table(fleet: Fleet, shards: Sequence[Shard]) -> SlotTable:
    """Share the slots out, under a version that servers with a past, which run elsewhere, have not seen yet."""
    clients = [
        probe.shard_client(shard.url, fleet.directory.credentials(shard.url), external.CHECK_S) for shard in shards
    ]
    try:
        return SlotTable.first(shards, 1 + max([await newest_version(client) for client in clients]))
    finally:
        for client in clients:
            await client.aclose()


async def reshape(fleet: Fleet, engine: Engine, control: Control, state: FleetState, wanted: FleetSpec) -> FleetState:
    """Bring the slots to the shards that are wanted; also finishes what an earlier run has left half-way."""
    after = converge(state.shards, wanted.shards)
    spec = replace(state.spec, shards=wanted.shards)
    state = replace(state, spec=spec, shards=union(state.shards, after))
    state = layout.with_ports(state, processes.free_port)
    fleet.directory.write(state)
    await _start_shards(fleet, engine, state)
    await move_slots(fleet, control, state, after)
    return await _drop_shards(fleet, engine, state, after)


async def _start_shards(fleet: Fleet, engine: Engine, state: FleetState) -> None:
    # What is lost on this host may hang rather than be gone: it must not take another publish.
    await engine.remove([shard.name for shard in state.shards if shard.lost and not shard.url])
    await engine.add(layout.redis_parts(state))
    await health.until_healthy(fleet, engine, layout.redis_parts(state), health.REDIS_S)


async def move_slots(fleet: Fleet, control: Control, state: FleetState, after: Sequence[FleetShard]) -> None:
    def moved(done: int, total: int) -> None:
        full = _BAR * done // total
        fleet.say(f"moving slots {'#' * full}{'.' * (_BAR - full)} {done:,} of {total:,}")

    shards = [layout.as_shard(state, shard) for shard in after if not shard.lost]
    await reshard(control, shards, fleet.directory.credentials, moved, _lost(state))


def _lost(state: FleetState) -> set[str]:
    return {shard.name for shard in state.shards if shard.lost}


async def _drop_shards(fleet: Fleet, engine: Engine, state: FleetState, after: tuple[FleetShard, ...]) -> FleetState:
    """Stop and forget the shards that own nothing any more; servers that run elsewhere are only left."""
    gone = [shard for shard in state.shards if shard.name not in {one.name for one in after}]
    local = [shard.name for shard in gone if not shard.url]
    if local:
        fleet.say(f"stopping {', '.join(local)}")
        await engine.remove(local)
    for name in _lost(state):
        fleet.directory.forget_data(name)
    state = layout.without_ports(replace(state, shards=after), local)
    fleet.directory.write(state)
    shown = fleet.directory.external_credentials()
    fleet.directory.keep_credentials({one.url: shown.get(one.url, Credentials()) for one in after if one.url})
    return state


async def give_up(fleet: Fleet, name: str) -> FleetState:
    """Give the slots of a shard that is gone for good to the others; its groups begin anew.

    Args:
        fleet: which.
        name: the shard's.

    Raises:
        UsageError: there is no such shard, or no other.
        ShardsError: it is not gone, or another one did not do its part.
    """
    with fleet.directory.lock("reshard"):
        state = await fleet.require()
        smaller = without_shard(state, name)
        if smaller != state:
            await _refuse_living(fleet, layout.as_shard(state, next(s for s in state.shards if s.name == name)))
            fleet.directory.write(smaller)
        async with fleet.control(state) as control:
            return await reshape(fleet, fleet.engine(smaller.spec), control, smaller, smaller.spec)


def without_shard(state: FleetState, name: str) -> FleetState:
    """Give the state in which a shard is lost.

    Raises:
        UsageError: there is no such shard, or no other.
    """
    shard = next((shard for shard in state.shards if shard.name == name), None)
    living = [shard for shard in state.shards if not shard.lost]
    if shard is None:
        names = ", ".join(shard.name for shard in living)
        raise UsageError(f"fleet {state.spec.project} has no shard {name!r}: there are {names}")
    if shard.lost:
        return state
    if living == [shard]:
        raise UsageError(f"{name} is the only shard: start it again, with its data or without")
    wanted = state.spec.shards
    if name in {one.name for one in converge(state.shards, wanted)}:
        wanted = without(wanted, shard)
    shards = union(state.shards, [replace(shard, lost=True)])
    return replace(state, spec=replace(state.spec, shards=wanted), shards=shards)


async def _refuse_living(fleet: Fleet, shard: Shard) -> None:
    """Refuse to throw away what a shard holds that is there, or comes back as one looks."""
    fleet.say(f"asking {shard.name} for {_LOST_S:.0f} s whether it is gone")
    credentials = fleet.directory.credentials(shard.url)
    if await probe.until(lambda: external.well(shard, credentials), _LOST_S, 0.5):
        raise ShardsError(
            f"{shard.name} is well, and its data would be thrown away: `inv reshard --shards N`, or with the URLs of "
            "those that stay, takes it out with nothing lost"
        )


async def plan(fleet: Fleet, wanted: FleetSpec) -> list[str]:
    """Say what `up` would move to have the shards that are wanted.

    Raises:
        ShardsError: no fleet runs, or its control Redis does not answer.
    """
    state = await fleet.require()
    return await _summary(fleet, state, converge(state.shards, wanted.shards))


async def plan_without(fleet: Fleet, name: str) -> list[str]:
    """Say what `give_up` would move.

    Raises:
        UsageError: there is no such shard, or no other.
        ShardsError: no fleet runs, or its control Redis does not answer.
    """
    state = without_shard(await fleet.require(), name)
    return await _summary(fleet, state, converge(state.shards, state.spec.shards))


async def _summary(fleet: Fleet, state: FleetState, after: tuple[FleetShard, ...]) -> list[str]:
    async with fleet.control(state) as control:
        table = await control.table()
    assert table is not None, "a fleet that runs has a slot table"
    placed = layout.with_ports(replace(state, shards=union(state.shards, after)), processes.free_port)
    return summary(table, [layout.as_shard(placed, shard) for shard in after], _lost(state))
