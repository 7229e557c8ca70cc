"""What a connection took is given back when it ends, not when the garbage collector comes by, which is seldom."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.replica import ROOT, Replica

ENVIRON = {"SHARDS_APP": "counted:application", "SHARDS_APP_DIR": str(ROOT / "tests" / "apps" / "counted")}


async def _join(socket: ClientConnection) -> None:
    await socket.send(json.dumps({"type": "subscribe", "group": "lobby"}))
    while json.loads(await socket.recv())["type"] != "subscribed":
        pass
    await socket.send(json.dumps({"type": "publish", "group": "lobby", "id": "1", "data": 1}))
    while json.loads(await socket.recv())["type"] != "ack":
        pass


async def _echo(socket: ClientConnection) -> None:
    await socket.send("hello")
    assert await socket.recv() == "hello"


async def _abort(socket: ClientConnection) -> None:
    socket.transport.abort()


@pytest.mark.parametrize("end", [ClientConnection.close, _abort], ids=["closed", "cut"])
@pytest.mark.parametrize(("path", "use"), [("", _join), ("echo/", _echo)], ids=["GroupConsumer", "Channels consumer"])
async def test_nothing_is_left_of_a_connection(
    service: list[Replica],
    path: str,
    use: Callable[[ClientConnection], Awaitable[None]],
    end: Callable[[ClientConnection], Awaitable[None]],
) -> None:
    replica = service[0]

    def there() -> Counter[str]:
        return Counter(replica.get("/count")[1].split())

    async def visit() -> None:
        socket = await connect(replica.ws + path, compression=None)
        await use(socket)
        await end(socket)

    await visit()
    before = there()
    await asyncio.gather(*(visit() for _ in range(20)))
    async with asyncio.timeout(60):
        while (left := there() - before).total():
            await asyncio.sleep(0.05)
    assert not left
