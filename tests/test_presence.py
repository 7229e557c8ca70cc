"""Who is reported to be in a group, where reports are lost, and what reporting leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from shards import presence
from shards.log import move
from shards.plane import Plane
from shards.ring import slot_of
from tests.conftest import Redises
from tests.test_hub import Listener, publish

StartPlane = Callable[..., Awaitable[Plane]]

SLOT = slot_of("room")
KEY = f"presence:{SLOT}:room"


def owner_of(plane: Plane, redises: Redises) -> Redis:
    return Redis.from_url(redises.shards[int((plane.log.owner("room") or "").removeprefix("shared-"))].url)


async def until_reported(redis: Redis, workers: set[str]) -> None:
    """Wait until just these workers are said to have members in the group."""
    async with asyncio.timeout(60):
        while {name.decode() for name in await redis.hkeys(KEY)} != workers:  # type: ignore[misc]
            await asyncio.sleep(0.05)


async def test_a_report_that_a_shard_refused_is_made_again(start_plane: StartPlane, redises: Redises) -> None:
    plane, member = await start_plane(), Listener()
    async with owner_of(plane, redises) as redis:
        plane.hub.join("room", member)
        await until_reported(redis, {plane.worker})
        # A primary that never answers: data stays, writes are refused.
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        plane.hub.leave("room", member)
        async with asyncio.timeout(60):
            while not plane.presence._failed:
                await asyncio.sleep(0.05)
        await redis.execute_command("REPLICAOF", "NO", "ONE")
        await until_reported(redis, set())


async def test_reports_do_not_shorten_a_logs_life(start_plane: StartPlane, redises: Redises) -> None:
    plane = await start_plane(idle_seconds=10, history_seconds=100)
    await publish(plane, "room", range(1))
    async with owner_of(plane, redises) as redis:
        plane.hub.join("room", Listener())
        await until_reported(redis, {plane.worker})
        assert await redis.pttl(f"meta:{SLOT}:room") > 100_000


async def test_a_group_with_members_is_not_forgotten_while_nobody_talks(
    start_plane: StartPlane, redises: Redises
) -> None:
    """Else each of them would be told of a gap at the next message."""
    plane = await start_plane()
    plane.hub.join("room", Listener())
    async with owner_of(plane, redises) as redis:
        await until_reported(redis, {plane.worker})
        await redis.pexpire(f"meta:{SLOT}:room", 60_000)
        plane.hub._changed |= plane.hub.take_changed(everything=True)  # as every five minutes
        async with asyncio.timeout(5):
            while await redis.pttl(f"meta:{SLOT}:room") <= 60_000:
                await asyncio.sleep(0.05)


async def test_a_group_is_not_forgotten_whose_members_nobody_sees(start_plane: StartPlane) -> None:
    """Those of a stock consumer have no public id."""
    plane = await start_plane(idle_seconds=2, history_seconds=0.5)
    member = Listener()
    member.public_id = None  # type: ignore[assignment]
    plane.hub.join("room", member)
    await member.subscribed()
    await publish(plane, "room", range(1))
    await asyncio.sleep(3.5)
    await publish(plane, "room", range(1, 2))
    await member.until(lambda m: len(m.heard) == 2)
    assert not member.gaps


async def test_who_stays_is_present_however_soon_the_idle_are_forgotten(
    start_plane: StartPlane, redises: Redises
) -> None:
    plane = await start_plane(idle_seconds=2, history_seconds=0.5)
    plane.hub.join("room", Listener())
    async with owner_of(plane, redises) as redis:
        await until_reported(redis, {plane.worker})
        for _ in range(8):
            await asyncio.sleep(0.5)
            assert await redis.hexists(KEY, plane.worker)  # type: ignore[misc]


async def test_a_shard_that_gave_a_slot_away_keeps_nothing_of_who_was_there(
    start_plane: StartPlane, redises: Redises
) -> None:
    plane = await start_plane()
    async with owner_of(plane, redises) as redis:
        plane.hub.join("room", Listener())
        await until_reported(redis, {plane.worker})
        await move.wipe(redis, [SLOT])
        assert await redis.keys(f"*:{SLOT}*") == []


async def test_what_a_worker_said_goes_once_it_has_been_dead_for_long(
    start_plane: StartPlane, redises: Redises, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at once: a control Redis that has lost its data takes everyone for dead, for a moment."""
    monkeypatch.setattr(presence, "_DEAD_SECONDS", 0.0)
    plane = await start_plane()
    async with owner_of(plane, redises) as redis:
        await redis.hset(KEY, "blue-0/1", b'{"count":1,"members":["ghost"]}')  # type: ignore[misc]
        assert (await plane.presence.of("room")).count == 0
        await until_reported(redis, {"blue-0/1"})
        await plane.presence.of("room")
        await until_reported(redis, set())


class Watcher:
    """Is told who comes and goes, and may fail at that."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.told: list[str | None] = []

    def on_attendance(self, about: str | None, frame: bytes) -> None:
        self.told.append(about)
        if self.fails:
            raise RuntimeError("by mistake")


@pytest.mark.member_fails
async def test_a_watcher_that_fails_costs_no_other_one_its_news(start_plane: StartPlane) -> None:
    plane, watchers = await start_plane(), [Watcher(fails) for fails in (True, False)]
    for watcher in watchers:
        plane.attendance.watch("room", watcher)
    async with asyncio.timeout(60):
        while plane.attendance._watches["room"].roll is None:
            await asyncio.sleep(0.01)
        plane.hub.join("room", Listener())
        while [watcher.told for watcher in watchers] != [["listener"], ["listener"]]:
            await asyncio.sleep(0.01)
