"""A TCP proxy that faults can be injected at: cut, freeze, refuse."""

from __future__ import annotations

import asyncio
from typing import Self


class Proxy:
    """Passes connections on to the first of `ports` that takes them.

    Attributes:
        first: which of the ports is tried first.
        requests: the first bytes of each connection.
    """

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.first = 0
        self.requests: list[bytes] = []
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/"

    def cut(self) -> None:
        """Cut all connections, as a reset does."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self, frozen: bool) -> None:
        """Pass on nothing more on the connections there are; those that come work. Or pass it all on again."""
        if frozen:
            self._frozen |= self._writers
            self._thawed.clear()
        else:
            self._frozen.clear()
            self._thawed.set()

    def refuse(self, refusing: bool) -> None:
        """Cut connections as they come."""
        self._refusing = refusing

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        ports = self.ports[self.first :] + self.ports[: self.first]
        for port in ports:
            try:
                upstream = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            for source, sink in ((reader, upstream[1]), (upstream[0], writer)):
                self._writers.add(sink)
                task = asyncio.create_task(self._pump(source, sink, writer, upstream[1], sink is not writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        writer.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        one: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        upwards: bool,
    ) -> None:
        first = upwards
        try:
            while data := await source.read(65536):
                if first:
                    self.requests.append(data)
                    first = False
                while sink in self._frozen:
                    await self._thawed.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(sink)
            one.transport.abort()
            other.transport.abort()
