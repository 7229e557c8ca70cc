"""The replicas of the active color: more of them, fewer, or one of them anew, under their clients.

More:  start → ready → route with them
Fewer: route without those that go → their sockets move to those that stay → stop
Anew:  route without it → its sockets move → stop → start → ready → route with it
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

from shards.errors import ShardsError
from shards.fleet import health, layout
from shards.fleet.drain import TakerDied, drain, draining
from shards.fleet.engines.base import Engine, ReplicaPart, Route
from shards.fleet.fleet import Fleet
from shards.fleet.spec import Color
from shards.fleet.state import Deployment, FleetState
from shards.router.control import Control, Orders

Trial = Callable[[Sequence[ReplicaPart]], Awaitable[None]]
"""Looks at new replicas before they get requests; raises `ShardsError` where one shall get none."""


async def no_trial(_parts: Sequence[ReplicaPart]) -> None:
    """Take them as they are."""


def tell_release(fleet: Fleet, engine: Engine, state: FleetState, what: str) -> None:
    """Say so where replicas of the active color that are started now run another release than it was deployed with."""
    release = state.deployed[state.active].release
    if (held := engine.holds(release)) != release:
        # Nobody is told that the release that serves runs where it does not.
        fleet.note(f"{state.spec.app_dir} holds {held}, not {release} that serves: that is what {what} will run")


async def housed(fleet: Fleet, engine: Engine, state: FleetState, color: Color) -> FleetState:
    """Give the state in which those replicas of a color have a host that had none, or one that is gone.

    Nothing else moves: whoever starts replicas only must not look for an edge where nobody has started it.

    Raises:
        ShardsError: there is no host for one.
    """
    lost = await engine.lost_hosts()
    names = layout.replica_names(state, color)
    return fleet.placed(state, [name for name in names if name not in state.places or layout.host(state, name) in lost])


async def add_replicas(fleet: Fleet, engine: Engine, state: FleetState, color: Color) -> None:
    """Start the replicas of a color that do not run, and wait until all are ready.

    Raises:
        PartFailed: one is not in time.
    """
    fleet.say(f"starting {len(layout.replica_names(state, color))} replicas of {color}")
    parts = layout.replica_parts(state, color)
    await engine.add(parts)
    await health.until_healthy(fleet, engine, parts, fleet.ready_s)


async def until_routed(fleet: Fleet, engine: Engine, state: FleetState, route: Route) -> None:
    """Wait until every edge says that it works by `route`, but for those on hosts that are gone.

    Raises:
        PartFailed: one does not in time.
    """
    lost = await engine.lost_hosts()
    edges = [edge for edge in layout.edge_parts(state) if edge.host not in lost]
    await health.until_healthy(fleet, engine, edges, health.EDGE_S, route)


async def lead(fleet: Fleet, engine: Engine, state: FleetState, route: Route) -> None:
    """Send requests by `route`; returns once every edge does.

    Raises:
        ShardsError: it can't be told to them, or one does not take it up in time.
    """
    await engine.route(route)
    await until_routed(fleet, engine, state, route)


async def take_back_orders(control: Control, state: FleetState) -> None:
    """Have every replica of the active color obey its color's orders, whatever a killed command has left."""
    await control.order(dict.fromkeys(layout.replica_names(state, state.active)))


async def grow(
    fleet: Fleet,
    engine: Engine,
    control: Control,
    state: FleetState,
    deployment: Deployment,
    trial: Trial = no_trial,
) -> FleetState:
    """Start the replicas that `deployment` has more, and send them requests too.

    Raises:
        ShardsError: one is not ready in time, fails its trial, or an edge does not take it up.
    """
    state = await housed(fleet, engine, state.with_deployed(state.active, deployment), state.active)
    fleet.directory.write(state)
    await take_back_orders(control, state)
    await add_replicas(fleet, engine, state, state.active)
    await trial(layout.replica_parts(state, state.active)[state.spec.replicas :])
    await lead(fleet, engine, state, layout.route(state))
    return state


async def shrink(
    fleet: Fleet,
    engine: Engine,
    control: Control,
    state: FleetState,
    replicas: int,
    drain_s: float,
    to: Collection[str] = (),
) -> FleetState:
    """Stop the last replicas; their sockets move to those that stay.

    Args:
        fleet: which.
        engine: of it.
        control: of it.
        state: of it.
        replicas: how many stay.
        drain_s: the window in which sockets move, in seconds.
        to: which of those that stay get them; empty: all.

    Raises:
        ShardsError: an edge does not take it up, or one does not stop.
    """
    smaller = state.with_deployed(state.active, replace(state.deployed[state.active], replicas=replicas))
    names = layout.replica_names(state, state.active)
    gone, stay = names[replicas:], names[:replicas]
    await lead(fleet, engine, smaller, layout.route(smaller))
    await _empty(fleet, engine, control, state, gone, to or stay, drain_s)
    await engine.remove(gone)
    await control.order(dict.fromkeys(gone))
    smaller = layout.without_ports(smaller, gone)
    fleet.directory.write(smaller)
    return smaller


async def renew(
    fleet: Fleet,
    engine: Engine,
    control: Control,
    state: FleetState,
    name: str,
    drain_s: float,
    to: Collection[str] = (),
    trial: Trial = no_trial,
) -> None:
    """Stop a replica once its sockets have moved, and start it again.

    Args:
        fleet: which.
        engine: of it.
        control: of it.
        state: of it.
        name: of the replica; there is another one.
        drain_s: the window in which sockets move, in seconds.
        to: which replicas get them; empty: all others.
        trial: of the replica, once it is ready.

    Raises:
        ShardsError: it does not stop, is not ready in time, fails its trial, or an edge does not take it up.
    """
    route = layout.route(state)
    others = [part for part in route.replicas[state.active] if part.name != name]
    without = replace(route, replicas={**route.replicas, state.active: others})
    await lead(fleet, engine, state, without)
    await _empty(fleet, engine, control, state, [name], to or [part.name for part in others], drain_s)
    await engine.remove([name])
    await control.order({name: None})
    await add_replicas(fleet, engine, state, state.active)
    await trial([part for part in layout.replica_parts(state, state.active) if part.name == name])
    await lead(fleet, engine, state, route)


async def _empty(
    fleet: Fleet,
    engine: Engine,
    control: Control,
    state: FleetState,
    names: Collection[str],
    to: Collection[str],
    drain_s: float,
) -> None:
    """Move the sockets of replicas that get no requests any more; where those who take them die they get some again."""
    orders: dict[str, Orders | None] = dict.fromkeys(names, draining(drain_s, to))
    try:
        drained = await drain(fleet, engine, control, orders, names, drain_s, back=dict.fromkeys(names))
    except TakerDied:
        with contextlib.suppress(ShardsError):
            await lead(fleet, engine, state, layout.route(state))
        raise
    if told := drained.told(", ".join(names)):
        fleet.note(told)
