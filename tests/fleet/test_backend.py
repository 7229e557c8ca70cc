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

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]


def ask(fleet: Commands, path: str, token: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{fleet.port}{path}"
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=30
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
        heard = [json.loads(await asyncio.wait_for(socket.recv(), 30)) for _ in range(2)]
    assert [(message["offset"], message["data"]) for message in heard] == [(1, {"job": 1}), (2, None)]


def test_a_message_that_is_too_large_is_wrong_usage(fleet: Commands) -> None:
    refused = fleet("publish", "--group", "jobs", "--data", json.dumps("x" * 70_000))
    assert (refused.code, len(refused.stderr.splitlines())) == (2, 1)


async def test_tokens_are_in_no_log(fleet: Commands) -> None:
    """In the URL of a socket and of a request, good or bad, also where the replicas die over them."""
    tokens = [fleet.ok("token", "--group", "*").stdout.strip(), "none-of-ours"]
    path = f"127.0.0.1:{fleet.port}"
    async with connect(f"ws://{path}/ws/a/?token={tokens[0]}") as socket:
        await socket.recv()
        for alive in (True, False):
            for token in tokens:
                answer = await asyncio.to_thread(status_of, f"http://{path}/api/groups/a/messages?token={token}")
                # Those that were killed may be there again.
                assert answer in ({200, 401} if alive else {200, 401, 502, 503})
                if token == tokens[1]:
                    with pytest.raises((InvalidStatus, OSError)):
                        await connect(f"ws://{path}/ws/a/?token={token}")
            for replica in fleet.status()["replicas"] if alive else ():
                os.kill(replica["pid"], signal.SIGKILL)
    await asyncio.to_thread(fleet.until, lambda status: status["state"] == "steady")
    logs = {log.name: log.read_text() for log in (fleet.directory / "logs").iterdir()}
    assert not [name for name, text in logs.items() if "token=" in text or any(token in text for token in tokens)]


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
