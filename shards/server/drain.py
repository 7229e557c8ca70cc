"""A worker that drains: its sockets are handed over; those that can't be are hinted first and then closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Set
from contextlib import suppress
from weakref import WeakSet

from shards.aio import end
from shards.metrics import Metrics
from shards.router.control import Orders
from shards.server.handoff.giver import TRIES
from shards.server.paced import PacedDrain
from shards.server.pacing import Strain
from shards.server.protocol import SocketProtocol

_STEP_SECONDS = 0.1
_NOBODY_SECONDS = 0.6
_NOBODY_SHARE = 1 / 6
"""Of a drain's time, how long it is waited for somebody who takes sockets: on a busy host a worker's heartbeat comes
late, and until it does the registry does not name it."""
_HANDED_SHARE = 0.7
"""Of a drain's time, what handing over may take before clients are asked to reconnect; the rest is for these."""

HandOver = Callable[[Collection[SocketProtocol], Collection[str], float], Awaitable[list[SocketProtocol] | None]]


class Drainer:
    """Drains a worker's sockets while it is ordered to.

    Args:
        sockets: the worker's, as they come and go.
        metrics: where it counts.
        hand_over: hands sockets to replicas of these names, those that settle within so many seconds; gives those that
            may go if it is tried again. None: nobody was there who takes any.
        strain: tells how the workers are that take the sockets.
    """

    def __init__(
        self,
        sockets: Set[SocketProtocol],
        metrics: Metrics,
        hand_over: HandOver,
        strain: Callable[[], Awaitable[Strain | None]],
    ) -> None:
        self._sockets = sockets
        self._metrics = metrics
        self._hand_over = hand_over
        self._strain = strain
        self._task: asyncio.Task[None] | None = None
        self._orders: Orders | None = None

    def obey(self, orders: Orders) -> None:
        """Begin to drain where that is ordered and not under way, or otherwise; stop where anything else is."""
        if orders.state != "draining":
            self._cancel()
        elif self._task is None or orders != self._orders:
            self._cancel()
            self._task = asyncio.create_task(self._leave(orders), name="drain")
        self._orders = orders

    async def stop(self) -> None:
        """Stop draining, and wait until that is done."""
        await end([self._task])

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _leave(self, orders: Orders) -> None:
        """Hand over what can be, and drain the rest, until cancelled."""
        loop, stay = asyncio.get_running_loop(), WeakSet[SocketProtocol]()
        start, tried = loop.time(), False
        if orders.to:
            with suppress(TimeoutError):
                async with asyncio.timeout(orders.drain_ms / 1000 * _HANDED_SHARE):
                    await self._give(orders, stay)
                    tried = True
        if not tried:
            stay.update(self._sockets)
        left_ms = orders.drain_ms - (loop.time() - start) * 1000
        drain = PacedDrain(lambda: self._left(stay), left_ms, self._strain, self._metrics)
        giving = asyncio.create_task(self._go_on_giving(orders, stay), name="handoff")
        try:
            await drain.run()
        finally:
            await end([giving])

    async def _give(self, orders: Orders, stay: WeakSet[SocketProtocol]) -> None:
        """Hand over all sockets but those in `stay`, where it puts those that can't be."""
        again: list[SocketProtocol] = []
        for pause_s, settle_s in TRIES:
            await asyncio.sleep(pause_s)
            left = [socket for socket in self._sockets if socket not in stay]
            if not left:
                return
            # Who is in one room moves at about the same time, from all workers that drain: so a room's messages go to
            # the workers of both colors for a moment only, and not until all sockets have moved.
            left.sort(key=lambda socket: str(socket.scope["path"]))
            again = await self._give_somebody(orders, left, settle_s)
            stay.update(set(left) - set(again))
        stay.update(again)

    async def _give_somebody(
        self, orders: Orders, sockets: list[SocketProtocol], settle_s: float
    ) -> list[SocketProtocol]:
        """Hand sockets over once somebody is there who takes any; gives those that may go if it is tried again."""
        loop = asyncio.get_running_loop()
        patience_until = loop.time() + orders.drain_ms / 1000 * _NOBODY_SHARE
        while (again := await self._hand_over(sockets, orders.to, settle_s)) is None:
            if loop.time() > patience_until:
                return []
            await asyncio.sleep(_NOBODY_SECONDS)
        return again

    async def _go_on_giving(self, orders: Orders, stay: WeakSet[SocketProtocol]) -> None:
        """Hand over those that come yet: their handshakes were on their way when the edges were told."""
        while True:
            await asyncio.sleep(_STEP_SECONDS)
            if not orders.to:
                stay.update(self._sockets)
            elif any(socket not in stay for socket in self._sockets):
                await self._give(orders, stay)

    def _left(self, stay: WeakSet[SocketProtocol]) -> list[SocketProtocol]:
        """Give those that are to be drained."""
        return [socket for socket in self._sockets if socket in stay and not socket.close_sent]
