"""`promote` and `rollback`: performs what `shards.fleet.cutover` decides, and journals each step before it is done.

The edges are never restarted: they read where to send requests from a file. Sockets are moved by `reconnect` hints
and then closes, spread over the drain's window by the replicas themselves.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from shards.errors import PartFailed, ShardsError
from shards.fleet import health, layout, probe, processes
from shards.fleet.cutover import ENDED, Cutover, Event, Step, Verb, begin
from shards.fleet.drain import drain, draining
from shards.fleet.engines.base import Engine, ReplicaPart
from shards.fleet.fleet import Fleet
from shards.fleet.reconcile import add_replicas, until_routed
from shards.fleet.release import release_of
from shards.fleet.spec import Color
from shards.fleet.state import Deployment, FleetState
from shards.router.control import Control, Orders


async def roll(fleet: Fleet, verb: Verb, drain_s: float) -> FleetState:
    """Move the fleet to its other color.

    Args:
        fleet: which.
        verb: ``promote`` deploys what the app's directory holds now; ``rollback`` goes back.
        drain_s: the window in which sockets move, in seconds.

    Returns:
        The fleet afterwards.

    Raises:
        UsageError: there is nothing to roll back to.
        ShardsError: a step failed. Before the switch the color that was active is as it was, and alone.
    """
    with fleet.directory.lock(verb):
        state = await fleet.require()
        async with fleet.control(state) as control:
            entry = await control.journal()
            cutover = begin(
                verb,
                state.active,
                Cutover.read(entry) if entry else None,
                release_of(Path(state.spec.app_dir)),
                state.previous,
                {color: deployment.release for color, deployment in state.deployed.items()},
            )
            performance = _Performance(fleet, fleet.engine(state.spec), control, state, cutover, drain_s)
            await performance.run()
            return performance.state


@dataclass
class _Performance:
    """One cutover being done: `state` is what is remembered of the fleet, `cutover` where it stands."""

    fleet: Fleet
    engine: Engine
    control: Control
    state: FleetState
    cutover: Cutover
    drain_s: float

    async def run(self) -> None:
        failure: ShardsError | None = None
        while self.cutover.step not in ENDED:
            await self.control.write_journal(self.cutover.entry())
            try:
                await self._perform(self.cutover.step)
                event = Event.OK
            except ShardsError as error:
                failure, event = error, Event.FAILED
            except asyncio.CancelledError:
                self.fleet.say(self._interrupted())
                raise
            following = self.cutover.after(event)
            if following is None:
                raise failure or ShardsError(f"no way on from {self.cutover.step}")
            if event is Event.FAILED:
                self.fleet.say(f"{self.cutover.step} failed, going back to {self.cutover.old}")
            self.cutover = following
        await self.control.write_journal(None)
        if failure:
            raise ShardsError(f"{failure}; {self.cutover.old} serves as before, {self.cutover.new} was taken away")

    def _interrupted(self) -> str:
        other = "rollback" if self.cutover.verb == "promote" else "promote"
        return (
            f"stopped at {self.cutover.step}: `inv {self.cutover.verb}` goes on from there, "
            f"`inv {other}` goes back to {self.cutover.old}"
        )

    async def _perform(self, step: Step) -> None:
        steps = {
            Step.DEPLOY: self._deploy,
            Step.CHECK: self._check,
            Step.SWITCH: self._switch,
            Step.MOVE: self._move,
            Step.RETIRE: self._retire,
            Step.UNDO: self._undo,
        }
        await steps[step]()

    def _remember(self, state: FleetState) -> None:
        self.state = state
        self.fleet.directory.write(state)

    async def _deploy(self) -> None:
        new, spec = self.cutover.new, self.state.spec
        await self.engine.check_app()
        if self.cutover.deploys_afresh:
            await self._take_away()
        await self.control.order({new: Orders("ready")})
        found = release_of(Path(spec.app_dir))
        if self.cutover.verb == "rollback" and found != self.cutover.release:
            # Nobody is told that an old release runs when it does not.
            self.fleet.say(f"{spec.app_dir} holds {found}, not {self.cutover.release}: that is what will run")
            self.cutover = replace(self.cutover, release=found)
        deployment = Deployment(self.cutover.release, spec.replicas, spec.workers)
        self._remember(layout.with_ports(self.state.with_deployed(new, deployment), processes.free_port))
        await add_replicas(self.fleet, self.engine, self.state, new)

    async def _take_away(self) -> None:
        """Stop whatever runs of the new color, whether it is remembered or not."""
        prefix = f"{self.cutover.new}-"
        running = await self.engine.running()
        await self.engine.remove([name for name in running if name.startswith(prefix)])
        ports = [name for name in self.state.ports if name.startswith(prefix)]
        self._remember(layout.without_ports(self.state.with_deployed(self.cutover.new, None), ports))

    async def _check(self) -> None:
        self.fleet.say(f"asking each replica of {self.cutover.new}")
        parts = layout.replica_parts(self.state, self.cutover.new)
        await asyncio.gather(*(self._check_replica(part) for part in parts))

    async def _check_replica(self, part: ReplicaPart) -> None:
        # What answers at the port must be this replica, and of this release.
        answer = await probe.get(part.port, "/livez", within_s=5)
        said = answer.body if answer and isinstance(answer.body, dict) else {}
        if (said.get("replica"), said.get("release")) != (part.name, part.release):
            log = str(self.engine.log(part.name))
            raise PartFailed(part.name, f"says it is {said.get('replica')} of release {said.get('release')}", log)
        await health.until_healthy(self.fleet, self.engine, [part], health.REPLICA_S)

    async def _switch(self) -> None:
        self.fleet.say(f"switching the edges to {self.cutover.new}")
        self.engine.route(layout.route(self.state, self.cutover.new))
        await until_routed(self.fleet, self.engine, self.state, self.cutover.new)
        if self.state.active == self.cutover.old:
            previous = self.state.deployed[self.cutover.old].release
            self._remember(replace(self.state, active=self.cutover.new, previous=previous))

    async def _move(self) -> None:
        new, old = self.cutover.new, self.cutover.old
        names = layout.replica_names(self.state, old)
        orders: dict[str, Orders | None] = {new: Orders("active"), old: draining(self.drain_s)}
        left = await drain(self.fleet, self.control, orders, names, self.drain_s)
        if left:
            self.fleet.say(f"{left:,} sockets did not leave {old} in time and will be closed")

    async def _retire(self) -> None:
        await self._leave_only(self.cutover.new, self.cutover.old)

    async def _undo(self) -> None:
        await self._leave_only(self.cutover.old, self.cutover.new)

    async def _leave_only(self, stays: Color, goes: Color) -> None:
        self.fleet.say(f"retiring {goes}")
        names = layout.replica_names(self.state, goes)
        left = layout.without_ports(self.state.with_deployed(goes, None), names)
        self.engine.route(layout.route(left, stays))
        await until_routed(self.fleet, self.engine, left, stays)
        await self.control.order({stays: Orders("active")})
        await self.engine.remove(names)
        await self.control.order({goes: None})
        self._remember(replace(left, active=stays))
