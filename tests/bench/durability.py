"""What each durability costs: publishes a second with many on their way, and the wait for the ack of one alone.

Not a test: ``python -m tests.bench.durability`` runs all three in turn, five times, and prints medians and ratios.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from shards.hub import Hub
from shards.log.log import GroupLog, body_of
from shards.router.table import Shard, SlotTable
from shards.settings import Settings
from tests.redis_pair import RedisPair
from tests.redis_server import RedisServer

ROUNDS = 5
MANY, ON_THEIR_WAY = 6000, 200
ALONE = 300
GROUPS = 50
BODY = body_of("x" * 12, b'"%b"' % (b"y" * 64))


class Publisher:
    """One process's logs, on one shard, without members."""

    def __init__(self, shard: Shard) -> None:
        hub = Hub()
        self.log = hub.log = GroupLog(Settings(), hub, lambda: None)
        self.log.use(SlotTable.first([shard]))
        self.number = 0

    async def publish(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            await self.log.publish(f"room-{self.number % GROUPS}", "s", str(self.number), BODY)

    async def many(self) -> float:
        """Give publishes a second."""
        began = time.perf_counter()
        await asyncio.gather(*(self.publish(MANY // ON_THEIR_WAY) for _ in range(ON_THEIR_WAY)))
        return MANY / (time.perf_counter() - began)

    async def alone(self) -> float:
        """Give the median wait for an ack, in milliseconds."""
        waits = []
        for _ in range(ALONE):
            began = time.perf_counter()
            await self.publish(1)
            waits.append((time.perf_counter() - began) * 1000)
        return statistics.median(waits)


async def measure(shards: dict[str, Shard]) -> None:
    """Run all in turn, and print what came out."""
    publishers = {name: Publisher(shard) for name, shard in shards.items()}
    while not all(publisher.log.ready for publisher in publishers.values()):
        await asyncio.sleep(0.05)
    rates: dict[str, list[float]] = {name: [] for name in shards}
    waits: dict[str, list[float]] = {name: [] for name in shards}
    for _ in range(ROUNDS):
        for name, publisher in publishers.items():
            rates[name].append(await publisher.many())
            waits[name].append(await publisher.alone())
    first, *_ = shards
    for name in shards:
        rate, wait = statistics.median(rates[name]), statistics.median(waits[name])
        rate_ratio = rate / statistics.median(rates[first])
        wait_ratio = wait / statistics.median(waits[first])
        print(f"{name:10} {rate:8.0f} publishes/s ({rate_ratio:4.2f})   ack {wait:6.2f} ms ({wait_ratio:4.1f})")
    for publisher in publishers.values():
        await publisher.log.stop()


def main() -> None:
    """Start the servers, measure, stop them."""
    servers: list[RedisServer] = []
    with tempfile.TemporaryDirectory(dir=".") as name:
        directory = Path(name).resolve()

        def start(*options: str, sentinel: str = "") -> RedisServer:
            servers.append(RedisServer(directory / f"redis-{len(servers)}", *options, sentinel=sentinel).start())
            return servers[-1]

        starting: Callable[..., RedisServer] = start
        try:
            shards = {
                "everysec": Shard("shared-0", start().url),
                "always": Shard("shared-0", start("--appendfsync", "always").url),
                "replicated": RedisPair(starting, directory).shard,
            }
            uvloop.run(measure(shards))
        finally:
            for server in servers:
                server.kill()


if __name__ == "__main__":
    main()
