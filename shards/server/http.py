"""uvicorn's HTTP protocol, which leaves nothing behind once a connection is a WebSocket."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpProtocol(HttpToolsProtocol):
    """Serves HTTP, and is forgotten once a connection goes on as a WebSocket."""

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        # Parser and protocol hold each other: the garbage collector would have to find every one of them.
        del self.parser
