"""One controller at a time, on a real Redis: the next is told who it is, and one that was overtaken writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from shards.errors import LeaseHeld, Overtaken
from shards.fleet.probe import insist
from shards.router import lease as leases
from shards.router.control import Control, Orders
from shards.router.lease import Holder, Lease
from tests.redis_server import RedisServer

FIRST = Holder("promote", "here", 1, 1.0, 1_000_000_000.0)
SECOND = Holder("rollback", "here", 2, 1.0, 1_000_000_001.0)


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as client:
        yield client


async def take(redis: Redis, holder: Holder, *dead: Holder) -> Lease:
    lease = Lease(redis, holder)
    await lease.take(lambda found: found in dead)
    return lease


async def test_the_second_is_told_who_has_it_and_since_when(redis: Redis) -> None:
    await take(redis, FIRST)
    with pytest.raises(LeaseHeld, match=r"`inv promote` \(pid 1, since \d\d:\d\d:\d\d\)") as held:
        await take(redis, SECOND)
    assert held.value.exit_code == 1


async def test_it_is_free_once_it_was_given_back(redis: Redis) -> None:
    first = await take(redis, FIRST)
    await first.release()
    await take(redis, SECOND)


async def test_that_of_a_dead_controller_is_taken_at_once(redis: Redis) -> None:
    first = await take(redis, FIRST)
    second = await take(redis, SECOND, FIRST)
    assert second.fence > first.fence
    assert not await first.renew()
    assert await second.renew()


async def test_it_runs_out_where_nobody_renews_it(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_MS", 50)
    first = await take(redis, FIRST)
    async with asyncio.timeout(60):
        while await redis.exists("shards:lease"):
            await asyncio.sleep(0.01)
    assert await first.renew(), "nobody has taken it meanwhile"
    async with asyncio.timeout(60):
        while True:
            try:
                await take(redis, SECOND)
                break
            except LeaseHeld:
                await asyncio.sleep(0.01)
    assert not await first.renew()


async def test_one_that_was_overtaken_neither_writes_nor_gives_back_what_is_not_its_own(redis: Redis) -> None:
    first = await take(redis, FIRST)
    control = Control(redis, first.fence)
    await control.write_journal({"step": "one"})
    second = await take(redis, SECOND, FIRST)
    for write in (
        lambda: control.write_journal({"step": "two"}),
        lambda: control.write_journal(None),
        lambda: control.order({"blue": Orders("draining")}),
    ):
        with pytest.raises(Overtaken):
            await write()
    await first.release()
    assert await control.journal() == {"step": "one"}
    assert await control.orders("blue") is None
    with pytest.raises(LeaseHeld):
        await take(redis, FIRST)
    await Control(redis, second.fence).write_journal(None)
    assert await control.journal() is None


async def test_overtaken_between_the_look_and_the_write(redis: Redis, server: RedisServer) -> None:
    first = await take(redis, FIRST)

    def write(pipe: Pipeline) -> None:
        with SyncRedis.from_url(server.url) as another:
            another.incr(leases.FENCE)
        pipe.set("shards:journal:cutover", b"{}")

    with pytest.raises(Overtaken):
        await Control(redis, first.fence)._write(write)
    assert await Control(redis).journal() is None


async def test_the_fence_outlives_the_server(redis: Redis, server: RedisServer) -> None:
    first = await take(redis, FIRST)
    server.kill()
    server.start()
    assert await insist(first.renew)
    assert (await take(redis, SECOND, FIRST)).fence == first.fence + 1
