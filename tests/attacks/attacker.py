"""Whoever attacks: connections on which anything may be said, from several addresses, and what an attack is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from websockets.frames import Frame, Opcode

SOURCES = [f"127.0.0.{number}" for number in range(2, 10)]
_OPEN_S = 10.0
ANSWER_S = 5.0
"""How long an answer may take."""

NO_ANSWER = "no answer"
_TYPE, _ERROR = b'{"type":"', b'{"type":"error","code":"'


def masked(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    """Write a frame as clients do."""
    return Frame(opcode, data, fin).serialize(mask=True)


def upgrade(path: str = "/ws/", *headers: str) -> bytes:
    """Write the head of a WebSocket handshake, all but its last line."""
    key = base64.b64encode(random.randbytes(16)).decode()
    usual = ("Host: fleet", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    return "\r\n".join((f"GET {path} HTTP/1.1", *usual, f"Sec-WebSocket-Key: {key}", *headers, "")).encode()


class Unreachable(Exception):
    """There is no connection; that was counted."""


class Raw:
    """A connection on which anything may be said.

    Args:
        count: where errors are counted that it is told.
        label: what is put before each error's name.

    Attributes:
        status: of the answer to its handshake; empty: none yet.
        head: that answer.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Counter[str], label: str = ""
    ) -> None:
        self.reader, self.writer, self._count, self._label = reader, writer, count, label
        self.status = ""
        self.head = b""

    async def handshake(self, path: str = "/ws/", *headers: str) -> bool:
        """Make it a WebSocket; give whether it is one."""
        self.writer.write(upgrade(path, *headers) + b"\r\n")
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        self.status = self.head.split(b" ")[1].decode()
        return self.status == "101"

    async def say(self, data: bytes) -> None:
        """Write, as fast as the other side reads."""
        self.writer.write(data)
        await self.writer.drain()

    async def frame(self) -> tuple[int, bytes]:
        """Read a frame of the server: opcode and payload."""
        first, length = await self.reader.readexactly(2)
        if length >= 126:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        return first & 0x0F, await self.reader.readexactly(length)

    async def told(self, counted: Collection[str] = ()) -> str:
        """Read until the end; give the code of the close. Errors are counted, and frames of the types in `counted`."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == Opcode.CLOSE:
                    return f"closed {int.from_bytes(payload[:2], 'big')}"
                self.note(payload, counted)
        except (OSError, asyncio.IncompleteReadError):
            return "cut"

    def note(self, payload: bytes, counted: Collection[str] = ()) -> None:
        """Count an error, or a frame of the types in `counted`."""
        if payload.startswith(_ERROR):
            self._count[self._label + _word(payload, _ERROR)] += 1
        elif (kind := _word(payload, _TYPE)) in counted:
            self._count[self._label + kind] += 1


def _word(payload: bytes, before: bytes) -> str:
    """Give the text in quotes after what a frame begins with; empty: it begins with something else."""
    return payload[len(before) :].partition(b'"')[0].decode("latin-1") if payload.startswith(before) else ""


class Attacker:
    """Whoever attacks.

    Args:
        host: of the fleet.
        port: of the fleet.
        seconds: how long.
    """

    def __init__(self, host: str, port: int, seconds: float) -> None:
        self.host, self.port = host, port
        self.until = time.monotonic() + seconds
        self.count: Counter[str] = Counter()
        self._sources = 0

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()

    def source(self) -> tuple[str, int]:
        """Give the next address to come from."""
        self._sources += 1
        return SOURCES[self._sources % len(SOURCES)], 0

    @contextlib.asynccontextmanager
    async def connection(self, label: str = "") -> AsyncIterator[Raw]:
        """Connect from the next address; what goes wrong on the connection is counted, and ends it.

        Args:
            label: see `Raw`.
        """
        source = self.source()
        try:
            async with asyncio.timeout(_OPEN_S):
                reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=source)
        except (OSError, TimeoutError) as error:
            self.count[f"no connection: {type(error).__name__}"] += 1
            await asyncio.sleep(0.1)
            raise Unreachable from error
        self.count["connections"] += 1
        try:
            yield Raw(reader, writer, self.count, label)
        except TimeoutError:
            self.count[NO_ANSWER] += 1
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self.count["cut" if isinstance(error, asyncio.IncompleteReadError | OSError) else "?"] += 1
        finally:
            writer.transport.abort()

    async def hold(
        self, number: int, rate: float, one: Callable[[int], Awaitable[None]], holding: bool = False
    ) -> None:
        """Have so many done at once, so many begun a second, each once.

        Args:
            number: how many.
            rate: begun a second; who was late with one makes up for it, so that a storm is as strong as it says.
            one: does it.
            holding: they are to last until the time is over; else what has not ended by itself soon after that waits
                for an answer which does not come.
        """
        tasks, began = [], time.monotonic()
        for index in range(number):
            if self.left <= 0:
                break
            tasks.append(asyncio.ensure_future(self._counted(one, index)))
            await asyncio.sleep(max(0.0, began + (index + 1) / rate - time.monotonic()))
        if tasks:
            _, lasting = await asyncio.wait(tasks, timeout=max(0.0, self.left) + (0.0 if holding else ANSWER_S))
            if lasting:
                self.count["held to the end" if holding else NO_ANSWER] += len(lasting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _counted(self, one: Callable[[int], Awaitable[None]], index: int) -> None:
        """Do it; what nobody thought of is counted, so that it is not taken for nothing."""
        try:
            await one(index)
        except Unreachable:
            pass
        except Exception as error:
            self.count[f"? {type(error).__name__}"] += 1

    async def repeat(self, rate: float, one: Callable[[int], Awaitable[None]]) -> None:
        """Have it done so many times a second until time is over."""
        await self.hold(int(rate * max(0.0, self.left)) + 1, rate, one)

    async def flood(
        self,
        sockets: int,
        rate: float,
        frames: Callable[[int], bytes],
        at_once: int = 50,
        first: bytes = b"",
        counted: Collection[str] = (),
        label: str = "",
    ) -> None:
        """Send frames on some WebSockets, so many a second in all; who is closed comes again at once.

        Args:
            sockets: how many.
            rate: frames a second.
            frames: gives one, by its number.
            at_once: how many are written at once.
            first: what is said first on each socket.
            counted: types of frames that are counted, beside errors.
            label: what is put before whatever is counted.
        """

        pause = sockets * at_once / rate

        async def once() -> None:
            async with self.connection(label) as raw:
                if not await raw.handshake("/ws/"):
                    self.count[label + raw.status] += 1
                    await asyncio.sleep(pause)
                    return
                told = asyncio.ensure_future(raw.told(counted))
                await raw.say(first)
                with contextlib.suppress(OSError):
                    while self.left > 0 and not told.done():
                        await raw.say(b"".join(frames(self.count["sent"] + n) for n in range(at_once)))
                        self.count["sent"] += at_once
                        await asyncio.sleep(pause)
                self.count[label + await self.end_of(told)] += 1

        async def one(index: int) -> None:
            while self.left > 0:
                with contextlib.suppress(Unreachable):
                    await once()

        await self.hold(sockets, 100, one)

    async def end_of(self, told: asyncio.Future[str]) -> str:
        """Wait a moment for the code of a close."""
        try:
            return await asyncio.wait_for(told, 1.0)
        except TimeoutError:
            return "not closed"

    async def broken(self, rate: float, streams: Mapping[str, bytes], headers: Iterable[str] = ()) -> None:
        """Open a WebSocket, say what is none of its words, and hear what is said to that; again and again.

        Args:
            rate: how many a second.
            streams: what is said, in turn; each is counted for itself, so that one that is let pass is seen.
            headers: of each handshake.
        """
        kinds = list(streams)

        async def one(index: int) -> None:
            kind = kinds[index % len(kinds)]
            async with self.connection() as raw, asyncio.timeout(ANSWER_S):
                if not await raw.handshake("/ws/", *headers):
                    self.count[raw.status] += 1
                    return
                if b"permessage-deflate" in raw.head:
                    self.count["compression agreed on"] += 1
                raw.writer.write(streams[kind])
                self.count[f"{kind}: {await raw.told()}"] += 1

        await self.repeat(rate, one)

    async def groups_of_a_shard(self, number: int) -> list[str]:
        """Find so many groups that lie on the same shard, as anybody may."""
        found: dict[str, list[str]] = {}
        while max(map(len, found.values()), default=0) < number:
            group = random.randbytes(6).hex()
            async with self.connection() as raw, asyncio.timeout(ANSWER_S):
                await raw.say(f"GET /api/route?group={group} HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n".encode())
                answer = await raw.reader.read()
                found.setdefault(json.loads(answer.partition(b"\r\n\r\n")[2])["shard"], []).append(group)
        return max(found.values(), key=len)


Stage = Literal["plain", "tls", "full", "liar"]
"""What is attacked: a fleet; one whose edges show a certificate; one whose shards may keep little; one with a shard
that lies when told to."""

MOST_GROWTH = 256 << 20


@dataclass(frozen=True)
class Attack:
    """An attack, and what has to come of it.

    Attributes:
        run: does it.
        must: what the attacker must have been told, each at least once: an attack that fails to attack shows nothing.
        may: what he may have been told besides; whatever else he was told is a fault.
        stage: what it attacks.
        least_s: how long it takes at least, in seconds.
        processes: how many attack.
        growth: by how many bytes a part may grow.
        known: beginnings of what is known to go wrong, counts left out, and said in docs/security.md. It has not held
            then, but fails nothing.
        worst_p99_ms: up to which a p99 is what is known.
        well_again_s: how long it may take after the end until the ordinary clients notice nothing any more; 0: nobody
            waits for that.
    """

    run: Callable[[Attacker], Awaitable[None]]
    must: frozenset[str]
    may: frozenset[str] = frozenset()
    stage: Stage = "plain"
    least_s: float = 0.0
    processes: int = 1
    growth: int = MOST_GROWTH
    known: tuple[str, ...] = ()
    worst_p99_ms: float = 0.0
    well_again_s: float = 0.0

    @property
    def what(self) -> str:
        """Say what it does, for people."""
        return (self.run.__doc__ or "").strip().splitlines()[0].rstrip(".")


ATTACKS: dict[str, Attack] = {}


def attack(
    *must: str, may: Iterable[str] = (), **more: Any
) -> Callable[[Callable[[Attacker], Awaitable[None]]], Callable[[Attacker], Awaitable[None]]]:
    """Have an attack known by its name; the first line of what it says of itself is what the table says.

    Args:
        must: see `Attack`.
        may: see `Attack`.
        more: what else an `Attack` has.
    """

    def known(run: Callable[[Attacker], Awaitable[None]]) -> Callable[[Attacker], Awaitable[None]]:
        ATTACKS[run.__name__.replace("_", "-")] = Attack(run, frozenset(must), frozenset(may) - frozenset(must), **more)
        return run

    return known
