"""What a client sees of a shard's faults: `unavailable` in time, and afterwards everything once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psutil
import pytest
from redis.asyncio import Redis

from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from tests.proxy import Proxy
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.server.conftest import first_table
from tests.server.test_wire import Client, enter

StartRedis = Callable[..., RedisServer]
Fault = Callable[[RedisServer, Proxy], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def full(shard: RedisServer, _proxy: Proxy) -> AsyncIterator[None]:
    async with Redis.from_url(shard.url) as redis:
        await redis.config_set("maxmemory", 1)
        yield
        await redis.config_set("maxmemory", 0)


@asynccontextmanager
async def read_only(shard: RedisServer, _proxy: Proxy) -> AsyncIterator[None]:
    async with Redis.from_url(shard.url) as redis:
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        yield
        await redis.execute_command("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def another_password(shard: RedisServer, _proxy: Proxy) -> AsyncIterator[None]:
    await asyncio.to_thread(shard.give_app, "another")
    yield
    await asyncio.to_thread(shard.give_app)


@asynccontextmanager
async def silent(_shard: RedisServer, proxy: Proxy) -> AsyncIterator[None]:
    proxy.freeze(newcomers=True)
    yield
    proxy.thaw()


async def publish(client: Client, numbers: range) -> None:
    for number in numbers:
        await client.say(type="publish", id=str(number), data="x" * 1000)


async def until_well(replica: Replica) -> None:
    """Wait until a replica's shard takes what is published; its `/readyz` goes on saying 200 without it."""
    client = await enter(replica.ws)
    async with asyncio.timeout(60):
        while True:
            await client.say(type="publish", group="another", id="well", data=1)
            if (await client.hear())["type"] == "ack":
                break
    await client.close()


@pytest.mark.parametrize("fault", [full, read_only, another_password, silent], ids=lambda fault: fault.__name__)
async def test_a_client_is_told_in_time_and_goes_on_afterwards(start_redis: StartRedis, fault: Fault) -> None:
    control, shard = start_redis(), start_redis()
    replica = Replica(control, SHARDS_PUBLISH_SECONDS="1", SHARDS_RATE_LIMIT="0")
    async with Proxy(shard.port) as proxy:
        async with Redis.from_url(control.url) as redis:
            await Control(redis).swap_table(SlotTable.first([Shard("shared-0", proxy.redis)]), 0)
        await asyncio.to_thread(replica.start)
        try:
            await through(replica, fault(shard, proxy))
        finally:
            await asyncio.to_thread(replica.stop)


async def through(replica: Replica, fault: AbstractAsyncContextManager[None]) -> None:
    client = await enter(replica.ws + "room/")
    assert (await client.hear())["type"] == "subscribed"
    await publish(client, range(5))
    assert len((await client.hear_all(10))["ack"]) == 5
    assert replica.process is not None
    before = psutil.Process(replica.process.pid).memory_info().rss
    async with fault:
        await publish(client, range(5, 505))
        refusals = [await client.hear() for _ in range(500)]
        assert {(frame["type"], frame["code"]) for frame in refusals} == {("error", "unavailable")}
        assert {frame["id"] for frame in refusals} == {str(number) for number in range(5, 505)}
    await until_well(replica)
    await publish(client, range(5, 505))
    frames = await client.hear_all(1000)
    assert sorted(int(ack["id"]) for ack in frames["ack"]) == list(range(5, 505))
    assert [message["offset"] for message in frames["message"]] == list(range(6, 506))
    assert sorted(int(message["id"]) for message in frames["message"]) == list(range(5, 505)), "each once"
    assert psutil.Process(replica.process.pid).memory_info().rss - before < 64 << 20
    await client.close()


async def test_a_subscription_to_a_group_whose_shard_is_down_is_refused_in_time_and_may_be_asked_for_again(
    start_redis: StartRedis,
) -> None:
    control, shard = start_redis(), start_redis()
    async with Redis.from_url(control.url) as redis:
        await Control(redis).swap_table(SlotTable.first([Shard("shared-0", shard.url)]), 0)
    replica = Replica(control)
    await asyncio.to_thread(replica.start)
    try:
        client = await enter(replica.ws)
        shard.kill()
        await client.say(type="subscribe", group="room")
        error = await client.hear()
        assert (error["type"], error["code"], error["group"]) == ("error", "unavailable", "room")
        shard.start()
        await until_well(replica)
        await client.say(type="subscribe", group="room")
        assert (await client.hear())["type"] == "subscribed", "not `already_subscribed`"
        await client.close()
        of_url = await enter(replica.ws + "room/")
        assert (await of_url.hear())["type"] == "subscribed"
        await of_url.close()
    finally:
        await asyncio.to_thread(replica.stop)


async def test_a_worker_goes_on_where_a_shard_that_was_lost_is_left_out(start_redis: StartRedis) -> None:
    """It is heard of, answers `/metrics`, and has not lost less than before."""
    control, shards = start_redis(), [start_redis(), start_redis()]
    await asyncio.to_thread(first_table, control, shards)
    replica = Replica(control)
    replica.order("active")
    await asyncio.to_thread(replica.start)
    try:
        shards[1].kill()
        shards[1].start()
        await until(lambda: replica.metric("shards_connection_losses_total") == 1)
        async with Redis.from_url(control.url) as redis:
            only = SlotTable.first([Shard("shared-0", shards[0].url)], version=2)
            await Control(redis).swap_table(only, 1)
            await until(lambda: replica.metric("shards_ring_version") == 2)
            assert replica.metric("shards_connection_losses_total") == 1
            replica.order("draining")
            async with asyncio.timeout(60):
                while [w.state for w in await Control(redis).workers()] != ["draining"]:
                    await asyncio.sleep(0.1)
    finally:
        replica.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)
