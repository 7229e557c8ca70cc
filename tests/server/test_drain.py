"""Who drains first tries to hand its sockets over, for as long as somebody may come who takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, cast

import pytest

from shards.metrics import METRICS
from shards.router.control import Orders
from shards.server import drain
from shards.server.drain import Drainer
from shards.server.handoff.giver import TRIES


class Socket:
    """One that is asked to reconnect, or told to close, hears of it."""

    close_sent = False

    def __init__(self, room: str) -> None:
        self.scope = {"path": f"/ws/{room}/"}
        self.asked = asyncio.Event()

    def on_drain(self, within_ms: int) -> None:
        self.asked.set()

    def close(self, code: int, reason: str = "") -> None:
        self.asked.set()


class Takers:
    """Those who take sockets: nobody at first, then who takes those that `takes` says yes to, and then nobody again."""

    def __init__(self, sockets: set[Socket], nobody: int, takes: Callable[[Socket], bool], then_nobody: bool) -> None:
        self.sockets = sockets
        self.nobody = nobody
        self.takes = takes
        self.then_nobody = then_nobody
        self.asked = 0
        self.rooms: list[str] = []

    async def hand_over(self, sockets: Collection[Any], to: Collection[str], settle_s: float) -> list[Any] | None:
        self.asked += 1
        self.rooms = [socket.scope["path"] for socket in sockets]
        if self.asked <= self.nobody or (self.then_nobody and self.asked > self.nobody + 1):
            return None
        left = [socket for socket in sockets if not self.takes(socket)]
        self.sockets -= set(sockets) - set(left)
        return left


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_NOBODY_SECONDS", 0.01)


async def drained(
    nobody: int, takes: Callable[[Socket], bool], seconds: float, then_nobody: bool = False
) -> tuple[Takers, set[Socket]]:
    sockets = {Socket(room) for room in ("c", "a", "b")}
    takers = Takers(sockets, nobody, takes, then_nobody)

    async def no_strain() -> None:
        return None

    drainer = Drainer(cast(Any, sockets), METRICS, takers.hand_over, no_strain)
    drainer.obey(Orders("draining", round(seconds * 1000), ("green-0",)))
    try:
        async with asyncio.timeout(30):
            while sockets and not all(socket.asked.is_set() for socket in sockets):
                await asyncio.sleep(0.01)
    finally:
        await drainer.stop()
    return takers, sockets


async def test_who_is_not_named_yet_is_waited_for_and_no_client_is_asked_to_reconnect() -> None:
    takers, left = await drained(nobody=20, takes=lambda _: True, seconds=60)
    assert (takers.asked, left) == (21, set())


async def test_where_nobody_comes_clients_are_asked_to_reconnect() -> None:
    _, left = await drained(nobody=1_000_000, takes=lambda _: True, seconds=1)
    assert len(left) == 3


async def test_who_took_some_and_is_gone_is_not_waited_for_without_end() -> None:
    some = iter([True])
    takers, left = await drained(nobody=0, takes=lambda _: next(some, False), seconds=6, then_nobody=True)
    assert (takers.asked > 1, len(left)) == (True, 2)


async def test_a_socket_that_nobody_takes_is_tried_some_times() -> None:
    takers, left = await drained(nobody=0, takes=lambda _: False, seconds=6)
    assert (takers.asked, len(left)) == (len(TRIES), 3)


async def test_who_is_in_one_room_moves_at_about_the_same_time_from_all_workers() -> None:
    takers, _ = await drained(nobody=0, takes=lambda _: True, seconds=60)
    assert takers.rooms == ["/ws/a/", "/ws/b/", "/ws/c/"]
