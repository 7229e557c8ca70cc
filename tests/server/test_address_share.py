"""What the clients of one address may say together, where that is limited."""

from __future__ import annotations

from tests.replica import Replica
from tests.server.test_wire import enter

# 150 frames a second for each address, 300 at once; for a socket 50 and 100.
ENVIRON = {"SHARDS_RATE_LIMIT": "50", "SHARDS_ADDRESS_SHARE": "3"}


async def test_sockets_of_one_address_share_what_no_subject_has(service: list[Replica]) -> None:
    """As an edge says where they come from; each by itself is within its limit."""

    async def pings(address: str, count: int) -> list[str]:
        client = await enter(service[0].ws, additional_headers={"x-forwarded-for": address})
        for _ in range(count):
            await client.say(type="ping")
        answers = [await client.hear() for _ in range(count)]
        await client.close()
        return [answer.get("code", answer["type"]) for answer in answers]

    crowd = [await pings(f"2001:db8::{number}", 95) for number in range(6)]
    assert "rate_limited" in crowd[-1]
    assert crowd[0] == ["pong"] * 95
    assert await pings("2001:db8:0:1::1", 95) == ["pong"] * 95, "another network is none of its business"
