"""What tells the edges of a host where to send requests, against a real Redis."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shards.fleet import probe
from shards.ports import free_port
from shards.router.control import Control
from shards.server.route import token_of
from tests.redis_server import RedisServer


@pytest.fixture
def control(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """The control Redis."""
    return start_redis()


@pytest.fixture
async def port(control: RedisServer, tmp_path: Path) -> AsyncIterator[int]:
    """Where it listens."""
    (tmp_path / "log").touch()
    chosen = free_port(())
    environment = {**os.environ, "MESSAGE_REDIS_URL": control.url, "SHARDS_PORT": str(chosen)}
    with (tmp_path / "log").open("wb") as log:
        words = [sys.executable, "-m", "shards.server.route"]
        process = await asyncio.create_subprocess_exec(*words, env=environment, stderr=log)
    try:

        async def answers() -> bool:
            answer = await probe.get(chosen, "/livez")
            return answer is not None and answer.status == 200

        assert await probe.until(answers, 20), (tmp_path / "log").read_text()
        yield chosen
    finally:
        process.terminate()
        await process.wait()


async def route(port: int) -> tuple[int, object]:
    answer = await probe.get(port, "/route", within_s=5)
    assert answer is not None
    return answer.status, answer.body


async def test_an_edge_is_told_the_newest_route_and_the_last_one_while_the_control_redis_is_away(
    port: int, control: RedisServer
) -> None:
    # Nothing is better than an empty route, which an edge would follow.
    assert (await route(port))[0] == 503
    async with Redis.from_url(control.url) as redis:
        for said in (b'{"http":{"a":1}}', b'{"http":{"a":2}}'):
            await Control(redis).write_route(said)
            assert await route(port) == (200, {"http": {"a": int(said[-3:-2])}})
    control.kill()
    assert await route(port) == (200, {"http": {"a": 2}})


async def test_an_edge_is_asked_only_by_who_knows_the_token_and_only_about_itself(port: int) -> None:
    async def edge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).split()[1]
        writer.write(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"' + path + b'"')
        writer.close()

    server = await asyncio.start_server(edge, "127.0.0.1", 0)
    async with server:
        admin = server.sockets[0].getsockname()[1]

        async def ask(path: str, token: str) -> tuple[int, object]:
            answer = await probe.get(port, f"/edges/{admin}{path}", token=token)
            assert answer is not None
            return answer.status, answer.body

        assert (await ask("/ping", ""))[0] == 403
        assert (await ask("/ping", "wrong"))[0] == 403
        assert await ask("/ping", token_of("")) == (200, "/ping")
        assert await ask("/api/http/routers/app@http", token_of("")) == (200, "/api/http/routers/app@http")
        assert (await ask("/debug/pprof", token_of("")))[0] == 404
    assert (await ask("/ping", token_of("")))[0] == 502
