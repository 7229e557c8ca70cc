"""Moves slots between shards while the fleet serves.

Step by step, each of a few slots from one shard to one other::

    journal the step → close the slots at the source, copy them, open them at the target → new slot table
    → announce it → clean up the source → journal: through

A publish that meets a closed slot waits in its worker and is sent again under the new table, milliseconds later. A
reshard killed at any point is finished by the next one: until the table has changed its step is done anew, and
afterwards only the cleaning up is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shards import ring
from shards.errors import ShardUnavailable
from shards.log import move
from shards.log.pair import open_client
from shards.router.control import Control
from shards.router.table import Shard, SlotTable

SLOTS_A_STEP = 16

Clients = Mapping[str, Redis]


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


def plan(table: SlotTable, shards: Sequence[Shard], slots_a_step: int = SLOTS_A_STEP) -> list[Step]:
    """Give the steps that lead from `table` to one in which just `shards` own slots, moving as few as possible."""
    before = table.owner_names()
    after = ring.assign({shard.name: shard.weight for shard in shards}, before)
    ways: dict[tuple[str, str], list[int]] = {}
    for slot, way in ring.moves(before, after).items():
        ways.setdefault(way, []).append(slot)
    return [
        Step(source, target, tuple(slots[start : start + slots_a_step]))
        for (source, target), slots in sorted(ways.items())
        for start in range(0, len(slots), slots_a_step)
    ]


def summary(table: SlotTable, steps: Sequence[Step]) -> list[str]:
    """Say in lines what the steps would move, and what part of all slots that is."""
    ways: Counter[tuple[str, str]] = Counter()
    for step in steps:
        ways[step.source, step.target] += len(step.slots)
    total = ways.total()
    lines = [f"{source} -> {target}: {slots} slots" for (source, target), slots in sorted(ways.items())]
    return [*lines, f"{total} of {len(table.owners)} slots move ({100 * total / len(table.owners):.1f} %)"]


async def reshard(
    control: Control, shards: Sequence[Shard], password: str | None, moved: Callable[[int, int], None]
) -> SlotTable:
    """Make `shards` the owners of all slots.

    Args:
        control: of the fleet.
        shards: which shall own slots; they run, as do those that own some now.
        password: of the shards.
        moved: told of progress: slots moved, slots to move in all.

    Returns:
        The slot table at the end.

    Raises:
        ShardUnavailable: a shard did not do its part; run it again.
        redis.exceptions.RedisError: the control Redis did not.
        StaleVersion: somebody else changed the slot table.
    """
    table = await _table(control)
    known = {shard.name: shard for shard in (*table.shards, *shards)}
    async with _clients(known.values(), password) as clients:
        table = await _finish(control, clients, table)
        await _note(control, None)
        if tuple(known.values()) != table.shards:
            table = await _swap(control, table.with_shards(tuple(known.values())), table.version)
        steps = plan(table, shards)
        done, total = 0, sum(len(step.slots) for step in steps)
        for step in steps:
            table = await _carry_out(control, clients, table, step)
            done += len(step.slots)
            moved(done, total)
        if table.shards != tuple(shards):
            table = await _swap(control, table.with_shards(shards), table.version)
            await move.announce(list(clients.values()), table.version)
        await control.write_journal(None, "reshard")
    return table


async def _note(control: Control, step: Step | None) -> None:
    """Journal that a reshard is under way, and the step that is being done; None: between two."""
    await control.write_journal({"step": msgspec.to_builtins(step)}, "reshard")


async def _finish(control: Control, clients: Clients, table: SlotTable) -> SlotTable:
    """Finish the step that an earlier reshard has left half-way."""
    entry = await control.journal("reshard")
    if entry is None or entry["step"] is None:
        return table
    step = msgspec.convert(entry["step"], Step)
    if table.owner(step.slots[0]).name != step.target:
        return await _carry_out(control, clients, table, step)
    await _tidy(control, clients, step)
    return table


async def _carry_out(control: Control, clients: Clients, table: SlotTable, step: Step) -> SlotTable:
    after = table.moved(step.slots, step.target)
    step = Step(step.source, step.target, step.slots, after.version)
    await _note(control, step)
    try:
        await move.hand_over(clients[step.source], clients[step.target], step.slots, after.version)
    except RedisError as error:
        raise ShardUnavailable(f"{step.source} or {step.target}", f"{error}; run it again, its slots wait") from None
    await _swap(control, after, table.version)
    await _tidy(control, clients, step)
    return after


async def _tidy(control: Control, clients: Clients, step: Step) -> None:
    await move.announce(list(clients.values()), step.version)
    await move.clean_up(clients[step.source], step.slots)
    await _note(control, None)


async def _table(control: Control) -> SlotTable:
    table = await control.table()
    assert table is not None, "a fleet that runs has a slot table"
    return table


async def _swap(control: Control, table: SlotTable, expected: int) -> SlotTable:
    await control.swap_table(table, expected)
    return table


@asynccontextmanager
async def _clients(shards: Iterable[Shard], password: str | None) -> AsyncIterator[Clients]:
    async with AsyncExitStack() as stack:
        yield {shard.name: await stack.enter_async_context(open_client(shard.url, password)) for shard in shards}
