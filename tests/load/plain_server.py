"""A small server of the dialects of others, in memory, that makes the mistakes it is told to make."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Request, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Deliver = Callable[[int, int, str], list[str]]
"""(number of the socket, number of the message, from 0 both; text) → what to send instead."""


def faithful(socket: int, number: int, text: str) -> list[str]:
    """Deliver what there is to deliver."""
    return [text]


@dataclass
class PlainServer:
    """Sends what a member says to all members of its group.

    Attributes:
        deliver: what becomes of a message on its way to a socket.
        packets: speak Socket.IO instead.
        stuck: handshakes (from 0, in the order they come) that are not answered until it ends.
        sockets: in the order they came.
        texts: what was said in all groups.
    """

    deliver: Deliver = faithful
    packets: bool = False
    stuck: Collection[int] = ()
    handshakes: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    sockets: list[ServerConnection] = field(default_factory=list)
    groups: dict[str, list[ServerConnection]] = field(default_factory=lambda: defaultdict(list))
    texts: list[str] = field(default_factory=list)
    pongs: int = 0
    url: str = ""

    async def admit(self, connection: ServerConnection, request: Request) -> None:
        number, self.handshakes = self.handshakes, self.handshakes + 1
        if number in self.stuck:
            await self.ended.wait()

    async def handle(self, socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            group = await self.packet_handshake(socket) if self.packets else self.group_of(socket)
            self.sockets.append(socket)
            self.groups[group].append(socket)
            async for text in socket:
                await self.said(group, str(text))

    def group_of(self, socket: ServerConnection) -> str:
        assert socket.request is not None
        return socket.request.path.split("/")[2]

    async def packet_handshake(self, socket: ServerConnection) -> str:
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        assert (query["EIO"], query["transport"]) == (["4"], ["websocket"])
        await socket.send('0{"sid":"e","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}')
        assert await socket.recv() == "40"
        await socket.send('40{"sid":"s"}')
        await socket.send("2")
        assert await socket.recv() == "3"
        self.pongs += 1
        return query["group"][0]

    async def said(self, group: str, text: str) -> None:
        self.texts.append(text)
        for member in self.groups[group]:
            for out in self.deliver(self.sockets.index(member), len(self.texts) - 1, text):
                with suppress(ConnectionClosed):
                    await member.send(out)


@asynccontextmanager
async def running(**options: object) -> AsyncIterator[PlainServer]:
    """Run a server on a free port."""
    server = PlainServer(**options)  # type: ignore[arg-type]
    async with serve(
        server.handle, "127.0.0.1", 0, process_request=server.admit, compression=None, open_timeout=None
    ) as listening:
        server.url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ws/"
        try:
            yield server
        finally:
            server.ended.set()
