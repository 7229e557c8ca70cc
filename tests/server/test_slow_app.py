"""An app that takes its time over who may come in: those who wait for its word count as well."""

from __future__ import annotations

import asyncio

from websockets.exceptions import InvalidStatus

from tests.replica import ROOT, Replica
from tests.server.test_wire import Client, enter

MOST = 5

ENVIRON = {
    "SHARDS_APP": "slow:application",
    "SHARDS_APP_DIR": str(ROOT / "tests" / "apps" / "slow"),
    "SHARDS_MAX_CONNECTIONS": str(MOST),
}


async def many(replica: Replica, count: int) -> tuple[list[Client], list[int]]:
    """Connect so many at once; give those who came in, and what the others were answered."""
    came = await asyncio.gather(*(enter(replica.ws) for _ in range(count)), return_exceptions=True)
    others = [error.response.status_code for error in came if isinstance(error, InvalidStatus)]
    return [client for client in came if isinstance(client, Client)], others


async def test_a_storm_of_handshakes_does_not_get_past_the_cap(service: list[Replica]) -> None:
    clients, others = await many(service[0], 4 * MOST)
    assert len(clients) == MOST
    assert others == [503] * (3 * MOST)
    for client in clients:
        await client.close()
    async with asyncio.timeout(60):
        while service[0].metric("app_active_connections"):
            await asyncio.sleep(0.1)
    clients, _ = await many(service[0], MOST)
    assert len(clients) == MOST, "whoever has gone makes room"
    for client in clients:
        await client.close()


async def test_who_leaves_before_the_apps_word_makes_room(service: list[Replica]) -> None:
    for _ in range(3 * MOST):
        _, writer = await asyncio.open_connection("127.0.0.1", service[1].port)
        head = "GET /ws/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
        writer.write(f"{head}\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
        await writer.drain()
        writer.transport.abort()
    async with asyncio.timeout(60):
        while True:
            clients, _ = await many(service[1], MOST)
            for client in clients:
                await client.close()
            if len(clients) == MOST:
                break
