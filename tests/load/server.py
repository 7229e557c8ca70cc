"""A small server of the wire protocol, in memory, that makes the mistakes it is told to make."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import Request, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from shards.rate import TokenBucket

Deliver = Callable[[int, int, str], list[str]]
"""(number of the socket, offset, frame) → the frames to send instead."""


def faithful(socket: int, offset: int, frame: str) -> list[str]:
    """Deliver what there is to deliver."""
    return [frame]


@dataclass
class Server:
    """One group's log and its sockets, in the order they came.

    Attributes:
        deliver: what becomes of a message on its way to a socket.
        recover: whether those who come back get what they missed.
        shift: how far from their place those who come back go on, 0 where all is well.
        forget: whether a publish that is sent again is taken for a new one.
        silent: log a publish, but neither deliver nor ack it, this many times.
        mute: how many publishes to swallow, unlogged and unacked.
        refuse: answer upgrades with this HTTP status.
        metrics: what ``/metrics`` says; empty: there is no such page.
        stall: (offset, seconds) of one message to hold everything up at.
        pause: (every, seconds): hold everything up for so long, every so many seconds.
        limit: (a second, at once) that a socket may send; the others are refused.
        unavailable: id of a publish → how often it is refused.
        closed: how many subscriptions are refused.
        slow: seconds that those who come back wait for their subscription.
        at: offset → what else happens once the message there was sent to all.
        sessions: the session each socket brought with it, None for a new one.
    """

    deliver: Deliver = faithful
    recover: bool = True
    shift: int = 0
    forget: bool = False
    silent: int = 0
    mute: int = 0
    refuse: int | None = None
    metrics: str = ""
    stall: tuple[int, float] | None = None
    pause: tuple[float, float] | None = None
    paused: float = 0.0
    limit: tuple[float, float] | None = None
    unavailable: dict[str, int] = field(default_factory=dict)
    closed: int = 0
    slow: float = 0.0
    at: Mapping[int, Callable[[Server], Awaitable[None]]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    marks: dict[tuple[str, str], int] = field(default_factory=dict)
    sockets: list[ServerConnection] = field(default_factory=list)
    sessions: list[str | None] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    url: str = ""

    async def say(self, socket: ServerConnection, **frame: object) -> None:
        with suppress(ConnectionClosed):
            await socket.send(json.dumps(frame))

    async def handle(self, socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await self.serve(socket)

    async def serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        parts = urlsplit(socket.request.path)
        group, query = parts.path.split("/")[2], dict(parse_qsl(parts.query))
        self.sessions.append(query.get("session"))
        session = query.get("session") or f"s{len(self.sockets)}"
        await self.say(socket, type="welcome", session=session, replica="test")
        if self.closed:
            self.closed -= 1
            await self.say(socket, type="error", group=group, code="unavailable", message="subscribe again")
            await socket.wait_closed()
            return
        if self.slow and "session" in query:
            await asyncio.sleep(self.slow)
        recovered = self.recover and query.get("epoch") == "e"
        offset = int(query["offset"]) if recovered else len(self.log)
        await self.say(socket, type="subscribed", group=group, epoch="e", offset=offset, recovered=recovered)
        offset += self.shift if recovered else 0
        while offset < len(self.log):
            await socket.send(self.log[offset])
            offset += 1
        self.sockets.append(socket)
        bucket = TokenBucket(*self.limit) if self.limit else None
        async for text in socket:
            async with self.turn:
                if bucket is not None and not bucket.take(monotonic()):
                    ident = json.loads(text)["id"]
                    await self.say(socket, type="error", id=ident, code="rate_limited", message="too many")
                    continue
                await self.rest()
                await self.publish(socket, session, group, json.loads(text))

    async def rest(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.pause and now >= self.paused + self.pause[0]:
            await asyncio.sleep(self.pause[1] if self.paused else 0)
            self.paused = now

    async def publish(self, socket: ServerConnection, session: str, group: str, frame: dict[str, object]) -> None:
        if self.mute:
            self.mute -= 1
            return
        if self.unavailable.get(str(frame["id"])):
            self.unavailable[str(frame["id"])] -= 1
            await self.say(socket, type="error", id=frame["id"], code="unavailable", message="publish it again")
            return
        key = (session, str(frame["id"]))
        if key not in self.marks or self.forget:
            offset = self.marks[key] = len(self.log) + 1
            message = {"type": "message", "group": group, "offset": offset, "id": frame["id"], "data": frame["data"]}
            self.log.append(json.dumps(message))
            if self.silent:
                self.silent -= 1
                return
            if self.stall and self.stall[0] == offset:
                await asyncio.sleep(self.stall[1])
            await self.fan_out(offset)
            if offset in self.at:
                await self.at[offset](self)
        await self.say(socket, type="ack", id=frame["id"], group=group, offset=self.marks[key])

    async def fan_out(self, offset: int) -> None:
        for number, member in enumerate(list(self.sockets)):
            for text in self.deliver(number, offset, self.log[offset - 1]):
                with suppress(ConnectionClosed):
                    await member.send(text)

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.metrics and request.path == "/metrics":
            return connection.respond(200, self.metrics)
        return connection.respond(self.refuse, "no\n") if self.refuse else None


@asynccontextmanager
async def running(tls: ssl.SSLContext | None = None, **options: object) -> AsyncIterator[Server]:
    """Run a server on a free port."""
    server = Server(**options)  # type: ignore[arg-type]
    async with serve(
        server.handle, "127.0.0.1", 0, process_request=server.admit, compression=None, ssl=tls
    ) as listening:
        server.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ws/"
        yield server


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
