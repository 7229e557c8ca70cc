"""uvicorn's server and its supervisor of several, with a word to the worker before sockets are closed."""

from __future__ import annotations

import socket
from functools import partial
from typing import cast

import uvicorn
from uvicorn.supervisors import Multiprocess, multiprocess

from shards.server.protocol import SocketProtocol
from shards.server.worker import Worker


class Server(uvicorn.Server):
    """One worker's server: tells it when it serves, and lets it hand its sockets over before it stops."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            make = partial(SocketProtocol, self.config, self.server_state, self.lifespan.state)
            self._worker.welcome(make)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._worker.leave()
        await super().shutdown(sockets)

    @property
    def _worker(self) -> Worker:
        return cast(Worker, self.lifespan.state["shards.worker"])


class _Process(multiprocess.Process):
    """A process of a replica with several."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Server(self.config)
        return self._server


def serve(configuration: uvicorn.Config) -> bool:
    """Serve until SIGTERM; give whether it began at all."""
    if configuration.workers > 1:
        # uvicorn has no other way to say which server its processes run.
        multiprocess.Process = _Process  # type: ignore[misc]
        Multiprocess(configuration, sockets=[configuration.bind_socket()]).run()
        return True
    server = Server(configuration)
    server.run()
    return server.started
