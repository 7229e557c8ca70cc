"""Moves slots from one shard to another: copy, close, copy what changed meanwhile, open; then the table may change.

The first copy is made while the slots are in use. They are closed only for what has come since, so that their
publishes wait for a few round trips, however much history there is. Keys are copied with DUMP and RESTORE, to a server
that is older field by field: epochs, offsets, dedupe marks and what is left of their lives come along as they are.
Every step may be done again, so a move that was cut short is begun anew.

Where a shard is a pair of servers, nothing is opened before its copy has all of it, and nothing is taken from a source
before its copy has closed it too: a switch then neither loses what came along nor opens what was given away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from shards.log.pair import until_copied
from shards.log.shard import ANNOUNCEMENTS, FENCE, Script
from shards.router.table import SlotTable

CLOSE, COPY, WIPE = Script("close"), Script("copy"), Script("wipe")

_WHOLE_AT_ONCE, _CHANGED_AT_ONCE = 10, 200
"""A script holds its server up: ten logs of 1,000 short messages take it a few milliseconds, what is new hardly any."""


@dataclass(frozen=True)
class Head:
    """How far a group's log has come.

    Attributes:
        epoch: which log it is.
        offset: of its last message.
        bucket: in which the last dedupe marks are.
    """

    epoch: bytes
    offset: bytes
    bucket: bytes


_OLDER = "DUMP payload version"
"""Said by a server that is older than the one whose dump it was given."""

Group = tuple[int, str]
"""A group and the slot it is in."""

_NOTHING = Head(b"", b"", b"")


async def copy(source: Redis, target: Redis, slots: Sequence[int]) -> dict[Group, Head]:
    """Copy the groups of `slots`, which stay in use meanwhile.

    Args:
        source: the shard that owns the slots; it gives bytes, not text.
        target: the shard that shall own them; what it still has of them, from other times, is deleted.
        slots: which.

    Returns:
        How far the copies have come.

    Raises:
        redis.exceptions.RedisError: a shard did not do its part.
    """
    await wipe(target, slots)
    async with source.pipeline(transaction=False) as read:
        for slot in slots:
            read.smembers(f"index:{slot}")
        names = await read.execute()
    groups = {(slot, name.decode()): _NOTHING for slot, found in zip(slots, names, strict=True) for name in found}
    return await _copy(source, target, groups, _WHOLE_AT_ONCE)


async def hand_over(
    source: Redis, target: Redis, slots: Sequence[int], version: int, copied: Mapping[Group, Head]
) -> int:
    """Close `slots` on the source, copy what is new, open them on the target.

    Args:
        source: the shard that owns the slots; of a pair, the very server that was copied from.
        target: the shard that shall own them; of a pair, the very server that was copied to.
        slots: which.
        version: of the slot table that will say so.
        copied: what `copy` gave for these slots.

    Returns:
        How many groups had changed since they were copied.

    Raises:
        redis.exceptions.RedisError: a shard did not do its part; the slots are closed until the move is done again.
    """
    heads = await close(source, slots, version)
    # Else a switch to its copy would open the slots there again.
    await until_copied(source)
    changed = {group: copied.get(group, _NOTHING) for group, head in heads.items() if copied.get(group) != head}
    changed |= dict.fromkeys(copied.keys() - heads.keys(), _NOTHING)
    await _copy(source, target, changed, _CHANGED_AT_ONCE)
    await open(target, slots, version)
    return len(changed)


async def close(shard: Redis, slots: Sequence[int], version: int) -> dict[Group, Head]:
    """Have a shard take nothing more for `slots`, which the table of `version` gives to another.

    Returns:
        How far the slots' groups have come.
    """
    found = await cast(Awaitable[list[list[bytes]]], shard.eval(CLOSE.source, 1, "fence", version, *slots))
    return {
        (slot, fields[i].decode()): Head(*fields[i + 1 : i + 4])
        for slot, fields in zip(slots, found, strict=True)
        for i in range(0, len(fields), 4)
    }


async def open(shard: Redis, slots: Sequence[int], version: int) -> None:
    """Have a shard, once its copy too has all that was done, take what shows that it knows the table of `version`."""
    await until_copied(shard)
    pairs = [number for slot in slots for number in (slot, version)]
    await cast(Awaitable[int], shard.eval(FENCE.source, 1, "fence", *pairs))


async def is_open(shard: Redis, slots: Sequence[int], version: int) -> bool:
    """Tell whether `hand_over` was through: the slots are open on their new owner."""
    fences = await cast(Awaitable[list[bytes | None]], shard.hmget("fence", [str(slot) for slot in slots]))
    return all(fence == b"%d" % version for fence in fences)


async def newest_version(shard: Redis) -> int:
    """Give the newest version of a slot table that a shard has seen; 0: none."""
    fences = await cast(Awaitable[list[bytes]], shard.hvals("fence"))
    return max((abs(int(fence)) for fence in fences), default=0)


async def announce(shards: Sequence[Redis], table: SlotTable) -> None:
    """Tell every worker the new slot table, by way of every shard; one that is down is left out.

    This only saves time. A worker that publishes learns of a move from the fence, one that only listens when it next
    looks at the table, two seconds later at most.
    """
    payload = b"%d %b" % (table.version, table.encode())

    async def publish(shard: Redis) -> None:
        with suppress(RedisError, OSError):
            await shard.publish(ANNOUNCEMENTS, payload)

    await asyncio.gather(*map(publish, shards))


async def wipe(shard: Redis, slots: Sequence[int]) -> None:
    """Delete what a shard has of slots that it does not own; their fences stay as they are."""
    async with shard.pipeline(transaction=False) as pipe:
        for slot in slots:
            pipe.eval(WIPE.source, 1, f"index:{slot}", str(slot))
        await pipe.execute()


async def _copy(source: Redis, target: Redis, groups: Mapping[Group, Head], at_once: int) -> dict[Group, Head]:
    """Bring the target's copies, which are as far as `groups` says, to what the source has; gives how far that is."""
    heads: dict[Group, Head] = {}
    for some in _batches(groups, at_once):
        try:
            heads |= await _copy_some(source, target, some, "dump")
        except ResponseError as error:
            if _OLDER not in str(error):
                raise
            # Half of it may be there: all anew.
            heads |= await _copy_some(source, target, dict.fromkeys(some, _NOTHING), "plain")
    return heads


async def _copy_some(source: Redis, target: Redis, groups: Mapping[Group, Head], how: str) -> dict[Group, Head]:
    arguments = [
        field for (slot, name), head in groups.items() for field in (slot, name, head.epoch, head.offset, head.bucket)
    ]
    heads: dict[Group, Head] = {}
    found = await cast(Awaitable[list[list[Any]]], source.eval(COPY.source, 0, how, *arguments))
    async with target.pipeline(transaction=False) as write:
        for group, answer in zip(groups, found, strict=True):
            if answer:
                *fields, commands = answer
                heads[group] = Head(*fields)
                for command in commands:
                    write.execute_command(*command)
            else:
                # It has expired since an earlier copy, which without this begins anew.
                write.delete(f"meta:{group[0]}:{group[1]}")
        await write.execute()
    return heads


def _batches(groups: Mapping[Group, Head], size: int) -> Iterator[dict[Group, Head]]:
    items = list(groups.items())
    for start in range(0, len(items), size):
        yield dict(items[start : start + size])
