"""What a backend does with a fleet that runs: tokens, and messages through its edges."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.fleet.runner import Commands

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]


def ask(fleet: Commands, path: str, token: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{fleet.port}{path}"
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=5
    ) as answer:
        said: dict[str, Any] = json.load(answer)
        return said


def test_a_token_says_what_it_was_asked_for(fleet: Commands) -> None:
    said = json.loads(
        fleet.ok("token", "--group", "room:*", "--group", "news", "--ttl", "60", "--may", "subscribe", "--json").stdout
    )
    assert (said["groups"], said["may"]) == (["room:*", "news"], ["subscribe"])
    assert 50 < said["expires"] - time.time() <= 60
    claims = jwt.decode(said["token"], (fleet.directory / "secrets" / "tokens").read_text(), ["HS256"])
    assert claims == {"groups": ["room:*", "news"], "may": ["subscribe"], "exp": said["expires"]}
    plain = fleet.ok("token", "--group", "news").stdout.strip()
    assert ask(fleet, "/api/groups/news/messages", plain)["messages"] == []


async def test_a_message_is_published_from_the_command_line(fleet: Commands) -> None:
    async with connect(f"{fleet.url}/ws/jobs/") as socket:
        for _ in ("welcome", "subscribed"):
            await socket.recv()
        for text, offset in (('{"job": 1}', "1"), ('{"job": 1}', "1"), ("null", "2")):
            options = ("--id", "one") if offset == "1" else ()
            done = await asyncio.to_thread(fleet.ok, "publish", "--group", "jobs", "--data", text, *options)
            assert done.stdout.strip() == offset
        heard = [json.loads(await asyncio.wait_for(socket.recv(), 5)) for _ in range(2)]
    assert [(message["offset"], message["data"]) for message in heard] == [(1, {"job": 1}), (2, None)]


def test_a_message_that_is_too_large_is_wrong_usage(fleet: Commands) -> None:
    refused = fleet("publish", "--group", "jobs", "--data", json.dumps("x" * 70_000))
    assert (refused.code, len(refused.stderr.splitlines())) == (2, 1)


async def test_tokens_are_in_no_log(fleet: Commands) -> None:
    """In the URL of a socket and of a request, good or bad, also where the replica dies over them."""
    good = fleet.ok("token", "--group", "*").stdout.strip()
    tokens = [good, good[:-10] + "0000000000", "no-token-at-all"]
    for token in tokens:
        url = f"http://127.0.0.1:{fleet.port}/api/groups/a/messages?token={token}"
        try:
            await asyncio.to_thread(lambda url=url: urllib.request.urlopen(url, timeout=5).close())
        except urllib.error.HTTPError as error:
            error.close()
        try:
            async with connect(f"{fleet.url}/ws/a/?token={token}") as socket:
                await socket.recv()
                for replica in fleet.status()["replicas"]:
                    os.kill(replica["pid"], signal.SIGKILL)
                assert token == good
                with pytest.raises(Exception, match="close"):
                    while True:
                        await asyncio.wait_for(socket.recv(), 10)
        except InvalidStatus as refused:
            assert refused.response.status_code != 101
        # With nobody to answer, edges try again and again.
        with pytest.raises((InvalidStatus, OSError, EOFError)):
            await connect(f"{fleet.url}/ws/a/?token={token}x", open_timeout=5)
    await asyncio.to_thread(fleet.until, lambda status: status["state"] == "steady", 20)
    logs = {log.name: log.read_text() for log in (fleet.directory / "logs").iterdir()}
    assert not [name for name, text in logs.items() for token in tokens if token in text or "token=" in text]
