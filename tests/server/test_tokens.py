"""Tokens on the socket: who needs one, and what one that is there allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shards.client
from tests.replica import ROOT, Replica
from tests.server.test_handoff import moving
from tests.server.test_wire import closed_with, enter, refused_with

ENVIRON = {
    "SHARDS_REQUIRE_TOKEN": "1",
    "SHARDS_APP": "guarded:application",
    "SHARDS_APP_DIR": str(ROOT / "tests" / "apps" / "guarded"),
}


async def test_without_a_good_token_nobody_comes_in(service: list[Replica]) -> None:
    url = service[0].ws
    expired = service[0].token("*", seconds=-5)
    for query in ("", "?token=", "?token=x", f"?token={expired}"):
        assert await refused_with(url + query) == 403


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ({"type": "subscribe", "group": "open-a"}, True),
        ({"type": "history", "group": "open-a"}, True),
        ({"type": "presence", "group": "open-a"}, True),
        ({"type": "publish", "group": "open-a", "id": "1", "data": 1}, False),
        ({"type": "subscribe", "group": "open-b"}, False),
        ({"type": "history", "group": "open-b"}, False),
        ({"type": "presence", "group": "open-b"}, False),
        ({"type": "publish", "group": "open-b", "id": "1", "data": 1}, True),
        ({"type": "subscribe", "group": "secret"}, False),
        ({"type": "publish", "group": "secret", "id": "1", "data": 1}, False),
        ({"type": "subscribe", "group": "open-c"}, False),
    ],
    ids=lambda value: f"{value['type']} {value['group']}" if isinstance(value, dict) else "",
)
async def test_both_the_token_and_the_app_must_allow_it(
    service: list[Replica], command: dict[str, object], allowed: bool
) -> None:
    """The app lets everyone into open-…, and nobody anywhere else."""
    may = ("publish",) if command["group"] == "open-b" else ("subscribe",)
    groups = ("open-a", "open-b", "secret")
    client = await enter(service[0].ws + f"?token={service[0].token(*groups, may=may)}")
    await client.say(**command)
    frame = await client.hear()
    assert frame.get("code") == (None if allowed else "forbidden"), frame
    await client.close()


async def test_a_socket_is_asked_to_come_back_before_its_token_expires_and_closed_then(service: list[Replica]) -> None:
    expires = time.time() + 3
    token = service[0].token("open-*", seconds=3)
    client = await enter(service[0].ws + f"?token={token}")
    await client.say(type="subscribe", group="open-a")
    assert (await client.hear())["type"] == "subscribed"
    hint = await client.hear()
    assert hint["type"] == "reconnect"
    assert 0 < hint["within_ms"] <= 1500
    assert time.time() < expires, "there is time to come back"
    assert await closed_with(client) == 1008
    assert time.time() - expires < 1
    assert await refused_with(service[0].ws + f"?token={token}") == 403


async def test_a_client_that_gets_new_tokens_misses_nothing_when_one_expires(service: list[Replica]) -> None:
    given = []

    def fresh() -> str:
        given.append(service[0].token("open-*", seconds=3))
        return given[-1]

    heard = []
    async with (
        shards.client.connect(service[0].ws, token=fresh) as client,
        client.subscribe("open-long") as messages,
        shards.client.connect(service[1].ws, token=service[1].token("open-*")) as speaker,
    ):
        number = 0
        async with asyncio.timeout(60):
            while len(given) < 3:
                await speaker.publish("open-long", number)
                number += 1
                await asyncio.sleep(0.02)
            while len(heard) < number:
                item = await anext(messages)
                assert isinstance(item, shards.client.Message), item
                heard.append(item.data)
    assert heard == list(range(number))


async def test_a_token_goes_on_counting_down_where_its_socket_is_handed_to(service: list[Replica]) -> None:
    old, new = service
    expires = time.time() + 8
    client = await enter(old.ws + f"?token={old.token('open-*', seconds=8)}")
    async with moving(old, new, 1):
        pass
    assert time.time() < expires - 1, "it has moved in time"
    assert (await client.hear())["type"] == "reconnect"
    assert await closed_with(client) == 1008
    assert abs(time.time() - expires) < 2


class KeyFile:
    """The file of the fleet's token keys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first = path.read_text()

    def hold(self, *keys: str) -> None:
        """Have it hold these keys, each written as its one letter; ``-`` is the one that it held first.

        Each test has letters of its own: a worker looks once a second, and may not see what was held for less.
        """
        self._path.write_text("\n".join(self._first if key == "-" else key * 48 for key in keys))


@pytest.fixture
def keys(service: list[Replica]) -> Iterator[KeyFile]:
    file = KeyFile(Path(service[0].environ["SHARDS_TOKEN_KEY_FILE"]))
    yield file
    file.hold("-")


async def test_whoever_came_with_a_key_that_is_taken_away_has_to_come_back_with_another(
    service: list[Replica], keys: KeyFile
) -> None:
    client = await enter(service[0].ws + f"?token={service[0].token('open-*', seconds=600)}")
    # As `inv rotate --tokens` does it: a new one first, the one before still good; the second time it goes.
    keys.hold("n", "-")
    other = await enter(service[0].ws + f"?token={service[0].token('open-*', seconds=600)}")
    await asyncio.sleep(2.5)
    keys.hold("m", "n")
    hint = await client.hear(5)
    assert (hint["type"], hint["within_ms"]) == ("reconnect", 10_000)
    assert await closed_with(client) == 1008
    await other.say(type="ping")
    assert await other.hear() == {"type": "pong"}, "whose key is good is left alone"
    await other.close()


async def test_to_be_handed_over_meanwhile_gives_no_more_time(service: list[Replica], keys: KeyFile) -> None:
    old, new = service
    client = await enter(old.ws + f"?token={old.token('open-*', seconds=600)}")
    keys.hold("p")
    assert (await client.hear(5))["within_ms"] == 10_000
    told = time.monotonic()
    await asyncio.sleep(4)
    async with moving(old, new, 1):
        pass
    assert time.monotonic() - told < 9, "it has moved in time"
    hint = await client.hear()
    while hint["within_ms"] > 6_000:
        # It could not be moved at once, and was asked by the drain to come back as well, which gives it longer.
        hint = await client.hear()
    assert hint["type"] == "reconnect"
    assert await closed_with(client) == 1008
    assert 9 < time.monotonic() - told < 12


async def test_a_key_that_comes_back_in_time_cuts_nobody(service: list[Replica], keys: KeyFile) -> None:
    client = await enter(service[0].ws + f"?token={service[0].token('open-*', seconds=600)}")
    keys.hold("q")
    assert (await client.hear(5))["type"] == "reconnect"
    keys.hold("q", "-")
    await asyncio.sleep(11)
    await client.say(type="ping")
    assert await client.hear() == {"type": "pong"}
    await client.close()


async def test_sockets_stay_while_the_keys_cannot_be_read(service: list[Replica], keys: KeyFile) -> None:
    client = await enter(service[0].ws + f"?token={service[0].token('open-*', seconds=600)}")
    keys.hold()
    await asyncio.sleep(2.5)
    keys.hold("-")
    await asyncio.sleep(1.5)
    await client.say(type="ping")
    assert await client.hear() == {"type": "pong"}
    await client.close()
