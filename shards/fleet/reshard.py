"""Moves slots between shards while the fleet serves.

Step by step, each of a few slots from one shard to one other::

    journal the step → copy the slots → close them at the source, copy what is new, open them at the target
    → new slot table → announce it → clean up the source → journal: through

A publish that meets a closed slot waits in its worker and is sent again under the new table, milliseconds later. A
reshard killed at any point is finished by the next one: until the table has changed its step is done anew, and
afterwards only the cleaning up is left.

The slots of a shard that is lost have nothing to be copied: they are opened, empty, at their new owners. Their groups
get logs with new epochs, by which their subscribers know that there is a gap.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shards import ring
from shards.aio import stop_if_cancelled
from shards.errors import ShardUnavailable
from shards.fleet import probe
from shards.log import move
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Credentials

SLOTS_A_STEP = 16

_SHARD_S, _LOST_S = 10.0, 1.0
"""How long a shard may take for one answer, in seconds, and how long one that is lost is asked."""

_PATIENCE_S, _AGAIN_S = 15.0, 0.2
_KNOWN_S = 3.0
"""How long workers may take, in seconds, to take a slot table up; one that hangs is not waited for longer."""


def _as_it_is(url: str) -> str:
    return url


@dataclass(frozen=True)
class Access:
    """How this host gets to shards.

    Attributes:
        credentials: gives, by a shard's URL, what it is shown.
        reached: gives the URL at which this host reaches the shard that workers reach under another.
    """

    credentials: Callable[[str], Credentials]
    reached: Callable[[str], str] = _as_it_is


@dataclass(frozen=True)
class Step:
    """Slots that go from one shard to another at once.

    Attributes:
        source: the shard's name that owns them.
        target: the shard's name that shall own them.
        slots: which.
        version: of the slot table that this step makes; 0: not known yet.
    """

    source: str
    target: str
    slots: tuple[int, ...]
    version: int = 0


def plan(
    table: SlotTable, shards: Sequence[Shard], lost: Collection[str] = (), slots_a_step: int = SLOTS_A_STEP
) -> list[Step]:
    """Give the steps that lead from `table` to one in which just `shards` own slots, moving as few as possible.

    Slots of the `lost` shards go first, and all at once, since their publishes wait already.
    """
    before = table.owner_names()
    after = ring.assign({shard.name: shard.weight for shard in shards}, before)
    ways: dict[tuple[str, str], list[int]] = {}
    for slot, way in ring.moves(before, after).items():
        ways.setdefault(way, []).append(slot)
    steps: list[Step] = []
    for source, target in sorted(ways, key=lambda way: (way[0] not in lost, way)):
        slots = ways[source, target]
        size = len(slots) if source in lost else slots_a_step
        steps += [Step(source, target, tuple(slots[at : at + size])) for at in range(0, len(slots), size)]
    return steps


def summary(table: SlotTable, shards: Sequence[Shard], lost: Collection[str] = ()) -> list[str]:
    """Say in lines what would move so that just `shards` own slots, and what the least possible is."""
    ways: Counter[tuple[str, str]] = Counter()
    for step in plan(table, shards, lost):
        ways[step.source, step.target] += len(step.slots)
    lines = [
        f"{source} -> {target}: {slots} slots" + (", their history is lost" if source in lost else "")
        for (source, target), slots in sorted(ways.items())
    ]
    least = ring.least_moves({shard.name: shard.weight for shard in shards}, table.owner_names())
    slots = len(table.owners)
    total = ways.total()
    part, least_part = (f"{100 * number / slots:.1f} %" for number in (total, least))
    return [*lines, f"{total} of {slots} slots move ({part}); the least possible: {least} ({least_part})"]


async def reshard(
    control: Control,
    shards: Sequence[Shard],
    access: Access,
    moved: Callable[[int, int], None],
    lost: Collection[str] = (),
) -> SlotTable:
    """Make `shards` the owners of all slots.

    Args:
        control: of the fleet.
        shards: which shall own slots; they run, as do those that own some now and are not lost.
        access: how this host gets to them.
        moved: told of progress: slots moved, slots to move in all.
        lost: names of shards that are gone for good, with their data.

    Returns:
        The slot table at the end.

    Raises:
        ShardUnavailable: a shard did not do its part; run it again.
        redis.exceptions.RedisError: the control Redis did not.
        StaleVersion: somebody else changed the slot table.
    """
    table = await control.table()
    assert table is not None, "a fleet that runs has a slot table"
    known = {shard.name: shard for shard in (*table.shards, *shards)}
    async with aclosing(_Clients(known.values(), access, lost)) as clients:
        mover = _Mover(control, clients, lost, table)
        await mover.finish()
        await mover.note(None)
        await mover.introduce(tuple(known.values()))
        steps = plan(mover.table, shards, lost)
        done, total = 0, sum(len(step.slots) for step in steps)
        await mover.note(None, f"{total} slots begin to move" if total else "")
        for step in steps:
            await mover.carry_out(step)
            # redis-py sends with `asyncio.wait_for`: half of all Ctrl-C were lost in it.
            stop_if_cancelled()
            done += len(step.slots)
            moved(done, total)
        if mover.table.shards != tuple(shards):
            await mover.swap(mover.table.with_shards(shards))
        await control.write_journal(None, "reshard", f"{total} slots have moved" if total else "")
    return mover.table


@dataclass
class _Mover:
    """A reshard being done; `table` is the slot table as it stands."""

    control: Control
    clients: _Clients
    lost: Collection[str]
    table: SlotTable

    async def note(self, step: Step | None, event: str = "") -> None:
        """Journal that a reshard is under way, and the step that is being done; None: between two."""
        await self.control.write_journal({"step": msgspec.to_builtins(step)}, "reshard", event)

    async def swap(self, table: SlotTable) -> None:
        await self.control.swap_table(table, self.table.version)
        self.table = table
        await self._announce()

    async def _announce(self) -> None:
        await move.announce(await self.clients.living(), self.table)

    async def introduce(self, shards: tuple[Shard, ...]) -> None:
        """Have workers connect to shards that are new, before a publish has to wait for that."""
        if shards == self.table.shards:
            return
        await self.swap(self.table.with_shards(shards))
        end = time.monotonic() + _KNOWN_S
        while any(worker.ring_version < self.table.version for worker in await self.control.workers()):
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.05)

    async def finish(self) -> None:
        """Finish the step that an earlier reshard has left half-way."""
        entry = await self.control.journal("reshard")
        if entry is None or entry["step"] is None:
            return
        step = msgspec.convert(entry["step"], Step)
        if self.table.owner(step.slots[0]).name == step.target:
            await self._announce()
            await self._tidy(step)
        elif step.source not in self.lost:
            # What was closed for a target that is gone is opened again where it is.
            await (
                self._give(Step(step.source, step.source, step.slots))
                if step.target in self.lost
                else self.carry_out(step)
            )
        elif step.target not in self.lost and await self._is_copied(step):
            await self._give(step)

    async def carry_out(self, step: Step) -> None:
        step = Step(step.source, step.target, step.slots, self.table.version + 1)
        await self.note(step)
        await self._insist(step, self._open_empty if step.source in self.lost else self._hand_over)
        await self.swap(self.table.moved(step.slots, step.target))
        await self._tidy(step)

    async def _insist(self, step: Step, work: Callable[[Step], Awaitable[None]]) -> None:
        """Do a part of a step, again where a shard fails meanwhile: one that is killed is back in a second."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await work(step)
            except RedisError as error:
                if time.monotonic() > end:
                    names = " or ".join({step.source: 0, step.target: 0})
                    raise ShardUnavailable(names, f"{error}; run it again, its slots wait") from None
            await self.clients.leave(step.source, step.target)
            await asyncio.sleep(_AGAIN_S)

    async def _hand_over(self, step: Step) -> None:
        source, target = await self.clients.of(step.source), await self.clients.of(step.target)
        copied = await move.copy(source, target, step.slots)
        await move.hand_over(source, target, step.slots, step.version, copied)

    async def _open_empty(self, step: Step) -> None:
        """Give slots of a shard that is lost to another, with nothing in them."""
        with suppress(RedisError, OSError):
            # Should it be reachable after all, it takes no more from workers who don't know of this yet.
            async with asyncio.timeout(_LOST_S):
                await move.close(await self.clients.of(step.source), step.slots, step.version)
        target = await self.clients.of(step.target)
        await move.wipe(target, step.slots)
        await move.open(target, step.slots, step.version)

    async def _is_copied(self, step: Step) -> bool:
        """Tell whether the target has all of a step's slots, whose source was lost before the table said so."""
        return await move.is_open(await self.clients.of(step.target), step.slots, step.version)

    async def _give(self, step: Step) -> None:
        """Give slots to a shard that has all there is of them."""
        after = self.table.moved(step.slots, step.target)

        async def open(step: Step) -> None:
            await move.open(await self.clients.of(step.target), step.slots, after.version)

        await self._insist(step, open)
        await self.swap(after)

    async def _tidy(self, step: Step) -> None:
        async def wipe(step: Step) -> None:
            await move.wipe(await self.clients.of(step.source), step.slots)

        if step.source not in self.lost:
            await self._insist(step, wipe)
        await self.note(None)


class _Clients:
    """Clients of the shards, each of one server from when it is first asked for until it is left.

    Of a pair that is the primary at that moment. A switch fails whatever is being done with the pair, so that it is
    done again from the beginning, with the new primary: half of it may be missing there.
    """

    def __init__(self, shards: Iterable[Shard], access: Access, lost: Collection[str]) -> None:
        self._shards = {shard.name: shard for shard in shards}
        self._access = access
        self._lost = lost
        self._open: dict[str, Redis] = {}

    async def of(self, name: str) -> Redis:
        """Give the client of a shard.

        Raises:
            redis.exceptions.ConnectionError: nobody says which server of a pair is the primary.
        """
        if name not in self._open:
            url = self._shards[name].url
            timeout = _LOST_S if name in self._lost else _SHARD_S
            self._open[name] = await probe.primary_client(
                self._access.reached(url), self._access.credentials(url), timeout
            )
        return self._open[name]

    async def living(self) -> list[Redis]:
        """Give the clients of all shards that are not lost, as far as they can be had."""
        found = []
        for name in self._shards.keys() - self._lost:
            with suppress(RedisError):
                found.append(await self.of(name))
        return found

    async def leave(self, *names: str) -> None:
        """Close the clients of shards; those of pairs may be of other servers when they are asked for again."""
        for name in names:
            if client := self._open.pop(name, None):
                await client.aclose()

    async def aclose(self) -> None:
        """Close them all."""
        await self.leave(*self._open.copy())
