"""A stock Channels project, brought to the fleet with nothing but the layer's name in its settings."""

from __future__ import annotations

import asyncio
import json

from websockets.asyncio.client import connect

from tests.replica import ROOT, Replica

ENVIRON = {"SHARDS_APP": "mysite.asgi:application", "SHARDS_APP_DIR": str(ROOT / "tests" / "apps" / "tutorial")}


async def test_the_tutorials_chat_crosses_replicas(service: list[Replica]) -> None:
    """Async and sync consumers, on two replicas, in one room."""
    urls = [f"ws://127.0.0.1:{replica.port}/ws/{kind}/lobby/" for replica in service for kind in ("chat", "sync")]
    clients = [await connect(url) for url in urls]
    for number, talker in enumerate(clients):
        await talker.send(json.dumps({"message": f"hello {number}"}))
        for client in clients:
            frame = json.loads(await asyncio.wait_for(client.recv(), 5))
            assert frame == {"message": f"hello {number}"}
    for client in clients:
        await client.close()


def test_its_pages_and_the_fleets_own_paths_are_both_there(service: list[Replica]) -> None:
    status, page = service[0].get("/chat/lobby/")
    assert status == 200
    assert "Talk in lobby." in page
    assert service[0].get("/readyz")[0] == 200
