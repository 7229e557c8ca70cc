"""What somebody who means ill may do to a fleet. A process of its own for each, and the last to be run.

Each attack works until its time is over, and counts what it is told: codes of closes, HTTP statuses. How much it does a
second is bounded (see each): attackers share this machine's cores with what they attack, which they don't outside.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
import random
import resource
import ssl
import sys
import time
import zlib
from collections.abc import Callable, Sequence

import uvloop
from websockets.frames import Frame, Opcode

from tests.attacks.attacker import ANSWER_S, ATTACKS, Attacker, Raw, attack, masked, upgrade

_NICE = 10
_COMPRESSED = 0x40

CUT_IN_TIME = ("closed", "answered 408", "cut")
"""What becomes of whoever holds a connection for longer than an edge waits."""

NO_ROOM = ("no connection: ConnectionResetError", "no connection: TimeoutError", "cut", "closed")
"""What becomes of connections for which an edge has no descriptor left."""


def each(told: str, *kinds: str) -> tuple[str, ...]:
    """Give what has to be told to each kind of stream."""
    return tuple(f"{kind}: {told}" for kind in kinds)


async def _until_cut(attacker: Attacker, raw: Raw) -> None:
    """Read until the connection ends, as it is to be held."""
    answer = await raw.reader.read(65536)
    while answer and await raw.reader.read(65536):
        pass
    attacker.count[f"answered {answer.split(b' ')[1].decode()}" if answer.startswith(b"HTTP/") else "closed"] += 1


@attack("held to the end", may=CUT_IN_TIME)
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


async def _silent(attacker: Attacker) -> None:
    async with attacker.connection() as raw:
        await _until_cut(attacker, raw)


@attack("held to the end", may=CUT_IN_TIME)
async def half_open(attacker: Attacker) -> None:
    """10,000 TCP connections that say nothing."""
    await attacker.hold(10_000, 2500, lambda _: _silent(attacker), holding=True)


@attack("closed", "held to the end", may=CUT_IN_TIME, least_s=90)
async def half_open_for_long(attacker: Attacker) -> None:
    """10,000 TCP connections that say nothing, for longer than an edge waits for them, back at once when cut."""

    async def again_and_again(_index: int) -> None:
        while attacker.left > 0:
            await _silent(attacker)

    await attacker.hold(10_000, 2500, again_and_again, holding=True)


@attack(
    "held to the end",
    may=NO_ROOM,
    processes=3,
    least_s=40,
    growth=512 << 20,
    # An edge that has no descriptor left turns round and round, and takes all the time there is.
    known=("p99", "the crowd itself", "connect"),
    worst_p99_ms=1000,
)
async def filled_edges(attacker: Attacker) -> None:
    """45,000 TCP connections that say nothing, more than two edges may open files."""
    await attacker.hold(15_000, 750, lambda _: _silent(attacker), holding=True)


@attack("held to the end", may=(*CUT_IN_TIME, "answered 405", "answered 401"))
async def slow_bodies(attacker: Attacker) -> None:
    """1,000 POSTs of 60 KB, to a page and to the backend's API, of whose body a byte comes a second."""
    paths = ("/", "/api/groups/attacked/messages")

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            ending = asyncio.ensure_future(_until_cut(attacker, raw))
            try:
                await raw.say(f"POST {paths[index % 2]} HTTP/1.1\r\nHost: f\r\nContent-Length: 60000\r\n\r\n".encode())
                while not ending.done():
                    await raw.say(b"x")
                    await asyncio.wait([ending], timeout=1.0)
            finally:
                ending.cancel()

    await attacker.hold(1000, 500, one, holding=True)


@attack("held to the end", may=CUT_IN_TIME)
async def stopped_handshakes(attacker: Attacker) -> None:
    """1,000 handshakes without the last line of their head."""

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            await raw.say(upgrade())
            await _until_cut(attacker, raw)

    await attacker.hold(1000, 500, one, holding=True)


@attack("held to the end")
async def deaf_handshakes(attacker: Attacker) -> None:
    """1,000 handshakes, 200 a second, whose answer nobody reads."""

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await raw.say(upgrade() + b"\r\n")
            await asyncio.sleep(attacker.left + 1)

    await attacker.hold(1000, 200, one, holding=True)


@attack("closed 1008", may=("not closed", "cut"))
async def ping_flood(attacker: Attacker) -> None:
    """Pings on 20 sockets, 200,000 a second where they are taken, back at once when closed."""
    ping = masked(Opcode.PING, b"x" * 10)
    await attacker.flood(20, 200_000, lambda _: ping, at_once=2000)


@attack("closed 1008", may=("not closed", "cut"))
async def fragment_flood(attacker: Attacker) -> None:
    """Messages on 20 sockets that never end, in empty fragments, 200,000 a second where they are taken."""
    begin, on = masked(Opcode.TEXT, b"", fin=False), masked(Opcode.CONT, b"", fin=False)
    await attacker.flood(20, 200_000, lambda _: on, at_once=2000, first=begin)


@attack("bomb: closed 1002")
async def compression_bombs(attacker: Attacker) -> None:
    """Compression is offered, and a frame sent that says it is compressed: 10 KB that would be 10 MB, 200 a second."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packed.compress(bytes(10 << 20)) + packed.flush(zlib.Z_SYNC_FLUSH)
    offer = ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",)
    frame = bytearray(masked(Opcode.TEXT, bomb[:-4]))
    frame[0] |= _COMPRESSED
    await attacker.broken(200, {"bomb": bytes(frame)}, headers=offer)


@attack(*each("closed 1009", "head", "whole", "fragments"), may=each("cut", "whole", "fragments"))
async def giant_frames(attacker: Attacker) -> None:
    """A head that announces 2^62 bytes, and messages of 300 KB, in one frame and in fragments of 1 KB, 60 a second."""
    head = b"\x81\xff" + (1 << 62).to_bytes(8, "big") + b"mask"
    begin, on = masked(Opcode.TEXT, b"x" * 1024, fin=False), masked(Opcode.CONT, b"x" * 1024, fin=False)
    whole = masked(Opcode.TEXT, b"x" * 300_000)
    await attacker.broken(60, {"head": head, "whole": whole, "fragments": begin + on * 299})


@attack("unmasked: closed 1002")
async def unmasked_frames(attacker: Attacker) -> None:
    """Frames without a mask, 200 a second."""
    await attacker.broken(200, {"unmasked": Frame(Opcode.TEXT, b'{"type":"ping"}').serialize(mask=False)})


@attack(*each("closed 1007", "whole", "fragments"))
async def invalid_utf8(attacker: Attacker) -> None:
    """Texts that are no UTF-8, whole and in fragments, 200 a second."""
    fragments = masked(Opcode.TEXT, b"\xc3", fin=False) + masked(Opcode.CONT, b"\x28")
    await attacker.broken(200, {"whole": masked(Opcode.TEXT, b"\xff\xfe"), "fragments": fragments})


_RESERVED = {
    "opcode 3": b"\x83\x80aaaa",
    "opcode 11": b"\x8b\x80aaaa",
    "opcode 15": b"\x8f\x80aaaa",
    "bits": b"\xb1\x80aaaa",
    "ping in fragments": b"\x09\x80aaaa",
}


@attack(*each("closed 1002", *_RESERVED))
async def reserved_opcodes(attacker: Attacker) -> None:
    """Frames with opcodes and bits that mean nothing, 200 a second."""
    await attacker.broken(200, _RESERVED)


@attack("rate_limited", may=("closed 1008", "not closed", "cut"))
async def publish_flood(attacker: Attacker) -> None:
    """Publishes on 20 sockets, 5,000 a second, 2.5 times the rate limit, back at once when closed."""
    said = b'{"type":"publish","group":"attacked","id":"%d","data":"x"}'
    await attacker.flood(20, 5000, lambda number: masked(Opcode.TEXT, said % number))


_GARBAGE = {
    "deep": b"[" * 500,
    "unclosed": b'{"type":' * 60,
    "zero": b"\x00",
    "long number": b'{"type":"publish","data":' + b"9" * 5000 + b"}",
    "many": b"{}" * 100,
}


@attack(
    *each("closed 1008", *_GARBAGE),
    may=[f"{kind}: {told}" for kind in _GARBAGE for told in ("bad_json", "bad_message", "not closed", "cut")],
)
async def json_garbage(attacker: Attacker) -> None:
    """Texts that are no JSON, or deep, or long, on 20 sockets, 2,000 a second, back at once when closed."""

    async def flood(kind: str, text: bytes) -> None:
        frame = masked(Opcode.TEXT, text)
        await attacker.flood(4, 400, lambda _: frame, label=f"{kind}: ")

    await asyncio.gather(*(flood(kind, text) for kind, text in _GARBAGE.items()))


@attack("too_many_groups", least_s=6, may=("closed 1008", "not closed", "cut", "rate_limited", "not_subscribed"))
async def subscription_churn(attacker: Attacker) -> None:
    """20 sockets that subscribe to a new group and leave it, 1,900 commands a second."""
    join, leave = b'{"type":"subscribe","group":"churn-%d"}', b'{"type":"unsubscribe","group":"churn-%d"}'
    await attacker.flood(
        20, 950, lambda number: masked(Opcode.TEXT, join % number) + masked(Opcode.TEXT, leave % number), at_once=5
    )


@attack("closed 1013", may=("not closed", "cut", "rate_limited"))
async def never_reads(attacker: Attacker) -> None:
    """20 members of a group that get 3 MB a second each and read nothing."""
    subscribe = masked(Opcode.TEXT, b'{"type":"subscribe","group":"busy"}')

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
                await raw.say(masked(Opcode.TEXT, said % (index, time.monotonic_ns())))
                attacker.count["sent"] += 1
                await asyncio.sleep(0.1)
            told.cancel()

    await attacker.hold(25, 100, lambda index: deaf(index) if index < 20 else speak(index))


@attack("101", processes=2)
async def handshake_storm(attacker: Attacker) -> None:
    """500 a second connect, join a group, and are gone: half of what a fleet on two cores takes in load tests."""

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            await raw.handshake("/ws/storm/")
            attacker.count[raw.status] += 1

    await attacker.repeat(250, one)


_KILO = "x" * 1000
_REQUESTS: dict[str, Callable[[], bytes]] = {
    "random bytes": lambda: random.randbytes(2000) + b"\r\n\r\n",
    "9 KB header": lambda: upgrade("/ws/", f"Cookie: {_KILO * 9}") + b"\r\n",
    "2 MB header": lambda: upgrade("/ws/", f"Cookie: {_KILO * 2000}") + b"\r\n",
    "200 headers": lambda: upgrade("/ws/", *["X: y"] * 200) + b"\r\n",
    "9 KB path": lambda: upgrade(f"/ws/?token={_KILO * 9}") + b"\r\n",
    "odd place": lambda: upgrade("/ws/?epoch=%ff%00&offset=1e9&session=%0d%0a") + b"\r\n",
    "dots": lambda: upgrade("/../../etc/passwd") + b"\r\n",
    "two lengths": lambda: (
        b"POST / HTTP/1.1\r\nHost: f\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /"
    ),
    "folded header": lambda: b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5 + b" folded\r\n\r\n",
    "HTTP/2": lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@attack(
    *each("answered 400", "random bytes", "folded header"),
    *each("answered 431", "9 KB header", "2 MB header", "200 headers"),
    *each("answered 403", "odd place", "dots"),
    *("9 KB path: answered 414", "two lengths: answered 405", "HTTP/2: closed"),
    may=("2 MB header: closed", "random bytes: closed", "cut"),
)
async def http_garbage(attacker: Attacker) -> None:
    """300 a second: random bytes, headers of 9 KB to 2 MB, 200 headers, odd paths, two lengths."""
    kinds = list(_REQUESTS)

    async def one(index: int) -> None:
        kind = kinds[index % len(kinds)]
        async with attacker.connection() as raw, asyncio.timeout(ANSWER_S):
            await raw.say(_REQUESTS[kind]())
            answer = await raw.reader.read(100)
            told = f"answered {answer.split(b' ')[1].decode()}" if answer[:5] == b"HTTP/" else "closed"
            attacker.count[f"{kind}: {told}"] += 1

    await attacker.repeat(300, one)


@attack("socket 403", "API 401")
async def token_guessing(attacker: Attacker) -> None:
    """400 a second: tokens of every kind, for a socket and for the backend's API."""
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

    await attacker.repeat(400, one)


@attack("ack", "rate_limited", least_s=6, may=("too_many_groups", "closed 1008", "not closed", "cut"))
async def big_publishes_to_new_groups(attacker: Attacker) -> None:
    """Publishes of 60 KB, each to a new group, on 20 sockets, 400 a second, back at once when closed."""
    run = random.randbytes(4).hex()
    said = b'{"type":"publish","group":"%b-%d","id":"1","data":"%b"}'

    def frame(number: int) -> bytes:
        return masked(Opcode.TEXT, said % (run.encode(), number, b"x" * 60_000))

    await attacker.flood(20, 400, frame, at_once=1, counted=("ack",))


async def _come_and_publish(
    attacker: Attacker, messages: Sequence[tuple[str, str]], heard: Callable[[Raw, bytes], None]
) -> None:
    """Connect, publish 60 KB for each of `messages`, a group and an id, hear what is said to that, and be gone."""
    async with attacker.connection() as raw:
        if not await raw.handshake("/ws/"):
            attacker.count[raw.status] += 1
            return
        for group, id in messages:
            said = f'{{"type":"publish","group":"{group}","id":"{id}","data":"{"x" * 60_000}"}}'
            await raw.say(masked(Opcode.TEXT, said.encode()))
        for _ in range(1 + len(messages)):  # the welcome, and an answer to each
            _, payload = await raw.frame()
            heard(raw, payload)


@attack("ack", may=("rate_limited", "closed 1008", "not closed", "cut", "too_many_groups"))
async def publishes_by_newcomers(attacker: Attacker) -> None:
    """40 clients a second that come, publish 500 KB to new groups, and are gone: no socket is ever over its limit."""
    run = random.randbytes(4).hex()

    async def one(index: int) -> None:
        def heard(_: Raw, payload: bytes) -> None:
            attacker.count["ack"] += payload.startswith(b'{"type":"ack"')

        await _come_and_publish(attacker, [(f"{run}-{index}-{number}", "1") for number in range(8)], heard)

    await attacker.repeat(40, one)


@attack("history", "presence", may=("rate_limited", "closed 1008", "closed 1013", "not closed", "cut"))
async def history_and_presence_flood(attacker: Attacker) -> None:
    """20 sockets that ask for all of a group's history, 3 MB, and for who is in it, 400 times a second in all."""
    group = b"past-" + random.randbytes(4).hex().encode()
    fill = b'{"type":"publish","group":"%b","id":"%d","data":"%b"}'
    first = b"".join(masked(Opcode.TEXT, fill % (group, number, b"x" * 60_000)) for number in range(50))
    asked = [b'{"type":"history","group":"%b","limit":1000}', b'{"type":"presence","group":"%b"}']
    frames = [masked(Opcode.TEXT, one % group) for one in asked]
    async with attacker.connection() as raw:
        await raw.handshake("/ws/")
        await raw.say(first)
        async with asyncio.timeout(ANSWER_S):
            for _ in range(51):
                await raw.frame()
    answers = ("history", "presence")
    await attacker.flood(20, 400, lambda number: frames[number % 2], at_once=1, counted=answers)


async def _get(attacker: Attacker, path: str) -> str:
    """Ask for a page over a connection of its own; gives the status of the answer."""
    async with attacker.connection() as raw:
        await raw.say(f"GET {path} HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n".encode())
        answer = await raw.reader.read()
        return answer.split(b" ")[1].decode()


_PAGES = ("/metrics", "/metrics?scope=replica", "/fleet/", "/api/route?group=attacked")


@attack(*each("200", *_PAGES))
async def page_flood(attacker: Attacker) -> None:
    """500 requests a second for what is work to make: /metrics, the dashboard's page, where a group lies."""

    async def one(index: int) -> None:
        path = _PAGES[index % len(_PAGES)]
        attacker.count[f"{path}: {await _get(attacker, path)}"] += 1

    await attacker.repeat(500, one)


@attack("200", processes=2)
async def app_page_flood(attacker: Attacker) -> None:
    """1,000 plain requests a second for the app's own page, which nothing limits."""

    async def one(_index: int) -> None:
        attacker.count[await _get(attacker, "/")] += 1

    await attacker.repeat(500, one)


@attack("101", "503", "held to the end", may=("cut",))
async def dashboard_flood(attacker: Attacker) -> None:
    """500 pages that watch the fleet, or try to again and again."""

    async def one(_index: int) -> None:
        while attacker.left > 0:
            async with attacker.connection() as raw:
                watching = await raw.handshake("/fleet/live")
                attacker.count[raw.status] += 1
                if watching:
                    await raw.told()
                else:
                    await asyncio.sleep(1.0)

    await attacker.hold(500, 250, one, holding=True)


@attack("held to the end", may=CUT_IN_TIME, stage="tls")
async def tls_stalled_handshakes(attacker: Attacker) -> None:
    """2,000 TLS handshakes that are not gone on with: half of a client's first words, or all of them and no more."""

    async def one(index: int) -> None:
        async with attacker.connection() as raw:
            words = client_hello()
            await raw.say(words if index % 2 else words[: len(words) // 2])
            while await raw.reader.read(65536):
                pass
            attacker.count["closed"] += 1

    await attacker.hold(2000, 500, one, holding=True)


@attack("shaken hands", stage="tls", processes=2)
async def tls_handshake_storm(attacker: Attacker) -> None:
    """200 a second shake hands by TLS, and are gone: each costs an edge a signature."""

    async def one(_index: int) -> None:
        secured = {"ssl": _trusting_anyone(), "local_addr": attacker.source(), "ssl_handshake_timeout": ANSWER_S}
        try:
            _, writer = await asyncio.open_connection(attacker.host, attacker.port, **secured)
        except (OSError, TimeoutError) as error:
            attacker.count[f"refused: {type(error).__name__}"] += 1
            return
        attacker.count["connections"] += 1
        attacker.count["shaken hands"] += 1
        writer.transport.abort()

    await attacker.repeat(100, one)


@attack(
    *("ack", "unavailable"),
    may=("held to the end", "closed 1008", "closed 1013", "cut"),
    stage="full",
    least_s=70,
    # What is published to the shard's groups waits, for as long as it is full.
    known=("unacked", "refused"),
    well_again_s=120,
)
async def full_shard(attacker: Attacker) -> None:
    """40 clients a second that come, and publish 500 KB to groups of a shard that may keep 64 MB for 75 s."""
    groups = await attacker.groups_of_a_shard(20)

    async def one(index: int) -> None:
        def heard(raw: Raw, payload: bytes) -> None:
            raw.note(payload, ("ack",))

        told = [(groups[(index + number) % len(groups)], f"{index}-{number}") for number in range(8)]
        await _come_and_publish(attacker, told, heard)

    await attacker.hold(int(40 * attacker.left), 40, one, holding=True)


@functools.cache
def _trusting_anyone() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def client_hello() -> bytes:
    """Give the first words of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        _trusting_anyone().wrap_bio(incoming, outgoing, server_hostname="fleet").do_handshake()
    return outgoing.read()


async def _main(name: str, host: str, port: str, seconds: str, _number: str = "0") -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    # Those who attack don't take time from what they attack, outside of this machine.
    os.nice(_NICE)
    attacker = Attacker(host, int(port), float(seconds))
    await ATTACKS[name].run(attacker)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"told": attacker.count, "cpu_s": round(used.ru_utime + used.ru_stime, 2)}))


if __name__ == "__main__":
    random.seed("".join(sys.argv[1:]))
    uvloop.run(_main(*sys.argv[1:]))
