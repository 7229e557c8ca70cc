"""What is counted is what clients saw: operators, the canary and the scenarios have nothing else to go by."""

from __future__ import annotations

import asyncio

from tests.replica import Replica
from tests.server.test_wire import enter, refused_with

COUNTED = (
    "app_messages_published_total",
    "app_messages_delivered_total",
    "app_publish_seconds_count",
    "app_delivery_seconds_count",
    "app_gaps_total",
    "app_errors_total",
    "app_connections_total",
    "app_connections_refused_total",
)


def counts(replica: Replica) -> dict[str, float]:
    return {name: replica.metric(name) for name in COUNTED}


async def grown(replica: Replica, before: dict[str, float]) -> dict[str, float]:
    now = await asyncio.to_thread(counts, replica)
    return {name: now[name] - before[name] for name in COUNTED if now[name] != before[name]}


async def test_messages_are_counted_where_they_are_published_and_where_they_are_delivered(
    service: list[Replica],
) -> None:
    here, there = service
    before, before_there = counts(here), counts(there)
    clients = [await enter(replica.ws + "counted/") for replica in (here, here, there)]
    for client in clients:
        await client.hear()
    for number in range(3):
        await clients[0].say(type="publish", id=str(number), data=number)
    await clients[0].say(type="publish", id="0", data="again")
    await clients[0].hear_all(7)
    for client in clients[1:]:
        await client.hear_all(3)
    assert await grown(here, before) == {
        "app_connections_total": 2,
        "app_messages_published_total": 4,
        "app_publish_seconds_count": 4,
        "app_messages_delivered_total": 6,
        "app_delivery_seconds_count": 3,
    }
    assert await grown(there, before_there) == {
        "app_connections_total": 1,
        "app_messages_delivered_total": 3,
        "app_delivery_seconds_count": 3,
    }
    for client in clients:
        await client.close()


async def test_every_gap_is_counted_that_a_client_is_told(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    place = {"epoch": "another", "offset": 3}
    before = counts(service[0])
    await client.say(type="subscribe", group="gone", since=place)
    assert [(await client.hear())["type"] for _ in range(2)] == ["subscribed", "gap"]
    await client.say(type="history", group="gone", since=place)
    assert [(await client.hear())["type"] for _ in range(2)] == ["history", "gap"]
    token = service[0].token("gone")
    answer = await asyncio.to_thread(
        service[0].ask, "GET", f"/api/groups/gone/messages?token={token}&epoch=another&offset=3"
    )
    assert answer[1]["gap"]
    assert await grown(service[0], before) == {"app_gaps_total": 3}
    await client.close()


async def test_errors_are_counted_by_code_and_refused_handshakes_too(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    before = counts(service[0])
    codes = {"bad_json": "x", "bad_name": '{"type":"presence","group":"a b"}', "bad_message": "{}"}
    before_by_code = {code: service[0].metric_of("app_errors_total", code=code) for code in codes}
    for text in codes.values():
        await client.ws.send(text)
        await client.hear()
    await refused_with(service[0].ws + "a%20b/")
    for code in codes:
        assert service[0].metric_of("app_errors_total", code=code) - before_by_code[code] == 1
    assert await grown(service[0], before) == {"app_errors_total": 3, "app_connections_refused_total": 1}
    await client.close()
