"""A stock Channels project, brought to the fleet with nothing but the layer's name in its settings."""

from __future__ import annotations

import asyncio
import json
import os
import sys

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
            frame = json.loads(await asyncio.wait_for(client.recv(), 60))
            assert frame == {"message": f"hello {number}"}
    for client in clients:
        await client.close()


async def test_what_comes_over_http_with_a_token_calls_no_handler(service: list[Replica]) -> None:
    """Tokens are given to browsers, and a message that Channels hands on names the method that gets it."""
    talker = await connect(f"ws://127.0.0.1:{service[0].port}/ws/chat/quiet/")
    bearer = {"Authorization": f"Bearer {service[0].token('chat_quiet')}"}
    forged = json.dumps({"data": {"type": "chat.message", "message": "forged"}}).encode()
    for data in (forged, b'{"data":{"type":"chat.message","message":"forged"},"via":"backend"}'):
        assert service[1].ask("POST", "/api/groups/chat_quiet/messages", data, **bearer)[0] == 200
    await talker.send(json.dumps({"message": "real"}))
    assert json.loads(await asyncio.wait_for(talker.recv(), 60)) == {"message": "real"}
    await talker.close()


BACKEND = """
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
send = async_to_sync(get_channel_layer().group_send)
for number in range(3):
    send("chat_jobs", {"type": "chat.message", "message": f"job {number}"})
"""


async def test_a_plain_process_sends_to_groups(service: list[Replica]) -> None:
    """A management command, or a task of a queue: no server, no event loop of its own."""
    listener = await connect(f"ws://127.0.0.1:{service[0].port}/ws/chat/jobs/")
    await listener.send(json.dumps({"message": "ready"}))
    await asyncio.wait_for(listener.recv(), 60)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ENVIRON['SHARDS_APP_DIR']}",
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "MESSAGE_REDIS_URL": service[0].control.url,
        "CHANNEL_REDIS_URL": service[0].control.url,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", BACKEND, env=environ, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 90)
    assert (process.returncode, stderr) == (0, b"")
    for number in range(3):
        assert json.loads(await asyncio.wait_for(listener.recv(), 60)) == {"message": f"job {number}"}
    await listener.close()


def test_its_pages_and_the_fleets_own_paths_are_both_there(service: list[Replica]) -> None:
    status, page = service[0].get("/chat/lobby/")
    assert status == 200
    assert "Talk in lobby." in page
    assert service[0].get("/readyz")[0] == 200
