"""Layers over 1 to 16 real shards, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest
from redis import Redis

from shards.layer import ShardedChannelLayer
from shards.router.table import Shard, SlotTable
from shards.settings import Settings
from tests.redis_server import AS_APP, RedisServer

MOST_SHARDS = 16

MakeLayer = Callable[..., ShardedChannelLayer]


class Pool:
    """Redis servers that tests take turns with: a control Redis, one of the color, and shards."""

    def __init__(self, servers: list[RedisServer]) -> None:
        self.control, self.color, *self.shards = servers

    def settings(self, **values: object) -> Settings:
        return Settings(
            message_redis_url=self.control.url,
            channel_redis_url=self.color.url,
            **AS_APP,
            **values,  # type: ignore[arg-type]
        )

    def use(self, shards: int) -> None:
        """Make a new fleet of the first so many shards."""
        for server in (self.control, self.color, *self.shards):
            with Redis.from_url(server.url) as redis:
                redis.flushall()
        table = SlotTable.first([Shard(f"shared-{i}", shard.url) for i, shard in enumerate(self.shards[:shards])])
        with Redis.from_url(self.control.url) as redis:
            redis.hset("shards:table", mapping={"version": table.version, "table": table.encode()})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    directory = tmp_path_factory.mktemp("pool")
    with ExitStack() as stack:
        servers = []
        for number in range(MOST_SHARDS + 2):
            servers.append(RedisServer(directory / str(number)).start())
            stack.callback(servers[-1].kill)
        yield Pool(servers)


@pytest.fixture(params=[1, 3, MOST_SHARDS], ids=lambda count: f"{count} shards")
async def make_layer(pool: Pool, request: pytest.FixtureRequest) -> AsyncIterator[MakeLayer]:
    """Make layers, each as a process of its own would have it."""
    layers: list[ShardedChannelLayer] = []
    pool.use(request.param)

    def make(**config: object) -> ShardedChannelLayer:
        layers.append(ShardedChannelLayer(settings=pool.settings(), **config))  # type: ignore[arg-type]
        return layers[-1]

    yield make
    for layer in layers:
        await layer.close()


async def receive(layer: ShardedChannelLayer, channel: str, seconds: float = 30) -> dict[str, object]:
    return await asyncio.wait_for(layer.receive(channel), seconds)


async def nothing(layer: ShardedChannelLayer, channel: str) -> None:
    """Show that a channel is empty."""
    with pytest.raises(TimeoutError):
        await receive(layer, channel, 0.1)
