"""A TCP proxy between a process and a server, in which a test makes the network's faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from shards.aio import end
from shards.fleet.processes import free_port


class Proxy:
    """Forwards to a port of this machine.

    Attributes:
        delay: seconds that everything takes, each way.
        frozen: nothing is forwarded any more, and nobody is told: half-open TCP.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port(())
        self.delay = 0.0
        self.frozen = False
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            await end(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            target = await asyncio.open_connection("127.0.0.1", self._target)
            pairs = ((reader, target[1]), (target[0], writer))
            ways = [asyncio.create_task(self._forward(*pair)) for pair in pairs]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end(ways)
                await _close(target[1])
        except asyncio.CancelledError:
            return  # asyncio's server would log it
        finally:
            await _close(writer)
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await asyncio.sleep(self.delay)
                while self.frozen:
                    await asyncio.sleep(0.05)
                writer.write(data)
                await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
