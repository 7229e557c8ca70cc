"""What asyncio lacks."""

from __future__ import annotations

import asyncio
import logging
import threading
from time import monotonic_ns

import pytest

from shards.aio import end, in_thread, keep_on, sleep_until

MS = 1_000_000


async def test_what_must_not_end_begins_anew_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise ValueError("by mistake")
        await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR):
        task = keep_on(work, "the work")
        async with asyncio.timeout(60):
            while begun < 3:
                await asyncio.sleep(0.01)
    assert caplog.text.count("the work: it begins anew") == caplog.text.count("ValueError: by mistake") == 2
    await end([task])
    assert task.cancelled()


@pytest.mark.parametrize(("ahead_ms", "least_ms"), [(50, 50), (2, 2), (0, 0), (-50, 0)])
async def test_one_sleeps_until_it_is_time_and_no_less(ahead_ms: int, least_ms: int) -> None:
    begun_ns = monotonic_ns()
    async with asyncio.timeout(60):
        await sleep_until(begun_ns + ahead_ms * MS)
    assert monotonic_ns() - begun_ns > (least_ms - 1) * MS


async def test_who_is_late_does_not_go_round_the_loop() -> None:
    others: list[str] = []
    asyncio.get_running_loop().call_soon(others.append, "came first")
    await sleep_until(monotonic_ns() - MS)
    assert others == []
    await asyncio.sleep(0)
    assert others == ["came first"]


async def test_what_a_thread_gives_or_raises_is_given_and_raised() -> None:
    def fail(cancelled: threading.Event) -> None:
        raise ValueError("by mistake")

    cancelled, thread = await in_thread(lambda cancelled: (cancelled.is_set(), threading.get_ident()))
    assert not cancelled
    assert thread != threading.get_ident()
    with pytest.raises(ValueError, match="by mistake"):
        await in_thread(fail)


@pytest.mark.parametrize("fails", [False, True])
async def test_who_cancels_what_a_thread_does_waits_until_it_has_ended(fails: bool) -> None:
    begun, may_end, did = threading.Event(), threading.Event(), []

    def work(cancelled: threading.Event) -> None:
        begun.set()
        assert cancelled.wait(60)
        did.append("heard of it")
        assert may_end.wait(60)
        did.append("ended")
        if fails:
            raise ValueError("too late to matter")

    async with asyncio.timeout(60):
        task = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        while not did:
            await asyncio.sleep(0.01)
        assert not task.done(), "the thread goes on still"
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert did == ["heard of it", "ended"]
