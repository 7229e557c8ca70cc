"""A shard that answers nonsense: publishes and reads end in time, and all goes on once it answers as it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import psutil
import pytest
from redis.asyncio import Redis

from shards.errors import ShardUnavailable
from shards.log.log import Page, Place
from shards.plane import Plane
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Settings
from tests.proxy import Proxy
from tests.redis_server import RedisServer
from tests.test_redis_faults import heard_once, joined, outcomes, running

GARBAGE = [
    b"\xff\xfe\x00 none of Redis's words\r\n",
    b"+OK\r\n",
    b"*2\r\n:1\r\n:2\r\n",
    b"*3\r\n:5\r\n$2\r\n\xff\xfe\r\n*1\r\n:1\r\n",
    b"*2\r\n:5\r\n$2\r\n\xff\xfe\r\n",
    b"$1000000000000\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\n!\r\n$9\r\n999 {oops}\r\n",
]


class Garbling(Proxy):
    """Says `garbage` instead of each of a server's answers, while there is any."""

    garbage = b""

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_request: bool) -> None:
        if is_request:
            await super()._pass_on(source, sink, is_request)
            return
        try:
            while data := await source.read(1 << 16):
                sink.write(self.garbage or data)
                await sink.drain()
        except OSError:
            pass


@pytest.fixture
async def mad(start_redis: Callable[..., RedisServer]) -> AsyncIterator[tuple[Garbling, Plane]]:
    """A plane with one shard, which is sane at first."""
    control, shard = start_redis(), start_redis()
    async with Garbling(shard.port) as proxy:
        async with Redis.from_url(control.url) as redis:
            await Control(redis).swap_table(SlotTable.first([Shard("shared-0", proxy.redis)]), 0)
        async with running(Settings(control.url, control.url, publish_seconds=0.5)) as plane:
            yield proxy, plane


async def read(plane: Plane) -> Page | None:
    answer: asyncio.Future[Page | None] = asyncio.get_running_loop().create_future()
    plane.log.read("room", 0, 100, lambda page: None if answer.done() else answer.set_result(page))
    return await asyncio.wait_for(answer, 30)


async def test_whatever_a_shard_says_every_publish_and_read_is_answered_and_it_goes_on_afterwards(
    mad: tuple[Garbling, Plane],
) -> None:
    proxy, plane = mad
    member = await joined(plane)
    await outcomes(plane, range(3))
    before = psutil.Process().memory_info().rss
    for number, garbage in enumerate(GARBAGE):
        proxy.garbage = garbage
        ids = range(100 * number, 100 * number + 5)
        found, page = await asyncio.gather(outcomes(plane, ids), read(plane))
        assert all(isinstance(outcome, ShardUnavailable) for outcome in found), garbage
        assert page is None, garbage
        proxy.garbage = b""
        await plane.until_ready(60)
    places = await outcomes(plane, range(10_000, 10_005))
    assert all(isinstance(place, Place) for place in places)
    assert psutil.Process().memory_info().rss - before < 64 << 20
    assert plane.log.waiting_bytes == 0
    # What was refused may have been taken: an id is there once, and each heard once.
    page = await read(plane)
    assert page is not None
    assert len(member.heard) == len(set(member.heard))
    await member.until(lambda m: len(m.heard) >= page.head)
    assert len(member.heard) == page.head


async def test_what_somebody_else_publishes_on_a_shard_costs_nobody_the_connection(plane_of_two: Plane) -> None:
    member = await joined(plane_of_two)
    url = next(shard.url for shard in plane_of_two.log.table.shards if shard.name == plane_of_two.log.owner("room"))  # type: ignore[union-attr]
    async with Redis.from_url(url) as stranger:
        for said in ("", "xxx", "a:b:c,{", "1:2,", "e:99999999999999999999999:1,x", "\xff"):
            assert await stranger.publish("room", said)
            await stranger.publish("!", said)
    await outcomes(plane_of_two, range(5))
    await heard_once(member, list(range(5)))
    assert plane_of_two.log.losses == 0


@pytest.fixture
async def plane_of_two(start_plane: Callable[..., object]) -> Plane:
    return await start_plane()  # type: ignore[misc,no-any-return]
