"""What a pushed message costs a process: our link beside redis-py's asyncio pub/sub, in one run.

Not a test: ``python -m tests.bench.link_and_redis_py`` prints CPU microseconds a message, and the ratio.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from redis.asyncio import Redis

from shards.log.link import Link
from tests.redis_server import RedisServer

MESSAGES = 60_000
CHANNELS = [f"room-{number}" for number in range(100)]
PUBLISH = """
import redis, sys
pipe = redis.from_url(sys.argv[1]).pipeline(transaction=False)
for number in range(int(sys.argv[2])):
    pipe.publish(f"room-{number % 100}", "x" * 90)
    if number % 500 == 499:
        pipe.execute()
pipe.execute()
"""


def publisher(server: RedisServer) -> subprocess.Popen[bytes]:
    """Start to publish, from a process of its own."""
    return subprocess.Popen([sys.executable, "-c", PUBLISH, server.url, str(MESSAGES)])


async def with_link(server: RedisServer) -> float:
    """Receive over a Link; gives CPU microseconds a message."""
    received, all_received = 0, asyncio.Event()

    def push(_channel: bytes, _payload: bytes) -> None:
        nonlocal received
        received += 1
        if received == MESSAGES:
            all_received.set()

    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Link(push, lambda _: None), "127.0.0.1", server.port)
    await link.ask("HELLO", "3")
    link.send_pushed("SUBSCRIBE", *CHANNELS)
    await link.ask("PING")
    began = time.process_time()
    with publisher(server):
        await all_received.wait()
    link.abort()
    return (time.process_time() - began) / MESSAGES * 1e6


async def with_redis_py(server: RedisServer) -> float:
    """Receive over redis-py; gives CPU microseconds a message."""
    async with Redis.from_url(server.url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(*CHANNELS)
        for _ in CHANNELS:
            await pubsub.get_message(timeout=1)
        began = time.process_time()
        with publisher(server):
            received = 0
            async for _ in pubsub.listen():
                received += 1
                if received == MESSAGES:
                    break
        return (time.process_time() - began) / MESSAGES * 1e6


def main() -> None:
    """Run both, three times, in turn."""
    ways: dict[str, Callable[[RedisServer], Awaitable[float]]] = {"link": with_link, "redis-py": with_redis_py}
    best = dict.fromkeys(ways, float("inf"))
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory) / "redis").start()
        for _ in range(3):
            for name, way in ways.items():
                best[name] = min(best[name], uvloop.run(way(server)))  # type: ignore[arg-type]
        server.kill()
    for name, cost in best.items():
        print(f"{name:10} {cost:6.2f} µs a message")
    print(f"{'ratio':10} {best['redis-py'] / best['link']:6.1f}")


if __name__ == "__main__":
    main()
