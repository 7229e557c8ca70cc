"""What a group's log takes in Redis, as docs/design.md has it in "Memory of a log"."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import cast

from redis import Redis

from shards.log.shard import FENCE, PUBLISH
from tests.redis_server import RedisServer

SLOT = 7


MARK = 16 + 1 + 36
"""Bytes of a dedupe mark: session, space, id."""


def formula(messages: int, payload: int, marks: int) -> float:
    """Give bytes: a log of so many messages with bodies of `payload` bytes, and so many dedupe marks."""
    entry = payload + 30
    a_node = min(100, max(1, 4096 // entry))
    nodes = ceil(messages / a_node)
    newest = (messages - (nodes - 1) * a_node) * entry
    log = messages * entry + 600 * nodes + max(0, 4096 - newest)
    return 300 + log + marks * (MARK + (6 if marks <= 512 else 91))


def fill(redis: Redis, group: str, messages: int, size: int) -> None:
    """Publish messages whose bodies have `size` bytes each, under ids as browsers make them."""
    name = f"{SLOT}:{group}"
    keys = ["fence", f"meta:{name}", f"log:{name}", f"seen:{name}:", f"index:{SLOT}"]
    pipe = redis.pipeline(transaction=False)
    for number in range(messages):
        mark = f"{number:016x} {number:036d}"
        limits = [1000, 300_000, 3_600_000, 10**9]  # one bucket of marks, whenever this runs
        pipe.eval(PUBLISH.source, len(keys), *keys, SLOT, 1, mark, b"x" * size, "epoch0epoch0", group, *limits)
    pipe.execute()


def used(redis: Redis, group: str) -> dict[str, int]:
    """Measure the group's keys, and its name in the index, in bytes."""
    kinds: dict[str, int] = {}
    for key in cast(list[bytes], redis.keys(f"*:{SLOT}:{group}*")):
        kind = key.split(b":")[0].decode()
        kinds[kind] = kinds.get(kind, 0) + cast(int, redis.memory_usage(key, samples=0))
    return kinds


def test_a_log_takes_what_the_formula_says(start_redis: Callable[..., RedisServer]) -> None:
    with Redis.from_url(start_redis().url) as redis:
        for size in (64, 256, 1024, 16_384):
            for messages in (1, 10, 100, 500, 1000):
                redis.flushall()
                redis.eval(FENCE.source, 1, "fence", SLOT, 1)
                fill(redis, "room", messages, size)
                kept = cast(int, redis.xlen(f"log:{SLOT}:room"))
                measured, expected = sum(used(redis, "room").values()), formula(kept, size, messages)
                off = measured / expected - 1
                assert abs(off) < 0.2, f"{messages} of {size}: {measured} measured, {off:+.0%} off the formula"
