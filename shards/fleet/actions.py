"""What the steps of a cutover do (`shards.fleet.cutover.Action`). Each may be done again after it was cut short.

The edges are never restarted: they read where to send requests from a file. The control Redis is asked again where it
is away for a moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from shards.errors import ShardsError
from shards.fleet import health, layout, probe
from shards.fleet.canary import Limits
from shards.fleet.cutover import Action, Cutover
from shards.fleet.drain import drain, draining
from shards.fleet.engines.base import Engine
from shards.fleet.fleet import Fleet
from shards.fleet.release import release_of
from shards.fleet.replicas import add_replicas, housed, lead
from shards.fleet.spec import Color
from shards.fleet.state import Deployment, FleetState
from shards.fleet.trial import try_out
from shards.fleet.watch import watch
from shards.router.control import Control, Orders


@dataclass(frozen=True)
class Options:
    """What a cutover is told beside where it goes.

    Attributes:
        drain_s: the window in which sockets move, in seconds.
        limits: what a canary is judged by.
        probe_path: of the WebSocket that is probed; empty: none is.
    """

    drain_s: float
    limits: Limits = field(default_factory=Limits)
    probe_path: str = "/ws/"


@dataclass
class Actions:
    """Does them.

    Attributes:
        fleet: which.
        engine: of it.
        control: under the lease's fence.
        state: what is remembered of the fleet; kept up to date.
        options: what the command was told.
    """

    fleet: Fleet
    engine: Engine
    control: Control
    state: FleetState
    options: Options

    async def perform(self, action: Action, cutover: Cutover) -> str:
        """Do one action of a cutover.

        Returns:
            What came of it, for people; empty where there is nothing to say.

        Raises:
            ShardsError: it could not be done.
        """
        actions: Mapping[Action, Callable[[Cutover], Awaitable[str | None]]] = {
            Action.CLEAR_NEW: lambda c: self._clear(c.new),
            Action.START_NEW: lambda c: self._start(c.new, c.release),
            Action.PROBE_NEW: self._probe_new,
            Action.AWAIT_NEW: self._await_new,
            Action.SHARE: self._share,
            Action.WATCH: self._watch,
            Action.ROUTE_NEW: self._route_new,
            Action.MOVE_TO_NEW: lambda c: self._move(c.old, c.new),
            Action.STOP_OLD: self._stop_old,
            Action.START_OLD: self._start_old,
            Action.ROUTE_OLD: lambda c: self._leave(c.new, c.old),
            Action.MOVE_TO_OLD: lambda c: self._move(c.new, c.old),
            Action.STOP_NEW: self._stop_new,
        }
        return await actions[action](cutover) or ""

    def _remember(self, state: FleetState) -> None:
        self.state = state
        self.fleet.directory.write(state)

    async def _house(self, state: FleetState, color: Color) -> None:
        self._remember(await housed(self.fleet, self.engine, state, color))

    async def _order(self, orders: Mapping[str, Orders | None]) -> None:
        await probe.insist(lambda: self.control.order(orders))

    # The color that comes

    async def _clear(self, color: Color) -> None:
        running = await self.engine.running()
        await self.engine.remove([name for name in running if name.startswith(f"{color}-")])
        self._remember(layout.without_color(self.state, color))

    async def _start(self, color: Color, release: str) -> str:
        layer = await self.engine.check_app(release)
        await self._order({color: Orders("ready")})
        spec = self.state.spec
        deployment = Deployment(release, spec.replicas, spec.workers, layer)
        await self._house(self.state.with_deployed(color, deployment), color)
        await add_replicas(self.fleet, self.engine, self.state, color)
        return f"{spec.replicas} replicas of {color} run release {release}"

    async def _start_old(self, cutover: Cutover) -> str:
        """Start what was stopped already of the color that was active."""
        held = release_of(Path(self.state.spec.app_dir))
        deployment = self.state.deployed.get(cutover.old)
        if deployment and deployment.release != held:
            # Nobody is told that an old release runs when it does not.
            self.fleet.note(
                f"{self.state.spec.app_dir} holds {held}: that is what runs where {cutover.old} had stopped"
            )
        if deployment is None:
            return await self._start(cutover.old, held)
        await self._house(self.state, cutover.old)
        await add_replicas(self.fleet, self.engine, self.state, cutover.old)
        return f"{deployment.replicas} replicas of {cutover.old} run"

    async def _probe_new(self, cutover: Cutover) -> str:
        """Ask each new replica for what one of the color that serves does."""
        self.fleet.say(f"asking each replica of {cutover.new}")
        parts, old = (layout.replica_parts(self.state, color) for color in (cutover.new, cutover.old))
        lost = await self.engine.lost_hosts()
        serves = next((part for part in old if part.host not in lost), None)
        return await try_out(self.fleet, self.engine, parts, serves, self.options.probe_path)

    async def _await_new(self, cutover: Cutover) -> None:
        lost = await self.engine.lost_hosts()
        if lost:
            # What was there is gone, with its sockets: it begins anew elsewhere.
            await self._house(self.state, cutover.new)
            await self.engine.add(layout.replica_parts(self.state, cutover.new))
        parts = layout.replica_parts(self.state, cutover.new)
        await health.until_healthy(self.fleet, self.engine, parts, self.fleet.ready_s)
        if lost and self.state.active == cutover.new:
            # The edges send requests there already, and know it by its former address.
            await lead(self.fleet, self.engine, self.state, layout.route(self.state))

    # The canary

    async def _share(self, cutover: Cutover) -> None:
        self.fleet.say(f"sending {cutover.canary:g} % of new requests to {cutover.new}")
        # A canary's workers serve, so that the registry, presence and homes count them in.
        await self._order({cutover.new: Orders("active")})
        route = replace(layout.route(self.state, cutover.old), percent=cutover.canary)
        await lead(self.fleet, self.engine, self.state, route)

    async def _watch(self, cutover: Cutover) -> str:
        limits = self.options.limits
        return await watch(self.fleet, self.engine, self.control, self.state, cutover.old, cutover.new, limits)

    # The switch

    async def _route_new(self, cutover: Cutover) -> str:
        self.fleet.say(f"switching the edges to {cutover.new}")
        await lead(self.fleet, self.engine, self.state, layout.route(self.state, cutover.new))
        if self.state.active != cutover.new:
            previous = self.state.deployed[cutover.old].release
            self._remember(replace(self.state, active=cutover.new, previous=previous))
        return f"{self.state.spec.edges} edges send new requests to {cutover.new}"

    async def _leave(self, goes: Color, stays: Color) -> str:
        """Send requests to one color only; the edges forget the other, whose sockets stay open nevertheless."""
        left = layout.without_color(self.state, goes)
        await lead(self.fleet, self.engine, left, layout.route(left, stays))
        return f"{left.spec.edges} edges send requests to {stays} only"

    async def _move(self, source: Color, target: Color) -> str:
        """Move the sockets of one color to the other."""
        names, to = layout.replica_names(self.state, source), layout.replica_names(self.state, target)
        # What an `inv up` that was killed has ordered single replicas would count for more.
        orders: dict[str, Orders | None] = dict.fromkeys([*names, *to])
        orders |= {target: Orders("active"), source: draining(self.options.drain_s, to)}
        back: dict[str, Orders | None] = {source: Orders("active")}
        drained = await drain(self.fleet, self.engine, self.control, orders, names, self.options.drain_s, back)
        if told := drained.told(source):
            self.fleet.note(told)
        return drained.summary

    # The color that goes

    async def _stop(self, goes: Color, stays: Color) -> str:
        self.fleet.say(f"retiring {goes}")
        await self._leave(goes, stays)
        await self._order({stays: Orders("active")})
        running = await self.engine.running()
        await self.engine.remove([name for name in running if name.startswith(f"{goes}-")])
        await self._order({goes: None})
        self._remember(replace(layout.without_color(self.state, goes), active=stays))
        return f"{goes} is stopped"

    async def _forget_releases(self) -> None:
        known = {*(one.release for one in self.state.deployed.values()), self.state.previous}
        # What stays too long is no reason to fail: it goes another time.
        with contextlib.suppress(ShardsError):
            await self.engine.forget_releases({release for release in known if release})

    async def _stop_old(self, cutover: Cutover) -> str:
        stopped = await self._stop(cutover.old, cutover.new)
        await self._forget_releases()
        return stopped

    async def _stop_new(self, cutover: Cutover) -> str:
        stopped = await self._stop(cutover.new, cutover.old)
        self._remember(replace(self.state, previous=cutover.previous))
        await self._forget_releases()
        return stopped
