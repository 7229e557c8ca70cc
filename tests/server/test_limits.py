"""What one client, and the bearers of one subject's tokens, may have a fleet keep: bytes, groups, requests."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.replica import Replica
from tests.server.test_handoff import moving
from tests.server.test_wire import Client, enter

BYTES_A_SECOND, LARGE, GROUPS = 20_000, 60_000, 5
AT_ONCE = (16 * BYTES_A_SECOND + 65_536) // LARGE
"""Large messages that fit at once."""

ENVIRON = {
    "SHARDS_BYTES_LIMIT": str(BYTES_A_SECOND),
    "SHARDS_GROUPS_PER_SOCKET": str(GROUPS),
    # 5 requests a second over HTTP, 100 at once.
    "SHARDS_RATE_LIMIT": "50",
    "SHARDS_SUBJECT_SHARE": "0.1",
}


async def publish_all(client: Client, group: str, count: int, size: int) -> list[str]:
    """Publish so many; give what each was answered: ``ack``, or the code of an error."""
    for number in range(count):
        await client.say(type="publish", group=group, id=str(number), data="x" * size)
    told: dict[str, str] = {}
    while len(told) < count:
        frame = await client.hear()
        told[frame["id"]] = frame.get("code", frame["type"])
    return [told[str(number)] for number in range(count)]


async def test_who_publishes_too_many_bytes_is_told_and_may_go_on_later(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    answers = await publish_all(client, "large", 3 * AT_ONCE, LARGE)
    assert answers[:AT_ONCE] == ["ack"] * AT_ONCE
    assert set(answers[AT_ONCE:]) <= {"ack", "rate_limited"}
    assert answers.count("ack") < 2 * AT_ONCE
    await asyncio.sleep(1.2 * LARGE / BYTES_A_SECOND)
    assert await publish_all(client, "large", 1, LARGE) == ["ack"], "and the connection was not lost for it"
    await client.close()


async def test_many_small_messages_count_as_one_large_one_does(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    assert (await publish_all(client, "mixed", AT_ONCE + 2, LARGE))[-1] == "rate_limited"
    answers = await publish_all(client, "mixed", 60, 1000)
    assert "rate_limited" in answers
    await client.close()


async def test_so_many_new_groups_and_no_more(service: list[Replica]) -> None:
    """Published to, read or subscribed, each is one that a shard keeps."""
    client = await enter(service[0].ws)
    answers = [(await publish_all(client, f"new-{number}", 1, 10))[0] for number in range(2 * GROUPS + 1)]
    assert answers == [*["ack"] * (2 * GROUPS), "too_many_groups"]
    assert await publish_all(client, "new-9", 1, 10) == ["ack"], "one of those before is not new"
    for command in ({"type": "history"}, {"type": "subscribe"}):
        await client.say(**command, group="another")
        error = await client.hear()
        assert (error["type"], error["code"], error["group"]) == ("error", "too_many_groups", "another")
    await client.close()


async def test_groups_that_are_left_again_count_too(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    told = []
    for number in range(2 * GROUPS + 1):
        await client.say(type="subscribe", group=f"left-{number}")
        told.append((await client.hear()).get("code", "subscribed"))
        await client.say(type="unsubscribe", group=f"left-{number}")
    assert told == [*["subscribed"] * (2 * GROUPS), "too_many_groups"]
    await client.close()


async def test_groups_that_one_is_in_are_not_new(service: list[Replica]) -> None:
    client = await enter(service[0].ws + "of-the-url/")
    await client.hear()
    for number in range(2 * GROUPS):
        await publish_all(client, f"in-{number}", 1, 10)
    await client.say(type="publish", id="mine", data=1)
    assert {(await client.hear())["type"] for _ in range(2)} == {"ack", "message"}
    await client.close()


async def test_who_is_handed_over_begins_no_new_account(service: list[Replica]) -> None:
    old, new = service
    client = await enter(old.ws)
    assert (await publish_all(client, "account", AT_ONCE + 3, LARGE))[-1] == "rate_limited"
    for number in range(2 * GROUPS - 1):
        await publish_all(client, f"account-{number}", 1, 10)
    async with moving(old, new, 1):
        pass
    assert "rate_limited" in await publish_all(client, "account", 3, LARGE)
    assert "too_many_groups" in [(await publish_all(client, f"fresh-{number}", 1, 10))[0] for number in range(3)]
    await client.close()


def ask(replica: Replica, token: str, count: int) -> list[int]:
    """Ask over HTTP who is in a group, again and again; give the statuses."""
    path = f"/api/groups/asked/presence?token={token}"
    return [replica.ask("GET", path)[0] for _ in range(count)]


def test_requests_with_one_subjects_tokens_are_limited_together(service: list[Replica]) -> None:
    tokens = [service[0].token("asked", subject="greedy", seconds=60 + number) for number in range(2)]
    statuses = ask(service[0], tokens[0], 150)
    assert 429 in statuses
    assert set(statuses) == {200, 429}
    assert 429 in ask(service[0], tokens[1], 10), "another token of the same subject gives no other share"
    status, answer, headers = service[0].ask("GET", f"/api/groups/asked/presence?token={tokens[0]}")
    if status == 429:
        assert (answer["code"], headers["Retry-After"]) == ("rate_limited", "1")
    assert ask(service[0], service[0].token("asked", subject="modest"), 10) == [200] * 10


@pytest.mark.parametrize(("method", "body"), [("POST", b'{"data":1}'), ("GET", b"")], ids=["publish", "history"])
def test_small_publishes_and_reads_of_the_history_are_requests_too(
    service: list[Replica], method: str, body: bytes
) -> None:
    bearer = {"Authorization": f"Bearer {service[0].token('asked', subject=f'small {method}')}"}
    told = [service[0].ask(method, "/api/groups/asked/messages", body, **bearer) for _ in range(150)]
    assert [status for status, *_ in told[:100]] == [200] * 100
    refused = [(answer["code"], headers["Retry-After"]) for status, answer, headers in told if status != 200]
    assert set(refused) == {("rate_limited", "1")}


def test_a_token_that_is_nobodys_has_a_share_of_its_own(service: list[Replica]) -> None:
    assert 429 in ask(service[0], service[0].token("asked", seconds=100), 150)
    assert ask(service[0], service[0].token("asked", seconds=101), 10) == [200] * 10


def test_bytes_over_http_are_limited(service: list[Replica]) -> None:
    bearer = {"Authorization": f"Bearer {service[0].token('asked', subject='heavy')}"}
    body = json.dumps({"data": "x" * LARGE}).encode()
    statuses = [service[0].ask("POST", "/api/groups/asked/messages", body, **bearer)[0] for _ in range(2 * AT_ONCE)]
    assert statuses[:AT_ONCE] == [200] * AT_ONCE
    assert 429 in statuses[AT_ONCE:]


async def test_sockets_and_requests_of_one_subject_share(service: list[Replica]) -> None:
    token = service[0].token("asked", subject="both")
    client = await enter(service[0].ws + f"?token={token}")
    answered = []
    for _ in range(90):
        await client.say(type="ping")
        answered.append((await client.hear())["type"])
        await asyncio.sleep(1 / 60)
    assert answered == ["pong"] * 90, "it stays within its own limit, and what it has of the subject's"
    assert 429 in await asyncio.to_thread(ask, service[0], token, 150)
    await client.say(type="ping")
    error = await client.hear()
    assert (error["type"], error["code"]) == ("error", "rate_limited")
    await client.close()


async def test_sockets_of_one_subject_share_new_groups(service: list[Replica]) -> None:
    """Who comes anew gets no new account."""

    async def reach(subject: str, *groups: str) -> list[str]:
        client = await enter(service[0].ws + f"?token={service[0].token('*', subject=subject)}")
        told = [(await publish_all(client, group, 1, 10))[0] for group in groups]
        await client.close()
        return told

    first, second = ([f"of-{name}-{number}" for number in range(GROUPS + 1)] for name in ("first", "second"))
    left = 2 * GROUPS - len(first)
    assert await reach("curious", *first) == ["ack"] * len(first)
    assert await reach("curious", *second) == ["ack"] * left + ["too_many_groups"] * (len(second) - left)
    assert await reach("curious", *first) == ["ack"] * len(first), "one that comes back to its groups is let in"
    assert await reach("another", *second) == ["ack"] * len(second)


async def test_who_is_refused_for_all_sockets_together_is_not_refused_for_its_own_afterwards(
    service: list[Replica],
) -> None:
    token = service[0].token("*", subject="together")
    early, late = [await enter(service[0].ws + f"?token={token}") for _ in range(2)]
    for number in range(2 * GROUPS):
        assert await publish_all(early, f"together-{number}", 1, 10) == ["ack"]
    for number in range(2 * GROUPS + 3):
        await late.say(type="publish", group=f"more-{number}", id="m", data=1)
        error = await late.hear()
        assert error["code"] == "too_many_groups"
        assert "on all of your connections together" in error["message"]
    for client in (early, late):
        await client.close()


@pytest.mark.parametrize("text", ["x", "x" * LARGE], ids=["frames", "bytes"])
async def test_in_a_plain_room_who_says_too_much_is_closed_and_the_others_are_not(
    service: list[Replica], text: str
) -> None:
    url = service[0].ws.replace("/ws/", "/plain/room/")
    async with connect(url, max_size=None) as other, connect(url, max_size=None) as loud:
        hearing = asyncio.create_task(_hear_all(loud))
        with pytest.raises(ConnectionClosed):
            for _ in range(500):
                await loud.send(text)
                await asyncio.sleep(0)
            await hearing
        await asyncio.wait([hearing])
        assert loud.close_code == 1008
        await other.send("still here")
        async with asyncio.timeout(60):
            while await other.recv() != "still here":
                pass


async def _hear_all(socket: ClientConnection) -> None:
    while True:
        await socket.recv()
