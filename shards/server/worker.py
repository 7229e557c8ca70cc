"""One process of a replica: its sockets, its place in the registry, and the orders it obeys."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from itertools import islice

from redis.exceptions import RedisError

from shards.aio import end
from shards.metrics import Metrics
from shards.plane import Plane
from shards.router.control import Orders, WorkerRecord, WorkerState
from shards.server.exposition import encode
from shards.server.pacing import Drain
from shards.server.protocol import SocketProtocol
from shards.settings import Settings
from shards.tokens import KeyFile

logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 1.0
_HURRY_SECONDS = 0.1
_STEP_SECONDS = 0.1
_HINTS_A_STEP = 500


class Worker:
    """A worker that runs.

    Args:
        settings: what its environment says.
        metrics: where it counts.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.label = str(os.getpid())
        self.plane = Plane(settings, f"{settings.replica}/{self.label}", self._observe_delivery, metrics.gaps.inc)
        self.tokens = KeyFile(settings.token_key_file)
        self.state: WorkerState = "starting"
        self._sockets: set[SocketProtocol] = set()
        self._started = time.time()
        self._tasks: list[asyncio.Task[None]] = []
        self._drain: asyncio.Task[None] | None = None
        self._losses = 0
        self.control_up = False
        self._was_ready = False

    async def start(self) -> None:
        """Begin to serve; returns at once, see `ready`."""
        await self.plane.start()
        self.plane.serve()
        self._tasks = [asyncio.create_task(self._beat(), name="heartbeat")]

    async def stop(self) -> None:
        """Leave the registry and disconnect."""
        await end([*self._tasks, self._drain])
        try:
            await self.plane.control.forget(self.plane.worker)
        except (RedisError, OSError) as error:
            logger.warning("could not leave the registry: %s", error)
        await self.plane.stop()

    def why_not_ready(self) -> str | None:
        """Say what is missing to take the first socket; None: nothing, or it once was all there.

        A worker that has served goes on without the control Redis or a shard: its sockets and those of other groups
        work, and if every worker said no at once, the edges would send all new clients away.
        """
        if not self._was_ready and (missing := self.missing()):
            return missing
        self._was_ready = True
        return None

    def missing(self) -> str | None:
        """Say what is missing now; None: nothing."""
        if self.plane.log.table is None:
            return "the slot table is not known yet"
        if down := self.plane.log.down():
            return f"no connection to {', '.join(down)}"
        if not self.control_up:
            return "the control Redis does not answer"
        return None

    # Sockets

    @property
    def connections(self) -> int:
        """WebSockets open."""
        return len(self._sockets)

    @property
    def full(self) -> bool:
        """Whether this worker takes no more sockets."""
        return 0 < self.settings.max_connections <= len(self._sockets)

    def opened(self, socket: SocketProtocol) -> None:
        """Hear that a WebSocket was accepted."""
        self._sockets.add(socket)
        self.metrics.connections_total.inc()
        self.metrics.connections.set(len(self._sockets))

    def closed(self, socket: SocketProtocol) -> None:
        """Hear that a WebSocket, or a handshake, is gone."""
        self._sockets.discard(socket)
        self.metrics.connections.set(len(self._sockets))

    def _observe_delivery(self, members: int, at_ms: int | None) -> None:
        self.metrics.delivered.value += members
        if at_ms is not None:
            self.metrics.delivery_seconds.observe(max(0.0, time.time() - at_ms / 1000))

    # Heartbeat

    def record(self) -> WorkerRecord:
        """Give what the registry is told."""
        return WorkerRecord(
            name=self.plane.worker,
            color=self.settings.color,
            replica=self.settings.replica,
            worker=self.label,
            pid=os.getpid(),
            state=self.state,
            connections=self.connections,
            release=self.settings.release,
            ring_version=self.plane.log.table.version if self.plane.log.table else 0,
            started=self._started,
        )

    def samples(self) -> bytes:
        """Give this worker's metrics as `shards.server.exposition` encodes them."""
        self.metrics.ring_version.set(self.plane.log.table.version if self.plane.log.table else 0)
        losses = self.plane.log.losses()
        self.metrics.shard_losses.inc(losses - self._losses)
        self._losses = losses
        labels = {"color": self.settings.color, "replica": self.settings.replica, "worker": self.label}
        return encode(self.metrics.registry, labels)

    async def _beat(self) -> None:
        while True:
            told = self.state
            try:
                version, orders = await self.plane.control.heartbeat(self.record(), self.samples())
                self.control_up = True
                self._hear(version, orders)
            except (RedisError, OSError) as error:
                self.control_up = False
                logger.warning("control redis: %s", error)
            in_a_hurry = self.state == "starting" or self.state != told
            await asyncio.sleep(_HURRY_SECONDS if in_a_hurry else _HEARTBEAT_SECONDS)

    def _hear(self, version: int, orders: Orders | None) -> None:
        if self.plane.log.table is None or version > self.plane.log.table.version:
            self.plane.refresh()
        if orders is None or (self.state == "starting" and self.why_not_ready()):
            return
        if orders.state == "draining":
            if self._drain is None:
                self._drain = asyncio.create_task(self._drain_sockets(Drain(orders.drain_ms)), name="drain")
        else:
            self._stop_draining()
        self.state = orders.state

    # Draining

    def _stop_draining(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None

    async def _drain_sockets(self, drain: Drain) -> None:
        """Hint to all sockets, then close what is left, paced; go on until ordered otherwise."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        hints = self._hints(drain.within_ms)
        while True:
            for _ in islice(hints, _HINTS_A_STEP):
                pass
            elapsed_ms = (loop.time() - start) * 1000
            left = [socket for socket in self._sockets if not socket.close_sent]
            for socket in left[: drain.to_close(elapsed_ms, len(left), _STEP_SECONDS * 1000)]:
                socket.close(1012, "please reconnect")
                self.metrics.handoffs.labels("closed").inc()
            await asyncio.sleep(_STEP_SECONDS)

    def _hints(self, within_ms: int) -> Iterator[None]:
        for socket in list(self._sockets):
            if socket.on_drain is not None:
                socket.on_drain(within_ms)
                self.metrics.handoffs.labels("hinted").inc()
                yield
