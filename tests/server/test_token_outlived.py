"""Where it is said that sockets outlive their tokens, they do."""

from __future__ import annotations

import asyncio

from tests.replica import Replica
from tests.server.test_wire import enter, refused_with

ENVIRON = {"SHARDS_REQUIRE_TOKEN": "1", "SHARDS_TOKEN_ENDS_SOCKET": "0"}


async def test_a_token_that_expires_meanwhile_costs_no_connection(service: list[Replica]) -> None:
    token = service[0].token("open-*", seconds=2)
    client = await enter(service[0].ws + f"?token={token}")
    async with asyncio.timeout(60):
        while service[0].ask("GET", "/api/groups/open-a/presence", Authorization=f"Bearer {token}")[0] != 401:
            await asyncio.sleep(0.1)
    await client.say(type="subscribe", group="open-a")
    assert (await client.hear())["type"] == "subscribed"
    assert await refused_with(service[0].ws + f"?token={token}") == 403
    await client.close()
