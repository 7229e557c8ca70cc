"""The Python client against real replicas: kills, hints, refusals, slow readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from http import HTTPStatus

import pytest
from websockets.asyncio.client import connect as raw_connect
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from shards import client as shards_client
from shards.client import Event, Gap, Joined, Left, Message, Place, Presence, Refused, Subscribed, Welcomed, connect
from shards.errors import ClientClosed, ConnectionFailed, OutboxFull, UsageError
from shards.ports import free_port
from tests.proxy import Proxy
from tests.replica import Replica


@pytest.fixture
async def proxy(service: list[Replica]) -> Iterator[Proxy]:
    """A TCP proxy before the first replica: it can cut, freeze, and go to the other one."""
    async with Proxy(*(replica.port for replica in service)) as proxy:
        yield proxy


async def take(messages: shards_client.Subscription, count: int) -> list[Message]:
    taken: list[Message] = []
    async with asyncio.timeout(60):
        async for item in messages:
            assert isinstance(item, Message), item
            taken.append(item)
            if len(taken) == count:
                break
    return taken


async def test_messages_come_in_order_with_what_was_published(service: list[Replica]) -> None:
    async with connect(service[0].ws) as one, connect(service[1].ws) as other, one.subscribe("order") as messages:
        offsets = [await other.publish("order", {"n": n, "text": "grüße 🙂"}) for n in range(50)]
        taken = await take(messages, 50)
    assert [m.data["n"] for m in taken] == list(range(50))
    assert [m.offset for m in taken] == offsets
    assert taken[0].data["text"] == "grüße 🙂"
    assert {m.group for m in taken} == {"order"}


async def test_a_cut_connection_loses_nothing(service: list[Replica], proxy: Proxy) -> None:
    """Cut at many moments, with publishes under way in both directions."""
    async with connect(proxy.ws) as client, client.subscribe("cut") as messages:

        async def talk() -> list[int]:
            return [await client.publish("cut", n) for n in range(200)]

        talking = asyncio.create_task(talk())
        for _ in range(8):
            await asyncio.sleep(0.1)
            proxy.cut()
        offsets = await talking
        taken = await take(messages, 200)
    assert [m.data for m in taken] == list(range(200))
    assert offsets == [m.offset for m in taken]
    assert client.protocol.holes == 0


async def test_an_outbox_filled_while_offline_is_sent_in_order(service: list[Replica], proxy: Proxy) -> None:
    """More of them than the rate limit lets through at once."""
    async with connect(proxy.ws) as client, client.subscribe("outbox") as messages:
        proxy.refuse(True)
        proxy.cut()
        while client.online:
            await asyncio.sleep(0.01)
        publishes = [asyncio.create_task(client.publish("outbox", n)) for n in range(400)]
        await asyncio.sleep(0)
        proxy.refuse(False)
        await asyncio.wait_for(asyncio.gather(*publishes), 60)
        taken = await take(messages, 400)
    assert sorted(m.data for m in taken) == list(range(400))
    assert [m.offset for m in taken] == list(range(taken[0].offset, taken[0].offset + 400))


async def test_a_full_outbox_says_so(service: list[Replica], proxy: Proxy) -> None:
    async with connect(proxy.ws, outbox=3) as client:
        proxy.freeze()
        publishes = [asyncio.create_task(client.publish("full", n)) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(OutboxFull, match="3 publishes wait"):
            await client.publish("full", 3)
        proxy.thaw()
        await asyncio.wait_for(asyncio.gather(*publishes), 60)
        await client.publish("full", 3)


async def test_a_half_open_connection_is_noticed(service: list[Replica], proxy: Proxy) -> None:
    """Nothing comes and nothing is refused, as where a NAT has forgotten us."""
    async with connect(proxy.ws, ping_seconds=0.5) as client, client.subscribe("half") as messages:
        proxy.freeze()
        async with connect(service[1].ws) as other:
            await other.publish("half", "while it was frozen")
        assert [m.data for m in await take(messages, 1)] == ["while it was frozen"]


async def test_a_killed_replica_loses_nothing(service: list[Replica], proxy: Proxy) -> None:
    """kill -9 while publishing and receiving; the clients go to the other replica, and back."""
    async with connect(proxy.ws) as one, connect(proxy.ws) as other, one.subscribe("kill") as messages:

        async def talk() -> None:
            for n in range(150):
                await other.publish("kill", n)

        talking = asyncio.create_task(talk())
        for victim in (0, 1):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(service[victim].stop, True)
            await asyncio.to_thread(service[victim].start)
        await talking
        taken = await take(messages, 150)
    assert [m.data for m in taken] == list(range(150))


async def test_a_hint_is_obeyed(service: list[Replica], proxy: Proxy) -> None:
    """The client leaves for where the edge now points, long before it is cut off."""
    replicas: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, Welcomed):
            replicas.append(event.replica)

    async with connect(proxy.ws, observe=observe) as client, client.subscribe("hint") as messages:
        proxy.first = 1
        service[0].order("draining", 5000, alone=True)
        try:
            async with asyncio.timeout(60):
                while replicas != ["blue-0", "blue-1"]:
                    await asyncio.sleep(0.05)
            await client.publish("hint", "there")
            assert [m.data for m in await take(messages, 1)] == ["there"]
        finally:
            service[0].order("active", alone=True)


async def test_refusals_are_raised(service: list[Replica]) -> None:
    async with connect(service[0].ws) as client:
        with pytest.raises(Refused, match="65536 bytes") as refused:
            await client.publish("big", "x" * 65536)
        assert refused.value.code == "too_large"
        with pytest.raises(Refused) as refused:
            await client.publish("big", "x" * 300_000)  # the server closes with 1009, and hears of it no more
        assert refused.value.code == "too_large"
        with pytest.raises(Refused) as refused:
            await client.history("big", limit=0)
        assert refused.value.code == "bad_limit"
        assert await client.publish("big", "small") == 1


async def test_what_makes_no_sense_is_refused_at_once(service: list[Replica]) -> None:
    async with connect(service[0].ws) as client:
        for wrong in (
            client.publish("a b", 1),
            client.publish("a", 1, id=""),
            client.publish("a", 1, id="x" * 65),
            client.publish("a", float("nan")),
            client.publish("a", object()),
            client.publish("a", "\ud800"),
            client.history(""),
        ):
            with pytest.raises(UsageError):
                await wrong
        async with client.subscribe("twice"):
            with pytest.raises(UsageError, match="already"):
                async with client.subscribe("twice"):
                    pass
        async with client.subscribe("twice"):
            pass


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "ws://", "nonsense"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="ws://"):
        connect(url)


async def test_nobody_there_is_told_in_time() -> None:
    with pytest.raises(ConnectionFailed):
        async with connect(f"ws://127.0.0.1:{free_port(())}/ws/", open_seconds=0.5):
            pass


class Host:
    """A service that welcomes its first client for a while, and takes as long to refuse all later ones."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.welcomes = 0

    async def refuse(self, socket: ServerConnection, _request: Request) -> Response | None:
        if not self.welcomes:
            return None
        await asyncio.sleep(self.seconds)
        return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "full\n")

    async def welcome(self, socket: ServerConnection) -> None:
        self.welcomes += 1
        await socket.send('{"type":"welcome","session":"s","replica":"r"}')
        await asyncio.sleep(self.seconds)


async def test_delays_grow_however_long_an_attempt_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a connection that lasted makes them short again, not an attempt that waited for an answer in vain."""
    attempts: list[int] = []

    def delay(attempt: int) -> float:
        attempts.append(attempt)
        return 0.0

    monkeypatch.setattr("shards.client.connection.delay", delay)
    monkeypatch.setattr("shards.client.connection._STEADY_SECONDS", 0.2)
    host = Host(0.4)
    async with serve(host.welcome, "127.0.0.1", 0, process_request=host.refuse) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/ws/") as client:
            client._attempt = 7
            await until(lambda: len(attempts) == 4)
    assert attempts == [0, 1, 2, 3]


@pytest.mark.parametrize("trouble", ["raises", "hangs", "is cancelled"])
async def test_a_token_that_fails_is_asked_for_again(
    trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shards.client.connection.delay", lambda _attempt: 0.0)
    asked = welcomes = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked == 2:
            match trouble:
                case "raises":
                    raise RuntimeError("nobody is there")
                case "hangs":
                    await asyncio.Event().wait()
                case _:
                    raise asyncio.CancelledError
        return f"t{asked}"

    async def welcome(socket: ServerConnection) -> None:
        nonlocal welcomes
        welcomes += 1
        await socket.send('{"type":"welcome","session":"s","replica":"r"}')
        if welcomes > 1:
            await socket.wait_closed()

    async with serve(welcome, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/ws/", token=token, open_seconds=1) as client:
            await until(lambda: welcomes == 2 and client.online)
    assert asked == 3
    assert [record.levelname for record in caplog.records if "no token" in record.getMessage()][:1] == ["WARNING"]


async def test_the_urls_group_is_followed_like_any_other(service: list[Replica], proxy: Proxy) -> None:
    """Over reconnects, each of which misses something, there is no gap: it is in the log."""
    async with (
        connect(proxy.ws + "lobby/") as client,
        connect(service[1].ws) as other,
        client.subscribe("lobby") as messages,
    ):
        for number in range(0, 9, 3):
            await other.publish("lobby", number)
            proxy.refuse(True)
            proxy.cut()
            await until(lambda: not client.online)
            for missed in (number + 1, number + 2):
                await other.publish("lobby", missed)
            proxy.refuse(False)
            await until(lambda: client.online)
        assert [m.data for m in await take(messages, 9)] == list(range(9))
    assert client.protocol.holes == 0


async def test_the_place_in_a_url_is_that_of_the_first_connect(service: list[Replica], proxy: Proxy) -> None:
    async with connect(proxy.ws + "first/?epoch=e&offset=3&keep=1") as client:
        proxy.cut()
        await client.publish("first", 1)
    assert b"epoch=e&offset=3&keep=1" in proxy.requests[0]
    assert b"keep=1" in proxy.requests[-1]
    assert b"offset" not in proxy.requests[-1]


async def test_a_path_that_is_forbidden_is_told_at_once(service: list[Replica]) -> None:
    with pytest.raises(ConnectionFailed, match="403"):
        async with connect(service[0].ws.replace("/ws/", "/nowhere/")):
            pass


async def test_a_token_may_be_fresh_at_each_connect(service: list[Replica], proxy: Proxy) -> None:
    given: list[str] = []

    async def token() -> str:
        given.append(service[0].token("token", subject=f"connect {len(given)}"))
        return given[-1]

    async with connect(proxy.ws, token=token) as client:
        proxy.cut()
        await client.publish("token", 1)
    assert len(given) == 2
    assert f"token={given[1]}".encode() in proxy.requests[-1]
    assert f"session={client.session}".encode() in proxy.requests[-1]


async def test_a_slow_reader_takes_no_memory_and_misses_nothing(service: list[Replica]) -> None:
    """Its buffer is far smaller than what is published; publishing from within the loop works all the same."""
    taken = []
    async with (
        connect(service[0].ws, buffer=8) as slow,
        connect(service[0].ws) as fast,
        slow.subscribe("slow") as messages,
        asyncio.timeout(60),
    ):
        for n in range(150):
            await fast.publish("slow", n)
        assert len(messages._items) <= 8
        async for item in messages:
            assert isinstance(item, Message), item
            taken.append(item.data)
            if item.data % 50 == 0:
                await slow.publish("elsewhere", item.data)
            if len(taken) == 150:
                break
    assert taken == list(range(150))
    assert slow.protocol.holes == 0


async def test_history_and_presence(service: list[Replica]) -> None:
    async with connect(service[0].ws) as client, client.subscribe("past"):
        for n in range(10):
            await client.publish("past", n)
        last = await client.history("past", limit=3)
        assert [m.data for m in last.messages] == [7, 8, 9]
        assert last.place.offset == 10
        after = await client.history("past", since=last.messages[0].place)
        assert [m.data for m in after.messages] == [8, 9]
        assert after.gap is None
        other = await client.history("past", since=Place("another", 3))
        assert other.gap == last.place
        async with asyncio.timeout(60):
            while (await client.presence("past")).count != 1:
                await asyncio.sleep(0.1)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not done():
            await asyncio.sleep(0.02)


async def test_who_comes_and_goes_is_told(service: list[Replica], proxy: Proxy) -> None:
    """On another replica too, and by one connection after the other; nobody is told of itself."""
    told: list[Joined | Left | Presence] = []
    seen: list[Event] = []
    async with (
        connect(proxy.ws, observe=seen.append) as client,
        client.subscribe("told", attendance=told.append),
    ):
        for _ in range(2):
            async with connect(service[1].ws) as other, other.subscribe("told"):
                await until(lambda: len(told) % 2 == 1)
                async with asyncio.timeout(60):
                    while len(members := (await client.presence("told")).members) != 2:
                        await asyncio.sleep(0.05)
            await until(lambda: len(told) % 2 == 0)
            joined, left = told[-2:]
            assert isinstance(joined, Joined) and joined.member in members
            assert left == Left("told", joined.member)
            seen.clear()
            proxy.cut()
            await until(lambda: any(isinstance(event, Subscribed) for event in seen))


async def test_a_crowd_is_counted_and_not_named(service: list[Replica]) -> None:
    told: list[Joined | Left | Presence] = []
    async with (
        connect(service[0].ws) as client,
        client.subscribe("crowded", attendance=told.append),
        AsyncExitStack() as crowd,
    ):
        others = [await crowd.enter_async_context(connect(service[1].ws)) for _ in range(40)]
        await asyncio.gather(*(crowd.enter_async_context(other.subscribe("crowded")) for other in others))
        await until(lambda: told[-1:] == [Presence("crowded", 41, [])])
        assert len((await client.presence("crowded")).members) == 41


async def test_an_observer_that_fails_stops_nobody(service: list[Replica], caplog: pytest.LogCaptureFixture) -> None:
    def attend(_event: object) -> None:
        raise RuntimeError("broken")

    async with connect(service[0].ws) as client, client.subscribe("broken", attendance=attend) as messages:
        async with connect(service[1].ws) as other, other.subscribe("broken"):
            await until(lambda: "broken" in caplog.text)
            await other.publish("broken", 1)
        assert [m.data for m in await take(messages, 1)] == [1]


async def test_a_gap_of_a_history_moves_no_subscription(service: list[Replica]) -> None:
    async with connect(service[0].ws) as client, client.subscribe("pastgap") as messages:
        await client.publish("pastgap", 1)
        assert (await client.history("pastgap", since=Place("another", 3))).gap
        await client.publish("pastgap", 2)
        assert [m.data for m in await take(messages, 2)] == [1, 2]
        assert client.protocol.holes == 0


async def test_a_place_can_be_kept_for_another_client(service: list[Replica]) -> None:
    async with connect(service[0].ws) as client, client.subscribe("kept") as messages:
        await client.publish("kept", 1)
        (first,) = await take(messages, 1)
        await client.publish("kept", 2)
    async with connect(service[1].ws) as client, client.subscribe("kept", since=first.place) as messages:
        assert [m.data for m in await take(messages, 1)] == [2]


async def test_a_place_that_is_gone_is_a_gap(service: list[Replica]) -> None:
    async with connect(service[0].ws) as client, client.subscribe("gone", since=Place("no such log", 7)) as messages:
        gap = await anext(messages)
        assert isinstance(gap, Gap)
        await client.publish("gone", 1)
        message = await anext(messages)
        assert isinstance(message, Message)
        assert message.offset == gap.place.offset + 1


async def test_subscribing_anew_starts_anew(service: list[Replica]) -> None:
    async with connect(service[0].ws) as client, connect(service[1].ws) as other:
        for n in range(20):
            async with client.subscribe("anew") as messages:
                await other.publish("anew", n)
                assert [m.data for m in await take(messages, 1)] == [n]
                await other.publish("anew", "nobody takes this")


async def test_closing_ends_all_waits(service: list[Replica], proxy: Proxy) -> None:
    async with connect(proxy.ws) as client:
        proxy.freeze()
        publish = asyncio.create_task(client.publish("closing", 1))
        await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        await publish
    with pytest.raises(ClientClosed):
        await client.publish("closing", 2)


async def test_leaving_a_loop_by_cancel_leaves_the_group(service: list[Replica]) -> None:
    async with connect(service[0].ws) as client:

        async def listen() -> None:
            async with client.subscribe("cancelled") as messages:
                async for _ in messages:
                    pass

        listening = asyncio.create_task(listen())
        async with asyncio.timeout(60):
            while (await client.presence("cancelled")).count != 1:
                await asyncio.sleep(0.05)
            listening.cancel()
            while (await client.presence("cancelled")).count != 0:
                await asyncio.sleep(0.05)


async def test_the_examples_frames_are_the_servers(service: list[Replica]) -> None:
    """A client of ours and a bare socket understand each other."""
    async with raw_connect(service[0].ws) as raw, connect(service[0].ws) as client, client.subscribe("raw") as messages:
        await raw.send('{"type":"publish","group":"raw","id":"1","data":null}')
        (message,) = await take(messages, 1)
    assert (message.id, message.data) == ("1", None)
