"""`up` and `down`: bring a fleet to what its spec says, whatever it is now.

First start:    check → Redis servers → slot table and orders → replicas → route → edges
More replicas:  start → ready → route
Fewer replicas: route → edges confirm → drain → stop
Other workers:  one replica more, then each in turn: route without it → drain → start anew → ready → route with it
More edges:     start → they work by the route          Fewer: stop
More shards:    start → move slots to them              Fewer: move their slots → stop
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shards.errors import ShardsError, UsageError
from shards.fleet import certificate, health, layout, probe, processes, sharding
from shards.fleet.edges import remove_edges
from shards.fleet.engines.base import EdgePart, Engine
from shards.fleet.engines.docker import by_hand
from shards.fleet.fleet import Fleet, refuse_amid_cutover
from shards.fleet.release import release_of
from shards.fleet.replicas import add_replicas, grow, renew, shrink, take_back_orders, tell_release, until_routed
from shards.fleet.rotate import accept
from shards.fleet.shard_list import of_names
from shards.fleet.spec import FleetSpec
from shards.fleet.state import Deployment, FleetState
from shards.router.control import Control, Orders
from shards.settings import Credentials, chosen

_AT_THE_EDGE = ("tls_certificate", "tls_key", "hsts_seconds", "address_connects", "address_sockets")
_RESHAPED = {"replicas", "workers", "edges", "connections", "shards", *_AT_THE_EDGE}
_REGISTERED_S = 5.0
_FLAGS = {"app_dir": "--app-dir"}


async def _nothing() -> None:
    """Say nothing beforehand."""


async def up(
    fleet: Fleet,
    wanted: FleetSpec,
    drain_s: float,
    credentials: Mapping[str, Credentials] | None = None,
    forewarn: Callable[[], Awaitable[None]] = _nothing,
) -> FleetState:
    """Start a fleet or reshape it; returns when every part is healthy.

    Args:
        fleet: which.
        wanted: what it shall be.
        drain_s: the window in which replicas that go move their sockets, in seconds.
        credentials: what shards that run elsewhere are shown, by URL, as far as told now.
        forewarn: called once what is wanted makes sense, before anything is started or changed.

    Raises:
        UsageError: what is wanted makes no sense for this fleet.
        ShardsError: it could not be done. A first start is taken back then.
    """
    with fleet.directory.lock("up"):
        certificate.check(wanted)
        fleet.directory.create()
        state = fleet.directory.read()
        await sharding.meet_externals(fleet, state, wanted, credentials or {})
        _warn_of_locked_out(fleet, state, wanted)
        if state and state.up and await fleet.engine(state.spec).alive():
            _refuse(state, wanted)
            await forewarn()
            return await _reshape(fleet, state, wanted, drain_s)
        return await _first(fleet, state, wanted, forewarn)


def _warn_of_locked_out(fleet: Fleet, state: FleetState | None, wanted: FleetSpec) -> None:
    """Tell who can't come any more where edges speak no TLS from now on, and what browsers are not told without it."""
    if wanted.tls_certificate:
        return
    now = time.time()
    left_s = round(state.promised(now) - now) if state else 0
    if left_s > 0:
        fleet.note(
            f"warning: browsers that were here come by TLS only for up to {left_s:,} s, and find none: "
            "to take that back first, show the certificate with fleet.hsts_seconds at 0 for as long"
        )
    if wanted.hsts_seconds:
        fleet.note(
            f"warning: fleet.hsts_seconds is {wanted.hsts_seconds:,}, but without a certificate "
            "(--tls-certificate, --tls-key) browsers are told nothing"
        )


async def _first(
    fleet: Fleet, remembered: FleetState | None, wanted: FleetSpec, forewarn: Callable[[], Awaitable[None]]
) -> FleetState:
    _refuse_to_leave_data(fleet, remembered, wanted)
    _refuse_to_split(remembered, wanted)
    settings = chosen(os.environ)
    engine = fleet.engine(wanted)
    for moved in _moved(remembered, wanted):
        fleet.note(f"warning: {moved}")
    fleet.say("checking programs, port and app")
    if remembered and remembered.up:
        # It ran and nobody keeps it: a reboot, or a keeper that was killed. What is left of it holds the port.
        await fleet.engine(remembered.spec).stop()
    engine.check(port_is_ours=await engine.alive())
    release = release_of(Path(wanted.app_dir))
    layer = await engine.check_app(release)
    await engine.stop()
    engine.check(port_is_ours=False)
    await forewarn()
    deployment = Deployment(release, wanted.replicas, wanted.workers, layer)
    # Compose keeps data too, of which no state of ours tells.
    kept = await engine.kept()
    shards = remembered.shards if remembered else of_names(kept)
    fresh = FleetState(
        wanted,
        _ports_still_free(remembered),
        deployed={"blue": deployment},
        up=True,
        # Shards that hold data start too, even if they are to go: their slots move first.
        shards=sharding.shards_with(shards, wanted),
        primaries=engine.newest(remembered) if remembered else {},
        # Data is where it was.
        places=remembered.places if remembered else {},
        settings=settings,
        hsts_until=remembered.promised(time.time()) if remembered else 0.0,
    )
    state = fleet.placed(fresh)
    try:
        certificate.keep(fleet.directory, wanted)
        fleet.directory.write(state)
        await _start_all(fleet, engine, state)
        async with fleet.control(state) as control:
            state = await sharding.reshape(fleet, engine, control, state, wanted)
    except BaseException:
        fleet.say("stopping what was started")
        await engine.stop()
        if remembered is None and not kept:
            await _purge_or_tell(fleet, engine)
        now = fleet.directory.read() or state
        fleet.directory.forget(_as_before(remembered or (state if kept else None), now))
        raise
    return state


async def _purge_or_tell(fleet: Fleet, engine: Engine) -> None:
    """Delete what a start that failed has made: why it failed, which is told next, matters more than what is left."""
    try:
        await engine.purge()
    except ShardsError as error:
        fleet.note(str(error))


def _as_before(remembered: FleetState | None, now: FleetState) -> FleetState | None:
    """Give what is remembered after a start that failed: nothing new, except where slots and the newest data may be.

    Args:
        remembered: what was, or what was made of data that nothing told of; None: there was neither.
        now: as far as the start has come.
    """
    if remembered is None:
        return None
    # Its edges may have told browsers something.
    return replace(remembered, **_where(now), up=False, deployed={}, hsts_until=now.promised(time.time()))


def _where(now: FleetState) -> dict[str, Any]:
    """Give what says where slots and data are."""
    return {"shards": now.shards, "ports": now.ports, "primaries": now.primaries, "places": now.places}


def _refuse_to_leave_data(fleet: Fleet, remembered: FleetState | None, wanted: FleetSpec) -> None:
    """Another engine would begin with no data, and forget whose it is that the one before has."""
    if remembered and remembered.spec.engine != wanted.engine:
        engine, project = remembered.spec.engine, wanted.project
        raise UsageError(
            f"the data of fleet {project} is with the {engine} engine: `inv up --engine {engine} --project {project}` "
            f"goes on with it, `inv down --purge --project {project}` deletes it; or choose another name with "
            f"--project; if that engine is gone for good, `rm {fleet.directory.path / 'fleet.json'}` forgets it"
        )


def _moved(remembered: FleetState | None, wanted: FleetSpec) -> Iterator[str]:
    """Tell of what clients of a fleet that was down would not find again: `inv down` keeps no flags."""
    if remembered is None or remembered.up:
        return
    project, was = wanted.project, remembered.spec
    if was.port != wanted.port:
        yield f"fleet {project} comes up at port {wanted.port}, where it was at {was.port} before (--port)"
    if was.tls_certificate and not wanted.tls_certificate:
        yield f"fleet {project} comes up without TLS, which it had before (--tls-certificate, --tls-key)"


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
    await sharding.refuse_stranded(engine, state, runs=False)
    fleet.say("starting Redis")
    await engine.start()
    await sharding.start_redis(fleet, engine, state)
    async with fleet.control(state) as control:
        await _prepare(fleet, control, state)
    await add_replicas(fleet, engine, state, state.active)
    await engine.route(layout.route(state))
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
        await control.swap_table(await sharding.first_table(fleet, state), 0)
        return
    # Ports may be others than they were.
    now = {shard.name: shard for shard in layout.shards(state)}
    today = tuple(now.get(shard.name, shard) for shard in table.shards)
    if table.shards != today:
        await control.swap_table(table.with_shards(today), table.version)
    await sharding.move_slots(fleet, control, state, state.shards)


async def _add_edges(fleet: Fleet, engine: Engine, state: FleetState) -> None:
    fleet.say(f"having {state.spec.edges} edges listen on port {state.spec.port}")
    await engine.add(layout.edge_parts(state))
    await until_routed(fleet, engine, state, layout.route(state))

    tls = certificate.trusting(fleet.directory.certificate_file) if state.spec.tls_certificate else None

    async def answers() -> bool:
        answer = await probe.get(state.spec.port, "/livez", layout.address(state), tls=tls)
        return answer is not None and answer.status == 200

    if not await probe.until(answers, health.EDGE_S):
        raise ShardsError(
            f"{layout.url(state)}/livez does not answer, though every part is healthy; see `inv logs edge-0`"
        )


async def _until_registered(fleet: Fleet, control: Control, state: FleetState) -> None:
    """Wait, for a moment, until the registry too says that the replicas are active: `status` tells what it says."""
    names = set(layout.replica_names(state, state.active))

    async def active() -> bool:
        return names <= {record.replica for record in await control.workers() if record.state == "active"}

    fleet.say("waiting for the registry")
    await probe.until(active, _REGISTERED_S)


# -- a fleet that runs already


def _with_edges(state: FleetState, wanted: FleetSpec) -> FleetState:
    """Give the state in which edges do what is wanted of them; what they have told browsers until now is kept."""
    at_the_edge = {name: getattr(wanted, name) for name in _AT_THE_EDGE}
    return replace(state, spec=replace(state.spec, **at_the_edge), hsts_until=state.promised(time.time()))


async def _reshape(fleet: Fleet, state: FleetState, wanted: FleetSpec, drain_s: float) -> FleetState:
    engine = fleet.engine(state.spec)
    async with fleet.control(state) as control:
        await refuse_amid_cutover(control)
        # What was on a host that is gone goes elsewhere.
        state = fleet.placed(_with_edges(state, wanted))
        certificate.keep(fleet.directory, state.spec)
        fleet.directory.write(state)
        engine = fleet.engine(state.spec)
        await _heal(fleet, engine, control, state, wanted)
        state = await sharding.reshape(fleet, engine, control, state, wanted)
        state = await _reshape_replicas(fleet, engine, control, state, wanted, drain_s)
        return await _reshape_edges(fleet, control, state, wanted, drain_s)


def _refuse(state: FleetState, wanted: FleetSpec) -> None:
    room = layout.edge_room(state)
    if room is not None and wanted.edges > room:
        raise UsageError(
            f"fleet {state.spec.project} was started with room for {room} edges: "
            f"`inv down --project {state.spec.project}`, then `inv up --edges {wanted.edges}`"
        )
    changed = state.spec.differences(wanted) - _RESHAPED
    for name in sorted(changed):
        flag = _FLAGS.get(name, f"--{name}")
        # Its data does not go from one engine to another.
        project = state.spec.project
        first, lost = ("--purge ", ", which deletes its data") if name == "engine" else ("", "")
        raise UsageError(
            f"fleet {project} runs with {flag} {getattr(state.spec, name)}, which can't change meanwhile: "
            f"`inv down {first}--project {project}` first{lost}, or start another one with --project"
        )


async def _heal(fleet: Fleet, engine: Engine, control: Control, state: FleetState, wanted: FleetSpec) -> None:
    """Start what is missing; a fleet that is well is only asked whether it is.

    Replicas that are not wanted any more need not be well. Redis servers on hosts that are gone are left out.
    """
    fleet.say("checking the parts")
    lost = await engine.lost_hosts()
    await take_back_orders(control, state)
    # What a restart that was cut short has left to stand in goes: nobody has tried it, and it may never be ready.
    lasting = layout.without_stand_in(state)
    replicas = layout.replica_parts(lasting, state.active)
    await sharding.start_redis(fleet, engine, state)
    # What a rotation that was cut short, or an older release of ours, has left is brought to what the files say.
    await accept(fleet, state, lost)
    await engine.add(replicas)
    if not sharding.stranded(state, lost):
        # Those that are new get ready once they have a connection to each shard.
        await health.until_healthy(fleet, engine, replicas[: wanted.replicas], fleet.ready_s)
    await engine.route(layout.route(lasting))
    await engine.add(layout.edge_parts(state))
    await until_routed(fleet, engine, state, layout.route(lasting))


async def _reshape_replicas(
    fleet: Fleet, engine: Engine, control: Control, state: FleetState, wanted: FleetSpec, drain_s: float
) -> FleetState:
    color, asked = state.active, state.spec.replicas
    stands_in = state.to_renew or layout.without_stand_in(state) != state
    stay = min(wanted.replicas, asked if stands_in else state.deployed[color].replicas)
    if stay < state.deployed[color].replicas:
        # First of all, for what goes need not be well: what stood in where a command was killed, and what is too many.
        state = await shrink(fleet, engine, control, state, stay, drain_s)
    edge = state.restarting if state.restarts_an_edge else None
    state = replace(state, restarting=edge, spec=replace(state.spec, replicas=stay))
    fleet.directory.write(state)
    state = await _renew_replicas(fleet, engine, control, state, wanted, drain_s)
    if wanted.replicas > state.deployed[color].replicas:
        tell_release(fleet, engine, state, f"more replicas of {color}")
        more = replace(state.deployed[color], replicas=wanted.replicas)
        state = await _grow_or_stay(fleet, engine, control, state, more, (), drain_s)
    state = replace(state, spec=replace(state.spec, replicas=wanted.replicas))
    fleet.directory.write(state)
    return state


async def _renew_replicas(
    fleet: Fleet, engine: Engine, control: Control, state: FleetState, wanted: FleetSpec, drain_s: float
) -> FleetState:
    """Give each replica as many workers as are wanted."""
    color, today = state.active, state.deployed[state.active]
    names = layout.replica_names(state, color)
    to_renew = tuple(names if today.workers != wanted.workers else (n for n in state.to_renew if n in names))
    if to_renew:
        tell_release(fleet, engine, state, f"each replica of {color}")
        # One more stands in while each of the others is away; it stays where more are wanted.
        more = replace(today, replicas=today.replicas + 1, workers=wanted.workers)
        state = await _grow_or_stay(fleet, engine, control, state, more, to_renew, drain_s)
        for name in to_renew:
            await renew(fleet, engine, control, state, name, drain_s)
            state = replace(state, to_renew=state.to_renew[1:])
            fleet.directory.write(state)
        if wanted.replicas <= today.replicas:
            state = await shrink(fleet, engine, control, state, today.replicas, drain_s)
    replicas = state.deployed[color].replicas
    state = replace(state, to_renew=(), spec=replace(state.spec, replicas=replicas, workers=wanted.workers))
    fleet.directory.write(state)
    return state


async def _grow_or_stay(
    fleet: Fleet,
    engine: Engine,
    control: Control,
    state: FleetState,
    more: Deployment,
    to_renew: tuple[str, ...],
    drain_s: float,
) -> FleetState:
    """Start more replicas, and remember which are `to_renew`; where that fails, those there were are all there is."""
    try:
        return await grow(fleet, engine, control, replace(state, to_renew=to_renew), more)
    except ShardsError as failure:
        fleet.say("taking away what was started")
        before = state.deployed[state.active]
        larger = fleet.directory.read() or state
        try:
            smaller = await shrink(fleet, engine, control, larger, before.replicas, drain_s)
        except ShardsError as further:
            raise ShardsError(f"{failure}; what was started stays: {further}") from None
        fleet.directory.write(replace(smaller.with_deployed(state.active, before), to_renew=state.to_renew))
        raise ShardsError(f"{failure}; {before.replicas} replicas serve as before") from None


async def _reshape_edges(
    fleet: Fleet, control: Control, state: FleetState, wanted: FleetSpec, drain_s: float
) -> FleetState:
    gone = await _edges_beyond(fleet, state, wanted.edges)
    spec = replace(state.spec, edges=wanted.edges, connections=wanted.connections)
    state = replace(state, spec=spec, restarting=None)
    state = fleet.placed(state, layout.edge_names(state))
    fleet.directory.write(state)
    engine = fleet.engine(spec)
    await _add_edges(fleet, engine, state)
    if gone:
        await remove_edges(fleet, engine, control, gone, layout.replica_parts(state, state.active), drain_s)
        state = layout.without_ports(state, [edge.name for edge in gone])
        fleet.directory.write(state)
    return state


async def _edges_beyond(fleet: Fleet, state: FleetState, wanted: int) -> list[EdgePart]:
    """Give the edges that are too many, what a command that was killed has left among them."""
    running = await fleet.engine(state.spec).running()
    numbers = [int(name.removeprefix("edge-")) for name in running if name.startswith("edge-")]
    most = max(len(layout.edge_names(state)), wanted, *(number + 1 for number in numbers))
    larger = fleet.placed(replace(state, spec=replace(state.spec, edges=most), restarting=None))
    return layout.edge_parts(larger)[wanted:]


# -- the end


@dataclass(frozen=True)
class Ended:
    """How a fleet was taken down.

    Attributes:
        stopped: there was something to stop.
        deleted: its data was deleted.
        left: what is left alone, since it is another fleet's of this name, Compose's, or out of reach; empty: nothing.
    """

    stopped: bool = False
    deleted: bool = False
    left: str = ""


async def down(fleet: Fleet, purge: bool) -> Ended:
    """Stop a fleet: after it no process, port or socket file of it is left.

    Args:
        fleet: which.
        purge: forget its data, logs and secrets as well.

    Raises:
        ShardsError: another command is changing it, or its directory can't be written.
    """
    begun_here = fleet.directory.path.exists()
    # One that Compose has started from the committed file runs without any of it.
    if not begun_here and by_hand.find(fleet.directory.project) is None:
        return Ended(left=await fleet.left_alone(None))
    with fleet.directory.lock("down"):
        try:
            state = fleet.remembered()
        except ShardsError as damaged:
            fleet.note(str(damaged))
            state = None
        spec = state.spec if state else FleetSpec(fleet.directory.project, _engine_in(fleet.directory.path))
        engine = fleet.engine(spec)
        if any(part.up for part in (await engine.running()).values()):
            fleet.say("stopping the parts")
        stopped = await engine.stop()
        if state and begun_here and not purge:
            # Before a purge there may be no room for it: that is what makes some.
            fleet.directory.write(replace(state, up=False, deployed={}, hsts_until=state.promised(time.time())))
        if purge:
            elsewhere = [shard.url for shard in (state.shards if state else ()) if shard.url]
            if elsewhere:
                fleet.note(f"the data on {', '.join(elsewhere)} is left alone: delete it there")
            await engine.purge()
        if spec.engine != "local":
            left = await fleet.left_alone(engine)
        elif purge:
            left = await _purge_docker(fleet)
        else:
            # Where a state says that this host's engine has it, Docker is none of its business.
            left = "" if state else await fleet.left_alone(None)
        if purge:
            shutil.rmtree(fleet.directory.path, ignore_errors=True)
    return Ended(stopped, purge, left)


async def _purge_docker(fleet: Fleet) -> str:
    """Delete what Docker has that carries the fleet's mark, though the engine of this host was the last to have it.

    Returns:
        What is left alone there, in one line; empty: nothing that anybody knows of.

    Raises:
        ShardsError: some of it is still there.
    """
    docker = fleet.engine(FleetSpec(fleet.directory.project, "docker"))
    try:
        has_ours = await docker.has_ours()
    except ShardsError as error:
        # There is no Docker here, or it can't be asked: that matters where it has had the fleet.
        if not (fleet.directory.path / "docker").is_dir():
            return ""
        return f"what Docker has of it, under the id {fleet.directory.id()}, is left alone, since {error}"
    if has_ours:
        await docker.stop()
        await docker.purge()
    return await fleet.left_alone(docker)


def _engine_in(directory: Path) -> str:
    """Tell by the files of a fleet which engine has had it, where nothing else remembers it."""
    return next((name for name in ("swarm", "docker") if (directory / name).is_dir()), "local")
