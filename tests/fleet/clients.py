"""Clients that publish and listen, go elsewhere when told to, come back with their place, and keep a ledger."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

PUBLISH_EVERY_S = 0.3


@dataclass
class Ledger:
    """What happened to all clients.

    Attributes:
        acked: group → ids whose publish was acknowledged.
        connects: handshakes that succeeded.
        failures: handshakes that did not.
        faults: offsets that were doubled or skipped, gaps, and error frames.
    """

    acked: dict[str, set[str]] = field(default_factory=dict)
    connects: int = 0
    failures: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Client:
    """One socket after another, in one session, in one group."""

    def __init__(self, url: str, name: str, group: str, ledger: Ledger) -> None:
        self.url, self.name, self.group, self.ledger = url, name, group, ledger
        self.seen: set[str] = set()
        self.place: dict[str, Any] | None = None
        self.session = ""
        self.pending: dict[str, dict[str, Any]] = {}
        self.count = 0
        self.publishing = True
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        while True:
            query = f"?session={self.session}" if self.session else ""
            try:
                async with connect(f"{self.url}/ws/{query}", compression=None) as socket:
                    self.ledger.connects += 1
                    await self._talk(socket)
            except ConnectionClosed:
                pass
            except (WebSocketException, OSError, TimeoutError) as error:
                self.ledger.failures.append(repr(error))
                await asyncio.sleep(0.1)

    async def _talk(self, socket: ClientConnection) -> None:
        since = {"since": self.place} if self.place else {}
        await socket.send(json.dumps({"type": "subscribe", "group": self.group, **since}))
        tasks = [asyncio.create_task(self._publish(socket))]
        try:
            async for text in socket:
                self._handle(json.loads(text), socket, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _publish(self, socket: ClientConnection) -> None:
        try:
            for frame in list(self.pending.values()):
                await socket.send(json.dumps(frame))
            while True:
                await asyncio.sleep(PUBLISH_EVERY_S * random.uniform(0.5, 1.5))
                if self.publishing:
                    await self._publish_one(socket)
        except ConnectionClosed:
            return

    async def _publish_one(self, socket: ClientConnection) -> None:
        self.count += 1
        ident = f"{self.name}-{self.count}"
        frame = {"type": "publish", "group": self.group, "id": ident, "data": self.count}
        self.pending[ident] = frame
        await socket.send(json.dumps(frame))

    def _handle(self, frame: dict[str, Any], socket: ClientConnection, tasks: list[asyncio.Task[None]]) -> None:
        match frame["type"]:
            case "welcome":
                self.session = frame["session"]
            case "subscribed":
                self.place = {"epoch": frame["epoch"], "offset": frame["offset"]}
                self.subscribed.set()
            case "message":
                self._message(frame)
            case "ack":
                self.pending.pop(frame["id"], None)
                self.ledger.acked.setdefault(self.group, set()).add(frame["id"])
            case "reconnect":
                tasks.append(asyncio.create_task(self._leave(socket, frame["within_ms"])))
            case "gap" | "error":
                self.ledger.faults.append(f"{self.name}: {frame}")

    def _message(self, frame: dict[str, Any]) -> None:
        assert self.place is not None
        if frame["offset"] != self.place["offset"] + 1:
            self.ledger.faults.append(f"{self.name}: {frame['offset']} after {self.place['offset']}")
        self.place["offset"] = frame["offset"]
        self.seen.add(frame["id"])

    async def _leave(self, socket: ClientConnection, within_ms: int) -> None:
        await asyncio.sleep(random.uniform(0, within_ms / 1000))
        await socket.close()


@asynccontextmanager
async def crowd(url: str, count: int, groups: int = 10) -> AsyncIterator[Ledger]:
    """Let clients talk; on leaving, check that every acknowledged message has reached its whole group."""
    ledger = Ledger()
    clients = [Client(url, f"c{i}", f"room:{i % groups}", ledger) for i in range(count)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        async with asyncio.timeout(30):
            for client in clients:
                await client.subscribed.wait()
        yield ledger
        await _quiet(clients, ledger)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _quiet(clients: list[Client], ledger: Ledger) -> None:
    for client in clients:
        client.publishing = False

    def settled() -> bool:
        delivered = all(ledger.acked.get(client.group, set()) <= client.seen for client in clients)
        return delivered and not any(client.pending for client in clients)

    async with asyncio.timeout(20):
        while not settled():
            await asyncio.sleep(0.05)
