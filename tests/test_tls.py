"""A shard that is reached over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shards.plane import Plane
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Settings
from tests.certificates import certificate, server_context
from tests.redis_server import RedisServer
from tests.test_hub import publish


@asynccontextmanager
async def tls_in_front_of(server: RedisServer, trusted: Path) -> AsyncIterator[int]:
    """Speak TLS for a server that does not; gives the port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(trusted)) as proxy:
        yield proxy.sockets[0].getsockname()[1]
        proxy.close()


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_that_the_host_trusts_is_taken_and_no_other(
    start_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    own = certificate(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(own))
    control = start_redis()
    async with tls_in_front_of(start_redis(), own) as port:
        async with Redis.from_url(control.url) as redis:
            shard = Shard("shared-0", f"rediss://localhost:{port}/0")
            await Control(redis).swap_table(SlotTable.first([shard]), 0)
        plane = Plane(Settings(message_redis_url=control.url))
        await plane.start()
        try:
            if trusted:
                await plane.until_ready(60)
                assert [place.offset for place in await publish(plane, "room", range(3))] == [1, 2, 3]
            else:
                with pytest.raises(TimeoutError):
                    await plane.until_ready(1)
        finally:
            await plane.stop()
