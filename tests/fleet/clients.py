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
        faults: messages that came twice, offsets that were doubled or skipped, places that were not taken up again,
            gaps, and error frames.
        owed: what never came: messages that were acked, but not heard by a member of their group, and acks.
        cut: connections that ended without a close.
    """

    acked: dict[str, set[str]] = field(default_factory=dict)
    connects: int = 0
    cut: int = 0
    failures: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    owed: list[str] = field(default_factory=list)


class Client:
    """One socket after another, in one session, in one group."""

    def __init__(self, url: str, name: str, group: str, ledger: Ledger) -> None:
        self.url, self.name, self.group, self.ledger = url, name, group, ledger
        self.seen: set[str] = set()
        self.place: dict[str, Any] | None = None
        self.session = ""
        self.pending: dict[str, dict[str, Any]] = {}
        self.count = 0
        self.publishing = False
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        while True:
            query = f"?session={self.session}" if self.session else ""
            try:
                async with connect(f"{self.url}/ws/{query}", compression=None) as socket:
                    self.ledger.connects += 1
                    await self._talk(socket)
            except ConnectionClosed as closed:
                self.ledger.cut += closed.rcvd is None and closed.sent is None
            except (WebSocketException, OSError, TimeoutError) as error:
                self.ledger.failures.append(repr(error))
                await asyncio.sleep(0.1)

    async def _talk(self, socket: ClientConnection) -> None:
        await self._subscribe(socket)
        tasks = [asyncio.create_task(self._publish(socket))]
        try:
            async for text in socket:
                self._handle(json.loads(text), socket, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _subscribe(self, socket: ClientConnection) -> None:
        since = {"since": self.place} if self.place else {}
        await socket.send(json.dumps({"type": "subscribe", "group": self.group, **since}))

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
                self._subscribed({"epoch": frame["epoch"], "offset": frame["offset"]}, frame["recovered"])
            case "message":
                self._message(frame)
            case "ack":
                self.pending.pop(frame["id"], None)
                self.ledger.acked.setdefault(self.group, set()).add(frame["id"])
            case "reconnect":
                tasks.append(asyncio.create_task(self._leave(socket, frame["within_ms"])))
            case "gap" | "error":
                self.ledger.faults.append(f"{self.name}: {frame}")

    def _subscribed(self, place: dict[str, Any], recovered: bool) -> None:
        if self.place is not None and (not recovered or place != self.place):
            self.ledger.faults.append(f"{self.name}: back at {place} from {self.place}, recovered: {recovered}")
        self.place = place
        self.subscribed.set()

    def _message(self, frame: dict[str, Any]) -> None:
        assert self.place is not None
        if frame["id"] in self.seen:
            self.ledger.faults.append(f"{self.name}: {frame['id']} once more, at {frame['offset']}")
        if frame["offset"] != self.place["offset"] + 1:
            self.ledger.faults.append(f"{self.name}: {frame['offset']} after {self.place['offset']}")
        self.place["offset"] = frame["offset"]
        self.seen.add(frame["id"])

    async def _leave(self, socket: ClientConnection, within_ms: int) -> None:
        await asyncio.sleep(random.uniform(0, within_ms / 1000))
        await socket.close()


@asynccontextmanager
async def crowd(url: str, count: int, groups: int = 10, talkers: int | None = None) -> AsyncIterator[Ledger]:
    """Let clients talk; on leaving, check that every acknowledged message has reached its whole group.

    Args:
        url: of the fleet.
        count: how many clients there are.
        groups: how many groups they are in.
        talkers: how many of them publish; None: all.
    """
    async with uncounted(url, count, groups, talkers) as ledger:
        yield ledger
    assert not ledger.owed, "never heard, or never acked"


@asynccontextmanager
async def uncounted(url: str, count: int, groups: int, talkers: int | None) -> AsyncIterator[Ledger]:
    """Do the same, and leave it to the caller to look at what is owed."""
    ledger = Ledger()
    clients = [Client(url, f"c{i}", f"room:{i % groups}", ledger) for i in range(count)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        async with asyncio.timeout(60):
            for client in clients:
                await client.subscribed.wait()
        # Only now: what is acked before somebody has subscribed is not for them to hear.
        for client in clients[:talkers]:
            client.publishing = True
        yield ledger
        await _quiet(clients, ledger)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _quiet(clients: list[Client], ledger: Ledger) -> None:
    for client in clients:
        client.publishing = False

    def owed() -> list[str]:
        """Give what each client has not heard, and what of it was not acked."""
        missing = ((c, [*(ledger.acked.get(c.group, set()) - c.seen), *c.pending]) for c in clients)
        return [f"{client.name}: {ident}" for client, ids in missing for ident in ids]

    end = asyncio.get_running_loop().time() + 60
    while owed() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.05)
    ledger.owed = owed()
