"""Slots move while members listen and publishers publish; nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager

import pytest
from redis.asyncio import Redis

from shards.fleet import reshard
from shards.log import move
from shards.log.log import Place
from shards.plane import Plane
from shards.ring import slot_of
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Credentials
from tests.conftest import Redises
from tests.redis_server import RedisServer
from tests.test_hub import Listener, body

StartPlane = Callable[..., Awaitable[Plane]]
GROUPS = [f"room-{number}" for number in range(40)]


def shards_of(redises: Redises) -> list[Shard]:
    return [Shard(f"shared-{i}", shard.url) for i, shard in enumerate(redises.shards)]


async def to_shards(redises: Redises, count: int) -> SlotTable:
    return await to_these(redises, shards_of(redises)[:count])


async def to_these(redises: Redises, shards: list[Shard], lost: Collection[str] = ()) -> SlotTable:
    async with Redis.from_url(redises.control.url) as redis:
        access = reshard.Access(lambda url: Credentials())
        return await reshard.reshard(Control(redis), shards, access, lambda done, total: None, lost)


class Traffic:
    """Publishes to every group, steadily, until stopped; remembers what was acked."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.acked: dict[str, list[Place]] = {group: [] for group in GROUPS}
        self.stopped = False
        self.task = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        number = 0
        while not self.stopped:
            places = await asyncio.gather(
                *(self.plane.log.publish(group, "s", str(number), body(number)) for group in GROUPS)
            )
            for group, place in zip(GROUPS, places, strict=True):
                self.acked[group].append(place)
            number += 1
            await asyncio.sleep(0.002)

    async def stop(self) -> int:
        """Stop; gives how many messages each group got."""
        self.stopped = True
        await asyncio.wait_for(self.task, 90)
        return len(self.acked[GROUPS[0]])


async def test_two_to_four_to_three_shards_under_load(
    start_plane: StartPlane, redises: Redises, start_redis: Callable[..., RedisServer]
) -> None:
    redises.shards += [start_redis(), start_redis()]
    here, there = await start_plane(), await start_plane()
    members = {group: Listener() for group in GROUPS}
    for group, member in members.items():
        here.hub.join(group, member)
        await member.subscribed()
    traffic = Traffic(there)
    for count in (4, 3):
        table = await to_shards(redises, count)
        assert set(table.owner_names()) == {f"shared-{i}" for i in range(count)}
        assert max(Counter(table.owners).values()) - min(Counter(table.owners).values()) <= 1
    sent = await traffic.stop()
    for group, member in members.items():
        await member.until(lambda m: len(m.heard) >= sent)
        assert member.heard == [body(number) for number in range(sent)]
        assert [place.offset for place in traffic.acked[group]] == list(range(1, sent + 1))
        assert not member.gaps


async def test_what_moved_is_gone_from_the_old_shard_and_keeps_its_marks(
    start_plane: StartPlane, redises: Redises
) -> None:
    plane = await start_plane()
    first = [await plane.log.publish(group, "s", "1", body(1)) for group in GROUPS]
    await to_shards(redises, 1)
    again = [await plane.log.publish(group, "s", "1", body(1)) for group in GROUPS]
    assert again == first, "dedupe marks and epochs move along"
    async with Redis.from_url(redises.shards[1].url) as left:
        assert await left.keys("[milps]*") == []


async def test_a_full_shard_gives_its_slots_away(start_plane: StartPlane, redises: Redises) -> None:
    """More shards are what helps a fleet whose shards are full, so one that takes nothing any more must still give."""
    plane = await start_plane()
    before = [await plane.log.publish(group, "s", "1", body(1)) for group in GROUPS]
    async with Redis.from_url(redises.shards[1].url) as full:
        await full.config_set("maxmemory", "1")
        table = await asyncio.wait_for(to_shards(redises, 1), 60)
        assert set(table.owner_names()) == {"shared-0"}
        assert await full.keys("[milps]*") == []
    after = [await plane.log.publish(group, "s", "2", body(2)) for group in GROUPS]
    assert [(place.epoch, place.offset) for place in after] == [(place.epoch, 2) for place in before]


async def test_the_slot_table_of_another_fleet_is_left_alone(start_plane: StartPlane, redises: Redises) -> None:
    """Databases don't keep fleets on one server apart: what is announced in one is heard in all."""
    plane = await start_plane()
    assert plane.log.table is not None
    mine = plane.log.table
    other = SlotTable.first([Shard("shared-0", "redis://127.0.0.1:1/1")], mine.version + 7, "another")
    moved = mine.with_shards(mine.shards)
    async with Redis.from_url(redises.shards[0].url.replace("/0", "/1")) as shard:
        await move.announce([shard], other)
        await move.announce([shard], moved)
    async with asyncio.timeout(30):
        while plane.log.table is mine:
            await asyncio.sleep(0.01)
    assert plane.log.table == moved


class Killed(Exception):
    """The reshard was killed here."""


STEPS = ["close", "after close", "open", "after open", "announce", "after announce", "wipe", "after wipe"]


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, step: str, time: int) -> Iterator[None]:
    """Have a reshard killed as it does something to a shard, or just after it, for the n-th time."""
    name = step.removeprefix("after ")
    real, calls = getattr(reshard.move, name), 0

    async def dies(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls < time:
            return await real(*args)
        if step.startswith("after"):
            await real(*args)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(reshard.move, name, dies)
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize("step", ["copy", "after copy", *STEPS])
async def test_a_reshard_killed_at_any_step_is_finished_by_the_next(
    start_plane: StartPlane, redises: Redises, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    plane = await start_plane()
    first = [await plane.log.publish(group, "s", "1", body(1)) for group in GROUPS]
    with killed_at(monkeypatch, step, 3):
        await to_shards(redises, 1)
    table = await to_shards(redises, 1)
    assert set(table.owner_names()) == {"shared-0"}
    again = await asyncio.gather(*(plane.log.publish(group, "s", "1", body(1)) for group in GROUPS))
    assert list(again) == first
    second = await asyncio.gather(*(plane.log.publish(group, "s", "2", body(2)) for group in GROUPS))
    assert {place.offset for place in second} == {2}


@pytest.mark.parametrize("number", [0, 1], ids=["target", "source"])
@pytest.mark.parametrize("step", ["copy", "close", "open", "announce", "wipe"])
async def test_a_shard_killed_meanwhile_is_waited_for(
    start_plane: StartPlane, redises: Redises, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    """Whatever it was doing; it is back a second later, as its supervisor has it."""
    plane = await start_plane()
    first = await publish_once(plane)
    real, shard, calls = getattr(reshard.move, step), redises.shards[number], 0
    back: list[asyncio.Task[RedisServer]] = []

    async def come_back() -> RedisServer:
        await asyncio.sleep(1)
        return await asyncio.to_thread(shard.start)

    async def killed(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            shard.kill()
            back.append(asyncio.create_task(come_back()))
        return await real(*args)

    monkeypatch.setattr(reshard.move, step, killed)
    table = await to_shards(redises, 1)
    await back[0]
    assert set(table.owner_names()) == {"shared-0"}
    assert await publish_once(plane) == first
    assert {place.offset for place in await publish_once(plane, 2)} == {2}


def test_the_plan_moves_no_more_than_it_must() -> None:
    shards = [Shard(f"shared-{i}", "redis://x") for i in range(5)]
    table = SlotTable.first(shards[:2])
    for count in (3, 4, 5):
        steps = reshard.plan(table, shards[:count])
        moved = sum(len(step.slots) for step in steps)
        assert moved == 1024 // count
        assert {step.target for step in steps} == {f"shared-{count - 1}"}
        table = table.with_shards(shards[:count])
        for step in steps:
            table = table.moved(step.slots, step.target)


async def test_closed_slots_are_opened_again_where_the_target_is_lost(
    start_plane: StartPlane, redises: Redises, monkeypatch: pytest.MonkeyPatch, start_redis: Callable[..., RedisServer]
) -> None:
    plane = await start_plane()
    first = await publish_once(plane)
    redises.shards.append(start_redis())
    with killed_at(monkeypatch, "after close", 1):
        await to_shards(redises, 3)
    redises.shards[2].kill()
    await to_these(redises, shards_of(redises)[:2], {"shared-2"})
    assert await publish_once(plane) == first, "nothing of it was only there"


async def publish_once(plane: Plane, number: int = 1) -> list[Place]:
    return await asyncio.gather(*(plane.log.publish(group, "s", str(number), body(number)) for group in GROUPS))


class TestAShardThatIsLost:
    """Its groups begin anew on the others, and say so; the others' are left as they are."""

    async def lose(self, plane: Plane, redises: Redises) -> tuple[set[str], list[asyncio.Future[Place]]]:
        """Kill a shard; gives its groups, and publishes to all that wait for it."""
        gone = {group for group in GROUPS if plane.log.owner(group) == "shared-1"}
        redises.shards[1].kill()
        redises.shards[1].wipe()
        return gone, [plane.log.publish(group, "s", "2", body(2)) for group in GROUPS]

    async def without_it(self, redises: Redises) -> SlotTable:
        return await to_these(redises, shards_of(redises)[:1], {"shared-1"})

    async def test_its_members_get_a_gap_and_go_on(self, start_plane: StartPlane, redises: Redises) -> None:
        plane = await start_plane()
        before = dict(zip(GROUPS, await publish_once(plane), strict=True))
        members = {group: Listener() for group in GROUPS}
        for group, member in members.items():
            plane.hub.join(group, member)
            await member.subscribed()
        gone, waiting = await self.lose(plane, redises)
        table = await self.without_it(redises)
        assert [shard.name for shard in table.shards] == ["shared-0"]
        places = dict(zip(GROUPS, await asyncio.wait_for(asyncio.gather(*waiting), 60), strict=True))
        for group, member in members.items():
            await member.until(lambda m: body(2) in m.heard)
            assert (places[group].epoch != before[group].epoch) == (group in gone)
            assert [gap.epoch for gap in member.gaps] == ([places[group].epoch] if group in gone else [])
            assert places[group].offset == (1 if group in gone else 2)

    async def test_who_comes_back_with_a_place_in_it_gets_a_gap(
        self, start_plane: StartPlane, redises: Redises
    ) -> None:
        plane = await start_plane()
        before = dict(zip(GROUPS, await publish_once(plane), strict=True))
        gone, _ = await self.lose(plane, redises)
        await self.without_it(redises)
        for group in GROUPS:
            member = Listener()
            plane.hub.join(group, member, before[group])
            await member.subscribed()
            assert member.recovered is (group not in gone)
            assert len(member.gaps) == (group in gone)

    @pytest.mark.parametrize("step", [step for step in STEPS if step != "after close"])
    async def test_killed_at_any_step_it_is_finished_by_the_next_run(
        self, start_plane: StartPlane, redises: Redises, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        plane = await start_plane()
        gone, waiting = await self.lose(plane, redises)
        with killed_at(monkeypatch, step, 1):
            await self.without_it(redises)
        await self.without_it(redises)
        places = await asyncio.wait_for(asyncio.gather(*waiting), 60)
        assert {place.offset for place in places} == {1}
        assert gone

    async def test_what_an_earlier_life_of_the_new_owner_left_is_not_read(
        self, start_plane: StartPlane, redises: Redises
    ) -> None:
        plane = await start_plane()
        await to_shards(redises, 1)
        async with Redis.from_url(redises.shards[1].url) as left:
            # Groups that the shard which owns them now knows nothing of.
            for group in GROUPS:
                slot = slot_of(group)
                await left.sadd(f"index:{slot}", group)
                await left.hset(f"meta:{slot}:{group}", mapping={"epoch": "old", "offset": 7})
        await to_shards(redises, 2)
        again = await publish_once(plane)
        assert {place.offset for place in again} == {1}

    async def test_only_its_slots_move(self) -> None:
        table = SlotTable.first([Shard(f"shared-{i}", "redis://x") for i in range(4)])
        left = [shard for shard in table.shards if shard.name != "shared-1"]
        steps = reshard.plan(table, left, {"shared-1"})
        assert {step.source for step in steps} == {"shared-1"}
        assert len(steps) == 3, "at once: publishes wait already"
        assert sum(len(step.slots) for step in steps) == 256
        assert reshard.summary(table, left, {"shared-1"})[-1].endswith("the least possible: 256 (25.0 %)")


async def test_groups_that_change_while_they_are_copied_come_along_whole(
    start_plane: StartPlane, redises: Redises
) -> None:
    """The second copy brings what the first has not: messages, dedupe marks, and groups that are new."""
    plane = await start_plane()
    await publish_once(plane)
    slots = sorted({slot_of(group) for group in GROUPS if plane.log.owner(group) == "shared-1"})
    async with Redis.from_url(redises.shards[1].url) as source, Redis.from_url(redises.shards[0].url) as target:
        copied = await move.copy(source, target, slots)
        second = await publish_once(plane, 2)
        new = next(f"new-{n}" for n in range(10_000) if slot_of(f"new-{n}") in slots)
        await plane.log.publish(new, "s", "1", body(1))
        changed = await move.hand_over(source, target, slots, 2, copied)
        assert changed == len([group for group in GROUPS if slot_of(group) in slots]) + 1
        for group in [*GROUPS, new]:
            slot = slot_of(group)
            if slot in slots:
                assert await target.hgetall(f"meta:{slot}:{group}") == await source.hgetall(f"meta:{slot}:{group}")
                assert await target.xrange(f"log:{slot}:{group}") == await source.xrange(f"log:{slot}:{group}")
                assert await target.pttl(f"log:{slot}:{group}") > 0
    async with Redis.from_url(redises.control.url) as redis:
        table = await Control(redis).table()
        assert table is not None
        await Control(redis).swap_table(table.moved(slots, "shared-0"), 1)
    plane.refresh()
    assert await publish_once(plane, 2) == second, "dedupe marks came along"
