"""Sockets that are handed from one replica to another, as their clients see it: not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode, Opcode

from shards.router.control import Control
from tests.replica import Replica
from tests.server.raw import RawSocket
from tests.server.test_protocol import masked, publish
from tests.server.test_wire import Client, enter, refused_with

ENVIRON = {"SHARDS_RATE_LIMIT": "5000", "SHARDS_SOCKETS_PER_SUBJECT": "3"}


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


def handed(replica: Replica, result: str) -> float:
    """Give a replica's count of sockets handed over."""
    return replica.metric_of("app_handoff_total", result=result)


@asynccontextmanager
async def moving(old: Replica, new: Replica, sockets: int) -> AsyncIterator[None]:
    """Have all sockets of a replica move to another one meanwhile; it is active again afterwards."""
    before, begun = handed(new, "taken"), time.time()
    old.order("draining", 60_000, (new.name,), alone=True)
    try:
        yield
        await until(lambda: handed(new, "taken") - before == sockets)
        assert begun <= new.metric_of("app_handoff_last_timestamp_seconds") <= time.time()
    finally:
        await activate(old)


async def activate(replica: Replica) -> None:
    """Have a replica that drained serve again."""
    replica.order("active", alone=True)
    await until(lambda: '"state":"active"' in replica.get("/livez")[1])
    # Others know of it from the registry, which hears each second.
    async with asyncio.timeout(60), Redis.from_url(replica.control.url) as redis:
        while replica.name not in {one.replica for one in await Control(redis).workers() if one.state == "active"}:
            await asyncio.sleep(0.05)


async def test_new_orders_count_while_a_replica_drains(service: list[Replica]) -> None:
    old, new = service
    client, before = await enter(old.ws), handed(new, "taken")
    old.order("draining", 600_000, ("nobody-0",), alone=True)
    try:
        await until(lambda: '"state":"draining"' in old.get("/livez")[1])
        old.order("draining", 60_000, (new.name,), alone=True)
        await until(lambda: handed(new, "taken") == before + 1)
    finally:
        await activate(old)
    await client.close()


async def test_who_is_idle_notices_nothing_and_goes_on(service: list[Replica]) -> None:
    old, new = service
    alice = await enter(old.ws + "idle/")
    subscribed = await alice.hear()
    async with moving(old, new, 1):
        pass
    assert new.metric("app_active_connections") == 1
    bob = await enter(old.ws)
    await bob.say(type="publish", group="idle", id="1", data="to alice")
    assert (await alice.hear())["offset"] == subscribed["offset"] + 1
    await alice.say(type="publish", id="1", data="from alice")
    assert {(await alice.hear())["type"] for _ in range(2)} == {"ack", "message"}
    for client in (alice, bob):
        await client.close()
    await until(lambda: new.metric("app_active_connections") == 0)


async def test_a_conversation_goes_on_with_nothing_lost_doubled_or_reordered(service: list[Replica]) -> None:
    """Members publish all the time while they move there and back; no client reconnects."""
    old, new = service
    clients = [await enter(old.ws + f"busy:{number % 4}/") for number in range(40)]
    for client in clients:
        await client.hear()
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            talking = [group.create_task(talk(client, stop)) for client in clients]
            for giver, taker in ((old, new), (new, old), (old, new)):
                async with moving(giver, taker, 40):
                    pass
            stop.set()
    finally:
        for client in clients:
            # Most have messages that they have not read, and would read them first.
            client.ws.transport.abort()
    for published, acks, offsets in (task.result() for task in talking):
        assert acks == published
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))


async def talk(client: Client, stop: asyncio.Event) -> tuple[list[str], list[str], list[int]]:
    """Publish and hear until told to stop; give the ids published, the ids acked, and the offsets heard."""
    published: list[str] = []
    acks: list[str] = []
    offsets: list[int] = []
    while len(acks) < len(published) or not stop.is_set():
        if len(published) - len(acks) < 3 and not stop.is_set():
            published.append(f"{len(published)}")
            await client.say(type="publish", id=published[-1], data="x" * 50)
        frame = await client.hear()
        assert frame["type"] in ("ack", "message")
        if frame["type"] == "ack":
            acks.append(frame["id"])
        else:
            offsets.append(frame["offset"])
    return published, acks, offsets


async def test_what_cannot_go_anywhere_is_drained(service: list[Replica]) -> None:
    old, _ = service
    client = await enter(old.ws)
    old.order("draining", 6000, ("nobody-0",), alone=True)
    try:
        assert (await client.hear())["type"] == "reconnect"
        with pytest.raises(ConnectionClosed) as closed:
            await client.hear()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    finally:
        await activate(old)


LARGE = 60_000
BYE = masked(Opcode.CLOSE, CloseCode.NORMAL_CLOSURE.to_bytes(2, "big") + b"bye")


def speech(group: str) -> bytes:
    """Give what a client may say: a message in fragments, a ping amid it, an empty piece, a large message."""
    first, name = publish(1, group=group.encode()), group.encode()
    return (
        masked(Opcode.TEXT, first[:10], fin=False)
        + masked(Opcode.PING, b"p")
        + masked(Opcode.CONT, b"", fin=False)
        + masked(Opcode.CONT, first[10:])
        + masked(Opcode.TEXT, publish(2, size=LARGE, group=name))
        + masked(Opcode.TEXT, publish(3, group=name))
    )


async def member(stack: AsyncExitStack, replica: Replica, group: str) -> RawSocket:
    """Give a socket that is in a group."""
    socket = await stack.enter_async_context(RawSocket(replica.port))
    await socket.send(masked(Opcode.TEXT, b'{"type":"subscribe","group":"%s"}' % group.encode()))
    await socket.texts(1, "subscribed")
    return socket


async def answered(socket: RawSocket) -> None:
    """See that all of a speech was carried out, once and in turn; and leave."""
    for kind in ("ack", "message"):
        assert [(one["id"], one["offset"]) for one in await socket.texts(3, kind)] == [("1", 1), ("2", 2), ("3", 3)]
    assert socket.pongs == [b"p"]
    await socket.send(BYE)
    assert await socket.closed() == CloseCode.NORMAL_CLOSURE


async def test_who_moves_amid_whatever_it_says_is_heard_to_its_end(service: list[Replica]) -> None:
    """Real sockets, each of which has said up to another byte of the same when all move at once."""
    old, new = service
    whole = len(speech("cut:000"))
    at_head = whole - LARGE
    cuts = [*range(0, at_head, 4), *range(at_head, whole, 10_000)]
    async with AsyncExitStack() as stack:
        sockets = [await member(stack, old, f"cut:{number:03}") for number in range(len(cuts))]
        said = [speech(f"cut:{number:03}") for number in range(len(cuts))]
        for socket, text, cut in zip(sockets, said, cuts, strict=True):
            await socket.send(text[:cut])
        async with moving(old, new, len(cuts)):
            pass
        for socket, text, cut in zip(sockets, said, cuts, strict=True):
            await socket.send(text[cut:])
        await asyncio.gather(*map(answered, sockets))


async def test_who_says_a_byte_at_a_time_while_it_moves_is_heard(service: list[Replica]) -> None:
    old, new = service

    async def say(socket: RawSocket, text: bytes, stop: asyncio.Event) -> None:
        said = 0
        while not stop.is_set() and said < len(text):
            await socket.send(text[said : said + 1])
            said += 1
            await asyncio.sleep(0.005)
        await socket.send(text[said:])

    async with AsyncExitStack() as stack:
        sockets = [await member(stack, old, f"slow:{number}") for number in range(10)]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number, socket in enumerate(sockets):
                group.create_task(say(socket, speech(f"slow:{number}"), stop))
            async with moving(old, new, len(sockets)):
                pass
            stop.set()
        await asyncio.gather(*map(answered, sockets))


async def test_a_close_frame_that_is_half_there_at_the_move_is_taken_as_a_whole(service: list[Replica]) -> None:
    old, new = service
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(RawSocket(old.port)) for _ in BYE]
        for cut, socket in enumerate(sockets):
            await socket.send(BYE[:cut])
        async with moving(old, new, len(sockets)):
            pass
        for cut, socket in enumerate(sockets):
            await socket.send(BYE[cut:])
            assert await socket.closed() == CloseCode.NORMAL_CLOSURE


async def test_a_close_that_is_on_its_way_at_the_move_is_answered(service: list[Replica]) -> None:
    """Whoever has the socket at that moment."""
    old, new = service
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(RawSocket(old.port)) for _ in range(60)]

        async def leave(socket: RawSocket, after: float) -> None:
            await asyncio.sleep(after)
            await socket.send(BYE[:3])
            await socket.send(BYE[3:])
            assert await socket.closed() == CloseCode.NORMAL_CLOSURE

        before = handed(new, "taken")
        old.order("draining", 20_000, (new.name,), alone=True)
        try:
            # Orders are heard within a second.
            await asyncio.gather(*(leave(socket, number * 0.02) for number, socket in enumerate(sockets)))
            assert handed(new, "taken") > before, "some have moved"
        finally:
            await activate(old)
    await until(lambda: new.metric("app_active_connections") == 0)


async def test_a_subject_has_so_many_sockets_and_those_that_move_count_where_they_are(service: list[Replica]) -> None:
    old, new = service
    alice = f"?token={old.token('*', subject='alice')}"
    held = [await enter(old.ws + alice) for _ in range(3)]
    assert await refused_with(old.ws + alice) == 403
    for other in (f"?token={old.token('*', subject='bob')}", f"?token={old.token('*')}", ""):
        await (await enter(old.ws + other)).close()
    held.append(await enter(new.ws + alice))
    async with moving(old, new, 3):
        pass
    assert await refused_with(new.ws + alice) == 403, "four are there, none of which was cut"
    for client in held[:2]:
        await client.close()
    await until(lambda: new.metric("app_active_connections") == 2)
    held.append(await enter(new.ws + alice))
    assert await refused_with(new.ws + alice) == 403
    for client in held[2:]:
        await client.close()
    assert old.metric_of("app_connections_refused_total", reason="too_many") == 1
