"""`inv restart NAME`: one part is replaced, and another one stands in for it meanwhile.

A replica: one more is started, gets its sockets, and gives them back. An edge: another one listens on the port first;
the sockets that came through it can't be handed over, and their clients are asked to come back through the others.

What is remembered says which part is being restarted, so that whoever comes next knows a stand-in from the others: the
same command again goes on, `up` takes it away. Where a new process fails, the stand-in is taken away at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from shards.errors import ShardsError, UsageError
from shards.fleet import health, layout
from shards.fleet.edges import remove_edges
from shards.fleet.engines.base import Engine, Part, ReplicaPart
from shards.fleet.fleet import Fleet, refuse_amid_cutover, refuse_amid_restart
from shards.fleet.replicas import Trial, grow, no_trial, renew, shrink, take_back_orders, tell_release, until_routed
from shards.fleet.state import FleetState
from shards.fleet.trial import try_out
from shards.router.control import Control


async def restart(fleet: Fleet, name: str, drain_s: float, probe_path: str = "") -> FleetState:
    """Replace a replica or an edge.

    Args:
        fleet: which.
        name: of the part.
        drain_s: the window in which a replica's sockets move, in seconds.
        probe_path: of the WebSocket that is probed on a replica before clients come to it; empty: none is.

    Raises:
        UsageError: there is no such part, or it can't be replaced in this way.
        ShardsError: it could not be done; says what serves then.
    """
    with fleet.directory.lock("restart"):
        state = await fleet.require()
        _refuse(state, name)
        async with fleet.control(state) as control:
            await refuse_amid_cutover(control)
            one = _Restart(fleet, fleet.engine(state.spec), control, name, drain_s, probe_path)
            with one.telling():
                await one.look()
                return await (one.edge(state) if name in layout.edge_names(state) else one.replica(state))


def _refuse(state: FleetState, name: str) -> None:
    if state.restarting != name:
        refuse_amid_restart(state)
    replicas = layout.replica_names(state, state.active)[: state.spec.replicas]
    known = [*replicas, *layout.edge_names(state)[: state.spec.edges]]
    if name in known:
        return
    if name in {shard.name for shard in state.shards}:
        raise UsageError(f"{name} holds the logs of groups: `inv reshard` moves its slots, and then it can go")
    if name in layout.names(state):
        raise UsageError(f"{name} has no other that could stand in for it; if it is killed, it is started again")
    raise UsageError(f"there is no {name!r} to restart: there are {', '.join(known)}")


@dataclass
class _Restart:
    """A restart being done.

    Attributes:
        fleet: whose part it is.
        engine: of it.
        control: of it.
        name: of the part.
        drain_s: the window in which sockets move, in seconds.
        probe_path: see `restart`.
        before: the part's process or container, as it was before the restart.
    """

    fleet: Fleet
    engine: Engine
    control: Control
    name: str
    drain_s: float
    probe_path: str
    before: tuple[int | None, str | None] | None = None

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Say how it goes on where the command is interrupted."""
        try:
            yield
        except asyncio.CancelledError:
            self.fleet.note(
                f"stopped amid the restart of {self.name}: `inv restart {self.name}` goes on from there, "
                "`inv up` takes away what stands in"
            )
            raise

    async def look(self) -> None:
        """See what the part is; one that does not run is started at once, not when the engine tries it next."""
        self.before = await self.identity()
        if self.before is None:
            await self.engine.remove([self.name])

    async def identity(self) -> tuple[int | None, str | None] | None:
        """Tell the part's process, or its container, from those it had before; None: it has none."""
        known = (await self.engine.running()).get(self.name)
        return (known.pid, known.container) if known and known.up else None

    # A replica

    async def replica(self, state: FleetState) -> FleetState:
        """Replace a replica."""
        tell_release(self.fleet, self.engine, state, self.name)
        if state.restarting:
            # What an earlier try has started may be of another age: it goes, unless nothing else serves.
            await self._withdraw_replica()
            state = self.fleet.directory.read() or state
        trial = no_trial if state.restarting else self._trial(state, self.name)
        one_more = replace(state.deployed[state.active], replicas=state.spec.replicas + 1)
        state = replace(state, restarting=self.name)
        try:
            state = await grow(self.fleet, self.engine, self.control, state, one_more, trial)
            stand_in = layout.replica_names(state, state.active)[-1]
            trial = self._trial(state, stand_in)
            await renew(self.fleet, self.engine, self.control, state, self.name, self.drain_s, [stand_in], trial)
        except ShardsError as failure:
            raise ShardsError(f"{failure}; {await self._withdraw_replica()}") from None
        try:
            return await self._shrink(state, [self.name])
        except ShardsError as failure:
            raise ShardsError(self._still(stand_in, str(failure))) from None

    def _trial(self, state: FleetState, other: str) -> Trial:
        """Give the trial of a new replica beside another one, which serves."""
        serves = next(part for part in layout.replica_parts(state, state.active) if part.name == other)

        async def trial(parts: Sequence[ReplicaPart]) -> None:
            held = [replace(part, release=self.engine.holds(part.release)) for part in parts]
            await try_out(self.fleet, self.engine, held, serves, self.probe_path)

        return trial

    async def _shrink(self, state: FleetState, to: Collection[str]) -> FleetState:
        whole = replace(state, restarting=None)
        return await shrink(self.fleet, self.engine, self.control, whole, state.spec.replicas, self.drain_s, to)

    async def _withdraw_replica(self) -> str:
        """Take away what stood in after a failure, unless nothing else serves; gives what is so then."""
        state = self.fleet.directory.read()
        if state is None or state.restarting is None:
            return f"{self.name} serves as before"
        *parts, stand_in = layout.replica_parts(state, state.active)
        serve = await self._serving(parts)
        if not serve:
            return self._still(stand_in.name, "nothing else serves")
        try:
            await take_back_orders(self.control, state)
            await self._shrink(state, serve)
        except ShardsError as error:
            return self._still(stand_in.name, str(error))
        return self._told(stand_in.name, serve)

    # An edge

    async def edge(self, state: FleetState) -> FleetState:
        """Replace an edge."""
        larger = replace(state, restarting=self.name)
        stand_in = layout.edge_names(larger)[-1]
        larger = self.fleet.placed(larger, [self.name, stand_in])
        parts = {part.name: part for part in layout.edge_parts(larger)}
        replicas = layout.replica_parts(larger, larger.active)
        self.fleet.directory.write(larger)
        self.fleet.say(f"starting {stand_in} to stand in for {self.name}")
        try:
            for goes in (self.name, stand_in):
                await self.engine.add(list(parts.values()))
                await until_routed(self.fleet, self.engine, larger, layout.route(larger))
                await remove_edges(self.fleet, self.engine, self.control, [parts[goes]], replicas, self.drain_s)
        except ShardsError as failure:
            raise ShardsError(f"{failure}; {await self._withdraw_edge(larger)}") from None
        return self._without(larger, stand_in)

    def _without(self, larger: FleetState, stand_in: str) -> FleetState:
        state = layout.without_ports(replace(larger, restarting=None), [stand_in])
        self.fleet.directory.write(state)
        return state

    async def _withdraw_edge(self, larger: FleetState) -> str:
        *parts, stand_in = layout.edge_parts(larger)
        serve = await self._serving(parts)
        if not serve:
            return self._still(stand_in.name, "nothing else serves")
        replicas = layout.replica_parts(larger, larger.active)
        try:
            await remove_edges(self.fleet, self.engine, self.control, [stand_in], replicas, self.drain_s)
        except ShardsError as error:
            return self._still(stand_in.name, str(error))
        self._without(larger, stand_in.name)
        return self._told(stand_in.name, serve)

    # What is so after a failure

    async def _serving(self, parts: Sequence[Part]) -> list[str]:
        """Name the parts that are well, but for one that was replaced: it is what fails."""
        ailments = await asyncio.gather(*(health.ailment(self.fleet, self.engine, part) for part in parts))
        well = [part.name for part, wrong in zip(parts, ailments, strict=True) if wrong is None]
        replaced = await self.identity() != self.before
        return [name for name in well if not (replaced and name == self.name)]

    def _told(self, stand_in: str, serve: Sequence[str]) -> str:
        if self.name in serve:
            return f"{self.name} serves as before, {stand_in} was taken away"
        return f"{', '.join(serve)} serve, {stand_in} was taken away: `inv restart {self.name}` tries again"

    def _still(self, stand_in: str, why: str) -> str:
        return f"{stand_in} still stands in ({why}): `inv restart {self.name}` goes on"
