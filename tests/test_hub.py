"""Delivery, as members of groups see it, over real Redis servers."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from shards import history
from shards.errors import ShardUnavailable
from shards.hub import Message
from shards.log import move
from shards.log.log import Place, body_of
from shards.plane import Plane
from shards.ring import slot_of
from tests.conftest import Redises
from tests.redis_server import RedisServer

StartPlane = Callable[..., Awaitable[Plane]]


class Listener:
    """A member that writes down what it hears, and checks the first guarantee as it does."""

    public_id = "listener"

    def __init__(self) -> None:
        self.place: Place | None = None
        self.recovered: bool | None = None
        self.heard: list[bytes] = []
        self.gaps: list[Place] = []
        self.refused = 0

    def has_room(self, size: int) -> bool:
        return True

    def on_subscribed(self, group: str, place: Place, recovered: bool) -> None:
        assert self.place is None
        self.place, self.recovered = place, recovered

    def on_message(self, message: Message) -> None:
        assert self.place is not None
        assert message.entry.offset == self.place.offset + 1, f"{message.entry.offset} after {self.place.offset}"
        self.place = Place(self.place.epoch, message.entry.offset)
        self.heard.append(message.entry.body)

    def on_gap(self, group: str, place: Place) -> None:
        self.gaps.append(place)
        self.place = place

    def on_unavailable(self, group: str) -> None:
        self.refused += 1

    async def until(self, condition: Callable[[Listener], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not condition(self):
                await asyncio.sleep(0.01)

    async def subscribed(self) -> Place:
        await self.until(lambda self: self.place is not None)
        assert self.place is not None
        return self.place


class SlowListener(Listener):
    """One that reads a message and then none, until it has room."""

    room = False

    def has_room(self, size: int) -> bool:
        return self.room or not self.heard


def body(number: int) -> bytes:
    return body_of(str(number), b"%d" % number)


async def publish(plane: Plane, group: str, numbers: range, session: str = "s") -> list[Place]:
    return await asyncio.gather(*(plane.log.publish(group, session, str(n), body(n)) for n in numbers))


async def test_members_of_a_group_in_two_processes_hear_every_message_in_order(start_plane: StartPlane) -> None:
    planes = [await start_plane(), await start_plane()]
    members = [Listener() for _ in range(4)]
    for i, member in enumerate(members):
        planes[i % 2].hub.join("room", member)
        await member.subscribed()
    places = await publish(planes[0], "room", range(100))
    assert [place.offset for place in places] == list(range(1, 101))
    for member in members:
        await member.until(lambda m: len(m.heard) == 100)
        assert member.heard == [body(n) for n in range(100)]


async def test_an_id_published_again_is_acked_with_its_first_offset_and_heard_once(start_plane: StartPlane) -> None:
    plane, member = await start_plane(), Listener()
    plane.hub.join("room", member)
    await member.subscribed()
    first = await publish(plane, "room", range(3))
    again = await publish(plane, "room", range(3))
    other = await publish(plane, "room", range(3), session="t")
    await member.until(lambda m: len(m.heard) == 6)
    assert again == first
    assert [place.offset for place in other] == [4, 5, 6]


async def test_who_comes_from_a_process_that_has_heard_more_already_is_told_no_gap(
    start_plane: StartPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one process has been pushed may still be on its way to the other one."""
    first, second = await start_plane(), await start_plane()
    before, there, after = Listener(), Listener(), Listener()
    first.hub.join("room", before)
    second.hub.join("room", there)
    for member in (before, there):
        await member.subscribed()
    with monkeypatch.context() as patch:
        patch.setattr(second.hub, "log_pushed", lambda *_: None)
        await publish(first, "room", range(3))
        await before.until(lambda m: len(m.heard) == 3)
        since, told = first.hub.part("room", before)
        assert since is not None
        assert told
        after.place = since
        second.hub.join("room", after, since, told)
        await there.until(lambda m: len(m.heard) == 3)
    await publish(first, "room", range(3, 6))
    await after.until(lambda m: len(m.heard) == 3)
    assert after.heard == [body(n) for n in range(3, 6)]
    assert not after.gaps
    assert there.heard == [body(n) for n in range(6)]
    assert not before.gaps


async def test_who_comes_back_with_a_place_hears_what_it_missed_first(start_plane: StartPlane) -> None:
    plane, before, after = await start_plane(), Listener(), Listener()
    plane.hub.join("room", before)
    await before.subscribed()
    await publish(plane, "room", range(5))
    await before.until(lambda m: len(m.heard) == 5)
    plane.hub.leave("room", before)
    await publish(plane, "room", range(5, 505))
    plane.hub.join("room", after, before.place)
    await publish(plane, "room", range(505, 600))
    await after.until(lambda m: len(m.heard) == 595)
    assert after.recovered
    assert after.heard == [body(n) for n in range(5, 600)]


LARGE = b"x" * 60_000


@pytest.mark.parametrize("size", [60_000, 200_000], ids=["a few a page", "one a page"])
async def test_large_messages_are_missed_and_caught_up_by_members_and_topics(
    start_plane: StartPlane, redises: Redises, size: int
) -> None:
    """More than a page's bytes, for one that resumes and for one whose connection was away."""
    plane, other, live = await start_plane(), await start_plane(), Listener()
    plane.hub.join("room", live)
    place = await live.subscribed()
    bodies = [(str(n), body_of(str(n), b"x" * size)) for n in range(20)]
    await other.log.publish("room", "s", *bodies[0])
    await live.until(lambda m: len(m.heard) == 1)
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    async with Redis.from_url(owner.url) as redis:
        publishing = asyncio.gather(*(other.log.publish("room", "s", *message) for message in bodies[1:]))
        await redis.client_kill_filter(_type="pubsub")
        await asyncio.wait_for(publishing, 60)
    resuming = [Listener() for _ in range(20)]
    for member in resuming:
        plane.hub.join("room", member, place)
    for member in (live, *resuming):
        await member.until(lambda m: len(m.heard) == 20)
        assert not member.gaps


async def test_many_that_resume_at_once_do_not_cost_the_shards_connection(
    start_plane: StartPlane, redises: Redises
) -> None:
    """Redis cuts a subscriber that too much waits for; all would read again, and be cut again."""
    plane, start = await start_plane(), Listener()
    plane.hub.join("room", start)
    place = await start.subscribed()
    for number in range(40):
        await plane.log.publish("room", "s", str(number), body_of(str(number), LARGE))
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    async with Redis.from_url(owner.url) as redis:
        await redis.config_set("client-output-buffer-limit", "pubsub 8mb 8mb 1")
    resuming = [Listener() for _ in range(100)]
    for member in resuming:
        plane.hub.join("room", member, place)
    for member in resuming:
        await member.until(lambda m: len(m.heard) == 40)
    assert plane.log.losses == 0


async def test_many_groups_that_catch_up_at_once_do_not_cost_the_shards_connection(
    start_plane: StartPlane, redises: Redises
) -> None:
    """After a connection was away, each group has a page to read: 20 MB in all, of which little may be under way."""
    plane, other = await start_plane(), await start_plane()
    groups = [f"g{n}" for n in range(300) if plane.log.owner(f"g{n}") == "shared-0"][:100]
    members = {group: Listener() for group in groups}
    for group, member in members.items():
        plane.hub.join(group, member)
    for member in members.values():
        await member.subscribed()
    async with Redis.from_url(redises.shards[0].url) as redis:
        await redis.config_set("client-output-buffer-limit", "pubsub 8mb 8mb 1")
    plane.hub.shard_down("shared-0")
    for group in groups:
        await other.log.publish(group, "s", "1", body_of("1", b"x" * 200_000))
    plane.hub.shard_up("shared-0")
    for member in members.values():
        await member.until(lambda m: len(m.heard) == 1)
        assert not member.gaps
    assert plane.log.losses == 0


async def test_who_joins_in_time_is_told_where_the_shard_is_down_and_may_join_again(
    start_plane: StartPlane, redises: Redises, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.hub.PATIENCE_SECONDS", 0.3)
    plane, here = await start_plane(), Listener()
    plane.hub.join("room", here)
    await here.subscribed()
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    owner.kill()
    async with asyncio.timeout(60):
        while plane.log.ready:
            await asyncio.sleep(0.01)
    hasty, patient = Listener(), Listener()
    plane.hub.join("room", hasty, in_time=True)
    plane.hub.join("room", patient)
    await hasty.until(lambda m: m.refused == 1)
    owner.start()
    await patient.subscribed()
    plane.hub._patience._seconds = 60.0  # now it may take as long as it takes
    plane.hub.join("room", hasty, in_time=True)
    await hasty.subscribed()
    await publish(plane, "room", range(3))
    for member in (here, hasty, patient):
        await member.until(lambda m: len(m.heard) == 3)
    assert (here.refused, hasty.refused, patient.refused) == (0, 1, 0)


class FullListener(Listener):
    """One that never has room for what it has missed."""

    def has_room(self, size: int) -> bool:
        return False


async def test_who_joins_in_time_is_told_also_where_the_shard_goes_down_later(
    start_plane: StartPlane, redises: Redises, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its patience ended while the group was live, so that its turn would have come."""
    monkeypatch.setattr("shards.hub.PATIENCE_SECONDS", 0.3)
    plane, here, late = await start_plane(), Listener(), FullListener()
    plane.hub.join("room", here)
    since = await here.subscribed()
    await publish(plane, "room", range(3))
    plane.hub.join("room", late, since, in_time=True)
    await asyncio.sleep(0.7)
    assert late.refused == 0
    redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))].kill()
    await late.until(lambda m: m.refused == 1)


class RefusingListener(Listener):
    """One that fails where it is told that it is not subscribed."""

    def on_unavailable(self, group: str) -> None:
        super().on_unavailable(group)
        raise RuntimeError("by mistake")


@pytest.mark.member_fails
async def test_a_member_that_fails_as_it_is_refused_leaves_nobody_else_waiting(
    start_plane: StartPlane, redises: Redises, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.hub.PATIENCE_SECONDS", 0.3)
    plane, members = await start_plane(), [RefusingListener(), Listener(), Listener()]
    redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))].kill()
    async with asyncio.timeout(60):
        while plane.log.ready:
            await asyncio.sleep(0.01)
    for member in members[:2]:
        plane.hub.join("room", member, in_time=True)
    for member in members[:2]:
        await member.until(lambda m: m.refused == 1)
    plane.hub.join("room", members[2], in_time=True)
    await members[2].until(lambda m: m.refused == 1)


async def test_what_a_former_owner_answers_late_counts_no_more(start_plane: StartPlane, redises: Redises) -> None:
    plane, member = await start_plane(), Listener()
    await publish(plane, "room", range(3))
    table, slot = plane.log.table, slot_of("room")
    assert table is not None
    old, new = sorted(redises.shards, key=lambda server: server.url != table.owner(slot).url)
    assert old.process is not None
    os.kill(old.process.pid, signal.SIGSTOP)
    plane.hub.join("room", member)
    await asyncio.sleep(0.1)  # so its log is asked where it ends
    (name,) = (shard.name for shard in table.shards if shard.url == new.url)
    plane.log.use(table.moved([slot], name))
    begun = await member.subscribed()
    assert begun.offset == 0
    os.kill(old.process.pid, signal.SIGCONT)
    await asyncio.sleep(0.5)  # for as long as it takes to be misled
    await publish(plane, "room", range(3, 6))
    await member.until(lambda m: len(m.heard) == 3)
    assert member.place == Place(begun.epoch, 3)
    assert not member.gaps


async def test_resuming_while_messages_pour_in_loses_and_doubles_nothing(start_plane: StartPlane) -> None:
    plane, other = await start_plane(), await start_plane()
    start = Listener()
    plane.hub.join("room", start)
    place = await start.subscribed()
    publishing = asyncio.create_task(publish(other, "room", range(900)))
    members = []
    while not publishing.done():
        member = Listener()
        members.append(member)
        plane.hub.join("room", member, place)
        await asyncio.sleep(0.002)
    for member in members:
        await member.until(lambda m: len(m.heard) == 900)
        assert member.heard == start.heard, "each hears it all, however it came in between"
        assert not member.gaps


@pytest.mark.parametrize("place", [Place("another-epoch", 3), Place("", 10**18)], ids=["other epoch", "future"])
async def test_a_place_that_no_log_has_is_a_gap_said_aloud(start_plane: StartPlane, place: Place) -> None:
    plane, member = await start_plane(), Listener()
    epoch = (await publish(plane, "room", range(3)))[0].epoch
    plane.hub.join("room", member, Place(place.epoch or epoch, place.offset))
    await member.until(lambda m: bool(m.gaps))
    assert not member.recovered
    assert member.gaps == [Place(epoch, 3)]
    await publish(plane, "room", range(3, 4))
    await member.until(lambda m: len(m.heard) == 1)


async def test_history_that_has_run_out_is_a_gap_said_aloud(start_plane: StartPlane) -> None:
    plane, member = await start_plane(history_messages=100), Listener()
    epoch = (await publish(plane, "room", range(1000)))[0].epoch
    plane.hub.join("room", member, Place(epoch, 5))
    await member.until(lambda m: bool(m.gaps))
    assert not member.recovered
    assert member.gaps == [Place(epoch, 1000)]


async def test_history_that_runs_out_under_a_slow_reader_is_a_gap_up_to_what_is_left(start_plane: StartPlane) -> None:
    plane, member = await start_plane(history_messages=100), SlowListener()
    epoch = (await publish(plane, "room", range(100)))[0].epoch
    plane.hub.join("room", member, Place(epoch, 5))
    await member.until(lambda m: len(m.heard) == 1)
    await publish(plane, "room", range(100, 1000))
    member.room = True
    await member.until(lambda m: m.place == Place(epoch, 1000))
    assert member.recovered
    assert len(member.gaps) == 1
    assert member.heard[1:] == [body(n) for n in range(member.gaps[0].offset, 1000)]
    assert len(member.heard) > 100


@pytest.mark.parametrize("offset", [0, 2, 5])
async def test_history_that_has_all_run_out_is_a_gap(start_plane: StartPlane, redises: Redises, offset: int) -> None:
    plane = await start_plane()
    epoch = (await publish(plane, "room", range(5)))[0].epoch
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    async with Redis.from_url(owner.url) as redis:
        await redis.delete(f"log:{slot_of('room')}:room")
    past = await history.read(plane.log, "room", Place(epoch, offset), 100, 1 << 20)
    assert past == history.Past(epoch, 5, [], Place(epoch, 5) if offset < 5 else None)


async def test_history_gives_as_much_as_fits_and_at_least_one(start_plane: StartPlane) -> None:
    plane = await start_plane()
    epoch = (await publish(plane, "room", range(50)))[0].epoch
    size = len(body(20))
    for most, count in ((1, 1), (3 * size, 3), (3 * size + size - 1, 3), (1 << 20, 30)):
        past = await history.read(plane.log, "room", Place(epoch, 20), 100, most)
        assert [entry.offset for entry in past.entries] == list(range(21, 21 + count))


@pytest.mark.parametrize(
    ("count", "most", "first"), [(1, 1, 50), (30, 1, 50), (30, 3, 48), (30, 99, 21), (1000, 99, 1)]
)
async def test_the_last_of_a_history_are_the_last_also_where_not_all_fit(
    start_plane: StartPlane, count: int, most: int, first: int
) -> None:
    """An app that shows what was said last must not be given what was said long ago."""
    plane = await start_plane()
    await publish(plane, "room", range(50))
    past = await history.read(plane.log, "room", None, count, most * len(body(20)))
    assert [entry.offset for entry in past.entries] == list(range(first, 51))


async def test_a_killed_shard_loses_nothing(start_plane: StartPlane, redises: Redises) -> None:
    """Kill -9 in the middle of publishing: all is acked in the end, and heard once, in order."""
    plane, other = await start_plane(), await start_plane(history_messages=4000)
    member = Listener()
    plane.hub.join("room", member)
    await member.subscribed()
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    publishing = asyncio.create_task(publish(other, "room", range(2000)))
    await member.until(lambda m: len(m.heard) > 100)
    owner.kill()
    await asyncio.sleep(0.1)
    owner.start()
    places = await asyncio.wait_for(publishing, 60)
    await member.until(lambda m: len(m.heard) == 2000)
    assert sorted(place.offset for place in places) == list(range(1, 2001))
    assert not member.gaps


async def test_publishes_that_meet_a_closed_fence_stay_in_order(start_plane: StartPlane, redises: Redises) -> None:
    """As in a move that takes long: the fence is closed while messages keep coming, then opened again."""
    plane, member = await start_plane(), Listener()
    plane.hub.join("room", member)
    await member.subscribed()
    table, slot = plane.log.table, slot_of("room")
    assert table is not None
    async with Redis.from_url(table.owner(slot).url) as shard:
        version = await shard.hget("fence", str(slot))
        await shard.hset("fence", str(slot), -1)
        places = []
        for number in range(300):
            places.append(plane.log.publish("room", "s", str(number), body(number)))
            await asyncio.sleep(0.002)
        await shard.hset("fence", str(slot), version)
        await asyncio.gather(*places)
    await member.until(lambda m: len(m.heard) == 300)
    assert member.heard == [body(n) for n in range(300)]


async def test_a_shard_that_lost_its_disk_is_a_gap_and_a_new_epoch(start_plane: StartPlane, redises: Redises) -> None:
    plane, member, counted = await start_plane(), Listener(), list[int]()
    plane.hub._observe_gap = counted.append
    for one in (member, Listener()):
        plane.hub.join("room", one)
        await one.subscribed()
    await publish(plane, "room", range(10))
    await member.until(lambda m: len(m.heard) == 10)
    old = member.place
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    owner.kill()
    owner.wipe()
    owner.start()
    await asyncio.wait_for(publish(plane, "room", range(10, 20)), 60)
    await member.until(lambda m: len(m.heard) == 20)
    assert member.gaps
    assert sum(counted) == 2 * len(member.gaps), "for each that was told"
    assert member.place is not None
    assert old is not None
    assert member.place.epoch != old.epoch


@pytest.mark.parametrize("size", [1, 60_000], ids=["small", "large"])
@pytest.mark.parametrize("after", [2, 8, 300], ids=["shorter", "longer", "much longer"])
async def test_a_log_that_comes_back_without_its_end_is_a_gap_and_nothing_acked_is_missed(
    start_plane: StartPlane, redises: Redises, after: int, size: int
) -> None:
    """A shard may be killed after it sent messages out and before it wrote them."""
    plane, member = await start_plane(), Listener()
    plane.hub.join("room", member)
    epoch = (await member.subscribed()).epoch
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    for number in range(10):
        await plane.log.publish("room", "s", str(number), body_of(str(number), b"1" * size))
    shutil.copytree(owner.directory, owner.directory.with_name("written"))
    await publish(plane, "room", range(10, 15))
    await member.until(lambda m: len(m.heard) == 15)
    owner.kill()
    owner.wipe()
    owner.directory.with_name("written").rename(owner.directory)
    other = await start_plane(until_ready=False)
    publishing = asyncio.create_task(publish(other, "room", range(100, 100 + after)))
    owner.start()
    places = await asyncio.wait_for(publishing, 60)
    assert [place.offset for place in places] == list(range(11, 11 + after))
    await member.until(lambda m: len(m.heard) == 15 + after)
    assert member.gaps == [Place(epoch, 10)]
    assert member.heard[15:] == [body(number) for number in range(100, 100 + after)]


async def test_a_group_that_was_quiet_for_long_still_delivers(start_plane: StartPlane, redises: Redises) -> None:
    """Its place is forgotten, so the next message begins a new log: a gap, and then the message."""
    plane, member = await start_plane(idle_seconds=1, history_seconds=0.1), Listener()
    plane.hub.join("room", member)
    await member.subscribed()
    await publish(plane, "room", range(3))
    await member.until(lambda m: len(m.heard) == 3)
    plane.presence._idle_ms = 1  # nobody keeps it alive
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    async with Redis.from_url(owner.url) as redis, asyncio.timeout(60):
        while await redis.exists(f"meta:{slot_of('room')}:room"):
            await asyncio.sleep(0.05)
    await publish(plane, "room", range(3, 5))
    await member.until(lambda m: len(m.heard) == 5)
    assert [gap.offset for gap in member.gaps] == [0]


async def test_a_repeated_id_is_known_for_the_whole_window(start_plane: StartPlane) -> None:
    """Marks are kept in buckets of a window each; whatever edge lies between, a repeat within the window is one."""
    plane = await start_plane(dedupe_seconds=1)
    for attempt in itertools.count():
        began, firsts = time.monotonic(), []
        for number in range(5):
            firsts += await publish(plane, "room", range(number, number + 1), f"s{attempt}")
            await asyncio.sleep(0.15)
        again = await publish(plane, "room", range(5), f"s{attempt}")
        if time.monotonic() - began < 1:  # else the machine stood still for so long that they may be new
            assert again == firsts
            break


async def test_a_message_to_a_slots_new_owner_waits_for_those_under_way_to_the_old(
    start_plane: StartPlane, redises: Redises
) -> None:
    """The old owner's refusal comes late: its process learns first that the slot has moved, and of whom to ask next."""
    plane, member = await start_plane(), Listener()
    plane.hub.join("room", member)
    await member.subscribed()
    table, slot = plane.log.table, slot_of("room")
    assert table is not None
    old, new = sorted(redises.shards, key=lambda server: server.url != table.owner(slot).url)
    async with Redis.from_url(old.url) as source, Redis.from_url(new.url) as target:
        copied = await move.copy(source, target, [slot])
        await move.hand_over(source, target, [slot], table.version + 1, copied)
    assert old.process is not None
    os.kill(old.process.pid, signal.SIGSTOP)
    first = plane.log.publish("room", "s", "0", body(0))
    await asyncio.sleep(0.05)
    (name,) = (shard.name for shard in table.shards if shard.url == new.url)
    plane.log.use(table.moved([slot], name))
    second = plane.log.publish("room", "s", "1", body(1))
    await asyncio.sleep(0.2)  # for as long as it takes to get there, if it does not wait
    os.kill(old.process.pid, signal.SIGCONT)
    places = await asyncio.wait_for(asyncio.gather(first, second), 60)
    assert [place.offset for place in places] == [1, 2]
    await member.until(lambda member: len(member.heard) == 2)


async def test_a_publish_that_no_shard_takes_is_refused_in_the_end(start_plane: StartPlane, redises: Redises) -> None:
    plane = await start_plane(publish_seconds=0.5)
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    owner.kill()
    with pytest.raises(ShardUnavailable):
        await asyncio.wait_for(publish(plane, "room", range(1)), 60)


@pytest.mark.parametrize("where", ["nobody listens", "no fleet's"])
async def test_who_looks_in_the_wrong_place_for_the_fleet_is_told_where(
    start_plane: StartPlane, start_redis: Callable[..., RedisServer], where: str
) -> None:
    url = "redis://127.0.0.1:1/0" if where == "nobody listens" else start_redis().url
    plane = await start_plane(until_ready=False, message_redis_url=url, publish_seconds=0.5)
    with pytest.raises(ShardUnavailable, match=f"no slot table is known: .*{url.split('/')[2].rpartition('@')[2]}"):
        await asyncio.wait_for(publish(plane, "room", range(1)), 60)


async def test_a_connection_cut_in_silence_is_noticed_and_made_good(start_plane: StartPlane, redises: Redises) -> None:
    """Redis drops the subscriber's connection; what was published meanwhile is read from the log."""
    plane, other, member = await start_plane(), await start_plane(), Listener()
    plane.hub.join("room", member)
    await member.subscribed()
    owner = redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))]
    async with Redis.from_url(owner.url) as redis:
        for start in range(0, 300, 50):
            publishing = asyncio.create_task(publish(other, "room", range(start, start + 50)))
            await redis.client_kill_filter(_type="pubsub")
            await asyncio.wait_for(publishing, 60)
    await member.until(lambda m: len(m.heard) == 300)
    assert not member.gaps


async def test_messages_older_than_the_history_go(start_plane: StartPlane, redises: Redises) -> None:
    plane = await start_plane(history_seconds=2)
    await publish(plane, "room", range(50))
    await asyncio.sleep(2.1)
    epoch = (await publish(plane, "room", range(50, 52)))[0].epoch
    member = Listener()
    plane.hub.join("room", member, Place(epoch, 10))
    await member.until(lambda m: bool(m.gaps))
    late = Listener()
    plane.hub.join("room", late, Place(epoch, 50))
    await late.until(lambda m: len(m.heard) == 2)


async def test_presence_counts_members_in_every_process(start_plane: StartPlane) -> None:
    planes = [await start_plane(), await start_plane()]
    for plane in planes:
        plane._living = None  # type: ignore[method-assign,assignment]
        plane.presence.living = lambda: asyncio.sleep(0, {p.worker for p in planes})
        for _ in range(3):
            plane.hub.join("room", Listener())
    async with asyncio.timeout(60):
        while (await planes[0].presence.of("room")).count != 6:
            await asyncio.sleep(0.05)


class FailingListener(Listener):
    """One whose code breaks at one message, and then goes on."""

    def on_message(self, message: Message) -> None:
        if message.entry.offset == 2:
            raise KeyError("an app's")
        super().on_message(message)


@pytest.mark.member_fails
async def test_a_member_that_fails_costs_nobody_else_a_message_and_hears_of_its_gap(
    start_plane: Callable[..., Awaitable[Plane]],
) -> None:
    plane = await start_plane()
    failing, other = FailingListener(), Listener()
    for member in (failing, other):
        plane.hub.join("room", member)
        await member.subscribed()
    for number in (1, 2, 3):
        await plane.log.publish("room", "s", str(number), body_of(str(number), b"%d" % number))
    await other.until(lambda self: len(self.heard) == 3)
    await failing.until(lambda self: len(self.heard) == 2)
    assert [place.offset for place in failing.gaps] == [2]
    assert not other.gaps


async def test_a_log_lives_as_long_as_its_history_though_its_group_is_idle(start_plane: StartPlane) -> None:
    plane = await start_plane(idle_seconds=1, history_seconds=20)
    first = (await publish(plane, "room", range(3)))[0]
    await asyncio.sleep(2)
    member = Listener()
    plane.hub.join("room", member, first)
    await member.until(lambda m: len(m.heard) == 2)
    assert not member.gaps
