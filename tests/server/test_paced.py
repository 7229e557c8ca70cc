"""A drain goes by what those say who take its sockets."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from shards.metrics import Metrics
from shards.router.control import Orders
from shards.server import paced
from shards.server.paced import EdgeDrain, PacedDrain
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


class Came:
    """A socket whose other end is somewhere."""

    def __init__(self, *peer: str | int) -> None:
        self.peer, self.close_sent, self.told = peer, False, False
        self.transport = self

    def get_extra_info(self, name: str) -> object:
        return self.peer if name == "peername" else None

    def on_drain(self, within_ms: int) -> None:
        self.told = self.close_sent = True

    def close(self, code: int, reason: str) -> None:
        self.told = self.close_sent = True


async def test_clients_of_another_hosts_edge_stay_though_it_has_the_same_port() -> None:
    went, other, by_ipv6 = Came("10.0.0.1", 40_000), Came("10.0.0.2", 40_000), Came("::ffff:10.0.0.1", 40_001, 0, 0)
    at_a_path = Came()
    at_a_path.peer = cast(Any, "")
    sockets = {went, other, by_ipv6, at_a_path}
    orders = msgspec.json.encode(Orders("active", 400, through=(("10.0.0.1", 40_000), ("10.0.0.1", 40_001))))
    drain = EdgeDrain(cast(Any, sockets), Metrics())
    drain.obey(msgspec.json.decode(orders, type=Orders))
    # By then all are gone that shall go, at whatever pace.
    await asyncio.sleep(1)
    await drain.stop()
    assert [one.told for one in (went, by_ipv6, other, at_a_path)] == [True, True, False, False]
