"""Slots move while members listen and publishers publish; nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager

import pytest
from redis.asyncio import Redis

from shards.fleet import reshard
from shards.log.log import Place
from shards.plane import Plane
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
        return await reshard.reshard(Control(redis), shards, lambda url: Credentials(), lambda done, total: None, lost)


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
        await asyncio.wait_for(self.task, 40)
        return len(self.acked[GROUPS[0]])


@pytest.mark.timeout(180)
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
