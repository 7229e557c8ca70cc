"""The wire protocol, as a client of any WebSocket library sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.proxy import Proxy
from tests.replica import Replica

ENVIRON = {"SHARDS_RATE_LIMIT": "2000", "SHARDS_ALLOWED_ORIGINS": "https://friend.example"}


class Client:
    """A socket, and the frames it got."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.welcome: dict[str, Any] = {}

    async def say(self, **frame: object) -> None:
        await self.ws.send(json.dumps(frame))

    async def hear(self, seconds: float = 60) -> dict[str, Any]:
        # Not `wait_for`: before Python 3.12 that swallows a cancel where a frame comes at the same moment.
        async with asyncio.timeout(seconds):
            frame: dict[str, Any] = json.loads(await self.ws.recv())
        return frame

    async def hear_all(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """Hear `count` frames, sorted by type: acks and messages may come in either order."""
        frames: dict[str, list[dict[str, Any]]] = {}
        for _ in range(count):
            frame = await self.hear()
            frames.setdefault(frame["type"], []).append(frame)
        return frames

    async def close(self) -> None:
        await self.ws.close()


async def enter(url: str, **options: Any) -> Client:
    client = Client(await connect(url, compression=None, max_size=None, **options))
    client.welcome = await client.hear()
    assert client.welcome["type"] == "welcome"
    return client


async def test_the_first_frame_is_the_welcome(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    assert client.welcome.keys() == {"type", "session", "replica"}
    assert client.welcome["replica"] == "blue-0"
    await client.close()


async def test_two_clients_on_two_replicas_talk(service: list[Replica]) -> None:
    alice, bob = await enter(service[0].ws + "talk/"), await enter(service[1].ws + "talk/")
    for client in (alice, bob):
        subscribed = await client.hear()
        assert subscribed == {
            "type": "subscribed", "group": "talk", "epoch": subscribed["epoch"], "offset": 0, "recovered": False
        }  # fmt: skip
    await alice.say(type="publish", id="1", data={"text": "hello"})
    frames = await alice.hear_all(2)
    assert frames["ack"] == [{"type": "ack", "id": "1", "group": "talk", "offset": 1}]
    message = {"type": "message", "group": "talk", "offset": 1, "id": "1", "data": {"text": "hello"}}
    assert frames["message"] == [message]
    assert await bob.hear() == message
    await alice.close()
    await bob.close()


async def test_an_id_repeated_in_a_continued_session_is_acked_with_its_first_offset(service: list[Replica]) -> None:
    first = await enter(service[0].ws)
    for _ in range(2):
        await first.say(type="publish", group="again", id="1", data=1)
        assert (await first.hear())["offset"] == 1
    await first.close()
    second = await enter(service[1].ws + f"?session={first.welcome['session']}")
    assert second.welcome["session"] == first.welcome["session"]
    await second.say(type="publish", group="again", id="1", data=1)
    assert (await second.hear())["offset"] == 1
    await second.close()


async def test_a_client_that_comes_back_with_its_place_missed_nothing(service: list[Replica]) -> None:
    alice, bob = await enter(service[0].ws + "back/"), await enter(service[1].ws + "back/")
    place = await bob.hear()
    await bob.close()
    for number in range(300):
        await alice.say(type="publish", id=str(number), data=number)
    bob = await enter(service[0].ws + f"back/?epoch={place['epoch']}&offset=0")
    subscribed = await bob.hear()
    assert (subscribed["offset"], subscribed["recovered"]) == (0, True)
    frames = [await bob.hear() for _ in range(300)]
    assert [frame["data"] for frame in frames] == list(range(300))
    assert [frame["offset"] for frame in frames] == list(range(1, 301))
    await alice.close()
    await bob.close()


async def test_subscribe_and_unsubscribe(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    await client.say(type="subscribe", group="a")
    place = await client.hear()
    await client.say(type="unsubscribe", group="a")
    await client.say(type="publish", group="a", id="1", data=None)
    assert (await client.hear())["type"] == "ack"
    await client.say(type="subscribe", group="a", since={"epoch": place["epoch"], "offset": 0})
    assert (await client.hear())["recovered"]
    assert (await client.hear())["type"] == "message"
    await client.close()


async def test_history_and_presence_and_ping(service: list[Replica]) -> None:
    client = await enter(service[0].ws + "past/")
    epoch = (await client.hear())["epoch"]
    for number in range(5):
        await client.say(type="publish", id=str(number), data=number)
    await client.hear_all(10)
    await client.say(type="history", group="past", limit=2)
    history = await client.hear()
    assert history == {
        "type": "history", "group": "past", "epoch": epoch, "offset": 5,
        "messages": [{"offset": 4, "id": "3", "data": 3}, {"offset": 5, "id": "4", "data": 4}],
    }  # fmt: skip
    await client.say(type="history", group="past", since={"epoch": epoch, "offset": 1}, limit=2)
    assert [message["offset"] for message in (await client.hear())["messages"]] == [2, 3]
    await client.say(type="presence", group="past")
    presence = await client.hear()
    assert presence["count"] == len(presence["members"]) == 1
    assert client.welcome["session"] not in presence["members"], "sessions are secrets"
    await client.say(type="ping")
    assert await client.hear() == {"type": "pong"}
    await client.close()


async def test_who_reads_all_the_time_may_ask_for_more_history_than_fits_at_once(service: list[Replica]) -> None:
    """Over a line that takes longer than the service: it waits for the reader, rather than to call it too slow."""
    writer = await enter(service[0].ws)
    for number in range(20):
        await writer.say(type="publish", group="thick", id=str(number), data="x" * 60_000)
    await writer.hear_all(20)
    async with Proxy(service[1].port) as line:
        line.delay = 0.01
        reader = await enter(line.ws)
        for _ in range(20):
            await reader.say(type="history", group="thick", limit=20)
        histories = [await reader.hear(20) for _ in range(20)]
        assert {history["messages"][-1]["offset"] for history in histories} == {20}
        await reader.close()
    await writer.close()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("x", "bad_json"),
        ("", "bad_json"),
        ("[" * 100_000, "bad_message"),
        ('{"type":"publish","group":"g","id":"1","data":' + "[" * 50_000, "bad_json"),
        ("[]", "bad_message"),
        ("{}", "bad_message"),
        ('{"type":"shout"}', "bad_message"),
        ('{"type":"publish","group":"g","data":1}', "bad_message"),
        ('{"type":"publish","group":"g","id":"1"}', "bad_message"),
        ('{"type":"publish","group":"g","id":1,"data":1}', "bad_message"),
        ('{"type":"publish","group":"g","id":"","data":1}', "bad_id"),
        ('{"type":"publish","group":"g","id":"' + "i" * 65 + '","data":1}', "bad_id"),
        ('{"type":"publish","id":"1","data":1}', "bad_name"),
        ('{"type":"subscribe","group":"a b"}', "bad_name"),
        ('{"type":"subscribe","group":"a/b"}', "bad_name"),
        ('{"type":"subscribe","group":"' + "g" * 101 + '"}', "bad_name"),
        ('{"type":"subscribe","group":"😀"}', "bad_name"),
        ('{"type":"subscribe","group":"g","since":{"epoch":"e","offset":-1}}', "bad_place"),
        ('{"type":"subscribe","group":"g","since":{"epoch":"e","offset":1000000000000000000}}', "bad_place"),
        ('{"type":"subscribe","group":"g","since":{"epoch":"e"}}', "bad_message"),
        ('{"type":"subscribe","group":"g","since":{"epoch":"e","offset":' + "9" * 5000 + "}}", "bad_message"),
        ('{"type":"subscribe","group":"g","events":"yes"}', "bad_message"),
        ('{"type":"subscribe","group":""}', "bad_name"),
        ('{"type":"history","group":"a b"}', "bad_name"),
        ('{"type":"history","group":"g","since":{"epoch":"e","offset":-1}}', "bad_place"),
        ('{"type":"presence","group":"a/b"}', "bad_name"),
        ('{"type":"publish","group":"a b","id":"1","data":1}', "bad_name"),
        ('{"type":"publish","group":"' + "g" * 101 + '","id":"1","data":1}', "bad_name"),
        ('{"type":"unsubscribe","group":"never"}', "not_subscribed"),
        ('{"type":"history","group":"g","limit":0}', "bad_limit"),
        ('{"type":"history","group":"g","limit":1001}', "bad_limit"),
        ('{"type":"publish","group":"g","id":"1","data":"' + "x" * 65_535 + '"}', "too_large"),
        ('{"type":"publish","group":"g","id":"1","data":' + "9" * 5000 + "}", "bad_message"),
        ('{"type":"publish","group":"g","id":"1","data":' + "[" * 900 + "]" * 900 + "}", "bad_message"),
    ],
    ids=lambda value: value[:60] if len(value) < 100 else value[:20] + "…",
)
async def test_bad_input_is_answered_with_a_stable_code(service: list[Replica], frame: str, code: str) -> None:
    client = await enter(service[0].ws)
    await client.ws.send(frame)
    error = await client.hear()
    assert (error["type"], error["code"]) == ("error", code)
    assert error["message"]
    await client.say(type="ping")
    assert await client.hear() == {"type": "pong"}, "one mistake doesn't cost the connection"
    await client.close()


@pytest.mark.parametrize("ahead", [1, 10**17])
@pytest.mark.parametrize("epoch", ["its own", "", "another", "é" * 1000])
async def test_a_place_that_never_was_is_a_gap_and_then_it_goes_on(
    service: list[Replica], ahead: int, epoch: str
) -> None:
    """An offset from the future, or of another log: never taken for ours, never silent."""
    client = await enter(service[0].ws)
    await client.say(type="history", group="never")
    now = await client.hear()
    since = {"epoch": now["epoch"] if epoch == "its own" else epoch, "offset": now["offset"] + ahead}
    await client.say(type="history", group="never", since=since)
    assert (await client.hear())["messages"] == []
    assert (await client.hear())["type"] == "gap"
    await client.say(type="subscribe", group="never", since=since)
    subscribed, gap = await client.hear(), await client.hear()
    assert (subscribed["type"], subscribed["recovered"], subscribed["offset"]) == ("subscribed", False, now["offset"])
    assert gap == {"type": "gap", "group": "never", "epoch": now["epoch"], "offset": now["offset"]}
    await client.say(type="publish", group="never", id="1", data=1)
    assert (await client.hear_all(2))["message"][0]["offset"] == now["offset"] + 1
    await client.close()


async def test_who_has_not_subscribed_may_publish(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    await client.say(type="publish", group="unseen", id="i" * 64, data="x" * 65_534)
    assert await client.hear() == {"type": "ack", "id": "i" * 64, "group": "unseen", "offset": 1}
    await client.close()


async def test_an_empty_group_is_not_that_of_the_url(service: list[Replica]) -> None:
    client = await enter(service[0].ws + "here/")
    await client.hear()
    await client.say(type="publish", group="", id="1", data=1)
    assert (await client.hear())["code"] == "bad_name"
    await client.close()


async def test_ten_thousand_subscriptions_on_one_socket_are_refused(service: list[Replica]) -> None:
    client, other = await enter(service[0].ws), await enter(service[0].ws)
    codes: set[str] = set()
    subscribed = 0

    async def say() -> None:
        with contextlib.suppress(ConnectionClosed):
            for number in range(10_000):
                await client.say(type="subscribe", group=f"most-{number}")

    saying = asyncio.create_task(say())
    with pytest.raises(ConnectionClosed):
        while True:
            frame = await client.hear()
            subscribed += frame["type"] == "subscribed"
            codes |= {frame["code"]} if frame["type"] == "error" else set()
    await saying
    assert subscribed <= 100
    assert client.ws.close_code == 1008
    assert codes == {"too_many_groups"}
    await other.say(type="ping")
    assert await other.hear() == {"type": "pong"}, "others don't notice"
    await other.close()


async def test_an_error_names_the_publish_it_refuses(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    await client.ws.send('{"type":"publish","group":"a b","id":"mine","data":1}')
    assert (await client.hear())["id"] == "mine"
    await client.close()


@pytest.mark.parametrize("id", ["", "i" * 65, "i" * 5000], ids=len)
async def test_an_id_that_is_none_is_named_as_it_came(service: list[Replica], id: str) -> None:
    """The client knows its publish by that, and does not take the error for another command's."""
    client = await enter(service[0].ws)
    await client.say(type="publish", group="g", id=id, data=1)
    error = await client.hear()
    assert (error["code"], error["id"], error.get("group")) == ("bad_id", id, None)
    await client.say(type="publish", group="g", id=id)
    error = await client.hear()
    assert (error["code"], error["id"]) == ("bad_message", id)
    await client.close()


async def test_a_group_of_the_url_tells_of_itself_and_is_subscribed_once(service: list[Replica]) -> None:
    client = await enter(service[0].ws + "itself/")
    subscribed = await client.hear()
    assert (subscribed["type"], subscribed["group"]) == ("subscribed", "itself")
    await client.say(type="subscribe", group="itself", since={"epoch": subscribed["epoch"], "offset": 0})
    error = await client.hear()
    assert (error["code"], error["group"]) == ("already_subscribed", "itself")
    await client.close()


async def closed_with(client: Client) -> int:
    with pytest.raises(ConnectionClosed):
        while True:
            await client.hear()
    assert client.ws.close_code is not None
    return client.ws.close_code


async def test_who_makes_errors_without_end_is_closed(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    for _ in range(60):
        await client.ws.send("x")
    assert await closed_with(client) == 1008


async def test_binary_frames_are_refused(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    await client.ws.send(b"\x00")
    assert await closed_with(client) == 1003


async def test_a_giant_frame_is_refused(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    await client.ws.send("x" * (1 << 20))
    assert await closed_with(client) == 1009


async def test_invalid_utf_8_is_refused(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    await client.ws.send(b"\xff\xfe", text=True)
    assert await closed_with(client) == 1007


async def test_a_hundred_and_first_group_is_refused(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    for number in range(101):
        await client.say(type="subscribe", group=f"many-{number}")
    frames = await client.hear_all(101)
    assert len(frames["subscribed"]) == 100
    assert frames["error"][0]["code"] == "too_many_groups"
    await client.close()


@pytest.mark.parametrize("query", ["epoch=e", "offset=3", "epoch=e&offset=-1", "epoch=e&offset=x", "epoch=e&offset=²"])
async def test_a_bad_place_in_the_url_is_said_and_starts_afresh(service: list[Replica], query: str) -> None:
    client = await enter(service[0].ws + f"place/?{query}")
    frames = await client.hear_all(2)
    assert frames["error"][0]["code"] == "bad_place"
    assert not frames["subscribed"][0]["recovered"]
    await client.close()


async def refused_with(url: str, **options: Any) -> int:
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, **options)
    return refused.value.response.status_code


async def test_a_page_of_another_origin_is_refused_before_the_upgrade(service: list[Replica]) -> None:
    url = service[0].ws
    assert await refused_with(url, origin="https://evil.example") == 403
    for origin in ("https://friend.example", f"http://127.0.0.1:{service[0].port}"):
        await (await enter(url, origin=origin)).close()


@pytest.mark.parametrize("path", ["/ws", "/nope/", "/ws/a/b/"])
async def test_a_path_that_is_none_is_refused_before_the_upgrade(service: list[Replica], path: str) -> None:
    assert await refused_with(service[0].ws.removesuffix("/ws/") + path) == 403


@pytest.mark.parametrize("path", ["a%20b/", "g" * 101 + "/", "ok/?session=a%20b"])
async def test_a_bad_name_in_the_url_is_refused_before_the_upgrade(service: list[Replica], path: str) -> None:
    assert await refused_with(service[0].ws + path) == 403
