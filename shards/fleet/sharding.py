"""The shards of a fleet, brought to what is wanted: start or meet those that come, move slots, drop those that go.

More:   start → move slots to them      Fewer: move their slots → stop
Lost:   end what may be left of it → its slots go to the others, empty → forget its data
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from shards.errors import ShardsError, UsageError
from shards.fleet import external, health, layout, probe
from shards.fleet.engines.base import Engine
from shards.fleet.fleet import Fleet
from shards.fleet.reshard import Access, reshard, summary
from shards.fleet.sentinels import watch_pairs
from shards.fleet.shard_list import FleetShard, converge, union, without
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetState
from shards.log.move import newest_version
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Credentials

_BAR = 24
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_LOST_S, _PAIR_LOST_S = 5.0, 15.0
"""How long a shard that is said to be lost, in seconds, has to show that it is not: a killed one comes back in one; of
a pair the copy takes over in five, and a primary that was killed together with its copy leaves it ten to do so."""


async def meet_externals(
    fleet: Fleet, state: FleetState | None, wanted: FleetSpec, given: Mapping[str, Credentials]
) -> None:
    """See whether the shards that run elsewhere can be used, before anything is changed; remember their passwords."""
    fleet.directory.keep_credentials(await check_externals(fleet, state, wanted, given))


async def check_externals(
    fleet: Fleet, state: FleetState | None, wanted: FleetSpec, given: Mapping[str, Credentials]
) -> dict[str, Credentials]:
    """See whether the shards that run elsewhere can be used; gives what each is shown, by URL.

    Raises:
        UsageError: one is a part of the fleet, or makes no sense as a shard.
        ShardsError: one cannot be used.
    """
    have = state.shards if state else ()
    shards = [Shard(one.name, one.url) for one in shards_with(have, wanted) if one.url and not one.lost]
    own = {f"{host}:{port}" for name, port in (state.ports if state else {}).items() for host in _hosts(state, name)}
    for shard in shards:
        if shard.url.partition("://")[2].partition("/")[0] in own:
            raise UsageError(f"{shard.url} is a part of this fleet: give servers that run elsewhere, or a number")
    known = {**fleet.directory.external_credentials(), **given}
    shown = {shard.url: known.get(shard.url, Credentials()) for shard in shards}
    ours = {one.url for one in have}
    for warning in await external.check(shards, shown.__getitem__, ours):
        fleet.note(f"warning: {warning}")
    return shown


def _hosts(state: FleetState | None, part: str) -> tuple[str, ...]:
    return (*_LOOPBACK, layout.host(state, part)) if state else _LOOPBACK


def shards_with(have: Sequence[FleetShard], wanted: FleetSpec) -> tuple[FleetShard, ...]:
    """Give the shards that there are, and those that are wanted."""
    return union(have, converge(have, wanted.shards))


async def first_table(fleet: Fleet, state: FleetState) -> SlotTable:
    """Share the slots out, under a version that servers with a past, which run elsewhere, have not seen yet."""
    newest, shards = 0, layout.shards(state)
    for shard in shards:
        credentials, url = fleet.directory.credentials(shard.url), layout.reached(state, shard.url)
        async with await probe.primary_client(url, credentials, external.CHECK_S) as client:
            newest = max(newest, await newest_version(client))
    return SlotTable.first(shards, newest + 1, secrets.token_hex(8))


async def reshape(fleet: Fleet, engine: Engine, control: Control, state: FleetState, wanted: FleetSpec) -> FleetState:
    """Bring the slots to the shards that are wanted; also finishes what an earlier run has left half-way.

    Raises:
        ShardsError: a shard is on a host that is gone, or one did not do its part.
    """
    await refuse_stranded(engine, state)
    after = converge(state.shards, wanted.shards)
    spec = replace(state.spec, shards=wanted.shards)
    state = replace(state, spec=spec, shards=union(state.shards, after))
    state = fleet.placed(state, layout.local_shard_names(state))
    fleet.directory.write(state)
    await _start_shards(fleet, engine, state)
    await move_slots(fleet, control, state, after)
    return await _drop_shards(fleet, engine, state, after)


async def _start_shards(fleet: Fleet, engine: Engine, state: FleetState) -> None:
    # What is lost on this host may hang rather than be gone: it must not take another publish.
    await engine.remove(_servers(state, [shard for shard in state.shards if shard.lost]))
    await start_redis(fleet, engine, state)


async def start_redis(fleet: Fleet, engine: Engine, state: FleetState) -> None:
    """Start the Redis servers and the Sentinels that do not run, and wait until all are well.

    Those on hosts that are gone are left out: see `refuse_stranded`.

    Raises:
        PartFailed: one is not in time.
    """
    lost = await engine.lost_hosts()
    servers = [part for part in layout.redis_parts(state) if part.host not in lost]
    sentinels = layout.sentinel_parts(state)
    await engine.add([*sentinels, *servers])
    await health.until_healthy(fleet, engine, servers, health.REDIS_S)
    await watch_pairs(fleet, state)
    await health.until_healthy(fleet, engine, sentinels, health.REDIS_S)


async def refuse_stranded(engine: Engine, state: FleetState, runs: bool = True) -> None:
    """Refuse to go on without Redis servers that are on hosts that are gone: their data is there.

    Args:
        engine: of the fleet.
        state: of it.
        runs: the fleet runs, so that a shard can be given up.

    Raises:
        ShardsError: one is; says where, and what can be done.
    """
    if not (gone := stranded(state, await engine.lost_hosts())):
        return
    each = ", ".join(f"{name} is on {state.places[name].node}" for name in gone)
    told = f"{each}, which is gone or drained, with its data: bring it back"
    shard = next((name for name in gone if name in layout.local_shard_names(state)), None)
    if shard and runs:
        told += f", or give the shard up with `inv reshard --without {shard}`; no new replica gets ready before"
    raise ShardsError(told)


def stranded(state: FleetState, lost: Collection[str]) -> list[str]:
    """Name the Redis servers that are on `lost` hosts, given by their addresses."""
    return [part.name for part in layout.redis_parts(state) if part.host in lost]


def _servers(state: FleetState, shards: Sequence[FleetShard]) -> list[str]:
    return [name for shard in shards if not shard.url for name in layout.server_names(state, shard.name)]


async def move_slots(fleet: Fleet, control: Control, state: FleetState, after: Sequence[FleetShard]) -> None:
    def moved(done: int, total: int) -> None:
        full = _BAR * done // total
        fleet.say(f"moving slots {'#' * full}{'.' * (_BAR - full)} {done:,} of {total:,}")

    shards = [layout.as_shard(state, shard) for shard in after if not shard.lost]
    shown = Access(fleet.directory.credentials, partial(layout.reached, state))
    await reshard(control, shards, shown, moved, _lost(state))


def _lost(state: FleetState) -> set[str]:
    return {shard.name for shard in state.shards if shard.lost}


async def _drop_shards(fleet: Fleet, engine: Engine, state: FleetState, after: tuple[FleetShard, ...]) -> FleetState:
    """Stop and forget the shards that own nothing any more; servers that run elsewhere are only left."""
    gone = [shard for shard in state.shards if shard.name not in {one.name for one in after}]
    local = _servers(state, gone)
    if local:
        fleet.say(f"stopping {', '.join(local)}")
        # Or the Sentinels would take it for a failure.
        await watch_pairs(fleet, replace(state, shards=after))
        await engine.remove(local)
    await engine.forget_data(_servers(state, [shard for shard in state.shards if shard.lost]))
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
            await _refuse_living(fleet, state, next(shard for shard in state.shards if shard.name == name))
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


async def _refuse_living(fleet: Fleet, state: FleetState, shard: FleetShard) -> None:
    """Refuse to throw away what a shard holds that is there, or comes back as one looks."""
    servers = _asked(state, shard)
    patience_s = _LOST_S if len(servers) == 1 else _PAIR_LOST_S
    fleet.say(f"asking {' and '.join(server.name for server in servers)} for {patience_s:.0f} s whether it is gone")

    async def well() -> bool:
        answers = (external.well(server, fleet.directory.credentials(server.url)) for server in servers)
        return any(await asyncio.gather(*answers))

    if await probe.until(well, patience_s, 0.5):
        raise ShardsError(
            f"{shard.name} is well, and its data would be thrown away: `inv reshard --shards N`, or with the URLs of "
            "those that stay, takes it out with nothing lost"
        )


def _asked(state: FleetState, shard: FleetShard) -> list[Shard]:
    """Give the servers to ask, each by itself: Sentinels that are gone too must not make a pair look lost."""
    if shard.url:
        return [Shard(shard.name, shard.url)]
    return [Shard(part.name, f"redis://{part.host}:{part.port}/0") for part in layout.server_parts(state, shard.name)]


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


async def owners(fleet: Fleet) -> list[str]:
    """Name the shard that owns each slot.

    Raises:
        ShardsError: no fleet runs, or its control Redis does not answer.
    """
    async with fleet.control(await fleet.require()) as control:
        table = await control.table()
    assert table is not None, "a fleet that runs has a slot table"
    return list(table.owner_names())


def closing(before: Sequence[str], after: Sequence[str]) -> str:
    """Say what a reshard has done, by the owners of all slots before it and after."""
    moved = sum(then != now for then, now in zip(before, after, strict=True))
    each = ", ".join(f"{name} has {slots}" for name, slots in sorted(Counter(after).items()))
    return f"{moved} of {len(after)} slots moved: {each}" if moved else f"nothing to do: {each}"


async def _summary(fleet: Fleet, state: FleetState, after: tuple[FleetShard, ...]) -> list[str]:
    async with fleet.control(state) as control:
        table = await control.table()
    assert table is not None, "a fleet that runs has a slot table"
    placed = fleet.placed(replace(state, shards=union(state.shards, after)))
    return summary(table, [layout.as_shard(placed, shard) for shard in after], _lost(state))
