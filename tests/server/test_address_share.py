"""What the clients of one address may say, and reach, together, where that is limited."""

from __future__ import annotations

from tests.replica import Replica
from tests.server.test_limits import publish_all
from tests.server.test_wire import Client, enter

# At once as much as one socket: 100 frames, 385,536 bytes, 10 new groups. Then a fiftieth of what it may, so that it
# does not matter how long a test takes: a frame a second, 400 bytes, and a group in an hour.
ENVIRON = {
    "SHARDS_ADDRESS_SHARE": "0.02",
    "SHARDS_RATE_LIMIT": "50",
    "SHARDS_BYTES_LIMIT": "20000",
    "SHARDS_GROUPS_PER_SOCKET": "5",
}


async def come(service: list[Replica], address: str, group: str = "") -> Client:
    """Connect from an address, as an edge says it."""
    url = service[0].ws + (f"{group}/" if group else "")
    return await enter(url, additional_headers={"x-forwarded-for": address})


async def test_sockets_of_one_address_share_what_no_subject_has(service: list[Replica]) -> None:
    """Each by itself is within its limit."""

    async def pings(address: str, count: int = 30) -> list[str]:
        client = await come(service, address)
        for _ in range(count):
            await client.say(type="ping")
        answers = [await client.hear() for _ in range(count)]
        await client.close()
        return [answer.get("code", answer["type"]) for answer in answers]

    crowd = [await pings(f"2001:db8::{number}") for number in range(6)]
    assert "rate_limited" in crowd[-1]
    assert crowd[0] == ["pong"] * 30
    assert await pings("2001:db8:0:1::1") == ["pong"] * 30, "another network is none of its business"


async def test_bytes_are_shared(service: list[Replica]) -> None:
    told = []
    for _ in range(2):
        client = await come(service, "203.0.113.1")
        told += await publish_all(client, "large", 4, 60_000)
        await client.close()
    assert told[:4] == ["ack"] * 4
    assert told[-1] == "rate_limited"


async def test_new_groups_are_shared_and_those_of_before_are_not_new_on_another_socket(service: list[Replica]) -> None:
    async def reach(address: str, *groups: str) -> list[str]:
        client = await come(service, address)
        told = [(await publish_all(client, group, 1, 10))[0] for group in groups]
        await client.close()
        return told

    first, second = ([f"{name}-{number}" for number in range(6)] for name in ("first", "second"))
    assert await reach("203.0.113.2", *first) == ["ack"] * 6
    assert await reach("203.0.113.2", *second) == ["ack"] * 4 + ["too_many_groups"] * 2
    assert await reach("203.0.113.2", *first, "second-5") == ["ack"] * 6 + ["too_many_groups"]
    assert await reach("203.0.113.3", *second) == ["ack"] * 6, "another address is none of its business"


async def test_the_group_of_the_url_counts_too(service: list[Replica]) -> None:
    """Otherwise who comes anew each time has one more kept each time."""
    told = []
    for number in range(12):
        client = await come(service, "203.0.113.4", f"url-{number}")
        frame = await client.hear()
        told.append(frame.get("code", frame["type"]))
        await client.close()
    assert told == ["subscribed"] * 10 + ["too_many_groups"] * 2
