"""Tokens on the socket: who needs one, and what one that is there allows."""

from __future__ import annotations

import asyncio

import pytest

from tests.replica import ROOT, Replica
from tests.server.test_wire import enter, refused_with

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


async def test_a_token_that_expires_meanwhile_costs_no_connection(service: list[Replica]) -> None:
    token = service[0].token("open-*", seconds=1)
    client = await enter(service[0].ws + f"?token={token}")
    async with asyncio.timeout(60):
        while service[0].ask("GET", "/api/groups/open-a/presence", Authorization=f"Bearer {token}")[0] != 401:
            await asyncio.sleep(0.1)
    await client.say(type="subscribe", group="open-a")
    assert (await client.hear())["type"] == "subscribed"
    assert await refused_with(service[0].ws + f"?token={token}") == 403
    await client.close()
