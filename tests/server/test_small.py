"""The small queue and event do what asyncio's do."""

from __future__ import annotations

import asyncio

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
