"""A TCP proxy before servers, in which a test makes the network's faults: cut, freeze, delay, refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Self

from shards.aio import end


class Proxy:
    """Passes connections on to the first of some ports of this machine that takes them.

    Args:
        ports: of the servers.

    Attributes:
        delay: seconds that everything takes, each way.
        first: index of the port that is tried first.
        requests: the first bytes of each connection.
    """

    def __init__(self, *ports: int) -> None:
        self.delay = 0.0
        self.first = 0
        self.requests: list[bytes] = []
        self._ports = ports
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._freezes_newcomers = False
        self._thawed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._came, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await end(self._tasks)
        self.cut()
        await asyncio.sleep(0)  # what was aborted is closed by the loop

    @property
    def ws(self) -> str:
        """Where a service behind it has its WebSockets."""
        return f"ws://127.0.0.1:{self.port}/ws/"

    @property
    def redis(self) -> str:
        """The URL of a Redis server behind it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Cut all connections, as a reset does."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self, newcomers: bool = False) -> None:
        """Pass on nothing more on the connections there are, and tell nobody: half-open TCP.

        Args:
            newcomers: nor on those that come; else they work.
        """
        self._frozen |= self._writers
        self._freezes_newcomers = newcomers
        self._thawed.clear()

    def thaw(self) -> None:
        """Pass it all on again, what was held back first."""
        self._frozen.clear()
        self._freezes_newcomers = False
        self._thawed.set()

    def refuse(self, refusing: bool) -> None:
        """Cut connections as they come."""
        self._refusing = refusing

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._run(self._accept(reader, writer))

    def _run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None if self._refusing else await self._connect()
        if upstream is None:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        for source, sink in ((reader, upstream[1]), (upstream[0], writer)):
            task = self._run(self._pass_on(source, sink, sink is not writer))
            # What ends one way ends the other.
            task.add_done_callback(lambda _: [sink.transport.abort() for sink in (writer, upstream[1])])
        self._writers |= {writer, upstream[1]}

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self._ports[self.first :] + self._ports[: self.first]:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
        return None

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_request: bool) -> None:
        try:
            while data := await source.read(1 << 16):
                if is_request:
                    self.requests.append(data)
                    is_request = False
                await asyncio.sleep(self.delay)
                while sink in self._frozen or self._freezes_newcomers:
                    await self._thawed.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(sink)
