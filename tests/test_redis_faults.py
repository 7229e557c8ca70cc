"""Redis faults: full, read-only, closed to us, slow, silent. What is acked is heard once; all goes on afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import psutil
import pytest
from redis.asyncio import Redis

from shards.errors import ShardUnavailable
from shards.log.log import MOST_WAITING_BYTES, Place, body_of
from shards.plane import Plane
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Settings
from tests.conftest import Redises
from tests.proxy import Proxy
from tests.redis_server import RedisServer
from tests.test_hub import Listener, body, publish

StartPlane = Callable[..., Awaitable[Plane]]
StartRedis = Callable[..., RedisServer]

PUBLISH_SECONDS = 3.0


async def outcomes(plane: Plane, numbers: range) -> list[Place | BaseException]:
    """Publish, and give each one's place or why it was refused, within the deadline and a little."""
    publishing = (plane.log.publish("room", "s", str(number), body(number)) for number in numbers)
    return await asyncio.wait_for(asyncio.gather(*publishing, return_exceptions=True), PUBLISH_SECONDS + 60)


def refused(found: list[Place | BaseException]) -> bool:
    return all(isinstance(outcome, ShardUnavailable) for outcome in found)


async def heard_once(member: Listener, numbers: list[int]) -> None:
    """Show that a member hears just these, in any order of publishing but each once."""
    await member.until(lambda m: len(m.heard) >= len(numbers))
    await asyncio.sleep(0.1)
    assert sorted(member.heard) == sorted(body(number) for number in numbers)
    assert not member.gaps


async def joined(plane: Plane) -> Listener:
    member = Listener()
    plane.hub.join("room", member)
    await member.subscribed()
    return member


@asynccontextmanager
async def changed(owner: RedisServer, name: str, value: str, back: str) -> AsyncIterator[None]:
    """Change a setting of a server for a while."""
    async with Redis.from_url(owner.url) as redis:
        await redis.config_set(name, value)
        yield
        await redis.config_set(name, back)


@pytest.fixture
async def plane(start_plane: StartPlane) -> Plane:
    return await start_plane(publish_seconds=PUBLISH_SECONDS)


@pytest.fixture
def owner(plane: Plane, redises: Redises) -> RedisServer:
    return redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]


async def test_a_full_shard_refuses_in_time_and_goes_on_when_there_is_room(plane: Plane, owner: RedisServer) -> None:
    """Out of memory: maxmemory with noeviction."""
    member = await joined(plane)
    await outcomes(plane, range(10))
    async with changed(owner, "maxmemory", "1", "0"):
        assert refused(await outcomes(plane, range(10, 20)))
        waiting = asyncio.create_task(outcomes(plane, range(20, 30)))
        await asyncio.sleep(0.2)
    assert [place.offset for place in await waiting if isinstance(place, Place)] == list(range(11, 21))
    await outcomes(plane, range(10, 20))  # as its publisher does, under the same ids
    await heard_once(member, [*range(10), *range(20, 30), *range(10, 20)])


async def test_a_read_only_shard_refuses_in_time_and_goes_on_when_it_is_a_primary_again(
    plane: Plane, owner: RedisServer, start_redis: StartRedis
) -> None:
    member = await joined(plane)
    await outcomes(plane, range(10))
    async with Redis.from_url(owner.url) as redis:
        # A primary that never answers: data stays, writes are refused.
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert refused(await outcomes(plane, range(10, 20)))
        waiting = asyncio.create_task(outcomes(plane, range(10, 20)))
        await asyncio.sleep(0.2)
        await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert [place.offset for place in await waiting if isinstance(place, Place)] == list(range(11, 21))
    await heard_once(member, list(range(20)))


async def test_a_wrong_password_is_refused_in_time_and_a_right_one_taken_up(
    plane: Plane, owner: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    member = await joined(plane)
    await outcomes(plane, range(10))
    await asyncio.to_thread(owner.give_app, "another")
    assert refused(await outcomes(plane, range(10, 20)))
    assert "WRONGPASS" in caplog.text, "the log says why"
    await asyncio.to_thread(owner.give_app)
    await plane.until_ready(60)
    assert not refused(await outcomes(plane, range(10, 20)))
    await heard_once(member, list(range(20)))


async def test_a_shard_that_forgot_its_scripts_is_given_them_again(plane: Plane, owner: RedisServer) -> None:
    """After SCRIPT FLUSH, publishes and reads go on."""
    member = await joined(plane)
    async with Redis.from_url(owner.url) as redis:
        await redis.script_flush()
        assert [place.offset for place in await outcomes(plane, range(10)) if isinstance(place, Place)] == [
            *range(1, 11)
        ]
        await heard_once(member, list(range(10)))
        await redis.script_flush()
        await asyncio.wait_for(joined(plane), 60)


async def test_a_shard_that_was_emptied_begins_new_logs_and_says_so(plane: Plane, owner: RedisServer) -> None:
    """FLUSHALL: its connections live on, and nobody has told it which slots it has."""
    member = await joined(plane)
    await outcomes(plane, range(3))
    await member.until(lambda m: len(m.heard) == 3)
    async with Redis.from_url(owner.url) as redis:
        await redis.flushall()
    places = await outcomes(plane, range(3, 6))
    assert [place.offset for place in places if isinstance(place, Place)] == [1, 2, 3]
    await member.until(lambda m: len(m.heard) == 6)
    assert [gap.offset for gap in member.gaps] == [0]


# Behind a proxy


@pytest.fixture
async def proxied(start_redis: StartRedis) -> AsyncIterator[tuple[Proxy, Settings]]:
    """One shard behind a proxy, and settings of its fleet."""
    control, shard = start_redis(), start_redis()
    async with Proxy(shard.port) as proxy:
        async with Redis.from_url(control.url) as redis:
            await Control(redis).swap_table(SlotTable.first([Shard("shared-0", proxy.redis)]), 0)
        yield proxy, Settings(control.url, control.url, publish_seconds=PUBLISH_SECONDS)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Plane]:
    plane = Plane(settings)
    await plane.start()
    try:
        await plane.until_ready(60)
        yield plane
    finally:
        await plane.stop()


async def test_a_slow_shard_is_waited_for(proxied: tuple[Proxy, Settings]) -> None:
    proxy, settings = proxied
    async with running(replace(settings, publish_seconds=20)) as plane:
        member = await joined(plane)
        proxy.delay = 0.3
        places = await publish(plane, "room", range(200))
        assert [place.offset for place in places] == list(range(1, 201))
        proxy.delay = 0.0
        await heard_once(member, list(range(200)))


async def test_a_connection_that_went_silent_is_given_up_and_nothing_acked_is_lost(
    proxied: tuple[Proxy, Settings],
) -> None:
    """Half-open TCP: packets go nowhere, and no one says so. Publishes end in time, and are safe to repeat."""
    proxy, settings = proxied
    async with running(settings) as plane:
        member = await joined(plane)
        await outcomes(plane, range(10))
        proxy.freeze(newcomers=True)
        assert refused(await outcomes(plane, range(10, 20)))
        proxy.thaw()
        await plane.until_ready(60)
        again = await outcomes(plane, range(10, 20))
        assert not any(isinstance(outcome, BaseException) for outcome in again)
        await heard_once(member, list(range(20)))


@pytest.mark.parametrize("size", [60_000, 1], ids=["long", "short"])
async def test_what_waits_for_a_silent_shard_is_bounded(proxied: tuple[Proxy, Settings], size: int) -> None:
    """The process does not grow without end: what is over the bound is refused at once, and the rest in time."""
    proxy, settings = proxied
    async with running(settings) as plane:
        proxy.freeze(newcomers=True)
        before = psutil.Process().memory_info().rss
        data = b'"' + b"x" * size + b'"'
        count = 3 * MOST_WAITING_BYTES // (size + 512)
        waiting = [plane.log.publish("room", "s", str(n), b',"id":"%d","data":%b}' % (n, data)) for n in range(count)]
        at_once = sum(future.done() for future in waiting)
        assert at_once > count // 2
        await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PUBLISH_SECONDS + 60)
        assert all(isinstance(future.exception(), ShardUnavailable) for future in waiting)
        assert psutil.Process().memory_info().rss - before < 8 * MOST_WAITING_BYTES
        proxy.thaw()
        await plane.until_ready(60)
        assert not refused(await outcomes(plane, range(5)))
        assert plane.log.waiting_bytes == 0


async def test_what_waits_for_a_dead_shard_leaves_the_others_room(start_plane: StartPlane, redises: Redises) -> None:
    plane = await start_plane()
    groups = [f"room-{number}" for number in range(50)]
    dead, well = (next(g for g in groups if plane.log.owner(g) == f"shared-{number}") for number in range(2))
    redises.shards[0].kill()
    async with asyncio.timeout(30):
        while "shared-0" not in plane.log.down():
            await asyncio.sleep(0.05)
    data = b'"' + b"x" * 60_000 + b'"'
    count = MOST_WAITING_BYTES // 60_000
    waiting = [plane.log.publish(dead, "s", str(n), body_of(str(n), data)) for n in range(count)]
    assert sum(future.done() for future in waiting) > count // 3
    place = await asyncio.wait_for(plane.log.publish(well, "s", "x", body_of("x", data)), 10)
    assert place.offset == 1
    for future in waiting:
        if not future.done():
            future.cancel()
        elif not future.cancelled():
            assert isinstance(future.exception(), ShardUnavailable)


async def test_one_message_is_taken_however_small_the_share_of_its_shard(
    start_plane: StartPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many shards each has less than the longest message takes."""
    monkeypatch.setattr("shards.log.log.MOST_WAITING_BYTES", 1000)
    plane = await start_plane()
    for number in range(3):
        long = b'"' + b"x" * 10_000 + b'"'
        assert (await plane.log.publish("room", "s", str(number), body_of(str(number), long))).offset == number + 1
