"""A small service to talk to: two shards, two replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from tests.redis_server import RedisServer
from tests.replica import Replica


def first_table(control: RedisServer, shards: list[RedisServer]) -> None:
    """Write the slot table of a new fleet."""

    async def write() -> None:
        async with Redis.from_url(control.url) as redis:
            table = SlotTable.first([Shard(f"shared-{i}", shard.url) for i, shard in enumerate(shards)])
            await Control(redis).swap_table(table, 0)

    asyncio.run(write())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[list[Replica]]:
    """Two replicas of one color; a module may set ENVIRON for them."""
    directory = tmp_path_factory.mktemp("service")
    servers = [RedisServer(directory / name).start() for name in ("control", "shared-0", "shared-1")]
    first_table(servers[0], servers[1:])
    keys = directory / "tokens"
    keys.write_text("k" * 48)
    environ = {
        "SHARDS_TOKEN_KEY_FILE": str(keys),
        "SHARDS_HANDOFF_DIR": str(directory / "handoff"),
        **getattr(request.module, "ENVIRON", {}),
    }
    replicas = [Replica(servers[0], f"blue-{i}", **environ) for i in range(2)]
    try:
        for replica in replicas:
            replica.order("active")
            replica.start()
        yield replicas
    finally:
        for replica in replicas:
            replica.stop()
        for server in servers:
            server.kill()
