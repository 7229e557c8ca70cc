"""Who is taken to live: a control Redis that heard of nobody says nothing about anybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from shards import plane as plane_module
from shards.metrics import Metrics
from shards.plane import Plane
from shards.server.worker import Worker
from tests.conftest import Redises
from tests.test_control import record

StartPlane = Callable[..., Awaitable[Plane]]


@pytest.fixture
async def plane(start_plane: StartPlane, monkeypatch: pytest.MonkeyPatch) -> Plane:
    """One that is in the registry, beside another, and reads it anew each time."""
    monkeypatch.setattr(plane_module, "_REGISTRY_SECONDS", 0)
    plane = await start_plane()
    await beat(plane, plane.worker, "blue-9/9")
    assert await living(plane) == {plane.worker, "blue-9/9"}
    return plane


async def beat(plane: Plane, *workers: str) -> None:
    for worker in workers:
        await plane.control.heartbeat(record(worker), b"[]")


async def living(plane: Plane) -> set[str]:
    return {worker.name for worker in await plane.workers()}


async def grow_old(redises: Redises, *workers: str) -> None:
    """Have these been silent for longer than the living are."""
    async with Redis.from_url(redises.control.url) as redis:
        await redis.zadd("shards:seen", dict.fromkeys(workers, 1))


async def test_who_is_silent_alone_is_dead(plane: Plane, redises: Redises) -> None:
    await grow_old(redises, "blue-9/9")
    assert await living(plane) == {plane.worker}


async def test_where_nobody_was_heard_nobody_is_dead(plane: Plane, redises: Redises) -> None:
    """It was away, or takes no writes: else every socket would be told that all others have left."""
    await grow_old(redises, plane.worker, "blue-9/9")
    assert await living(plane) == {plane.worker, "blue-9/9"}
    await beat(plane, plane.worker)
    assert await living(plane) == {plane.worker, "blue-9/9"}, "the other's next word may be on its way"


async def test_who_does_not_come_back_with_it_is_dead_in_the_end(
    plane: Plane, redises: Redises, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow_old(redises, plane.worker, "blue-9/9")
    await living(plane)
    await beat(plane, plane.worker)
    monkeypatch.setattr(plane_module, "_DOUBT_SECONDS", 0)
    assert await living(plane) == {plane.worker}


async def test_while_it_is_down_the_last_that_were_known_live(plane: Plane, redises: Redises) -> None:
    redises.control.kill()
    assert await living(plane) == {plane.worker, "blue-9/9"}
    redises.control.start()
    await grow_old(redises, "blue-9/9")
    await beat(plane, plane.worker)
    assert await living(plane) == {plane.worker, "blue-9/9"}


async def test_a_worker_that_is_started_anew_is_another_though_its_pid_is_the_same(redises: Redises) -> None:
    """As in a container: what was said of the last one's clients must not count as the new one's."""
    before, now = (Worker(redises.settings(), Metrics()) for _ in range(2))
    assert before.plane.worker != now.plane.worker
