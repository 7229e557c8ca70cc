"""The control plane on a real Redis: orders find those they are for, and the table is swapped, not overwritten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from shards.errors import StaleVersion
from shards.router.control import Control, Orders, WorkerRecord
from shards.router.table import Shard, SlotTable
from tests.redis_server import RedisServer

DRAIN = Orders("draining", 5000)


@pytest.fixture
async def control(start_redis: Callable[..., RedisServer]) -> AsyncIterator[Control]:
    async with Redis.from_url(start_redis().url) as redis:
        yield Control(redis)


def record(name: str, connections: int = 0) -> WorkerRecord:
    replica = name.split("/")[0]
    return WorkerRecord(name, replica.split("-")[0], replica, "0", 1, "active", connections, "r", 0, 0.0)


async def heard(control: Control, name: str) -> Orders | None:
    return (await control.heartbeat(record(name), b"[]"))[1]


async def test_a_color_is_ordered_about(control: Control) -> None:
    assert await heard(control, "blue-0/0") is None
    await control.order({"blue": DRAIN, "green": Orders("active")})
    assert await heard(control, "blue-0/0") == DRAIN
    assert await heard(control, "green-0/0") == Orders("active")
    assert await control.orders("blue") == DRAIN


async def test_a_replicas_own_orders_go_before_its_colors(control: Control) -> None:
    await control.order({"blue": Orders("active"), "blue-1": DRAIN})
    assert await heard(control, "blue-0/0") == Orders("active")
    assert await heard(control, "blue-1/0") == DRAIN
    assert await heard(control, "blue-1/1") == DRAIN
    assert await heard(control, "blue-10/0") == Orders("active")


async def test_orders_are_taken_back(control: Control) -> None:
    await control.order({"blue": Orders("active"), "blue-1": DRAIN})
    await control.order({"blue-1": None})
    assert await heard(control, "blue-1/0") == Orders("active")
    await control.order({"blue": None, "green": None})
    assert await heard(control, "blue-1/0") is None
    assert await control.orders("blue") is None
    await control.order({})


async def test_the_table_is_swapped_only_by_who_has_read_it(control: Control) -> None:
    first = SlotTable.first([Shard("shared-0", "redis://a")])
    assert await control.table() is None
    await control.swap_table(first, 0)
    moved = first.with_shards([Shard("shared-0", "redis://b")])
    await control.swap_table(moved, 1)
    with pytest.raises(StaleVersion) as caught:
        await control.swap_table(first, 0)
    assert (caught.value.expected, caught.value.found) == (0, 2)
    assert await control.table() == moved
    assert (await control.heartbeat(record("blue-0/0"), b"[]"))[0] == 2


async def test_the_registry_has_who_said_something_lately(control: Control) -> None:
    await control.heartbeat(record("blue-1/0", 3), b"[]")
    await control.heartbeat(record("blue-0/0", 4), b"[]")
    assert [(worker.name, worker.connections) for worker in await control.workers()] == [
        ("blue-0/0", 4),
        ("blue-1/0", 3),
    ]
    await control.forget("blue-0/0")
    assert [worker.name for worker in await control.workers()] == ["blue-1/0"]
