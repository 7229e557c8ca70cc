"""A replica as its fleet sees it: probes, metrics, limits, drains."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from tests.replica import Replica
from tests.server.raw import RawSocket
from tests.server.test_wire import closed_with, enter

ENVIRON = {
    "SHARDS_MAX_CONNECTIONS": "60",
    "SHARDS_RATE_LIMIT": "20",
    "SHARDS_SEND_BUDGET_BYTES": "66560",
    "SHARDS_PING_SECONDS": "3",
}


async def until_steady(replica: Replica) -> None:
    """Wait until a replica has no sockets left."""
    async with asyncio.timeout(60):
        while replica.metric("app_active_connections") > 0:
            await asyncio.sleep(0.1)


async def until_active(replica: Replica) -> None:
    """Wait until a replica has heard its orders."""
    async with asyncio.timeout(60):
        while json.loads(replica.get("/livez")[1])["state"] != "active":
            await asyncio.sleep(0.1)


async def test_livez_says_who_answers(service: list[Replica]) -> None:
    await until_active(service[1])
    status, body = service[1].get("/livez")
    assert status == 200
    assert json.loads(body) == {"color": "blue", "replica": "blue-1", "release": "dev", "state": "active"}


def routes_of(service: list[Replica]) -> list[dict[str, object]]:
    return [json.loads(replica.get("/api/route?group=room:42")[1]) for replica in service]


async def test_every_replica_gives_the_same_route(service: list[Replica]) -> None:
    async with asyncio.timeout(60):
        while (routes := routes_of(service))[0] != routes[1] or not routes[0]["home"]:
            await asyncio.sleep(0.1)
    assert routes[0]["slot"] == 444
    assert routes[0]["shard"] in ("shared-0", "shared-1")
    assert routes[0]["home"] in ("blue-0", "blue-1")


@pytest.mark.parametrize("query", ["", "?group=", "?group=a%20b", "?group=" + "g" * 101])
def test_a_route_to_no_group_is_a_bad_request(service: list[Replica], query: str) -> None:
    assert service[0].get(f"/api/route{query}")[0] == 400


async def test_metrics_of_any_replica_tell_the_whole_fleet(service: list[Replica]) -> None:
    clients = [await enter(replica.ws) for replica in service]
    async with asyncio.timeout(60):
        for asked in service:
            while True:
                lines = (await asyncio.to_thread(asked.get, "/metrics"))[1].splitlines()
                active = [line for line in lines if line.startswith("app_active_connections{")]
                if len(active) == 2 and all(line.endswith(" 1.0") for line in active):
                    break
                await asyncio.sleep(0.1)
    assert {line for line in lines if line.startswith("shards_slots")} == {
        'shards_slots{shard="shared-0"} 512.0',
        'shards_slots{shard="shared-1"} 512.0',
    }
    for client in clients:
        await client.close()


async def test_over_capacity_is_503_with_retry_after(service: list[Replica]) -> None:
    await until_steady(service[0])
    clients = [await enter(service[0].ws) for _ in range(60)]
    with pytest.raises(InvalidStatus) as refused:
        await connect(service[0].ws)
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"]
    for client in clients:
        await client.close()


async def test_who_sends_too_fast_is_told(service: list[Replica]) -> None:
    publishes = [b'{"type":"publish","group":"fast","id":"%d","data":1}' % number for number in range(45)]
    async with RawSocket(service[0].port) as client:
        # In one piece: the longer they took, the more of them it would let through.
        await client.send(b"".join(Frame(Opcode.TEXT, text).serialize(mask=True) for text in publishes))
        errors, acks = await client.texts(5, "error"), await client.texts(40, "ack")
    assert [(error["code"], error["id"]) for error in errors] == [("rate_limited", str(n)) for n in range(40, 45)]
    assert [ack["id"] for ack in acks] == [str(number) for number in range(40)]


async def test_who_is_too_fast_without_end_is_closed(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    with contextlib.suppress(ConnectionClosed):
        for _ in range(1000):
            await client.say(type="ping")
    assert await closed_with(client) == 1008


async def test_a_reader_too_slow_for_its_budget_is_closed_and_can_come_back(service: list[Replica]) -> None:
    before = service[0].metric("app_slow_consumers_closed_total")
    slow = await enter(service[0].ws + "flood/")
    place = await slow.hear()
    slow.ws.transport.pause_reading()
    talkers = [await enter(service[1].ws) for _ in range(20)]
    published = 0
    async with asyncio.timeout(60):
        while service[0].metric("app_slow_consumers_closed_total") == before:
            for talker in talkers:
                await talker.say(type="publish", group="flood", id=str(published), data="x" * 60_000)
                published += (await talker.hear())["type"] == "ack"
    slow.ws.transport.resume_reading()
    assert await closed_with(slow) == 1013
    back = await enter(service[0].ws + f"flood/?epoch={place['epoch']}&offset=0")
    assert (await back.hear())["recovered"]
    assert (await back.hear())["offset"] == 1
    for client in (*talkers, back):
        await client.close()


async def test_who_reads_all_the_time_is_not_closed_while_it_resumes(service: list[Replica]) -> None:
    """Though what it missed is many times what may wait for it."""
    closed = service[0].metric("app_slow_consumers_closed_total")
    talkers = [await enter(service[1].ws) for _ in range(20)]
    for number in range(400):
        await talkers[number % 20].say(type="publish", group="much", id=str(number), data="x" * 60_000)
    for number in range(400):
        assert (await talkers[number % 20].hear())["type"] == "ack"
    await talkers[0].say(type="history", group="much", limit=1)
    epoch = (await talkers[0].hear())["epoch"]
    back = await enter(service[0].ws + f"much/?epoch={epoch}&offset=0")
    assert (await back.hear())["recovered"]
    assert [(await back.hear())["offset"] for _ in range(400)] == list(range(1, 401))
    assert service[0].metric("app_slow_consumers_closed_total") == closed
    for client in (*talkers, back):
        await client.close()


async def test_a_client_that_answers_no_ping_is_closed_and_one_that_talks_is_not(service: list[Replica]) -> None:
    await until_steady(service[0])
    talker, dead = await enter(service[0].ws), await enter(service[0].ws)
    dead.ws.transport.pause_reading()
    async with asyncio.timeout(60):
        while service[0].metric("app_active_connections") != 1:
            await talker.say(type="ping")
            await talker.hear()
            await asyncio.sleep(0.2)
    dead.ws.transport.abort()
    await talker.close()


async def test_a_drain_hints_first_and_closes_with_1012(service: list[Replica]) -> None:
    await until_steady(service[1])
    clients = [await enter(service[1].ws) for _ in range(20)]
    service[1].order("draining", drain_ms=3000)
    try:
        hints = await asyncio.gather(*(client.hear() for client in clients))
        assert {hint["type"] for hint in hints} == {"reconnect"}
        assert all(0 < hint["within_ms"] <= 1500 for hint in hints), "each client has time, within the drain's"
        codes = await asyncio.gather(*(closed_with(client) for client in clients))
        assert set(codes) == {1012}
        await until_steady(service[1])
    finally:
        service[1].order("active")
        for replica in service:  # orders are for the whole color
            await until_active(replica)


async def test_a_killed_replicas_clients_go_on_elsewhere(service: list[Replica]) -> None:
    """Kill -9: what was acked is in the log, and the other replica has it."""
    client, watcher = await enter(service[1].ws + "killed/"), await enter(service[0].ws + "killed/")
    place = await client.hear()
    await watcher.hear()
    acked = []
    for number in range(10):
        await client.say(type="publish", id=str(number), data=number)
        frames = await client.hear_all(2)
        acked.append(frames["ack"][0]["offset"])
    service[1].stop(kill=True)
    with pytest.raises(ConnectionClosed):
        await client.hear()
    back = await enter(service[0].ws + f"killed/?epoch={place['epoch']}&offset=0&session={client.welcome['session']}")
    assert (await back.hear())["recovered"]
    assert [(await back.hear())["offset"] for _ in acked] == acked
    await back.say(type="publish", id="9", data=9)
    assert (await back.hear())["offset"] == 10, "a publish repeated after the crash is not doubled"
    service[1].start()
    await back.close()
    await watcher.close()


async def test_what_is_left_when_a_drain_must_be_over_is_closed_at_once_and_counted(service: list[Replica]) -> None:
    await until_steady(service[1])
    before = service[1].metric_of("app_handoff_total", result="late")
    clients = [await enter(service[1].ws) for _ in range(20)]
    service[1].order("draining", drain_ms=0)
    try:
        codes = await asyncio.gather(*(closed_with(client) for client in clients))
        assert set(codes) == {1012}
        assert service[1].metric_of("app_handoff_total", result="late") - before == 20
    finally:
        service[1].order("active")
        for replica in service:
            await until_active(replica)


@pytest.mark.parametrize("path", ["/", "/fleet/"])
def test_pages_let_nothing_in_that_is_not_theirs(service: list[Replica], path: str) -> None:
    status, headers = service[0].head("GET", path)
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] in ("no-referrer", "same-origin")
