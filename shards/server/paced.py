"""Sends sockets elsewhere by asking their clients to reconnect, and closes those that stay; paced by `pacing`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Set

from shards.addresses import Peer, plain
from shards.aio import end
from shards.metrics import Metrics
from shards.router.control import Orders
from shards.server.pacing import GRACE_MS, Pace, Strain, hint_ms
from shards.server.protocol import SocketProtocol

_STEP_SECONDS = 0.1
_LAST_STEPS_SECONDS = 0.5
_LOOK_STEPS = 10
"""The strain on the others is reported each second."""


class PacedDrain:
    """One drain. Run it until it is cancelled: sockets may come late.

    Args:
        sockets: gives those that are still to go.
        drain_ms: within which all shall be gone, in milliseconds.
        strain: tells how those are who take them; None: nobody knows.
        metrics: where it counts: ``hinted``, ``closed``, and ``late``: closed since the time was over.
    """

    def __init__(
        self,
        sockets: Callable[[], Collection[SocketProtocol]],
        drain_ms: float,
        strain: Callable[[], Awaitable[Strain | None]],
        metrics: Metrics,
    ) -> None:
        self._sockets = sockets
        self._drain_ms = drain_ms
        self._strain = strain
        self._metrics = metrics
        self._told: set[SocketProtocol] = set()
        self._waiting: deque[tuple[float, SocketProtocol]] = deque()
        self._due = 0.0

    async def run(self) -> None:
        """Drain."""
        loop = asyncio.get_running_loop()
        start, pace, steps = loop.time(), Pace.begin(len(self._sockets()), self._drain_ms), 0
        while True:
            now_ms = (loop.time() - start) * 1000
            self._step(now_ms, pace)
            steps += 1
            if steps % _LOOK_STEPS == 0 and (strain := await self._strain()):
                pace = pace.after(strain)
            await asyncio.sleep(_STEP_SECONDS)

    def _step(self, now_ms: float, pace: Pace) -> None:
        """Do what is due at `now_ms` after the beginning."""
        left = set(self._sockets())
        if now_ms >= self._drain_ms:
            for socket in left:
                self._close(socket, "late")
            return
        self._due += pace.rate * _STEP_SECONDS
        for socket in [socket for socket in left if socket not in self._told][: int(self._due)]:
            self._due -= 1
            self._send_away(socket, now_ms)
        while self._waiting and self._waiting[0][0] <= now_ms:
            _, socket = self._waiting.popleft()
            if socket in left:
                self._close(socket, "closed")

    def _send_away(self, socket: SocketProtocol, now_ms: float) -> None:
        self._told.add(socket)
        within_ms = hint_ms(self._drain_ms - now_ms)
        if socket.on_drain is None or within_ms <= 0:
            self._close(socket, "closed")
            return
        socket.on_drain(int(within_ms))
        self._metrics.handoffs.labels("hinted").inc()
        self._waiting.append((now_ms + within_ms + GRACE_MS, socket))

    def _close(self, socket: SocketProtocol, result: str) -> None:
        socket.close(1012, "please reconnect")
        self._metrics.handoffs.labels(result).inc()


class EdgeDrain:
    """Asks the clients that came through an edge that stops to come back through another one.

    Args:
        sockets: the worker's, as they come and go.
        metrics: where it counts.
    """

    def __init__(self, sockets: Set[SocketProtocol], metrics: Metrics) -> None:
        self._sockets = sockets
        self._metrics = metrics
        self._through: frozenset[Peer] = frozenset()
        self._task: asyncio.Task[None] | None = None

    def obey(self, orders: Orders) -> None:
        """Begin where an edge is named that was not before; what has begun goes on to its end."""
        through = frozenset(orders.through)
        if through and through != self._through:
            came = [socket for socket in self._sockets if _came_from(socket) in through]
            drain = PacedDrain(lambda: self._left(came), orders.drain_ms, _nobody_knows, self._metrics)
            self._task = asyncio.create_task(_within(drain, orders.drain_ms / 1000), name="edge drain")
        self._through = through

    async def stop(self) -> None:
        """Stop it, and wait until that is done."""
        await end([self._task])

    def _left(self, came: list[SocketProtocol]) -> list[SocketProtocol]:
        return [socket for socket in came if not socket.close_sent and socket in self._sockets]


def _came_from(socket: SocketProtocol) -> Peer | None:
    peer = socket.transport.get_extra_info("peername")
    return (plain(peer[0]), peer[1]) if isinstance(peer, tuple) else None


async def _nobody_knows() -> None:
    """They come back to the same replicas, whose strain says nothing."""


async def _within(drain: PacedDrain, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds + _LAST_STEPS_SECONDS):
            await drain.run()
