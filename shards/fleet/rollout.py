"""`promote` and `rollback`: performs what `shards.fleet.cutover` decides, and journals where it stands.

The journal is written before a step is done, and when it is through, before the next one begins. One controller at a
time writes it: it holds a lease in the control Redis, and looks before each action whether it still does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from redis.exceptions import RedisError

from shards.errors import Overtaken, ShardsError
from shards.fleet import probe
from shards.fleet.actions import Actions, Options
from shards.fleet.cutover import ENDED, TABLE, Cutover, Event, Step, Verb, begin, go_on
from shards.fleet.fleet import Fleet, refuse_amid_restart
from shards.fleet.release import release_of
from shards.fleet.state import FleetState
from shards.router.control import Control
from shards.router.lease import LEASE_MS, Holder, Lease

Observer = Callable[[str], None]
"""Told what is about to be done, and what was: ``move.await_new``, …, ``move.through``."""

_VERBS = {"promote", "rollback"}


@dataclass(frozen=True)
class Wish:
    """What a command asks for.

    Attributes:
        verb: ``promote`` deploys what the app's directory holds now; ``rollback`` goes back.
        options: how it shall be done.
        canary: percentage of new requests that the new color gets first; 0: none.
        hold: wait for a word before the switch.
        held: only go on with the cutover of this id, which waits for a word; None: whatever is to be done.
    """

    verb: Verb
    options: Options
    canary: float = 0.0
    hold: bool = False
    held: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        state: the fleet afterwards.
        cutover: where that stands: at an end, or at HOLD.
    """

    state: FleetState
    cutover: Cutover


async def roll(fleet: Fleet, wish: Wish, observe: Observer = lambda _point: None) -> Outcome:
    """Move the fleet to its other color.

    Args:
        fleet: which.
        wish: what is asked for.
        observe: see `Observer`.

    Raises:
        LeaseHeld: another controller is at it.
        ShardsError: there is nothing to roll back to, or a step failed. Before the switch the color that was active is
            as it was, and alone.
    """
    with contextlib.ExitStack() as lock:
        blocked = _try_lock(fleet, wish.verb, lock)
        state = await fleet.require()
        async with fleet.control(state) as control, _leased(control, wish.verb) as lease:
            if blocked:
                # Its holder is dead or stands still, or the lease would have been held.
                lock.enter_context(fleet.directory.take_lock_over(wish.verb))
            # Another command may have ended in between.
            state = await fleet.require()
            refuse_amid_restart(state)
            fenced = Control(control.redis, lease.fence)
            actions = Actions(fleet, fleet.engine(state.spec), fenced, state, wish.options)
            return await _Performance(fleet, fenced, actions, lease, observe).fulfil(wish)


def _try_lock(fleet: Fleet, verb: Verb, stack: contextlib.ExitStack) -> ShardsError | None:
    """Take the fleet's lock; gives why it can't be had, where another cutover has it: that is a matter of the lease."""
    try:
        stack.enter_context(fleet.directory.lock(verb))
    except ShardsError as busy:
        holder = fleet.directory.holder()
        if holder is None or holder.command not in _VERBS:
            raise
        return busy
    return None


@contextlib.asynccontextmanager
async def _leased(control: Control, verb: Verb) -> AsyncIterator[Lease]:
    process = psutil.Process()
    lease = Lease(control.redis, Holder(verb, _host(), process.pid, process.create_time(), time.time()))
    await probe.insist(lambda: lease.take(_dead))
    keeper = asyncio.create_task(_keep(lease), name="lease")
    try:
        yield lease
    finally:
        keeper.cancel()
        with contextlib.suppress(RedisError, OSError):
            await lease.release()


async def _keep(lease: Lease) -> None:
    while True:
        await asyncio.sleep(LEASE_MS / 4000)
        with contextlib.suppress(RedisError, OSError):
            if not await lease.renew():
                return


def _host() -> str:
    return f"{os.uname().nodename}/{psutil.boot_time():.0f}"


def _dead(holder: Holder) -> bool:
    """Tell whether a holder is dead for certain: only of processes of this host."""
    if holder.host != _host():
        return False
    try:
        return psutil.Process(holder.pid).create_time() != holder.started
    except psutil.NoSuchProcess:
        return True


@dataclass
class _Performance:
    """A command being carried out."""

    fleet: Fleet
    control: Control
    actions: Actions
    lease: Lease
    observe: Observer

    async def fulfil(self, wish: Wish) -> Outcome:
        entry = await probe.insist(self.control.journal)
        under_way = Cutover.read(entry) if entry else None
        if wish.held and (under_way is None or (under_way.id, under_way.step) != (wish.held, Step.HOLD)):
            raise ShardsError("the cutover that waited here went on, or back, by another command: see `inv status`")
        if under_way and under_way.step is Step.WITHDRAW and wish.verb == under_way.verb:
            self.fleet.note(f"an earlier {wish.verb} is on its way back to {under_way.old}: finishing that first")
            await self._run(under_way)
            under_way = None
        ended = await self._run(self._chosen(wish, under_way))
        if ended.failure and ended.step is Step.UNDONE and wish.verb == ended.verb:
            raise ShardsError(f"{ended.failure}; {ended.old} serves as before, {ended.new} was taken away")
        return Outcome(self.actions.state, ended)

    def _chosen(self, wish: Wish, under_way: Cutover | None) -> Cutover:
        state = self.actions.state
        release = release_of(Path(state.spec.app_dir))
        if under_way:
            on = go_on(under_way, wish.verb, release)
            self.fleet.note(f"an earlier {under_way.verb} stopped at {under_way.step}: going on with {on.step}")
            return replace(on, canary=wish.canary or on.canary, hold=wish.hold or on.hold)
        cutover = begin(wish.verb, state.active, release, state.previous, secrets.token_hex(4))
        return replace(cutover, canary=wish.canary, hold=wish.hold)

    async def _run(self, cutover: Cutover) -> Cutover:
        """Perform step after step until it has ended, or waits for a word."""
        while cutover.step not in ENDED:
            await self._journal(cutover)
            if cutover.step is Step.HOLD:
                return cutover
            with self._telling(cutover):
                failure = await self._step(cutover)
            following = cutover.after(Event.FAILED if failure else Event.OK, str(failure or ""))
            if following is None:
                self._tell_ways(cutover, "failed")
                raise failure or ShardsError(f"no way on from {cutover.step}")
            if failure:
                self.fleet.note(f"{cutover.step} failed, going back to {cutover.old}: {failure}")
            cutover = following
        await self._journal(cutover)
        return cutover

    async def _step(self, cutover: Cutover) -> ShardsError | None:
        """Do a step; gives why it failed."""
        began, done = time.monotonic(), []
        try:
            for action in TABLE[cutover.step].does:
                self.observe(f"{cutover.step}.{action}")
                await self._still_ours()
                done.append(await self.actions.perform(action, cutover))
        except Overtaken:
            raise
        except ShardsError as error:
            return error
        self.observe(f"{cutover.step}.through")
        self.fleet.note(f"{cutover.step}: {', '.join(filter(None, done))} ({time.monotonic() - began:.1f} s)")
        return None

    async def _still_ours(self) -> None:
        """See that nobody has taken over: what an action does to files and processes has no fence of its own."""
        if not await probe.insist(self.lease.renew):
            raise Overtaken

    async def _journal(self, cutover: Cutover) -> None:
        """Write where it stands; one that has ended leaves nothing but word of it."""
        entry = None if cutover.step in ENDED else cutover.entry()
        told = f"{cutover.verb} from {cutover.old} to {cutover.new}: {cutover.step}"
        await probe.insist(lambda: self.control.write_journal(entry, event=told))

    @contextlib.contextmanager
    def _telling(self, cutover: Cutover) -> Iterator[None]:
        """Say how it goes on where the command is interrupted."""
        try:
            yield
        except asyncio.CancelledError:
            self._tell_ways(cutover, "stopped")
            raise

    def _tell_ways(self, cutover: Cutover, what: str) -> None:
        other = "rollback" if cutover.verb == "promote" else "promote"
        on, back = f"`inv {cutover.verb}` goes on from there", f"`inv {other}` goes back to {cutover.old}"
        if cutover.step is Step.WITHDRAW:
            on = f"`inv {other}` finishes the way back to {cutover.old}"
            back = f"so does `inv {cutover.verb}`, and then begins anew"
        self.fleet.note(f"{what} at {cutover.step}: {on}, {back}")
