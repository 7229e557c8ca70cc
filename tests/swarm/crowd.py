"""Clients that know the edges of several hosts, notice when one is gone, and note how long that kept them."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.fleet.clients import Client, Ledger

AGAIN_S = 0.5
"""After which who was refused since a shard is not there asks again."""

PING_S = 1.0
"""Silence after which a client asks; without an answer for as long again, it goes to another edge."""

SETTLE_S = 90.0


@dataclass(frozen=True)
class Return:
    """A client that was subscribed again.

    Attributes:
        at: when, by the monotonic clock.
        seconds: for how long it was not.
        waited: its group's shard was not there: the service said so, and it asked again.
    """

    at: float
    seconds: float
    waited: bool


@dataclass
class Log(Ledger):
    """What happened to all clients, and when.

    Attributes:
        returns: each client that had lost its socket and was subscribed again.
        acks: when a publish was acked, and how long after it was first sent.
        refused: publishes that the service gave up; they are sent again.
    """

    returns: list[Return] = field(default_factory=list)
    acks: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0


class Wanderer(Client):
    """One socket after another, each through the next edge where one fails."""

    def __init__(self, urls: Sequence[str], number: int, group: str, log: Log) -> None:
        super().__init__(urls[number % len(urls)], f"c{number}", group, log)
        self.log = log
        self._urls = itertools.cycle(urls[number % len(urls) :] + urls[: number % len(urls)])
        self._sent: dict[str, float] = {}
        self._lost_at = 0.0
        self._waited = False

    async def run(self) -> None:
        while True:
            url = next(self._urls)
            query = f"?session={self.session}" if self.session else ""
            try:
                async with connect(
                    f"{url}/ws/{query}",
                    compression=None,
                    open_timeout=2 * PING_S,
                    ping_interval=PING_S,
                    ping_timeout=PING_S,
                    close_timeout=PING_S,
                ) as socket:
                    self.ledger.connects += 1
                    await self._talk(socket)
            except (ConnectionClosed, WebSocketException, OSError, TimeoutError):
                pass
            self._lost_at = self._lost_at or time.monotonic()
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def _publish_one(self, socket: ClientConnection) -> None:
        self._sent[f"{self.name}-{self.count + 1}"] = time.monotonic()
        await super()._publish_one(socket)

    def _handle(self, frame: dict[str, Any], socket: ClientConnection, tasks: list[asyncio.Task[None]]) -> None:
        now = time.monotonic()
        if frame["type"] == "error" and frame.get("id") in self.pending:
            self.log.refused += 1
            tasks.append(asyncio.create_task(socket.send(json.dumps(self.pending[frame["id"]]))))
            return
        if frame["type"] == "error" and frame["code"] == "unavailable":
            self._waited = True
            tasks.append(asyncio.create_task(self._ask_again(socket)))
            return
        if frame["type"] == "subscribed" and self._lost_at:
            self.log.returns.append(Return(now, now - self._lost_at, self._waited))
            self._lost_at, self._waited = 0.0, False
        if frame["type"] == "ack" and frame["id"] in self._sent:
            self.log.acks.append((now, now - self._sent.pop(frame["id"])))
        super()._handle(frame, socket, tasks)

    async def _ask_again(self, socket: ClientConnection) -> None:
        await asyncio.sleep(AGAIN_S)
        await self._subscribe(socket)


@asynccontextmanager
async def crowd(urls: Sequence[str], count: int, groups: int) -> AsyncIterator[tuple[Log, list[Wanderer]]]:
    """Let clients talk; on leaving, wait until every acknowledged message has reached its whole group."""
    log = Log()
    clients = [Wanderer(list(urls), i, f"room:{i % groups}", log) for i in range(count)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        async with asyncio.timeout(60):
            for client in clients:
                await client.subscribed.wait()
        # Only now: what is acked before somebody has subscribed is not for them to hear.
        for client in clients:
            client.publishing = True
        yield log, clients
        for client in clients:
            client.publishing = False
        end = time.monotonic() + SETTLE_S
        while (missing(clients, log) or any(client.pending for client in clients)) and time.monotonic() < end:
            await asyncio.sleep(0.1)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def missing(clients: Sequence[Wanderer], log: Log) -> int:
    """Count the deliveries of acknowledged messages that have not come."""
    return sum(len(log.acked.get(client.group, set()) - client.seen) for client in clients)
