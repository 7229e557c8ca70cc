"""Moves slots from one shard to another: close, copy, open. The table changes between `hand_over` and `clean_up`.

Keys are copied with DUMP and RESTORE: epochs, offsets, dedupe marks and what is left of their lives come along as they
are. Every step may be done again, so a move that was cut short is begun anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import cast

from redis.asyncio import Redis

from shards.log.pair import until_copied
from shards.log.shard import ANNOUNCEMENTS, FENCE, Script

CLOSE = Script("close")

_GROUPS_AT_ONCE = 100


async def hand_over(source: Redis, target: Redis, slots: Sequence[int], version: int) -> int:
    """Close `slots` on the source, copy their groups, open them on the target.

    Args:
        source: the shard that owns the slots; it gives bytes, not text.
        target: the shard that shall own them.
        slots: which.
        version: of the slot table that will say so.

    Returns:
        How many groups were copied.

    Raises:
        redis.exceptions.RedisError: a shard did not do its part; the slots are closed until the move is done again.
    """
    found = await cast(Awaitable[list[list[bytes]]], source.eval(CLOSE.source, 1, "fence", version, *slots))
    # A switch to the copy must neither open the slots at the source again, nor lose at the target what came along.
    await until_copied(source)
    groups = [(slot, group.decode()) for slot, names in zip(slots, found, strict=True) for group in names]
    for some in _batches(groups):
        await _copy(source, target, some)
    await until_copied(target)
    pairs = [number for slot in slots for number in (slot, version)]
    await cast(Awaitable[int], target.eval(FENCE.source, 1, "fence", *pairs))
    return len(groups)


async def announce(shards: Sequence[Redis], version: int) -> None:
    """Tell every worker, by way of every shard, that the slot table has changed."""
    for shard in shards:
        await shard.publish(ANNOUNCEMENTS, version)


async def clean_up(source: Redis, slots: Sequence[int]) -> None:
    """Delete what the source still has of slots that it gave away; their fences stay closed."""
    for slot in slots:
        groups = [group.decode() for group in await cast(Awaitable[set[bytes]], source.smembers(f"index:{slot}"))]
        for some in _batches([(slot, group) for group in groups]):
            await source.unlink(*await _keys(source, some))
        await source.unlink(f"index:{slot}")


async def _copy(source: Redis, target: Redis, groups: Sequence[tuple[int, str]]) -> None:
    keys = await _keys(source, groups)
    async with source.pipeline(transaction=False) as read:
        for key in keys:
            read.dump(key)
            read.pttl(key)
        answers = await read.execute()
    async with target.pipeline(transaction=False) as write:
        for key, dump, ttl in zip(keys, answers[::2], answers[1::2], strict=True):
            if dump is None:
                write.delete(key)
            else:
                write.restore(key, max(0, ttl), dump, replace=True)
        for slot, group in groups:
            write.sadd(f"index:{slot}", group)
        await write.execute()


async def _keys(source: Redis, groups: Sequence[tuple[int, str]]) -> list[str]:
    """Give what makes up groups: place, log, dedupe marks; not presence, which workers report anew."""
    names = [f"{slot}:{group}" for slot, group in groups]
    async with source.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hget(f"meta:{name}", "seen")
        buckets: list[bytes | None] = await pipe.execute()
    keys = [f"{kind}:{name}" for name in names for kind in ("meta", "log")]
    for name, bucket in zip(names, buckets, strict=True):
        if bucket is not None:
            keys += [f"seen:{name}:{int(bucket) - 1}", f"seen:{name}:{int(bucket)}"]
    return keys


def _batches(groups: Sequence[tuple[int, str]]) -> Iterator[Sequence[tuple[int, str]]]:
    for start in range(0, len(groups), _GROUPS_AT_ONCE):
        yield groups[start : start + _GROUPS_AT_ONCE]
