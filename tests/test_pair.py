"""Shards of two servers: nothing counts before the copy has it, so that nothing that counted is ever lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shards.errors import ShardUnavailable
from shards.fleet import reshard
from shards.log.log import Place
from shards.log.pair import Pair, pair_of
from shards.plane import Plane
from shards.ring import slot_of
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Credentials
from tests.conftest import Redises
from tests.redis_pair import RedisPair
from tests.redis_server import RedisServer
from tests.test_hub import Listener, body, publish

# Killed servers leave half-made connections, whose transports asyncio closes only when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

StartPlane = Callable[..., Awaitable[Plane]]


class PairRedises(Redises):
    pair: RedisPair

    def table(self) -> SlotTable:
        return SlotTable.first([self.pair.shard])


@pytest.fixture
async def redises(start_redis: Callable[..., RedisServer], tmp_path: Path) -> AsyncIterator[PairRedises]:
    """A control Redis, and one shard of two servers."""
    servers = PairRedises(start_redis(), [])
    servers.pair = await asyncio.to_thread(RedisPair, start_redis, tmp_path)
    async with Redis.from_url(servers.control.url) as redis:
        await Control(redis).swap_table(servers.table(), 0)
    yield servers
    for server in servers.pair.servers:
        if server.process is not None:
            server.process.send_signal(signal.SIGCONT)


async def resharded(control: Control, shards: list[Shard]) -> SlotTable:
    return await reshard.reshard(control, shards, reshard.Access(lambda url: Credentials()), lambda done, total: None)


async def joined(plane: Plane) -> Listener:
    member = Listener()
    plane.hub.join("room", member)
    await member.subscribed()
    return member


def test_a_pair_is_read_from_the_url_it_writes() -> None:
    pair = Pair("shared-0", (("127.0.0.1", 1), ("::1", 2)))
    assert pair_of(pair.url) == pair
    assert pair_of("redis://127.0.0.1:1/0") is None


async def test_nothing_is_acked_or_heard_before_the_copy_has_it(start_plane: StartPlane, redises: PairRedises) -> None:
    plane, other = await start_plane(), await start_plane()
    member = await joined(other)
    await publish(plane, "room", range(10))
    await member.until(lambda m: len(m.heard) == 10)
    redises.pair.signal(1, signal.SIGSTOP)
    publishing = asyncio.create_task(publish(plane, "room", range(10, 20)))
    await asyncio.sleep(3)
    assert not publishing.done()
    assert len(member.heard) == 10
    redises.pair.signal(1, signal.SIGCONT)
    places = await asyncio.wait_for(publishing, 90)
    assert [place.offset for place in places] == list(range(11, 21))
    await member.until(lambda m: len(m.heard) == 20)
    assert member.heard == [body(number) for number in range(20)]


async def test_who_joins_hears_only_what_the_copy_has(start_plane: StartPlane, redises: PairRedises) -> None:
    plane, member = await start_plane(), Listener()
    place = (await publish(plane, "room", range(1)))[0]
    redises.pair.signal(1, signal.SIGSTOP)
    publishing = asyncio.create_task(publish(plane, "room", range(1, 5)))
    plane.hub.join("room", member, place)
    await asyncio.sleep(1.5)
    assert member.place is None
    redises.pair.signal(1, signal.SIGCONT)
    await asyncio.wait_for(publishing, 90)
    await member.until(lambda m: len(m.heard) == 4)


async def test_a_publish_that_is_never_copied_is_refused_in_the_end(
    start_plane: StartPlane, redises: PairRedises
) -> None:
    plane = await start_plane(publish_seconds=1)
    redises.pair.signal(1, signal.SIGSTOP)
    with pytest.raises(ShardUnavailable, match="copy"):
        await asyncio.wait_for(publish(plane, "room", range(1)), 60)


async def test_a_primary_killed_with_its_disk_loses_nothing(start_plane: StartPlane, redises: PairRedises) -> None:
    """In the middle of publishing: all is acked in the end, and heard once, in order, without a gap."""
    plane, other = await start_plane(history_messages=9000), await start_plane(history_messages=9000)
    member, pair = await joined(plane), redises.pair
    acked: list[Place] = []
    stopped = False

    async def traffic() -> int:
        number = 0
        while not stopped:
            acked.extend(await publish(other, "room", range(number, number + 20)))
            number += 20
        return number

    publishing = asyncio.create_task(traffic())
    await member.until(lambda m: len(m.heard) > 200)
    pair.servers[0].kill()
    pair.servers[0].wipe()
    await asyncio.to_thread(pair.until, lambda: pair.primary() == 1)
    pair.comes_back(0)
    before = len(acked)
    await member.until(lambda m: len(acked) > before + 200, 90)
    stopped = True
    sent = await asyncio.wait_for(publishing, 90)
    await member.until(lambda m: len(m.heard) >= sent)
    assert [place.offset for place in acked] == list(range(1, sent + 1))
    assert len({place.epoch for place in acked}) == 1
    assert member.heard == [body(number) for number in range(sent)]
    assert not member.gaps
    await asyncio.to_thread(pair.until, lambda: pair.linked(0))


async def test_what_the_killed_primary_alone_had_was_never_heard(start_plane: StartPlane, redises: PairRedises) -> None:
    """Else two different messages would have one offset: the one heard, and the one the new primary gives it."""
    plane, other, pair = await start_plane(), await start_plane(), redises.pair
    member = await joined(plane)
    await publish(plane, "room", range(5))
    await member.until(lambda m: len(m.heard) == 5)
    pair.signal(1, signal.SIGSTOP)
    with pair.client(pair.servers[0]) as client:
        # Or the copy would find the messages in its socket when it goes on.
        client.client_kill_filter(_type="replica")
    alone = asyncio.create_task(publish(other, "room", range(5, 10)))
    await asyncio.sleep(1)
    pair.servers[0].kill()
    pair.servers[0].wipe()
    await other.log.stop()
    await asyncio.gather(alone, return_exceptions=True)
    pair.signal(1, signal.SIGCONT)
    await asyncio.to_thread(pair.until, lambda: pair.primary() == 1)
    pair.comes_back(0)
    places = await asyncio.wait_for(publish(plane, "room", range(100, 105)), 90)
    assert [place.offset for place in places] == list(range(6, 11))
    await member.until(lambda m: len(m.heard) == 10)
    assert member.heard == [body(number) for number in [*range(5), *range(100, 105)]]
    assert not member.gaps


async def test_a_primary_that_was_cut_off_acks_nothing_and_is_left(
    start_plane: StartPlane, redises: PairRedises
) -> None:
    plane, pair = await start_plane(), redises.pair
    member = await joined(plane)
    await publish(plane, "room", range(5))
    pair.signal(0, signal.SIGSTOP)
    publishing = asyncio.create_task(publish(plane, "room", range(5, 10)))
    await asyncio.to_thread(pair.until, lambda: pair.primary() == 1)
    pair.signal(0, signal.SIGCONT)
    places = await asyncio.wait_for(publishing, 90)
    assert [place.offset for place in places] == list(range(6, 11))
    await member.until(lambda m: len(m.heard) == 10)
    assert not member.gaps
    with pair.client(pair.servers[1]) as client:
        assert client.xlen(f"log:{slot_of('room')}:room") == 10


async def test_a_server_that_is_no_primary_any_more_is_left(start_plane: StartPlane, redises: PairRedises) -> None:
    """By hand: nobody cuts the connections then."""
    plane, pair = await start_plane(), redises.pair
    member = await joined(plane)
    await publish(plane, "room", range(5))
    with pair.client(pair.sentinels[0]) as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", "shared-0")
    places = await asyncio.wait_for(publish(plane, "room", range(5, 10)), 90)
    await member.until(lambda m: len(m.heard) == 10)
    assert [place.offset for place in places] == list(range(6, 11))
    await asyncio.to_thread(pair.until, lambda: pair.primary() == 1)
    await asyncio.wait_for(publish(plane, "room", range(10, 15)), 90)
    await member.until(lambda m: len(m.heard) == 15)
    assert not member.gaps


async def test_slots_move_off_and_on_to_a_pair_only_with_its_copy(
    start_plane: StartPlane,
    redises: PairRedises,
    start_redis: Callable[..., RedisServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shards.log.pair._MOVE_COPIED_MS", 300)  # less than the copy is away for
    plane, pair, single = await start_plane(), redises.pair, start_redis()
    shards = [pair.shard, Shard("shared-1", single.url)]
    groups = [f"room-{number}" for number in range(40)]
    first = [await plane.log.publish(group, "s", "1", body(1)) for group in groups]
    async with Redis.from_url(redises.control.url) as redis:
        control = Control(redis)
        await resharded(control, shards[1:])
        pair.signal(1, signal.SIGSTOP)
        back = asyncio.create_task(resharded(control, shards[:1]))
        await asyncio.sleep(2)
        table = await control.table()
        assert table is not None
        assert set(table.owner_names()) == {"shared-1"}, "not one slot is the pair's yet"
        pair.signal(1, signal.SIGCONT)
        await asyncio.wait_for(back, 90)
    pair.servers[0].kill()
    pair.servers[0].wipe()
    await asyncio.to_thread(pair.until, lambda: pair.primary() == 1)
    pair.comes_back(0)
    again = [await asyncio.wait_for(plane.log.publish(group, "s", "1", body(1)), 90) for group in groups]
    assert again == first, "what had moved when its new owner died is all there"


async def test_a_pair_gives_slots_away_only_with_its_copy(
    start_plane: StartPlane,
    redises: PairRedises,
    start_redis: Callable[..., RedisServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the copy, made the primary, would take publishes for slots that it does not own any more."""
    monkeypatch.setattr("shards.log.pair._MOVE_COPIED_MS", 300)  # less than the copy is away for
    plane, pair, single = await start_plane(), redises.pair, start_redis()
    place = await plane.log.publish("room", "s", "1", body(1))
    async with Redis.from_url(redises.control.url) as redis:
        control = Control(redis)
        pair.signal(1, signal.SIGSTOP)
        moving = asyncio.create_task(resharded(control, [Shard("shared-1", single.url)]))
        await asyncio.sleep(2)
        with pair.client(single) as client:
            assert not client.exists("fence"), "not one slot is the other's yet"
        pair.signal(1, signal.SIGCONT)
        await asyncio.wait_for(moving, 90)
    assert await asyncio.wait_for(plane.log.publish("room", "s", "1", body(1)), 90) == place


async def test_a_switch_in_the_middle_of_a_move_loses_nothing(
    start_plane: StartPlane, redises: PairRedises, start_redis: Callable[..., RedisServer]
) -> None:
    """The new primary has only what was copied: the step begins anew, with it."""
    plane, pair, single = await start_plane(), redises.pair, start_redis()
    groups = [f"room-{number}" for number in range(40)]
    async with Redis.from_url(redises.control.url) as redis:
        control = Control(redis)
        await resharded(control, [Shard("shared-1", single.url)])
        first = [await plane.log.publish(group, "s", "1", body(1)) for group in groups]
        pair.signal(1, signal.SIGSTOP)
        with pair.client(pair.servers[0]) as client:
            # Or the copy would find what was moved in its socket when it goes on.
            client.client_kill_filter(_type="replica")
        moving = asyncio.create_task(resharded(control, [pair.shard]))
        await asyncio.sleep(1.5)
        pair.servers[0].kill()
        pair.servers[0].wipe()
        pair.signal(1, signal.SIGCONT)
        await asyncio.to_thread(pair.until, lambda: pair.primary() == 1)
        pair.comes_back(0)
        await asyncio.wait_for(moving, 90)
        table = await control.table()
        assert table is not None
        assert set(table.owner_names()) == {"shared-0"}
    again = [await asyncio.wait_for(plane.log.publish(group, "s", "1", body(1)), 90) for group in groups]
    assert again == first
