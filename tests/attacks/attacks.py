"""What somebody who means ill may do to a fleet, from several addresses. A process of its own, the last to be run.

Each attack works until its time is over, and counts what it is told: codes of closes, HTTP statuses. How much it does a
second is bounded (see each): attackers share this machine's cores with what they attack, which they don't outside.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import uvloop
from websockets.frames import Frame, Opcode

SOURCES = [f"127.0.0.{number}" for number in range(2, 10)]
_OPEN_S = 10.0
_NICE = 10
_COMPRESSED = 0x40
_ERROR = b'{"type":"error","code":"'
_TEXT, _BINARY, _CONT, _PING = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING


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

    Attributes:
        status: of the answer to its handshake; empty: none yet.
        head: that answer.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Counter[str]) -> None:
        self.reader, self.writer, self._count = reader, writer, count
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

    async def told(self) -> str:
        """Read until the end; give the code of the close."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == Opcode.CLOSE:
                    return f"closed {int.from_bytes(payload[:2], 'big')}"
                if payload.startswith(_ERROR):
                    self._count[payload[len(_ERROR) :].partition(b'"')[0].decode()] += 1
        except (OSError, asyncio.IncompleteReadError):
            return "cut"


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

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Raw]:
        """Connect from the next address; what goes wrong on the connection is counted, and ends it."""
        self._sources += 1
        source = (SOURCES[self._sources % len(SOURCES)], 0)
        try:
            async with asyncio.timeout(_OPEN_S):
                reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=source)
        except (OSError, TimeoutError) as error:
            self.count[f"no connection: {type(error).__name__}"] += 1
            await asyncio.sleep(0.1)
            raise Unreachable from error
        self.count["connections"] += 1
        try:
            yield Raw(reader, writer, self.count)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self.count["cut" if isinstance(error, asyncio.IncompleteReadError | OSError) else "?"] += 1
        finally:
            writer.transport.abort()

    async def hold(
        self, number: int, rate: float, one: Callable[[int], Awaitable[None]], holding: bool = False
    ) -> None:
        """Have so many done at once, so many begun a second, each once; those that last end in the end."""
        tasks = []
        for index in range(number):
            if self.left <= 0:
                break
            tasks.append(asyncio.ensure_future(self._shielded(one, index)))
            await asyncio.sleep(1 / rate)
        if tasks:
            _, lasting = await asyncio.wait(tasks, timeout=max(0.0, self.left))
            if holding:
                self.count["held to the end"] += len(lasting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _shielded(self, one: Callable[[int], Awaitable[None]], index: int) -> None:
        with contextlib.suppress(Unreachable):
            await one(index)

    async def repeat(self, rate: float, one: Callable[[int], Awaitable[None]]) -> None:
        """Have it done so many times a second until time is over."""
        await self.hold(int(rate * max(0.0, self.left)) + 1, rate, one)

    async def flood(
        self, sockets: int, rate: float, frames: Callable[[int], bytes], at_once: int = 50, first: bytes = b""
    ) -> None:
        """Send frames on some WebSockets, so many a second in all; who is closed comes again at once."""

        pause = sockets * at_once / rate

        async def once() -> None:
            async with self.connection() as raw:
                if not await raw.handshake("/ws/"):
                    self.count[raw.status] += 1
                    await asyncio.sleep(pause)
                    return
                told = asyncio.ensure_future(raw.told())
                await raw.say(first)
                with contextlib.suppress(OSError):
                    while self.left > 0 and not told.done():
                        await raw.say(b"".join(frames(self.count["sent"] + n) for n in range(at_once)))
                        self.count["sent"] += at_once
                        await asyncio.sleep(pause)
                self.count[await self.end_of(told)] += 1

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

    async def broken(self, *streams: bytes, rate: float = 50, headers: Iterable[str] = ()) -> None:
        """Open a WebSocket, say what is none of its words, and hear what is said to that; again and again."""

        async def one(index: int) -> None:
            async with self.connection() as raw:
                if not await raw.handshake("/ws/", *headers):
                    self.count[raw.status] += 1
                    return
                if b"permessage-deflate" in raw.head:
                    self.count["compression agreed on"] += 1
                raw.writer.write(streams[index % len(streams)])
                self.count[await raw.told()] += 1

        await self.repeat(rate, one)


ATTACKS: dict[str, Callable[[Attacker], Awaitable[None]]] = {}


def attack(one: Callable[[Attacker], Awaitable[None]]) -> Callable[[Attacker], Awaitable[None]]:
    """Have an attack known by its name; the first line of what it says of itself is what the table says."""
    ATTACKS[one.__name__.replace("_", "-")] = one
    return one


async def _until_cut(attacker: Attacker, raw: Raw) -> None:
    """Read until the connection ends, as it is to be held."""
    answer = await raw.reader.read(65536)
    while answer and await raw.reader.read(65536):
        pass
    attacker.count[f"answered {answer.split(b' ')[1].decode()}" if answer.startswith(b"HTTP/") else "closed"] += 1


@attack
async def slowloris(attacker: Attacker) -> None:
    """1,000 connections, each an HTTP request of which a byte comes a second."""

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            ending = asyncio.ensure_future(_until_cut(attacker, raw))
            try:
                for byte in upgrade("/", "Cookie: " + "x" * 1000):
                    await raw.say(bytes([byte]))
                    await asyncio.wait([ending], timeout=1.0)
                    if ending.done():
                        break
            finally:
                ending.cancel()

    await attacker.hold(1000, 500, one, holding=True)


@attack
async def half_open(attacker: Attacker) -> None:
    """2,000 TCP connections that say nothing."""

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            await _until_cut(attacker, raw)

    await attacker.hold(2000, 1000, one, holding=True)


@attack
async def stopped_handshakes(attacker: Attacker) -> None:
    """1,000 handshakes without the last line of their head."""

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            await raw.say(upgrade())
            await _until_cut(attacker, raw)

    await attacker.hold(1000, 500, one, holding=True)


@attack
async def deaf_handshakes(attacker: Attacker) -> None:
    """1,000 handshakes, 200 a second, whose answer nobody reads."""

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await raw.say(upgrade() + b"\r\n")
            await asyncio.sleep(attacker.left + 1)

    await attacker.hold(1000, 200, one, holding=True)


@attack
async def ping_flood(attacker: Attacker) -> None:
    """Pings on 20 sockets, 200,000 a second where they are taken, back at once when closed."""
    ping = masked(_PING, b"x" * 10)
    await attacker.flood(20, 200_000, lambda _: ping, at_once=2000)


@attack
async def fragment_flood(attacker: Attacker) -> None:
    """Messages on 20 sockets that never end, in empty fragments, 200,000 a second where they are taken."""
    begin, on = masked(_TEXT, b"", fin=False), masked(_CONT, b"", fin=False)
    await attacker.flood(20, 200_000, lambda _: on, at_once=2000, first=begin)


@attack
async def compression_bombs(attacker: Attacker) -> None:
    """Compression is offered, and a frame sent that says it is compressed: 10 KB that would be 10 MB, 50 a second."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packed.compress(bytes(10 << 20)) + packed.flush(zlib.Z_SYNC_FLUSH)
    offer = ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",)
    frame = bytearray(masked(_TEXT, bomb[:-4]))
    frame[0] |= _COMPRESSED
    await attacker.broken(bytes(frame), headers=offer)


@attack
async def giant_frames(attacker: Attacker) -> None:
    """A head that announces 2^62 bytes, and messages of 300 KB, in one frame and in fragments of 1 KB, 20 a second."""
    head = b"\x81\xff" + (1 << 62).to_bytes(8, "big") + b"mask"
    begin, on = masked(_TEXT, b"x" * 1024, fin=False), masked(_CONT, b"x" * 1024, fin=False)
    await attacker.broken(head, masked(_TEXT, b"x" * 300_000), begin + on * 299, rate=20)


@attack
async def unmasked_frames(attacker: Attacker) -> None:
    """Frames without a mask, 50 a second."""
    await attacker.broken(Frame(_TEXT, b'{"type":"ping"}').serialize(mask=False))


@attack
async def invalid_utf8(attacker: Attacker) -> None:
    """Texts that are no UTF-8, whole and in fragments, 50 a second."""
    await attacker.broken(masked(_TEXT, b"\xff\xfe"), masked(_TEXT, b"\xc3", fin=False) + masked(_CONT, b"\x28"))


@attack
async def reserved_opcodes(attacker: Attacker) -> None:
    """Frames with opcodes and bits that mean nothing, 50 a second."""
    await attacker.broken(b"\x83\x80aaaa", b"\x8b\x80aaaa", b"\x8f\x80aaaa", b"\xb1\x80aaaa", b"\x09\x80aaaa")


@attack
async def publish_flood(attacker: Attacker) -> None:
    """Publishes on 20 sockets, 5,000 a second, 2.5 times the rate limit, back at once when closed."""
    said = b'{"type":"publish","group":"attacked","id":"%d","data":"x"}'
    await attacker.flood(20, 5000, lambda number: masked(_TEXT, said % number))


@attack
async def json_garbage(attacker: Attacker) -> None:
    """Texts that are no JSON, or deep, or long, on 20 sockets, 2,000 a second, back at once when closed."""
    garbage = [b"[" * 500, b'{"type":' * 60, b"\x00", b'{"type":"publish","data":' + b"9" * 5000 + b"}", b"{}" * 100]
    frames = [masked(_TEXT, text) for text in garbage]
    await attacker.flood(20, 2000, lambda number: frames[number % len(frames)])


@attack
async def subscription_churn(attacker: Attacker) -> None:
    """20 sockets that subscribe to a new group and leave it, 1,900 commands a second."""
    join, leave = b'{"type":"subscribe","group":"churn-%d"}', b'{"type":"unsubscribe","group":"churn-%d"}'
    await attacker.flood(
        20, 950, lambda number: masked(_TEXT, join % number) + masked(_TEXT, leave % number), at_once=5
    )


@attack
async def never_reads(attacker: Attacker) -> None:
    """20 members of a group that get 3 MB a second each and read nothing."""
    subscribe = masked(_TEXT, b'{"type":"subscribe","group":"busy"}')

    async def deaf(index: int) -> None:
        while attacker.left > 0:
            async with attacker.connection() as raw:
                if await raw.handshake():
                    await raw.say(subscribe)
                    raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
                    # Whether it was closed can only be told by reading, so in the end it does. The buffers of the
                    # kernels on the way hold some 15 MB.
                    await asyncio.sleep(max(0.5, attacker.left - 2.0))
                    raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
                    told = asyncio.ensure_future(raw.told())
                    attacker.count[await attacker.end_of(told)] += 1

    async def speak(index: int) -> None:
        said = b'{"type":"publish","group":"busy","id":"%d-%d","data":"' + b"x" * 60_000 + b'"}'
        async with attacker.connection() as raw:
            await raw.handshake()
            told = asyncio.ensure_future(raw.told())
            while attacker.left > 0 and not told.done():
                await raw.say(masked(_TEXT, said % (index, time.monotonic_ns())))
                attacker.count["sent"] += 1
                await asyncio.sleep(0.1)
            told.cancel()

    await attacker.hold(25, 100, lambda index: deaf(index) if index < 20 else speak(index))


@attack
async def handshake_storm(attacker: Attacker) -> None:
    """200 a second connect, join a group, and are gone."""

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            await raw.handshake("/ws/storm/")
            attacker.count[raw.status] += 1

    await attacker.repeat(200, one)


@attack
async def http_garbage(attacker: Attacker) -> None:
    """100 a second: random bytes, headers of 9 KB to 2 MB, 200 headers, odd paths, two lengths."""
    kilo = "x" * 1000
    requests = [
        lambda: random.randbytes(2000) + b"\r\n\r\n",
        lambda: upgrade("/ws/", f"Cookie: {kilo * 9}") + b"\r\n",
        lambda: upgrade("/ws/", f"Cookie: {kilo * 2000}") + b"\r\n",
        lambda: upgrade("/ws/", *["X: y"] * 200) + b"\r\n",
        lambda: upgrade(f"/ws/?token={kilo * 9}") + b"\r\n",
        lambda: upgrade("/ws/?epoch=%ff%00&offset=1e9&session=%0d%0a") + b"\r\n",
        lambda: upgrade("/../../etc/passwd") + b"\r\n",
        lambda: b"POST / HTTP/1.1\r\nHost: f\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        lambda: b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5 + b" folded\r\n\r\n",
        lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            await raw.say(requests[index % len(requests)]())
            try:
                answer = await asyncio.wait_for(raw.reader.read(100), 5)
            except TimeoutError:
                attacker.count["no answer in 5 s"] += 1
                return
            attacker.count[f"answered {answer.split(b' ')[1].decode()}" if answer[:5] == b"HTTP/" else "closed"] += 1

    await attacker.repeat(100, one)


@attack
async def token_guessing(attacker: Attacker) -> None:
    """200 a second: tokens of every kind, for a socket and for the backend's API."""
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    own = base64.urlsafe_b64encode(b'{"groups":["*"],"exp":9999999999}').decode().rstrip("=")

    async def one(index: int) -> None:
        guess = random.choice(
            [f"{none}.{own}.", f"{none}.{own}.{random.randbytes(16).hex()}", random.randbytes(9).hex()]
        )
        async with attacker.connection() as raw:
            if index % 2:
                await raw.handshake(f"/ws/attacked/?token={guess}")
                attacker.count[f"socket {raw.status}"] += 1
            else:
                head = f"POST /api/groups/attacked/messages HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer {guess}\r\n"
                await raw.say(f'{head}Content-Length: 10\r\n\r\n{{"data":1}}'.encode())
                answer = await raw.reader.readuntil(b"\r\n")
                attacker.count[f"API {answer.split(b' ')[1].decode()}"] += 1

    await attacker.repeat(200, one)


async def _main(name: str, host: str, port: str, seconds: str) -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    # Those who attack don't take time from what they attack, outside of this machine.
    os.nice(_NICE)
    attacker = Attacker(host, int(port), float(seconds))
    await ATTACKS[name](attacker)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"told": attacker.count, "cpu_s": round(used.ru_utime + used.ru_stime, 2)}))


if __name__ == "__main__":
    random.seed(sys.argv[1])
    uvloop.run(_main(*sys.argv[1:]))
