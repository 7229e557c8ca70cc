"""A shard that is reached over TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shards.plane import Plane
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Settings
from tests.redis_server import RedisServer
from tests.test_hub import publish


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a certificate for localhost, its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    path, key = tmp_path / "certificate", tmp_path / "key"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*request, *names, "-keyout", key, "-out", path], check=True, capture_output=True)
    path.write_text(path.read_text() + key.read_text())
    return path


@asynccontextmanager
async def tls_in_front_of(server: RedisServer, certificate: Path) -> AsyncIterator[int]:
    """Speak TLS for a server that does not; gives the port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as proxy:
        yield proxy.sockets[0].getsockname()[1]
        proxy.close()


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_that_the_host_trusts_is_taken_and_no_other(
    start_redis: Callable[..., RedisServer], certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    control = start_redis()
    async with tls_in_front_of(start_redis(), certificate) as port:
        async with Redis.from_url(control.url) as redis:
            shard = Shard("shared-0", f"rediss://localhost:{port}/0")
            await Control(redis).swap_table(SlotTable.first([shard]), 0)
        plane = Plane(Settings(message_redis_url=control.url))
        await plane.start()
        try:
            if trusted:
                await plane.until_ready()
                assert [place.offset for place in await publish(plane, "room", range(3))] == [1, 2, 3]
            else:
                with pytest.raises(TimeoutError):
                    await plane.until_ready(1)
        finally:
            await plane.stop()
