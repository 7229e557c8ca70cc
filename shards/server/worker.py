"""One process of a replica: its sockets, its place in the registry, and the orders it obeys."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path

from redis.exceptions import RedisError

from shards.aio import end, keep_on
from shards.errors import UsageError
from shards.metrics import Metrics
from shards.plane import Plane
from shards.router.control import Orders, WorkerRecord, WorkerState
from shards.server.drain import Drainer
from shards.server.exposition import encode
from shards.server.files import Files
from shards.server.handoff.giver import Giver, Try
from shards.server.handoff.taker import Arrivals
from shards.server.load import Load
from shards.server.paced import EdgeDrain
from shards.server.pacing import Strain, strain_on
from shards.server.protocol import SocketProtocol
from shards.server.servers import Servers
from shards.settings import Settings
from shards.subjects import Subjects
from shards.tokens import KeyFile

logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 1.0
_HURRY_SECONDS = 0.1
_LEAVE_SECONDS = 4.0
"""Within which sockets go elsewhere when this process is asked to stop."""

_LEAVE_TRIES = (Try(0.0, 0.0), Try(0.3, 0.3), Try(0.6, 1.0))
"""A socket may be busy, and the registry may not know yet who serves."""


class Worker:
    """A worker that runs.

    Args:
        settings: what its environment says.
        metrics: where it counts.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        # In a container each start has the same pid; what the last one said of its clients is not of this one's.
        self.label = f"{os.getpid()}-{secrets.token_hex(3)}"
        self.plane = Plane(settings, f"{settings.replica}/{self.label}", self._observe_delivery, metrics.gaps.inc)
        self.tokens = KeyFile(settings.token_key_file)
        self.subjects = Subjects(settings)
        self.servers = Servers(settings, self.plane)
        self.state: WorkerState = "starting"
        self._sockets: set[SocketProtocol] = set()
        self._entering: set[SocketProtocol] = set()
        self._started = time.time()
        self._tasks: list[asyncio.Task[None]] = []
        self._giver = Giver(self.plane.worker, metrics)
        self._load = Load()
        self._files = Files()
        self._edge_drain = EdgeDrain(self._sockets, metrics)
        self._drainer = Drainer(self._sockets, metrics, self.hand_over, self._strain)
        self._arrivals: Arrivals | None = None
        self._losses = 0
        self._keys_seen = self.good_keys()
        self.control_up = False
        self._was_ready = False

    async def start(self) -> None:
        """Begin to serve; returns at once, see `ready`."""
        await self.plane.start()
        self.plane.serve()
        self._tasks = [keep_on(self._beat, "heartbeat")]

    async def stop(self) -> None:
        """Leave the registry and disconnect."""
        if self._arrivals is not None:
            self._arrivals.stop()
        await end(self._tasks)
        await self._drainer.stop()
        await self._edge_drain.stop()
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
        """Whether this worker takes no more sockets; those that the app has not answered yet count as well."""
        return 0 < self.settings.max_connections <= len(self._sockets) + len(self._entering)

    def entering(self, socket: SocketProtocol) -> None:
        """Hear that the app is asked whether a WebSocket may come in."""
        self._entering.add(socket)

    def answered(self, socket: SocketProtocol) -> None:
        """Hear that it has been, whatever the answer."""
        self._entering.discard(socket)

    def opened(self, socket: SocketProtocol) -> None:
        """Hear that a WebSocket was accepted."""
        self._entering.discard(socket)
        self._sockets.add(socket)
        self.metrics.connections_total.inc()
        self._load.accepted(socket.loop.time() - socket.heard_at)
        self.metrics.connections.set(len(self._sockets))

    def took(self, socket: SocketProtocol) -> None:
        """Hear that a WebSocket has come from another worker."""
        self._entering.discard(socket)
        self._sockets.add(socket)
        self.metrics.connections.set(len(self._sockets))

    def closed(self, socket: SocketProtocol) -> None:
        """Hear that a WebSocket, or a handshake, is gone."""
        self._entering.discard(socket)
        self._sockets.discard(socket)
        self.metrics.connections.set(len(self._sockets))

    async def _strain(self) -> Strain:
        return strain_on(await self.plane.workers(), self.settings.replica)

    def _observe_delivery(self, members: int, at_ms: int | None) -> None:
        self.metrics.delivered.value += members
        if at_ms is not None:
            self.metrics.delivery_seconds.observe(max(0.0, time.time() - at_ms / 1000))

    # Handoff

    def welcome(self, make: Callable[[], SocketProtocol]) -> None:
        """Take sockets of other workers from now on.

        Args:
            make: makes a protocol of this worker's server.
        """
        directory = self.settings.handoff_dir
        if not directory or not hasattr(socket, "SO_PEERCRED"):
            return
        path = Path(directory) / f"{self.settings.replica}-{os.getpid()}"
        arrivals = Arrivals(path, make, lambda: self.full, self.metrics)
        try:
            arrivals.listen()
        except OSError as error:
            logger.warning("no sockets can be handed to this worker, it can't listen on %s: %s", path, error)
        else:
            self._arrivals = arrivals

    async def hand_over(
        self, sockets: Collection[SocketProtocol], to: Collection[str], settle_s: float
    ) -> list[SocketProtocol] | None:
        """Hand sockets to the workers of other replicas on this host.

        Args:
            sockets: which.
            to: names of the replicas.
            settle_s: seconds within which what a socket has under way must end.

        Returns:
            Those that could not go now, but may later; None: nobody was there who takes any.
        """
        takers = [
            r for r in await self.plane.workers() if r.replica in to and r.handoff and r.name != self.plane.worker
        ]
        return await self._giver.give(sockets, takers, settle_s)

    async def leave(self) -> None:
        """Hand over what can be, before this process stops: to its color, or to the one that serves now."""
        if self._arrivals is not None:
            self._arrivals.stop()
        await self._drainer.stop()
        if not self._sockets or not self.settings.handoff_dir:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                left = list(self._sockets)
                for pause_s, settle_s in _LEAVE_TRIES:
                    await asyncio.sleep(pause_s)
                    active = {r.replica for r in await self.plane.workers() if r.state == "active"}
                    # The other processes of this replica may be about to stop with this one.
                    others = active - {self.settings.replica} or active
                    again = await self.hand_over(left, others, settle_s)
                    left = left if again is None else again
                    if not left:
                        break

    # Tokens

    def good_keys(self) -> frozenset[str] | None:
        """Name the keys with which good tokens are signed, by `shards.tokens.id_of`; None: the file can't be read."""
        try:
            return self.tokens.ids()
        except UsageError:
            return None

    def _look_at_keys(self) -> None:
        """Tell the sockets where tokens are signed with other keys than before; what can't be read changes nothing."""
        found = self.good_keys()
        if found is None or found == self._keys_seen:
            return
        self._keys_seen = found
        for one in list(self._sockets):
            one.rider.keys_changed()

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
            handoff=str(self._arrivals.path) if self._arrivals else "",
            accept_ms=self._load.accept_ms,
            cpu_percent=self._load.cpu_percent,
        )

    def samples(self) -> bytes:
        """Give this worker's metrics as `shards.server.exposition` encodes them."""
        self.metrics.ring_version.set(self.plane.log.table.version if self.plane.log.table else 0)
        self.metrics.shard_losses.inc(self.plane.log.losses - self._losses)
        self._losses = self.plane.log.losses
        labels = {"color": self.settings.color, "replica": self.settings.replica, "worker": self.label}
        return encode(self.metrics.registry, labels)

    async def _beat(self) -> None:
        while True:
            told = self.state
            self._look_at_keys()
            self._files.look(time.monotonic())
            try:
                version, orders = await self.plane.control.heartbeat(self.record(), self.samples())
                self.control_up = True
                self._hear(version, orders)
            except (RedisError, OSError) as error:
                self.control_up = False
                logger.warning("control redis: %s", error)
            in_a_hurry = self.state == "starting" or self.state != told
            pause, began = _HURRY_SECONDS if in_a_hurry else _HEARTBEAT_SECONDS, time.monotonic()
            await asyncio.sleep(pause)
            self._load.measure(time.monotonic() - began - pause)

    def _hear(self, version: int, orders: Orders | None) -> None:
        if self.plane.log.table is None or version > self.plane.log.table.version:
            self.plane.refresh()
        if orders is None or (self.state == "starting" and self.why_not_ready()):
            return
        self._drainer.obey(orders)
        self._edge_drain.obey(orders)
        self.state = orders.state
