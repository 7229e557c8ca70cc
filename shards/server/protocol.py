"""uvicorn's WebSocket protocol, with a way for consumers to write frames as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from shards.hub import Message, text_frame

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

    from shards.server.worker import Worker

EXTENSION = "shards.socket"


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket.

    A consumer finds it in ``scope["extensions"]["shards.socket"]`` and may write whole frames past ASGI's `send`:
    one write, no task, no copy, the same bytes for every member of a group. See `shards.consumers.Socket`.
    """

    on_drain: Callable[[int], None] | None = None
    """Called where the socket should go elsewhere, with the milliseconds it may take; None: it is just closed."""

    heard_at = 0.0
    """When the client last sent anything, by the loop's clock."""

    @property
    def worker(self) -> Worker:
        """The worker this socket is of."""
        return cast("Worker", self.app_state["shards.worker"])

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        super().data_received(data)

    def send_keepalive_ping(self) -> None:
        """Ping a client that has been silent; one that talks is alive, and with 10,000 of them pings are work."""
        silent_for = self.loop.time() - self.heard_at
        if self.ping_interval is not None and silent_for < self.ping_interval:
            self.ping_timer = self.loop.call_later(self.ping_interval - silent_for, self.send_keepalive_ping)
        else:
            super().send_keepalive_ping()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept" and not self.disconnected:
            self.worker.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.worker.closed(self)

    # What consumers call, see shards.consumers.Socket

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read."""
        return self.transport.get_write_buffer_size()

    def write(self, payload: bytes) -> None:
        """Send text; nothing happens once the socket is closed."""
        if not self.close_sent and not self.disconnected:
            self.transport.write(text_frame(payload))

    def write_message(self, message: Message) -> None:
        """Send a message, framed once for all of its receivers."""
        if not self.close_sent and not self.disconnected:
            self.transport.write(message.frame)

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket; the consumer gets its `websocket.disconnect` at once."""
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self._give_up)

    def _give_up(self) -> None:
        """Drop a peer that does not answer the close; it may not be reading at all, so nothing is flushed."""
        self.transport.abort()
