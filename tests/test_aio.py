"""What asyncio lacks."""

from __future__ import annotations

import asyncio
import logging

import pytest

from shards.aio import end, keep_on


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
