"""A drain goes by what those say who take its sockets."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from shards.metrics import Metrics
from shards.server import paced
from shards.server.paced import PacedDrain
from shards.server.pacing import Strain

WINDOW_MS = 60_000.0


class Socket:
    """One that is told to go, and does."""

    def __init__(self, there: set[Socket]) -> None:
        self._there = there
        there.add(self)

    def on_drain(self, within_ms: int) -> None:
        self._there.discard(self)


@pytest.fixture(autouse=True)
def looks_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "_LOOK_STEPS", 1)


async def gone_after(steps: int, strain: Strain | None) -> int:
    """Tell how many of 10,000 sockets were sent away in so many steps, the others being under `strain`."""
    there: set[Socket] = set()
    everybody = [Socket(there) for _ in range(10_000)]
    through = asyncio.Event()
    looks = 0

    async def look() -> Strain | None:
        nonlocal looks
        looks += 1
        if looks == steps:
            through.set()
            await asyncio.Event().wait()
        return strain

    drain = PacedDrain(lambda: cast(Any, there), WINDOW_MS, look, Metrics())
    draining = asyncio.create_task(drain.run())
    async with asyncio.timeout(20):
        await through.wait()
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    return len(everybody) - len(there)


async def test_it_is_slower_while_those_who_take_the_sockets_are_strained() -> None:
    at_ease, unknown, strained = await asyncio.gather(
        gone_after(10, Strain(5.0, 30.0)), gone_after(10, None), gone_after(10, Strain(500.0, 30.0))
    )
    assert strained < unknown / 2
    assert at_ease > unknown
