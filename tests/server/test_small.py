"""The small queue and event do what asyncio's do."""

from __future__ import annotations

import asyncio
import time

import pytest

from shards.server.small import SmallEvent, SmallQueue


async def test_a_queue_gives_what_was_put_in_order() -> None:
    queue: SmallQueue[int] = SmallQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    for number in range(3):
        queue.put_nowait(number)
    assert [await waiting, await queue.get(), await queue.get()] == [0, 1, 2]
    assert queue.empty()


async def test_a_cancelled_get_takes_nothing() -> None:
    queue: SmallQueue[int] = SmallQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put_nowait(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    queue.put_nowait(2)
    assert [await queue.get(), await queue.get()] == [1, 2]


async def test_an_event_lets_all_go_on_even_if_one_was_cancelled() -> None:
    event = SmallEvent()
    await event.wait()
    event.clear()
    first, *others = [asyncio.create_task(event.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert not any(task.done() for task in others)
    event.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*others)


async def test_a_queue_that_gets_long_stays_quick_and_gets_small_again() -> None:
    queue: SmallQueue[int] = SmallQueue()
    began = time.perf_counter()
    for number in range(100_000):
        queue.put_nowait(number)
    assert queue.take_all(lambda number: number % 2 == 1) == list(range(1, 100_000, 2))
    assert [await queue.get() for _ in range(50_000)] == list(range(0, 100_000, 2))
    assert time.perf_counter() - began < 5, "it took minutes while each one copied all the others"
    assert queue.empty()
    assert queue._items == ()


async def test_an_event_tells_whether_it_is_set() -> None:
    event = SmallEvent()
    assert event.is_set()
    event.clear()
    assert not event.is_set()
    event.set()
    assert event.is_set()
