"""`up` and `down`: bring a fleet to what its spec says, whatever it is now.

First start:    check → Redis servers → slot table and orders → replicas → route → edges
More replicas:  start → ready → route
Fewer replicas: route → edges confirm → drain → stop
Other workers:  one replica more, then each in turn: route without it → drain → start anew → ready → route with it
More edges:     start → they work by the route          Fewer: stop
More shards:    start → move slots to them              Fewer: move their slots → stop
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from shards.errors import ShardsError, UsageError
from shards.fleet import health, layout, probe, processes, sharding
from shards.fleet.drain import drain, draining
from shards.fleet.engines.base import Engine
from shards.fleet.fleet import Fleet
from shards.fleet.release import release_of
from shards.fleet.spec import Color, FleetSpec
from shards.fleet.state import Deployment, FleetState
from shards.router.control import Control, Orders
from shards.settings import Credentials

_RESHAPED = {"replicas", "workers", "edges", "connections", "shards"}
_REGISTERED_S = 5.0
_FLAGS = {"app_dir": "--app-dir"}


async def up(
    fleet: Fleet, wanted: FleetSpec, drain_s: float, credentials: Mapping[str, Credentials] | None = None
) -> FleetState:
    """Start a fleet or reshape it; returns when every part is healthy.

    Args:
        fleet: which.
        wanted: what it shall be.
        drain_s: the window in which replicas that go move their sockets, in seconds.
        credentials: what shards that run elsewhere are shown, by URL, as far as told now.

    Raises:
        UsageError: what is wanted makes no sense for this fleet.
        ShardsError: it could not be done. A first start is taken back then.
    """
    with fleet.directory.lock("up"):
        fleet.directory.create()
        state = fleet.directory.read()
        await sharding.meet_externals(fleet, state, wanted, credentials or {})
        if state and state.up and await fleet.engine(state.spec).alive():
            return await _reshape(fleet, state, wanted, drain_s)
        return await _first(fleet, state, wanted)


async def _first(fleet: Fleet, remembered: FleetState | None, wanted: FleetSpec) -> FleetState:
    _refuse_to_split(remembered, wanted)
    engine = fleet.engine(wanted)
    fleet.say("checking programs, port and app")
    if remembered and remembered.up:
        # It ran and nobody keeps it: a reboot, or a keeper that was killed. What is left of it holds the port.
        await fleet.engine(remembered.spec).stop()
    engine.check(port_is_ours=await engine.alive())
    await engine.check_app()
    await engine.stop()
    engine.check(port_is_ours=False)
    deployment = Deployment(release_of(Path(wanted.app_dir)), wanted.replicas, wanted.workers)
    fresh = FleetState(
        wanted,
        _ports_still_free(remembered),
        deployed={"blue": deployment},
        up=True,
        # Shards that hold data start too, even if they are to go: their slots move first.
        shards=sharding.shards_with(remembered, wanted),
        primaries=engine.newest(remembered) if remembered else {},
    )
    state = layout.with_ports(fresh, processes.free_port)
    try:
        fleet.directory.write(state)
        await _start_all(fleet, engine, state)
        async with fleet.control(state) as control:
            state = await sharding.reshape(fleet, engine, control, state, wanted)
    except BaseException:
        fleet.say("stopping what was started")
        await engine.stop()
        fleet.directory.forget(_as_before(fleet, remembered))
        raise
    return state


def _as_before(fleet: Fleet, remembered: FleetState | None) -> FleetState | None:
    """Give what is remembered after a start that failed: nothing new, except where slots and the newest data may be."""
    if remembered is None:
        return None
    now = fleet.directory.read() or remembered
    return replace(remembered, shards=now.shards, ports=now.ports, primaries=now.primaries, up=False, deployed={})


def _refuse_to_split(remembered: FleetState | None, wanted: FleetSpec) -> None:
    """A single server would start from its own data, whichever of the two has the newest."""
    if remembered and layout.is_replicated(remembered) and wanted.durability != remembered.spec.durability:
        raise UsageError(
            f"the data of fleet {wanted.project} is on pairs of servers: keep --durability replicated, "
            "or `inv down --purge` it first"
        )


def _ports_still_free(remembered: FleetState | None) -> dict[str, int]:
    known = remembered.ports if remembered else {}
    return {name: port for name, port in known.items() if processes.port_taken("127.0.0.1", port) is None}


async def _start_all(fleet: Fleet, engine: Engine, state: FleetState) -> None:
    fleet.say("starting Redis")
    await engine.start()
    await sharding.start_redis(fleet, engine, state)
    async with fleet.control(state) as control:
        await _prepare(fleet, control, state)
    await add_replicas(fleet, engine, state, state.active)
    engine.route(layout.route(state))
    await _add_edges(fleet, engine, state)
    async with fleet.control(state) as control:
        await _until_registered(fleet, control, state)


async def _prepare(fleet: Fleet, control: Control, state: FleetState) -> None:
    """Bring the control plane, which may remember an earlier run, to what this one needs."""
    await control.write_journal(None)
    await control.order({"blue": None, "green": None, state.active: Orders("active")})
    for record in await control.workers():
        await control.forget(record.name)
    table = await control.table()
    if table is None:
        await control.swap_table(await sharding.first_table(fleet, layout.shards(state)), 0)
        return
    # Ports may be others than they were.
    now = {shard.name: shard for shard in layout.shards(state)}
    today = tuple(now.get(shard.name, shard) for shard in table.shards)
    if table.shards != today:
        await control.swap_table(table.with_shards(today), table.version)
    await sharding.move_slots(fleet, control, state, state.shards)


async def add_replicas(fleet: Fleet, engine: Engine, state: FleetState, color: Color) -> None:
    """Start the replicas of a color that do not run, and wait until all are ready.

    Raises:
        PartFailed: one is not in time.
    """
    fleet.say(f"starting {len(layout.replica_names(state, color))} replicas of {color}")
    parts = layout.replica_parts(state, color)
    await engine.add(parts)
    await health.until_healthy(fleet, engine, parts, health.REPLICA_S)


async def _add_edges(fleet: Fleet, engine: Engine, state: FleetState) -> None:
    fleet.say(f"starting {state.spec.edges} edges on port {state.spec.port}")
    await engine.add(layout.edge_parts(state))
    await until_routed(fleet, engine, state, layout.route(state).active)

    async def answers() -> bool:
        answer = await probe.get(state.spec.port, "/livez", state.spec.address)
        return answer is not None and answer.status == 200

    if not await probe.until(answers, health.EDGE_S):
        raise ShardsError(
            f"{state.spec.url}/livez does not answer, though every part is healthy; see `inv logs edge-0`"
        )


async def _until_registered(fleet: Fleet, control: Control, state: FleetState) -> None:
    """Wait, for a moment, until the registry too says that the replicas are active: `status` tells what it says."""
    names = set(layout.replica_names(state, state.active))

    async def active() -> bool:
        return names <= {record.replica for record in await control.workers() if record.state == "active"}

    fleet.say("waiting for the registry")
    await probe.until(active, _REGISTERED_S)


async def until_routed(fleet: Fleet, engine: Engine, state: FleetState, active: Color) -> None:
    """Wait until every edge says that it works by the route to `active`.

    Raises:
        PartFailed: one does not in time.
    """
    route = layout.route(state, active)
    await health.until_healthy(fleet, engine, layout.edge_parts(state), health.EDGE_S, route)


# -- a fleet that runs already


async def _reshape(fleet: Fleet, state: FleetState, wanted: FleetSpec, drain_s: float) -> FleetState:
    _refuse(state, wanted)
    engine = fleet.engine(state.spec)
    async with fleet.control(state) as control:
        if await control.journal():
            raise ShardsError(
                "a cutover is half-way: run `inv promote` again to finish it, or `inv rollback` to go back"
            )
        await _heal(fleet, engine, state)
        state = await sharding.reshape(fleet, engine, control, state, wanted)
        state = await _reshape_replicas(fleet, engine, control, state, wanted, drain_s)
    return await _reshape_edges(fleet, state, wanted)


def _refuse(state: FleetState, wanted: FleetSpec) -> None:
    changed = state.spec.differences(wanted) - _RESHAPED
    for name in sorted(changed):
        flag = _FLAGS.get(name, f"--{name}")
        raise UsageError(
            f"fleet {state.spec.project} runs with {flag} {getattr(state.spec, name)}, which can't change meanwhile: "
            "`inv down` first, or start another one with --project"
        )


async def _heal(fleet: Fleet, engine: Engine, state: FleetState) -> None:
    """Start what is missing; a fleet that is well is only asked whether it is."""
    fleet.say("checking the parts")
    replicas = layout.replica_parts(state, state.active)
    await sharding.start_redis(fleet, engine, state)
    await engine.add(replicas)
    await health.until_healthy(fleet, engine, replicas, health.REPLICA_S)
    engine.route(layout.route(state))
    await engine.add(layout.edge_parts(state))
    await until_routed(fleet, engine, state, state.active)


async def _reshape_replicas(
    fleet: Fleet, engine: Engine, control: Control, state: FleetState, wanted: FleetSpec, drain_s: float
) -> FleetState:
    color, today = state.active, state.deployed[state.active]
    if today.workers != wanted.workers:
        # One more stands in while each of the others is away.
        state = await _grow(fleet, engine, state, replace(today, replicas=today.replicas + 1, workers=wanted.workers))
        for name in layout.replica_names(state, color)[: today.replicas]:
            await _renew(fleet, engine, control, state, name, drain_s)
    if wanted.replicas > state.deployed[color].replicas:
        state = await _grow(fleet, engine, state, replace(state.deployed[color], replicas=wanted.replicas))
    elif wanted.replicas < state.deployed[color].replicas:
        state = await _shrink(fleet, engine, control, state, wanted.replicas, drain_s)
    state = replace(state, spec=replace(state.spec, replicas=wanted.replicas, workers=wanted.workers))
    fleet.directory.write(state)
    return state


async def _grow(fleet: Fleet, engine: Engine, state: FleetState, deployment: Deployment) -> FleetState:
    state = layout.with_ports(state.with_deployed(state.active, deployment), processes.free_port)
    fleet.directory.write(state)
    await add_replicas(fleet, engine, state, state.active)
    engine.route(layout.route(state))
    await until_routed(fleet, engine, state, state.active)
    return state


async def _shrink(
    fleet: Fleet, engine: Engine, control: Control, state: FleetState, replicas: int, drain_s: float
) -> FleetState:
    deployment = replace(state.deployed[state.active], replicas=replicas)
    smaller = state.with_deployed(state.active, deployment)
    gone = layout.replica_names(state, state.active)[replicas:]
    await _empty(fleet, engine, control, smaller, gone, drain_s)
    await engine.remove(gone)
    await control.order(dict.fromkeys(gone))
    smaller = layout.without_ports(smaller, gone)
    fleet.directory.write(smaller)
    return smaller


async def _renew(fleet: Fleet, engine: Engine, control: Control, state: FleetState, name: str, drain_s: float) -> None:
    others = layout.route(state)
    parts = [part for part in others.replicas[state.active] if part.name != name]
    engine.route(replace(others, replicas={**others.replicas, state.active: parts}))
    await _drain_replicas(fleet, control, [name], drain_s)
    await engine.remove([name])
    await control.order({name: None})
    await add_replicas(fleet, engine, state, state.active)
    engine.route(others)
    await until_routed(fleet, engine, state, state.active)


async def _empty(
    fleet: Fleet, engine: Engine, control: Control, smaller: FleetState, gone: Sequence[str], drain_s: float
) -> None:
    engine.route(layout.route(smaller))
    await until_routed(fleet, engine, smaller, smaller.active)
    await _drain_replicas(fleet, control, gone, drain_s)


async def _drain_replicas(fleet: Fleet, control: Control, names: Sequence[str], drain_s: float) -> None:
    left = await drain(fleet, control, dict.fromkeys(names, draining(drain_s)), names, drain_s)
    if left:
        fleet.say(f"{left:,} sockets did not leave in time and will be closed")


async def _reshape_edges(fleet: Fleet, state: FleetState, wanted: FleetSpec) -> FleetState:
    gone = layout.edge_names(state)[wanted.edges :]
    spec = replace(state.spec, edges=wanted.edges, connections=wanted.connections)
    state = layout.with_ports(replace(state, spec=spec), processes.free_port)
    fleet.directory.write(state)
    engine = fleet.engine(spec)
    await _add_edges(fleet, engine, state)
    if gone:
        fleet.say(f"stopping {', '.join(gone)}; its clients reconnect")
        await engine.remove(gone)
        state = layout.without_ports(state, gone)
        fleet.directory.write(state)
    return state


# -- the end


async def down(fleet: Fleet, purge: bool) -> bool:
    """Stop a fleet: after it no process, port or socket file of it is left.

    Args:
        fleet: which.
        purge: forget its data, logs and secrets as well.

    Returns:
        Whether there was anything to stop.

    Raises:
        ShardsError: another command is changing it, or its directory can't be written.
    """
    if not fleet.directory.path.exists():
        return False
    with fleet.directory.lock("down"):
        try:
            state = fleet.directory.read()
        except ShardsError as damaged:
            fleet.say(str(damaged))
            state = None
        fleet.say("stopping the parts")
        stopped = await fleet.engine(state.spec if state else FleetSpec(fleet.directory.project)).stop()
        if state:
            fleet.directory.write(replace(state, up=False, deployed={}))
        if purge:
            elsewhere = [shard.url for shard in (state.shards if state else ()) if shard.url]
            if elsewhere:
                fleet.say(f"the data on {', '.join(elsewhere)} is left alone: delete it there")
            shutil.rmtree(fleet.directory.path, ignore_errors=True)
    return stopped
