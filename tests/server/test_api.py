"""Groups over HTTP, as a backend in any language uses them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Redises
from tests.replica import Replica
from tests.server.test_wire import enter


def publish(replica: Replica, group: str, body: object, token: str | None = None, **headers: str) -> dict[str, Any]:
    """Publish; gives the answer, with the status in it."""
    bearer = {"Authorization": f"Bearer {token or replica.token(group)}"}
    said = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer, _ = replica.ask("POST", f"/api/groups/{group}/messages", said, **bearer, **headers)
    return {"status": status, **answer}


def read(replica: Replica, path: str, **headers: str) -> dict[str, Any]:
    status, answer, _ = replica.ask("GET", path, **headers)
    return {"status": status, **answer}


async def test_a_message_reaches_every_socket_once_and_is_said_to_be_a_clients(service: list[Replica]) -> None:
    client = await enter(service[1].ws + "orders/")
    place = await client.hear()
    answer = publish(service[0], "orders", {"data": {"type": "chat.message", "text": "é"}, "id": "one"})
    assert answer == {"status": 200, "group": "orders", "id": "one", "epoch": place["epoch"], "offset": 1}
    assert await client.hear() == {
        "type": "message", "group": "orders", "offset": 1, "id": "one", "data": {"type": "chat.message", "text": "é"}
    }  # fmt: skip
    await client.close()


def test_an_id_is_published_once_whichever_replica_is_asked(service: list[Replica]) -> None:
    first = publish(service[0], "twice", {"data": 1, "id": "one"})
    again = [
        publish(service[1], "twice", {"data": 1, "id": "one"}),
        publish(service[0], "twice", {"data": 1}, Idempotency_Key="one"),
        publish(service[1], "twice", {"data": 1, "id": "one"}, Idempotency_Key="one"),
    ]
    assert all(answer == first for answer in again)
    other = publish(service[0], "twice", {"data": 1, "id": "one"}, service[0].token("twice", subject="another"))
    assert other["offset"] == first["offset"] + 1, "each subject has ids of its own"


def test_without_an_id_each_message_is_a_new_one(service: list[Replica]) -> None:
    answers = [publish(service[0], "fresh", {"data": None}) for _ in range(2)]
    assert [answer["offset"] for answer in answers] == [1, 2]
    assert answers[0]["id"] != answers[1]["id"]


async def test_no_client_can_take_a_backends_ids_before_it_does(service: list[Replica]) -> None:
    for session in ("api:", "api:billing", "api"):
        client = await enter(service[0].ws + f"?session={session}")
        await client.say(type="publish", group="taken", id="one", data="forged")
        await client.hear()
        await client.close()
    answer = publish(service[0], "taken", {"data": 1, "id": "one"}, service[0].token("taken", subject="billing"))
    assert answer["offset"] == 4


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_json"),
        (b"{", 400, "bad_json"),
        (b'{"data":NaN}', 400, "bad_json"),
        (b'{"data":"\xff\xfe"}', 400, "bad_json"),
        (b'{"data":' + b"[" * 60_000, 400, "bad_json"),
        (b"[]", 400, "bad_message"),
        (b"{}", 400, "bad_message"),
        (b'{"data":1,"id":7}', 400, "bad_message"),
        (b'{"data":' + b"9" * 5000 + b"}", 400, "bad_message"),
        (b'{"data":' + b"[" * 900 + b"]" * 900 + b"}", 400, "bad_message"),
        (b'{"data":1,"id":""}', 400, "bad_id"),
        (b'{"data":1,"id":"' + b"i" * 65 + b'"}', 400, "bad_id"),
        (b'{"data":"' + b"x" * 65_535 + b'"}', 413, "too_large"),
        (b'{"data":1,"padding":"' + b"x" * 80_000 + b'"}', 413, "too_large"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_body_is_refused_and_nothing_published(
    service: list[Replica], body: bytes, status: int, code: str
) -> None:
    answer = publish(service[0], "clean", body)
    assert (answer["status"], answer["code"]) == (status, code)
    assert answer["error"]
    past = read(service[0], f"/api/groups/clean/messages?token={service[0].token('clean')}")
    assert (past["offset"], past["messages"]) == (0, [])


def test_the_largest_data_is_taken(service: list[Replica]) -> None:
    assert publish(service[0], "large", b'{ "data" : "' + b"x" * 65_534 + b'" }')["status"] == 200


def test_two_ids_that_differ_are_one_too_many(service: list[Replica]) -> None:
    answer = publish(service[0], "clean", {"data": 1, "id": "a"}, Idempotency_Key="b")
    assert (answer["status"], answer["code"]) == (400, "bad_id")


def endless() -> Iterator[bytes]:
    """Give a body without an end, whose length nobody is told."""
    for _ in range(10_000):
        yield b"x" * 10_000


def test_a_body_without_end_is_not_read_to_its_end(service: list[Replica]) -> None:
    token = service[0].token("clean")
    head = f"POST /api/groups/clean/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    with socket.create_connection(("127.0.0.1", service[0].port), 60) as sock:
        sock.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        for chunk in list(endless())[:9]:
            sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        assert sock.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("what", ["messages", "presence"])
def test_without_a_good_token_nothing_is_told(service: list[Replica], what: str) -> None:
    path = f"/api/groups/secret/{what}"
    expired = service[0].token("secret", seconds=-5)
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Basic {service[0].token('secret')}"},
        {"Authorization": f"Bearer {expired}"},
    ):
        status, answer, told = service[0].ask("GET", path, **headers)
        assert (status, answer["code"]) == (401, "unauthorized")
        assert told["WWW-Authenticate"] == "Bearer"
        assert expired not in answer["error"]


def test_a_token_is_good_for_what_it_says_and_no_more(service: list[Replica]) -> None:
    replica = service[0]
    writer, reader = replica.token("room:*", may=("publish",)), replica.token("room:*", may=("subscribe",))
    assert publish(replica, "room:1", {"data": 1}, writer)["status"] == 200
    assert publish(replica, "room:1", {"data": 1}, reader)["code"] == "forbidden"
    assert publish(replica, "other", {"data": 1}, writer)["status"] == 403
    for what in ("messages", "presence"):
        assert read(replica, f"/api/groups/room:1/{what}", Authorization=f"Bearer {reader}")["status"] == 200
        assert read(replica, f"/api/groups/room:1/{what}", Authorization=f"Bearer {writer}")["status"] == 403
        assert read(replica, f"/api/groups/other/{what}?token={reader}")["status"] == 403


@pytest.mark.parametrize(
    "group", ["a%20b", "a%2Fb", "g" * 101, "%F0%9F%98%80", "", "%00"], ids=lambda group: group[:20] or "empty"
)
def test_a_name_that_is_none_is_refused(service: list[Replica], group: str) -> None:
    token = service[0].token("*")
    answer = publish(service[0], group, {"data": 1}, token)
    assert (answer["status"], answer["code"]) == (400, "bad_name")
    assert read(service[0], f"/api/groups/{group}/presence?token={token}")["code"] == "bad_name"


def test_other_paths_and_methods(service: list[Replica]) -> None:
    replica = service[0]
    for method, what, allowed in (("PUT", "messages", "GET, HEAD, POST"), ("POST", "presence", "GET, HEAD")):
        status, answer, headers = replica.ask(method, f"/api/groups/g/{what}")
        assert (status, answer["code"], headers["Allow"]) == (405, "bad_method", allowed)
    assert replica.get("/api/groups/g/else")[0] == replica.get("/api/groups/g/h/messages")[0] == 404, "it is the app's"


async def test_the_past_is_the_same_over_http_as_on_the_socket(service: list[Replica]) -> None:
    token = service[0].token("past")
    for number in range(5):
        publish(service[0], "past", {"data": number, "id": str(number)})
    client = await enter(service[1].ws)
    epoch = publish(service[0], "past", {"data": 5, "id": "5"})["epoch"]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("", {}),
        ("limit=2", {"limit": 2}),
        (f"limit=2&epoch={epoch}&offset=1", {"limit": 2, "since": {"epoch": epoch, "offset": 1}}),
        (f"epoch={epoch}&offset=6", {"since": {"epoch": epoch, "offset": 6}}),
    ]
    for query, command in asked:
        await client.say(type="history", group="past", **command)
        heard = await client.hear()
        answer = read(service[0], f"/api/groups/past/messages?token={token}&{query}")
        assert answer.pop("status") == 200
        assert answer.pop("gap") is False
        assert {"type": "history", **answer} == heard
    await client.close()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "bad_limit"),
        ("limit=1001", "bad_limit"),
        ("limit=-1", "bad_limit"),
        ("limit=x", "bad_limit"),
        ("limit=" + "9" * 5000, "bad_limit"),
        ("epoch=e", "bad_place"),
        ("offset=1", "bad_place"),
        ("epoch=e&offset=-1", "bad_place"),
        ("epoch=e&offset=" + "9" * 5000, "bad_place"),
    ],
    ids=lambda value: value[:20],
)
def test_a_bad_query_is_refused(service: list[Replica], query: str, code: str) -> None:
    answer = read(service[0], f"/api/groups/past/messages?token={service[0].token('past')}&{query}")
    assert (answer["status"], answer["code"]) == (400, code)


def test_a_place_of_another_log_or_of_the_future_is_a_gap(service: list[Replica]) -> None:
    epoch = publish(service[0], "gone", {"data": 1})["epoch"]
    for place in ("epoch=other&offset=1", f"epoch={epoch}&offset=2"):
        answer = read(service[0], f"/api/groups/gone/messages?token={service[0].token('gone')}&{place}")
        assert (answer["gap"], answer["messages"], answer["offset"]) == (True, [], 1)


async def test_presence_is_told_over_http(service: list[Replica]) -> None:
    client = await enter(service[1].ws + "who/")
    await client.hear()
    await client.say(type="presence", group="who")
    heard = await client.hear()
    path = f"/api/groups/who/presence?token={service[0].token('who')}"
    deadline = time.monotonic() + 60
    while (answer := read(service[0], path))["count"] != 1:
        assert time.monotonic() < deadline, answer
    assert answer == {"status": 200, "group": "who", "count": 1, "members": heard["members"]}
    await client.close()


async def test_a_group_whose_shard_is_down_is_unavailable_for_now(redises: Redises, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("k" * 48)
    environ = {"SHARDS_TOKEN_KEY_FILE": str(tmp_path / "tokens"), "SHARDS_PUBLISH_SECONDS": "1"}
    replica = Replica(redises.control, **environ).start()
    bearer = {"Authorization": f"Bearer {replica.token('down')}"}
    try:
        for shard in redises.shards:
            shard.kill()
        for method, what in (("POST", "messages"), ("GET", "messages"), ("GET", "presence")):
            path = f"/api/groups/down/{what}"
            status, answer, headers = await asyncio.to_thread(
                replica.ask, method, path, b'{"data":1,"id":"one"}', **bearer
            )
            assert (status, answer["code"], headers["Retry-After"]) == (503, "unavailable", "1")
        for shard in redises.shards:
            shard.start()
        deadline = time.monotonic() + 60
        while (answer := publish(replica, "down", {"data": 1, "id": "one"}))["status"] == 503:
            assert time.monotonic() < deadline
        assert answer["offset"] == 1
    finally:
        replica.stop()
