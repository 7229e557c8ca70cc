"""What servers that run elsewhere must be, to be shards."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shards.errors import ShardsError, UsageError
from shards.fleet import external
from shards.log.shard import ANNOUNCEMENTS
from shards.router.table import Shard
from shards.settings import Credentials
from tests.redis_server import RedisServer

StartRedis = Callable[..., RedisServer]
OURS = Path(__file__).resolve().parents[2] / "docker" / "redis" / "redis.conf"


async def check(url: str, *ours: str) -> list[str]:
    return await external.check([Shard("shared-0", url)], lambda _url: Credentials(), ours)


@contextlib.asynccontextmanager
async def listener(url: str) -> AsyncIterator[None]:
    """A worker that hears of slot tables."""
    async with Redis.from_url(url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(ANNOUNCEMENTS)
        await pubsub.get_message(timeout=5)
        yield


def test_the_limit_that_is_asked_for_is_our_own() -> None:
    line = next(line for line in OURS.read_text().splitlines() if line.startswith("client-output-buffer-limit pubsub"))
    sizes = [word.replace("mb", "") for word in line.split()[2:4]]
    assert external.PUBSUB_LIMIT.split()[1:3] == [str(int(size) << 20) for size in sizes]


@pytest.mark.parametrize(
    ("limit", "options", "words"),
    [
        (external.PUBSUB_LIMIT, [], []),
        ("pubsub 0 0 0", ["--maxmemory", "1gb"], []),
        (external.PUBSUB_LIMIT, ["--maxmemory-policy", "allkeys-lru"], []),
        ("pubsub 32mb 8mb 60", [], ["client-output-buffer-limit pubsub 268435456"]),
        ("pubsub 0 8mb 60", [], ["client-output-buffer-limit pubsub 268435456"]),
        (external.PUBSUB_LIMIT, ["--appendfsync", "everysec"], ["appendfsync everysec"]),
        ("pubsub 32mb 8mb 60", ["--rename-command", "CONFIG", ""], []),
    ],
    ids=["as ours", "no limits", "evicts, never full", "Redis's limit", "a low one", "everysec", "tells nothing"],
)
async def test_settings_that_weaken_the_guarantee_are_warned_of(
    start_redis: StartRedis, limit: str, options: list[str], words: list[str]
) -> None:
    server = start_redis("--client-output-buffer-limit", *limit.split(), *options)
    warnings = await check(server.url)
    assert len(warnings) == len(words), warnings
    assert all(word in warning and server.url in warning for word, warning in zip(words, warnings, strict=True))


async def test_a_server_that_evicts_is_refused(start_redis: StartRedis) -> None:
    server = start_redis("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")
    with pytest.raises(UsageError, match="set `maxmemory-policy noeviction`"):
        await check(server.url)


async def test_a_server_of_another_fleet_is_refused_whichever_the_database(start_redis: StartRedis) -> None:
    server = start_redis()
    async with listener(server.url):
        with pytest.raises(ShardsError, match="workers of another fleet"):
            await check(server.url.replace("/0", "/1"))
        await check(server.url, server.url)
